"""`planloom dev --scripted`: a worker whose model is a script, clearly labelled as one."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from planloom import planner
from planloom.console.app import say
from planloom.scripted_goals import ScriptedGoal, scripted_goals, scripted_model

NO_KEY = "no-key-is-needed"
"""Not a word that answers hold: a worker hides its keys wherever they appear."""
DATA = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"


@contextlib.contextmanager
def scripted(is_wanted: bool, *, is_quiet: bool = False) -> Iterator[None]:
    """While it lasts, workers started here ask a script instead of a model.

    Their workspace is a folder with the data that the script's goals are about. Tools of
    `planloom.toml` are kept; its pools and models are not used.
    """
    if not is_wanted:
        yield
        return
    goals = scripted_goals()
    data = Path(os.environ.get("PLANLOOM_DATA_DIR") or ".planloom")
    if not data.exists():
        data.mkdir(mode=0o700, parents=True)  # as a worker makes it: it warns of open ones
    folder = data / "scripted"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(DATA, folder)
    settings = folder / "planloom.toml"
    settings.write_text("# `planloom dev --scripted` uses no settings file.\n", encoding="utf-8")
    with scripted_model(goals) as model:
        changed = {
            "PLANLOOM_TOOLS": os.environ.get("PLANLOOM_TOOLS") or ",".join(_tools()),
            "PLANLOOM_CONFIG": str(settings),
            "PLANLOOM_WORKSPACE": str(folder),
            "PLANLOOM_MODEL": model.name,
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": NO_KEY,
        }
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            if not is_quiet:
                _say_goals(goals)
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _say_goals(goals: list[ScriptedGoal]) -> None:
    say("SCRIPTED: no model is asked. A script plans these goals, and no others:")
    for goal in goals:
        say(f"  planloom run {shlex.quote(goal.goal)}")
        say(f"    shows {goal.shows}")
    say("Add --approval plan to approve the plan first: planloom approve RUN")


def _tools() -> list[str]:
    """The tool modules that the settings file here names."""
    path = Path(os.environ.get("PLANLOOM_CONFIG") or "planloom.toml")
    try:
        named = tomllib.loads(path.read_text(encoding="utf-8")).get("tools")
    except (OSError, ValueError):
        return []
    return [str(name) for name in named] if isinstance(named, list) else []
