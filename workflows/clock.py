"""The time of a run: a cap of its own, and the deadline of the run that it is part of.

Once it is over nothing new starts: no task, no model call, here or in any child run. What runs goes
on to its end. The run is parked until `raise_budget {"seconds": …}`, or stopped if it says
`on_budget: partial`.
A child run hears of a deadline when it starts, and by a signal when it is moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.workflows.shell.failures import OutOfBudget

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class Clock:
    """How long a run may still start something. `deadline` is in seconds since 1970."""

    def __init__(self, started: datetime, cap: float | None, deadline: float | None) -> None:
        self._started = started
        self.cap = cap
        self.deadline = deadline

    @property
    def ends_at(self) -> float | None:
        """The earlier of the run's own end and its parent's, in seconds since 1970."""
        own = None if self.cap is None else self._started.timestamp() + self.cap
        return min((t for t in (own, self.deadline) if t is not None), default=None)

    def left(self) -> float | None:
        """Seconds until nothing may start any more; None: there is no such time."""
        return None if self.ends_at is None else self.ends_at - workflow.now().timestamp()

    def is_own_over(self) -> bool:
        """Whether the run's own cap is reached, and not only its parent's."""
        passed = (workflow.now() - self._started).total_seconds()
        return self.cap is not None and passed >= self.cap

    def lack(self) -> str | None:
        """Why nothing may start, in words; None while there is time."""
        left = self.left()
        if left is None or left > 0:
            return None
        if self.is_own_over():
            return f"its {self.cap:g} s are over"
        return "the time of the run that it is part of is over"


class TimeCap:
    """Watches the clock of a run of tasks: stops or parks it, and lets it go on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._watch: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Watch, once there is a limit."""
        if self._watch is None and self.engine.clock.ends_at is not None:
            self._watch = asyncio.create_task(self._run(), context=self.engine.context)
            self._watch.add_done_callback(self.engine.keep_bug)

    def close(self) -> None:
        """The run has its result."""
        if self._watch is not None:
            self._watch.cancel()

    def ends_run(self) -> bool:
        """Whether the end of the time is the end of the run; else it is parked."""
        # Of a parent's time the parent decides: it cancels its children, or gives them more.
        return self.engine.on_budget == "partial" and self.engine.clock.is_own_over()

    async def wait(self, key: str) -> None:
        """Return at once while there is time; else park planner, joiner or fallback `key`.

        Raises:
            OutOfBudget: the run ends with its time.
        """
        lack = self.engine.clock.lack()
        if lack is None:
            return
        if self.ends_run():
            raise OutOfBudget(lack)
        self.engine.parked[key] = lack
        self.engine.on_change()
        try:
            await workflow.wait_condition(lambda: self.engine.clock.lack() is None)
        finally:
            self.engine.parked.pop(key, None)

    async def raised(self) -> None:
        """There is another cap: go on if it leaves time, and let children know."""
        engine = self.engine
        self.open()
        if engine.settling.is_time_up and engine.clock.lack() is None:
            # Start again what waits, unless a person has paused the run.
            engine.settling.is_time_up = False
            engine.settling.hold_or_go()
            engine.pump()
            engine.on_change()
        await engine.dispatcher.tell_deadline()

    async def move(self, deadline: float | None) -> None:
        """The parent run has another deadline."""
        self.engine.clock.deadline = deadline
        await self.raised()

    async def _run(self) -> None:
        """Look at the time whenever it is over or moved; until the run has its result."""
        clock = self.engine.clock
        while True:
            before, left = clock.ends_at, clock.left()
            if left is not None and left <= 0:
                self._is_over()
            timeout = max(left, 0.001) if left is not None and left > 0 else None
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda before=before: clock.ends_at != before,  # type: ignore[misc]
                    timeout=timeout,
                    timeout_summary="budget.seconds",
                )

    def _is_over(self) -> None:
        engine = self.engine
        if self.ends_run():
            engine.stopping.stop(f"budget: {engine.clock.lack()}")
        else:
            engine.settling.is_time_up = True
            engine.settling.hold_or_go()
        engine.on_change()
