"""The door of one pool in one worker process: which model call may start, and when.

`CapacityWorkflow` owns the pool; this process tells it what happened (`Report`) and obeys what it
is told (`Directive`): calls at once, starts and tokens a second, a cool-down, open breakers. When
the workflow does not answer, the last directive holds and calls go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from planloom.activities.models.errors import ModelError
from planloom.planner.contract.capacity import Directive, Failure, Report
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings

log = logging.getLogger("planloom.capacity")

Reporter = Callable[[Report], Awaitable[Directive]]

BUSY_SECONDS = 1.0
"""Between reports while there is work."""
IDLE_SECONDS = 15.0
"""Without work for this long, the process gives its share back and says nothing more."""
REPORT_GAP_SECONDS = 0.05
ANSWER_SECONDS = 3.0
"""A workflow that does not answer within this is gone without."""
AGAIN_SECONDS = 5.0
"""Until it is asked again after that."""
PATIENCE_SECONDS = 30.0
"""A call waits here at most this long; then it waits on the server, where it holds no slot."""
LATE_SECONDS = 0.25
"""A start that was waited for and woke up late, on a busy machine, is made up for, up to this."""
UNPROVEN_STARTS = 3
"""Calls that may be under way, or have failed for good, before the first has succeeded; of all
processes together, as long as the workflow answers."""
COOL_SECONDS = 1.0
"""After a 429 or 503 that names no time, until the workflow has said how long."""
PRESSURE: tuple[ErrorClass, ...] = ("rate_limit", "capacity")
_OF_ONE_PROMPT = re.compile(r"content|safety|policy|filter|too (long|large)", re.IGNORECASE)
_PARTICULARS = re.compile(r"[0-9a-f]{8}[0-9a-f-]*|\d+")


def breaker_key(error_class: str | None, model: str, cause: str) -> str | None:
    """What a permanent failure shares with its siblings; None when it is of one prompt only."""
    if error_class == "auth":
        return "auth"
    if error_class == "refused" and not _OF_ONE_PROMPT.search(cause):
        return f"refused:{model}:{_PARTICULARS.sub('#', cause)[:160]}"
    return None


@dataclass(slots=True)
class Tally:
    """What has happened since the last report."""

    succeeded: int = 0
    tokens: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    misfits: int = 0
    retry_after: float | None = None
    full_at: int | None = None
    permanent: list[Failure] = field(default_factory=list)
    worked: list[str] = field(default_factory=list)
    was_full: bool = False

    @property
    def is_urgent(self) -> bool:
        return bool(self.permanent) or any(self.failed[c] for c in PRESSURE)

    def add(self, other: Tally) -> None:
        """Take back what could not be reported."""
        self.succeeded += other.succeeded
        self.tokens += other.tokens
        self.failed.update(other.failed)
        self.misfits += other.misfits
        waits = [w for w in (self.retry_after, other.retry_after) if w is not None]
        self.retry_after = max(waits, default=None)
        self.full_at = other.full_at if self.full_at is None else self.full_at
        self.permanent = [*other.permanent, *self.permanent][:100]
        self.worked = list(dict.fromkeys([*other.worked, *self.worked]))[:100]
        self.was_full = self.was_full or other.was_full


@dataclass(slots=True)
class Ticket:
    """One admitted call."""

    model: str
    is_queued: bool
    estimate: int
    is_ended: bool = False


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


class Gate:
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
        self._is_unsettled = False
        """A permanent failure was not answered yet: it may open a breaker."""
        self._is_pressing = False
        """The next report cannot wait: a cool-down has begun, or nobody may try a call yet."""
        self._is_heard = False
        """News came while a report was under way: its answer does not know of them."""
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._answered = asyncio.Event()
        self._begun = self._done = 0
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
        told = self.directive
        if told is None:
            return UNPROVEN_STARTS
        if told.parallel is None:
            return None
        # One more when starts are paced: it stands ready for its turn.
        return max(1, told.parallel) + (1 if told.starts_per_second is not None else 0)

    async def admit(
        self, model: str, estimate: int, *, is_queued: bool, patience: float = PATIENCE_SECONDS
    ) -> Ticket:
        """Wait until one more call may start.

        Raises:
            ModelError: its turn did not come in time (`rate_limit`: the call waits on the server
                and loses no attempt), or a breaker is open (the class of its cause).
        """
        self._last_work = self._clock()
        if not self._is_busy:
            self._urgent.set()  # what was told while there was no work is old
            self._is_pressing = self._is_pressing or not self.is_proven
        me = object()
        self._queue.append(me)
        deadline = self._clock() + min(patience, PATIENCE_SECONDS)
        try:
            await self._be_told()
            while True:
                self._refuse_if_broken(model)
                now = self._clock()
                wait = self._wait(now, is_queued) if self._queue[0] is me else 5.0
                if wait <= 0:
                    return self._start(model, estimate, now, is_queued)
                if now >= deadline or now + self.cool_seconds(now) > deadline:
                    raise self._turned_away(now)
                self._changed.clear()
                await self._change_or(min(wait, deadline - now))
        finally:
            self._queue.remove(me)
            self._notify()

    def end(
        self,
        ticket: Ticket,
        *,
        error_class: ErrorClass | None,
        cause: str = "",
        retry_after: float | None = None,
        tokens: int = 0,
    ) -> None:
        """The call has ended, one way or another."""
        if ticket.is_ended:
            return
        ticket.is_ended = True
        now, tally = self._clock(), self._tally
        self._last_work = now
        if error_class in PRESSURE and tally.full_at is None:
            tally.full_at = self.in_flight + self.others
        if ticket.is_queued:
            self.in_flight -= 1
        else:
            self.others -= 1
        per_second = self.directive.tokens_per_second if self.directive else None
        if per_second and tokens:
            self._tokens.correct((tokens - ticket.estimate) / per_second)
        tally.tokens += tokens
        if error_class is None:
            tally.succeeded += 1
            if not self.is_proven:
                self._urgent.set()  # other processes may be waiting for it
            self.is_proven = True
            self._unproven_failures = 0
            if self.directive and self.directive.breakers:
                keys = [b.key for b in self.directive.breakers]
                prefix = f"refused:{ticket.model}:"
                tally.worked += [k for k in keys if k == "auth" or k.startswith(prefix)]
        else:
            tally.failed[error_class] += 1
        if error_class in PRESSURE:
            self._is_pressing = self._is_pressing or self._cool_until <= now
            tally.retry_after = max(tally.retry_after or 0.0, retry_after or 0.0) or None
            self._cool_until = max(self._cool_until, now + (retry_after or COOL_SECONDS))
        if key := breaker_key(error_class, ticket.model, cause):
            assert error_class is not None
            tally.permanent.append(Failure(key=key, error_class=error_class, cause=cause[:300]))
            self._is_unsettled = True
            if not self.is_proven:
                self._unproven_failures += 1
        if tally.is_urgent:
            self.join()
            self._urgent.set()
        self._notify()

    def misfit(self) -> None:
        """A call that has ended well gave an answer that does not fit its schema."""
        self._tally.misfits += 1

    def hear(self, cool_seconds: float, *, asks: bool = False) -> None:
        """News of the pool, before this process would have asked."""
        self._is_heard = True
        self._cool_until = max(self._cool_until, self._clock() + cool_seconds)
        if asks:
            self.join()
            self._urgent.set()
        self._notify()

    def cool_seconds(self, now: float | None = None) -> float:
        """What is left of the cool-down."""
        return max(0.0, self._cool_until - (self._clock() if now is None else now))

    def join(self) -> None:
        """Begin to report; a second call changes nothing."""
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._talk(), name=f"capacity of {self.pool}")

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
        told = self.directive or Directive()
        if told.is_drained or self._is_unsettled:
            return 1.0
        if self._cool_until > now:
            return self._cool_until - now
        room = told.parallel
        if is_queued and room is not None and self.in_flight >= room:
            self._tally.was_full = True
            return 1.0
        if not self.is_proven:
            under_way = self.in_flight + self.others + self._unproven_failures
            if under_way >= told.unproven_starts:
                return 1.0
        waits = [0.0]
        if told.starts_per_second is not None:
            waits.append(self._starts.delay(now) if told.starts_per_second > 0 else 0.2)
        if told.tokens_per_second is not None:
            waits.append(self._tokens.delay(now) if told.tokens_per_second > 0 else 0.2)
        return max(waits)

    def _start(self, model: str, estimate: int, now: float, is_queued: bool) -> Ticket:
        told = self.directive
        if told is not None and told.starts_per_second:
            self._starts.took(now, 1.0 / told.starts_per_second)
        if told is not None and told.tokens_per_second:
            self._tokens.took(now, estimate / told.tokens_per_second)
        if is_queued:
            self.in_flight += 1
            if told is not None and told.parallel is not None and self.in_flight >= told.parallel:
                self._tally.was_full = True
        else:
            self.others += 1
        return Ticket(model, is_queued, estimate)

    def _refuse_if_broken(self, model: str) -> None:
        for each in self.directive.breakers if self.directive else ():
            if each.key != "auth" and not each.key.startswith(f"refused:{model}:"):
                continue
            if each.is_probe and not self.in_flight and not self.others:
                continue
            if self.settings.on_broken == "wait":
                text = f'pool "{self.pool}" waits for: {each.cause}'
                raise ModelError("rate_limit", text, retry_after=max(1.0, each.retry_seconds))
            text = f"{each.cause} (not asked again for now: others met the same; see "
            error_class: ErrorClass = "auth" if each.key == "auth" else "refused"
            raise ModelError(error_class, f"{text}planloom capacity resume {self.pool})")

    def _turned_away(self, now: float) -> ModelError:
        left = self.cool_seconds(now)
        why = "it cools down" if left else "all of it is in use"
        if self.directive and self.directive.is_drained:
            why = "it is drained"
        text = f'no room in pool "{self.pool}": {why}'
        return ModelError("rate_limit", text, retry_after=max(left, 1.0))

    async def _change_or(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.001, seconds))

    def _notify(self) -> None:
        self._changed.set()
        for listener in self._listeners:
            listener()

    # -- talking with the workflow ----------------------------------------------------------

    async def _be_told(self) -> None:
        """Have a directive that is not out of date, unless the workflow does not answer."""
        self.join()
        told = self.directive
        if told is not None and not told.breakers:
            return
        is_lately = self._clock() - self._asked_at < AGAIN_SECONDS
        if told is None and self._is_warned and is_lately:
            return  # it did not answer just now
        # Before a call is refused for good it is asked anew, for a person may have resumed the
        # pool; an answer that is under way does not know of that.
        known = self._done if told is None else self._begun
        self._urgent.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while self._done <= known:
                    self._answered.clear()
                    await self._answered.wait()

    @property
    def _is_busy(self) -> bool:
        return bool(self.in_flight or self.others or self._queue)

    async def _talk(self) -> None:
        while True:
            await self._talk_until_idle()
            await self._say(is_leaving=True)
            if self._is_closed or not self._is_busy:
                break
        # Nobody tells this process any more: it asks first when it has work again.
        self.directive = None

    async def _talk_until_idle(self) -> None:
        is_first = True
        while not self._is_closed:
            if not self._is_busy and self._clock() - self._last_work >= IDLE_SECONDS:
                break
            self._urgent.clear()
            self._is_pressing = False
            await self._say(is_first)
            is_first = False
            with contextlib.suppress(TimeoutError):
                told = self.directive
                busy = told.report_seconds if told is not None else BUSY_SECONDS
                pause = busy if self._is_busy else BUSY_SECONDS * 5
                await asyncio.wait_for(self._urgent.wait(), pause)
            if not self._is_pressing:  # what happens in one moment goes in one report
                await asyncio.sleep(REPORT_GAP_SECONDS)

    async def _say(self, is_first: bool = False, is_leaving: bool = False) -> None:
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
            misfits=tally.misfits,
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
        self._is_heard = False
        self._asked_at = self._clock()
        self._begun += 1
        try:
            told = await asyncio.wait_for(self._report(report), ANSWER_SECONDS)
        except Exception as error:
            self._tally.add(tally)
            if not self._is_warned:
                self._is_warned = True
                text = "pool %s: its CapacityWorkflow does not answer (%s); calls go on without"
                log.warning(text, self.pool, str(error)[:200] or type(error).__name__)
        else:
            self._is_warned = False
            if not is_leaving:  # one that leaves is told nothing
                self._obey(told)
        self._is_unsettled = bool(self._tally.permanent) and not self._is_warned
        if not self.in_flight and not self.others:
            self._unproven_failures = 0
        self._done = self._begun
        self._answered.set()
        self._notify()

    def _obey(self, told: Directive) -> None:
        now = self._clock()
        asked = now + told.cool_seconds
        # What happened while it answered is not in its answer.
        is_news = self._is_heard or any(self._tally.failed[c] for c in PRESSURE)
        self._cool_until = max(self._cool_until, asked) if is_news else asked
        self.directive = told
