"""The limiter of one pool in one worker process: which model call may start, and when.

`CapacityWorkflow` owns the pool. This process reports what happened (`Report`) and keeps to the
answer (`Directive`): parallel calls, starts and tokens per second, a cool-down, open breakers. When
the workflow does not answer, the last directive holds and calls go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from planloom.activities.models.errors import ModelError
from planloom.activities.models.pace import Pace
from planloom.activities.models.pool_report import Tally, breaker_key
from planloom.planner.contract.capacity import (
    PRESSURE_CLASSES,
    UNPROVEN_STARTS,
    Directive,
    Failure,
    Report,
)
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings

log = logging.getLogger("planloom.capacity")

Reporter = Callable[[Report], Awaitable[Directive]]

BUSY_SECONDS = 1.0
"""Between reports while there is work."""
IDLE_SECONDS = 15.0
"""Without work for this long, the process gives its share back and says nothing more."""
READY_SECONDS = 0.25
"""Of paced calls, those whose turn comes within this are fetched from the server."""
REPORT_GAP_SECONDS = 0.05
REPORT_TIMEOUT_SECONDS = 3.0
"""Calls go on without a workflow that does not answer within this."""
VERDICT_SECONDS = 1.0
"""Between two looks whether another's probe of an open breaker has ended."""
REPORT_RETRY_SECONDS = 5.0
"""Until it is asked again after that."""
ADMIT_WAIT_MAX_SECONDS = 30.0
"""A call waits here at most this long; then it waits on the server, where it holds no slot."""
COOL_SECONDS = 1.0
"""After a 429 or 503 that names no time, until the workflow has said how long."""


@dataclass(slots=True)
class AdmittedCall:
    """One admitted call."""

    model: str
    is_queued: bool
    estimate: int
    is_ended: bool = False


