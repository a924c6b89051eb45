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


PORT_MAX = 65_535


def checked_port(option: str, port: int, lowest: int = 1) -> int:
    """The port, if there can be such a one; `lowest` is 0 where that means a free one.

    Raises:
        UsageError: there is none.
    """
    if not lowest <= port <= PORT_MAX:
        raise UsageError(f"{option} {port}: a port is a number from {lowest} to {PORT_MAX:,}")
    return port
