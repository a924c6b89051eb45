"""Heartbeats in the background, and what one attempt of an activity leaves to the next.

Without heartbeats a cancel is not seen and a killed worker costs the whole timeout (DESIGN §6).
The details of the last beat reach the next attempt: there we count our own failures, because the
server's count also goes up when an endpoint only asked us to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from temporalio import activity

from planloom.planner.language.values import Usage

BEAT_SECONDS = 2.0
FIRST_BEAT_SECONDS = 1.0
DEADLINE_MARGIN = 0.1
"""Part of the server's timeout, at most a second, that is left to report our own."""


_COUNTS = ("failures", "waits", "turns")


@dataclass(frozen=True, slots=True)
class Attempts:
    """What earlier attempts of this activity came to.

    `failures` are real ones, `waits` pauses that an endpoint asked for, `turns` waits for a turn at
    the pool, where no endpoint was asked, `lost` attempts that ended without a word (a killed
    worker), `usage` what they paid for nothing, as far as known.
    """

    failures: int = 0
    waits: int = 0
    turns: int = 0
    lost: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def counted_attempt(self) -> int:
        """The number of the attempt now running, counted from 1 without the waits."""
        return self.failures + 1

    def details(self) -> dict[str, Any]:
        """As heartbeat details carry it."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {**counts, "usage": self.usage.model_dump()}


def attempts_so_far(details: Sequence[Any], attempt: int) -> Attempts:
    """Counts from the last heartbeat's details; `attempt` is the server's number of this one."""
    last = details[0] if details and isinstance(details[0], dict) else {}
    counts = {k: n if isinstance(n := last.get(k), int) and n >= 0 else 0 for k in _COUNTS}
    try:
        usage = Usage.model_validate(last.get("usage") or {})
    except ValidationError:  # written by another version of this code
        usage = Usage()
    return Attempts(**counts, lost=max(0, attempt - 1 - sum(counts.values())), usage=usage)


def attempts_now(before: Mapping[str, Any] | None = None) -> Attempts:
    """Counts for the activity that is running; `before` from one that this one goes on for."""
    info = activity.info()
    return attempts_so_far(list(info.heartbeat_details) or [before], info.attempt)


def deadline_seconds() -> float | None:
    """Seconds this attempt may take so that we, not the server, report that it took too long."""
    limit = activity.info().start_to_close_timeout
    return None if limit is None else before_timeout(limit.total_seconds())


def before_timeout(seconds: float) -> float:
    """A timeout, less the time to report it."""
    return seconds - min(1.0, seconds * DEADLINE_MARGIN)


class Heartbeat:
    """Beats while the block runs, carrying `details`; outside an activity it does nothing.

    async with Heartbeat(attempts.details()) as beat:
        ...
        beat.set({...})  # from now on these details

    `latest` makes the details again for each beat.
    """

    def __init__(
        self,
        *details: Any,
        seconds: float | None = None,
        latest: Callable[[], Any] | None = None,
    ) -> None:
        self._details = details
        self._latest = latest
        self._seconds = seconds
        self._next: asyncio.TimerHandle | None = None

    def set(self, *details: Any) -> None:
        """Beat now, with these details, and carry them from now on."""
        self._details = details
        self._beat()

    async def __aenter__(self) -> Self:
        if activity.in_activity():
            seconds = self._seconds or _interval()
            # Each beat is a write on the server, and most activities are over before the first one.
            self._beat_after(min(FIRST_BEAT_SECONDS, seconds), seconds)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._next is not None:
            self._next.cancel()

    def _beat_after(self, wait: float, seconds: float) -> None:
        # A timer, not a task: it costs a tenth, and every activity pays it.
        self._next = asyncio.get_running_loop().call_later(wait, self._beat_on, seconds)

    def _beat_on(self, seconds: float) -> None:
        self._beat_after(seconds, seconds)
        self._beat()

    def _beat(self) -> None:
        if activity.in_activity():
            details = self._details if self._latest is None else (self._latest(),)
            activity.heartbeat(*details)


def _interval() -> float:
    limit = activity.info().heartbeat_timeout
    return min(BEAT_SECONDS, limit.total_seconds() / 4) if limit else BEAT_SECONDS