class PoolLimiter:
    """Admits the calls of one pool, first come, first served."""

    def __init__(
        self,
        pool: str,
        settings: PoolSettings,
        report: Reporter,
        *,
        worker: str,
        task_queue: str,
        worker_queue: str | None = None,
        penalised: list[ErrorClass] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.in_flight = 0
        """Calls that came by the pool's queue."""
        self.others = 0
        """Calls of planner and joiner: they obey rate and cool-down, not the parallelism."""
        self.directive: Directive | None = None
        self._directed_at = 0.0
        self.is_proven = False
        self._report = report
        self.task_queue = task_queue
        self._worker, self._worker_queue = worker, worker_queue
        self._penalised = penalised
        self._clock = clock
        self._queue: deque[object] = deque()
        self._tally = Tally()
        self._starts, self._tokens = Pace(), Pace()
        self._cool_until = 0.0
        self._asked_at = float("-inf")
        self._last_work = clock()
        self._unproven_failures = 0
        self._has_unanswered_failure = False
        """A permanent failure was not answered yet: it may open a breaker."""
        self._must_report_now = False
        """The next report cannot wait: a cool-down has begun, or nobody may try a call yet."""
        self._was_notified = False
        """PoolNotice came while a report was under way: its answer does not know of them."""
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._answered = asyncio.Event()
        self._reports_sent = self._reports_ended = 0
        """Reports sent, and answered or given up."""
        self._loop: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._is_closed = False
        self._is_warned = False

    # -- what others ask --------------------------------------------------------------------

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    @property
    def slots(self) -> int | None:
        """Activities of the pool's queue this process may hold; None for no limit of the pool's."""
        directive = self.directive
        if directive is None:
            return UNPROVEN_STARTS
        room = None if directive.parallel is None else max(1, directive.parallel)
        if directive.starts_per_second is None:
            return room
        # When starts are paced, a few stand ready for their turn. The others wait on the server,
        # where the most urgent is first, and where any worker may take them.
        ready = math.ceil(directive.starts_per_second * READY_SECONDS)
        paced = self.in_flight + 1 + ready
        return paced if room is None else min(room + 1, paced)

    async def admit(
        self,
        model: str,
        estimate: int,
        *,
        is_queued: bool,
        wait_max_seconds: float = ADMIT_WAIT_MAX_SECONDS,
    ) -> AdmittedCall:
        """Wait until one more call may start.

        Raises:
            ModelError: its turn did not come in time (`rate_limit`: the call waits on the server
                and loses no attempt), or a breaker is open (the class of its cause).
        """
        self._last_work = self._clock()
        if not self._is_busy:
            self._urgent.set()  # what was directive while there was no work is old
            self._must_report_now = self._must_report_now or not self.is_proven
        me = object()
        self._queue.append(me)
        deadline = self._clock() + min(wait_max_seconds, ADMIT_WAIT_MAX_SECONDS)
        try:
            await self._wait_for_directive()
            while True:
                now = self._clock()
                wait = self._broken_wait(model, now)
                if wait <= 0:
                    wait = self._wait(now, is_queued) if self._queue[0] is me else 5.0
                if wait <= 0:
                    return self._start(model, estimate, now, is_queued)
                if now >= deadline or now + self.cool_seconds(now) > deadline:
                    raise self._no_turn_error(now)
                self._changed.clear()
                await self._wait_for_change(min(wait, deadline - now))
        finally:
            self._queue.remove(me)
            self._notify()

    def end(
        self,
        admitted: AdmittedCall,
        *,
        error_class: ErrorClass | None,
        cause: str = "",
        retry_after: float | None = None,
        tokens: int = 0,
    ) -> None:
        """The call has ended, one way or another."""
        if admitted.is_ended:
            return
        admitted.is_ended = True
        now, tally = self._clock(), self._tally
        self._last_work = now
        if error_class in PRESSURE_CLASSES and tally.full_at is None:
            tally.full_at = self.in_flight + self.others
        if admitted.is_queued:
            self.in_flight -= 1
        else:
            self.others -= 1
        per_second = self.directive.tokens_per_second if self.directive else None
        if per_second and tokens:
            self._tokens.correct((tokens - admitted.estimate) / per_second)
        tally.tokens += tokens
        if error_class is None:
            tally.succeeded += 1
            if not self.is_proven:
                self._urgent.set()  # other processes may be waiting for it
            self.is_proven = True
            self._unproven_failures = 0
            if self.directive and self.directive.breakers:
                keys = [b.key for b in self.directive.breakers]
                prefix = f"refused:{admitted.model}:"
                tally.worked += [k for k in keys if k == "auth" or k.startswith(prefix)]
        else:
            tally.failed[error_class] += 1
        if error_class in PRESSURE_CLASSES:
            self._must_report_now = self._must_report_now or self._cool_until <= now
            tally.retry_after = max(tally.retry_after or 0.0, retry_after or 0.0) or None
            self._cool_until = max(self._cool_until, now + (retry_after or COOL_SECONDS))
        if key := breaker_key(error_class, admitted.model, cause):
            assert error_class is not None
            tally.permanent.append(Failure(key=key, error_class=error_class, cause=cause[:300]))
            self._has_unanswered_failure = True
            if not self.is_proven:
                self._unproven_failures += 1
        if tally.is_urgent:
            self.start_reporting()
            self._urgent.set()
        self._notify()

    def report_schema_violation(self) -> None:
        """A call that has ended well gave an answer that does not fit its schema."""
        self._tally.schema_violations += 1

    def notify(self, cool_seconds: float, *, report_now: bool = False) -> None:
        """PoolNotice of the pool, before this process would have asked."""
        self._was_notified = True
        self._cool_until = max(self._cool_until, self._clock() + cool_seconds)
        if report_now:
            self.start_reporting()
            self._urgent.set()
        self._notify()

    def cool_seconds(self, now: float | None = None) -> float:
        """What is left of the cool-down."""
        return max(0.0, self._cool_until - (self._clock() if now is None else now))

    def start_reporting(self) -> None:
        """Begin to report; a second call changes nothing."""
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(
                self._report_forever(), name=f"capacity of {self.pool}"
            )

    async def close(self) -> None:
        """Give the share back."""
        self._is_closed = True
        if self._loop is not None and not self._loop.done():
            self._urgent.set()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._loop, 1.0)

    # -- whose turn it is -------------------------------------------------------------------

    def _wait(self, now: float, is_queued: bool) -> float:
        """Seconds until the first in line may start; 0 for now. What is not known is a second."""
        directive = self.directive or Directive()
        if directive.is_drained or self._has_unanswered_failure:
            return 1.0
        if self._cool_until > now:
            return self._cool_until - now
        room = directive.parallel
        if is_queued and room is not None and self.in_flight >= room:
            self._tally.was_full = True
            return 1.0
        if not self.is_proven:
            under_way = self.in_flight + self.others + self._unproven_failures
            # Who was asked to try an open breaker may, whoever has the other tries.
            is_prober = any(b.is_probe for b in directive.breakers)
            if under_way >= max(directive.unproven_starts, int(is_prober)):
                return 1.0
        waits = [0.0]
        if directive.starts_per_second is not None:
            waits.append(self._starts.delay(now) if directive.starts_per_second > 0 else 0.2)
        if directive.tokens_per_second is not None:
            waits.append(self._tokens.delay(now) if directive.tokens_per_second > 0 else 0.2)
        return max(waits)

    def _start(self, model: str, estimate: int, now: float, is_queued: bool) -> AdmittedCall:
        directive = self.directive
        if directive is not None and directive.starts_per_second:
            self._starts.took(now, 1.0 / directive.starts_per_second)
        if directive is not None and directive.tokens_per_second:
            self._tokens.took(now, estimate / directive.tokens_per_second)
        if is_queued:
            self.in_flight += 1
            if (
                directive is not None
                and directive.parallel is not None
                and self.in_flight >= directive.parallel
            ):
                self._tally.was_full = True
        else:
            self.others += 1
        return AdmittedCall(model, is_queued, estimate)

    def _broken_wait(self, model: str, now: float) -> float:
        """Seconds to wait because of breakers: until another's probe has its verdict; 0 for none.

        Raises:
            ModelError: a breaker is open, and no probe is due yet.
        """
        waits = 0.0
        for each in self.directive.breakers if self.directive else ():
            if each.key != "auth" and not each.key.startswith(f"refused:{model}:"):
                continue
            left = each.retry_seconds - (now - self._directed_at)
            if left <= 0:
                is_free = not self.in_flight and not self.others
                # Without an answer of the workflow nobody else is asked to try.
                is_mine = is_free and (each.is_probe or self._is_warned)
                waits = max(waits, 0.0 if is_mine else VERDICT_SECONDS)
                continue
            if self.settings.on_broken == "wait":
                text = f'pool "{self.pool}" waits for: {each.cause}'
                raise ModelError("rate_limit", text, retry_after=max(1.0, left), is_ours=True)
            text = f"{each.cause} (not asked again for now: others met the same; see "
            error_class: ErrorClass = "auth" if each.key == "auth" else "refused"
            raise ModelError(error_class, f"{text}planloom capacity resume {self.pool})")
        return waits

    def _no_turn_error(self, now: float) -> ModelError:
        left = self.cool_seconds(now)
        why = "it cools down" if left else "all of it is in use"
        if self.directive and self.directive.is_drained:
            why = "it is drained"
        text = f'no room in pool "{self.pool}": {why}'
        return ModelError("rate_limit", text, retry_after=max(left, 1.0), is_ours=True)

    async def _wait_for_change(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.001, seconds))

    def _notify(self) -> None:
        self._changed.set()
        for listener in self._listeners:
            listener()

    # -- talking with the workflow ----------------------------------------------------------

    async def _wait_for_directive(self) -> None:
        """Have a directive that is not out of date, unless the workflow does not answer."""
        self.start_reporting()
        directive = self.directive
        if directive is not None and not directive.breakers:
            return
        is_lately = self._clock() - self._asked_at < REPORT_RETRY_SECONDS
        if directive is None and self._is_warned and is_lately:
            return  # it did not answer just now
        # Before a call is refused for good it is asked again, for a person may have resumed the
        # pool; an answer that is under way does not know of that.
        reports_before = self._reports_ended if directive is None else self._reports_sent
        self._urgent.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                while self._reports_ended <= reports_before:
                    self._answered.clear()
                    await self._answered.wait()

    @property
    def _is_busy(self) -> bool:
        return bool(self.in_flight or self.others or self._queue)

    async def _report_forever(self) -> None:
        while True:
            await self._report_until_idle()
            await self._send_report(is_leaving=True)
            if self._is_closed or not self._is_busy:
                break
        # Nobody tells this process any more: it report_now first when it has work again.
        self.directive = None

    async def _report_until_idle(self) -> None:
        is_first = True
        while not self._is_closed:
            if not self._is_busy and self._clock() - self._last_work >= IDLE_SECONDS:
                break
            self._urgent.clear()
            self._must_report_now = False
            await self._send_report(is_first)
            is_first = False
            with contextlib.suppress(TimeoutError):
                directive = self.directive
                busy = directive.report_seconds if directive is not None else BUSY_SECONDS
                pause = busy if self._is_busy else BUSY_SECONDS * 5
                await asyncio.wait_for(self._urgent.wait(), pause)
            if not self._must_report_now:  # what happens in one moment goes in one report
                await asyncio.sleep(REPORT_GAP_SECONDS)

    async def _send_report(self, is_first: bool = False, is_leaving: bool = False) -> None:
        tally, self._tally = self._tally, Tally()
        report = Report(
            worker=self._worker,
            settings=self.settings.limits() if is_first else None,
            task_queue=self.task_queue if is_first else None,
            in_flight=self.in_flight,
            waiting=len(self._queue),
            succeeded=tally.succeeded,
            tokens=tally.tokens,
            failed={k: n for k, n in tally.failed.items() if n},
            schema_violations=tally.schema_violations,
            penalised=self._penalised,
            retry_after=tally.retry_after,
            full_at=tally.full_at,
            permanent=tally.permanent,
            worked=list(dict.fromkeys(tally.worked)),
            was_full=tally.was_full,
            is_proven=self.is_proven,
            next_seconds=BUSY_SECONDS if self._is_busy else BUSY_SECONDS * 5,
            is_leaving=is_leaving,
            worker_queue=self._worker_queue,
        )
        self._was_notified = False
        self._asked_at = self._clock()
        self._reports_sent += 1
        try:
            directive = await asyncio.wait_for(self._report(report), REPORT_TIMEOUT_SECONDS)
        except Exception as error:
            self._tally.add(tally)
            if not self._is_warned:
                self._is_warned = True
                text = "pool %s: its CapacityWorkflow does not answer (%s); calls go on without"
                log.warning(text, self.pool, str(error)[:200] or type(error).__name__)
        else:
            self._is_warned = False
            if not is_leaving:  # one that leaves is directive nothing
                self._apply_directive(directive)
        self._has_unanswered_failure = bool(self._tally.permanent) and not self._is_warned
        if not self.in_flight and not self.others:
            self._unproven_failures = 0
        self._reports_ended = self._reports_sent
        self._answered.set()
        self._notify()

    def _apply_directive(self, directive: Directive) -> None:
        now = self._clock()
        asked = now + directive.cool_seconds
        # The answer does not know what happened while it was under way.
        is_newer = self._was_notified or any(self._tally.failed[c] for c in PRESSURE_CLASSES)
        self._cool_until = max(self._cool_until, asked) if is_newer else asked
        self.directive, self._directed_at = directive, now
