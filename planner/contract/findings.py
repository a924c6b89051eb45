"""What `planloom doctor` finds: lines of one form, from the worker's side and the console's."""

from __future__ import annotations

from typing import Literal

from planloom.planner.language.values import Model

Level = Literal["ok", "warn", "fail"]


class Finding(Model):
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    level: Level
    message: str
    hint: str = ""
