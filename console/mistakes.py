"""What the user gave and cannot be used. Imports nothing heavy: `--help` must start at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planloom.planner.language.values import Problem


class UsageError(Exception):
    """What the user gave cannot be used: `problems` and a hint."""

    def __init__(self, message: str, problems: list[Problem] | None = None, hint: str = "") -> None:
        self.problems = problems or []
        self.hint = hint
        super().__init__(message)
