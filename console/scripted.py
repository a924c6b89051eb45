"""`planloom dev --scripted`: a worker whose model is a script, clearly labelled as one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planloom import planner
from planloom.console.app import say
from planloom.scripted_goals import ScriptedGoal, scripted_goals, scripted_model

NO_KEY = "no-key-is-needed"
"""Not a word that answers hold: a worker hides its keys wherever they appear."""
OF_MODELS = ("model", "models", "pools", "prices", "context_windows")
DATA = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"


@contextlib.contextmanager
def scripted(is_wanted: bool, *, is_quiet: bool = False) -> Iterator[None]:
    """While it lasts, workers started here ask a script instead of a model.

    Their workspace is a folder with the data that the script's goals are about. What
    `planloom.toml` says of models is not used; all else is, since clients go by the same file:
    they encrypt with its keys and send to its task queue.
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
    settings.write_text(_without_models(_settings_here()), encoding="utf-8")
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
    named = _settings_here().get("tools")
    return [str(name) for name in named] if isinstance(named, list) else []


def _settings_here() -> dict[str, Any]:
    """The settings file as it stands; nothing of one that cannot be read."""
    path = Path(os.environ.get("PLANLOOM_CONFIG") or "planloom.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _without_models(document: dict[str, Any]) -> str:
    kept = {name: value for name, value in document.items() if name not in OF_MODELS}
    lines = ["# Made by `planloom dev --scripted`: planloom.toml without its models."]
    return "\n".join(lines + [f"{json.dumps(k)} = {_toml(v)}" for k, v in kept.items()]) + "\n"


def _toml(value: Any) -> str:
    """A value of a settings file, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
