"""`planloom dev --scripted`: a worker whose model is a script, clearly labelled as one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import Any

from planloom import planner
from planloom.console.app import say
from planloom.console.documents import settings_document, settings_now
from planloom.planner.contract.settings import Settings, SettingsError, settings_from
from planloom.scripted_goals import ScriptedGoal, scripted_goals, scripted_model

NO_KEY = "no-key-is-needed"
"""Not a word that answers hold: a worker hides its keys wherever they appear."""
OF_MODELS = ("model", "models", "pools", "prices", "context_windows")
DATA = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"


@contextlib.contextmanager
def scripted(is_wanted: bool, *, is_quiet: bool = False) -> Iterator[Callable[[], Settings]]:
    """While it lasts, workers started here ask a script instead of a model.

    Their workspace is a folder with the data that the script's goals are about. What
    `planloom.toml` says of models is not used; all else is, since clients go by the same file:
    they encrypt with its keys and send to its task queue. What is given reads the settings; it is
    called again when `planloom.toml` has changed.

    Raises:
        SettingsError: the settings cannot be used.
    """
    if not is_wanted:
        yield settings_now
        return
    goals = scripted_goals()
    before = dict(os.environ)
    data = Path(settings_now(before).data_dir)
    if not data.exists():
        data.mkdir(mode=0o700, parents=True)  # as a worker makes it: it warns of open ones
    folder = data / "scripted"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(DATA, folder)
    made = folder / "planloom.toml"

    def read() -> Settings:
        document = settings_document(before)
        settings_from(before, document)  # its mistakes are of the file that a person wrote
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            made.write_text(_without_models(document), encoding="utf-8")
        except OSError as error:
            raise SettingsError.of(str(made), error.strerror or str(error)) from None
        return settings_now()

    with scripted_model(goals) as model:
        changed = {
            "PLANLOOM_CONFIG": str(made),
            "PLANLOOM_WORKSPACE": str(folder),
            "PLANLOOM_MODEL": model.name,
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": NO_KEY,
        }
        os.environ.update(changed)
        try:
            read()
            if not is_quiet:
                _say_goals(goals)
            yield read
        finally:
            for name in changed:
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)


def _say_goals(goals: list[ScriptedGoal]) -> None:
    say("SCRIPTED: no model is asked. A script plans these goals, and no others:")
    for goal in goals:
        say(f"  planloom run {shlex.quote(goal.goal)}")
        say(f"    shows {goal.shows}")
    say("Add --approval plan to approve the plan first: planloom approve RUN")


def _without_models(document: dict[str, Any]) -> str:
    kept = {name: value for name, value in document.items() if name not in OF_MODELS}
    lines = ["# Made by `planloom dev --scripted`: planloom.toml without its models."]
    return "\n".join(lines + [f"{_toml(k)} = {_toml(v)}" for k, v in kept.items()]) + "\n"


def _toml(value: Any) -> str:
    """A value of a settings file, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, date | clock_time):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)  # `inf` and `nan` too
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
