"""How starts are spread evenly over time. Pure: the caller brings the time."""

from __future__ import annotations

LATE_SECONDS = 0.25
"""A start that was waited for and woke up late, on a busy machine, is made up for, up to this."""


class Pace:
    """Starts evenly spread, by the generic cell rate algorithm (ITU-T I.371), without a burst."""

    def __init__(self) -> None:
        self._next = 0.0
        self._is_awaited = False

    def delay(self, now: float) -> float:
        delay = max(0.0, self._next - now)
        self._is_awaited = self._is_awaited or delay > 0
        return delay

    def took(self, now: float, seconds: float) -> None:
        """One more began, which takes up `seconds` of the pace."""
        is_idle = not self._is_awaited and now - self._next > LATE_SECONDS
        # Time in which nobody wanted to start is not made up for: that would be a burst.
        self._next = (now if is_idle else max(now - LATE_SECONDS, self._next)) + seconds
        self._is_awaited = False

    def correct(self, seconds: float) -> None:
        self._next += seconds
