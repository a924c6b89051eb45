"""`CapacityWorkflow`: one per pool; decides its room and rate from what workers report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel

    from planloom.planner.contract.capacity import (
        Because,
        CapacityRequest,
        CapacityState,
        Directive,
        PermitReply,
        PoolNotice,
        QueueRate,
        Release,
        Renew,
        Report,
        Reserve,
        SetCapacity,
    )
    from planloom.planner.contract.controls import Reply
    from planloom.planner.contract.names import INVALID_REQUEST
    from planloom.planner.language.values import JsonValue, Problem
    from planloom.planner.syntax.documents import read_request
    from planloom.workflows.machines.pool.pool import Pool, PoolState, new_state
    from planloom.workflows.machines.pool.pool_view import view_of
    from planloom.workflows.machines.shared.machine import Failed
    from planloom.workflows.machines.shared.requests import only_input
    from planloom.workflows.shell import activities as doors
    from planloom.workflows.shell.ends import error_of

UPDATES_MAX = 1_000
"""The server allows 2,000 in one run; a new one begins well before."""
WAITERS_MAX = 5
"""Waiting answers at once, of the ten the server allows: the rest of them keep their place in line
and ask again."""
RATE_STEP = 0.02
"""Smaller changes of the rate are not worth an event."""
RATE_AGAIN_SECONDS = 60.0
TOLD_SECONDS = 5.0
WORKERS_TOLD_MAX = 100
"""Workers notified of a cool-down at once; the others learn of it with their next report."""
LONGER_SECONDS = 0.1
"""A cool-down that has grown by less than this is not worth a notice."""
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@workflow.defn(name="CapacityWorkflow")
class CapacityWorkflow:
    """Rule one pool; see docs/how-to/capacity.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        document = {} if request is None else only_input(request, more)
        self._request, self._problems = read_request(document, CapacityRequest)
        self._pool: Pool | None = None
        self._applied: QueueRate | None = None
        self._rate_error = ""
        self._rate_again = 0.0
        self._handled = 0
        self._waiters = 0
        self._is_ending = False
        self._is_refused = False
        self._is_changed = True
        self._jobs: list[asyncio.Task[None]] = []
        asked = self._request
        if asked is not None and asked.state is not None:
            self._restore(asked.state)
        elif asked is not None and asked.settings is not None and asked.task_queue:
            self._pool = Pool(new_state(asked.pool, asked.task_queue, asked.settings))

    def _restore(self, state: JsonValue) -> None:
        try:
            self._pool = Pool(PoolState.model_validate(state))
        except ValueError:  # written by hand: the workflow itself hands over what it can read
            message = "is no state of a pool: leave it out"
            self._problems = [Problem(path="state", code="unreadable", message=message)]
            self._request = None

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> None:
        if self._request is not None and self._pool is None:
            await self._load(self._request)
        if self._request is None or self._pool is None:
            # Who asked something meanwhile gets the same answer.
            self._is_refused = True
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise error_of(Failed(INVALID_REQUEST, self._problems))
        while True:
            self._is_changed = False
            await self._apply(self._pool)
            if self._is_long:
                break
            if not self._is_behind(self._pool):
                await self._sleep(self._pool)
            self._pool.tick(_now())
        self._is_ending = True
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() and not self._jobs)
        workflow.continue_as_new(
            CapacityRequest(pool=self._request.pool, state=self._pool.state.model_dump(mode="json"))
        )

    async def _load(self, request: CapacityRequest) -> None:
        found = await doors.load_pool(request.pool)
        if self._pool is not None:  # a worker told us meanwhile
            return
        settings = request.settings or found.settings
        if settings is None:
            message = found.problem or "no such pool"
            self._problems = [Problem(path="pool", code="unknown_pool", message=message)]
            return
        queue = request.task_queue or found.task_queue
        self._pool = Pool(new_state(request.pool, queue, settings))

    @property
    def _is_long(self) -> bool:
        return self._handled >= UPDATES_MAX or workflow.info().is_continue_as_new_suggested()

    async def _sleep(self, pool: Pool) -> None:
        """Until something was said, or changes by itself."""
        now = _now()
        times = [pool.next_deadline(now)]
        if self._rate_error:
            times.append(self._rate_again)
        at = min((t for t in times if t is not None), default=None)
        try:
            await workflow.wait_condition(
                lambda: self._is_changed or self._is_long,
                timeout=None if at is None else max(0.01, at - now),
            )
        except asyncio.TimeoutError:  # noqa: UP041 - the name under which the SDK raises it
            return

    def _is_behind(self, pool: Pool) -> bool:
        """Whether the server is to be told something, as time has passed meanwhile."""
        if self._rate_error:
            return _now() >= self._rate_again
        return not _is_alike(self._applied, _wanted(pool, _now()))

    async def _apply(self, pool: Pool) -> None:
        """Tell the server what the pool's queue may dispatch."""
        if not self._is_behind(pool):
            return
        now = _now()
        wanted = _wanted(pool, now)
        was = self._applied.weights if self._applied is not None else {}
        gone = [tenant for tenant in was if tenant not in wanted.weights]
        try:
            self._rate_error = await doors.set_queue_rate(wanted.model_copy(update={"unset": gone}))
        except ActivityError as error:
            self._rate_error = str(error.cause or error)
        self._rate_again = now + RATE_AGAIN_SECONDS
        self._applied = wanted

    async def _ready(self) -> Pool:
        """The pool, once it is known.

        Raises:
            ApplicationError: `InvalidRequest`.
        """
        await workflow.wait_condition(lambda: self._pool is not None or self._is_refused)
        if self._pool is None:
            raise error_of(Failed(INVALID_REQUEST, self._problems))
        self._handled += 1
        return self._pool

    async def _do(self, change: Callable[[Pool, float], T]) -> T:
        pool = await self._ready()
        found = change(pool, _now())
        self._is_changed = True
        return found

    async def _act(self, change: Callable[[Pool, float], None]) -> None:
        """What people change: answered when workers hear of it and the server knows."""
        await self._do(change)
        assert self._pool is not None
        self._notify_workers(self._pool, report_now=True)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._pool is None or not self._is_behind(self._pool),
                timeout=TOLD_SECONDS,
                timeout_summary="the server's rate",
            )

    # -- workers ----------------------------------------------------------------------------

    @workflow.update(description="A worker's report; answered with what it may do")
    async def report(self, document: Any = None, *more: Any) -> Directive:
        report = _read(Report, document, more)
        # A worker that runs knows its settings: an unknown pool needs no activity to be loaded.
        if self._pool is None and report.settings is not None and self._request is not None:
            queue = report.task_queue or ""
            self._pool = Pool(new_state(self._request.pool, queue, report.settings))
        pool = await self._ready()
        now = _now()
        before = (pool.queue_rate(now), pool.state.task_queue)
        cool = pool.cool_until(now)
        told = pool.report(report, now)
        if (pool.queue_rate(now), pool.state.task_queue) != before:
            self._is_changed = True
        if pool.cool_until(now) > max(cool, now) + LONGER_SECONDS:
            self._notify_workers(pool, but=report.worker)
        return told

    def _notify_workers(self, pool: Pool, but: str | None = None, report_now: bool = False) -> None:
        """Tell every worker now: the server takes a tenth of a second to change a queue's rate, and
        calls of planner and joiner have no queue of the pool's.
        """
        now = _now()
        cool = max(0.0, pool.cool_until(now) - now)
        notice = PoolNotice(pool=pool.state.pool, cool_seconds=cool, report_now=report_now)
        for worker in pool.alive(now)[:WORKERS_TOLD_MAX]:
            if worker.worker_queue and worker.name != but:
                job = asyncio.create_task(self._notify(notice, worker.worker_queue))
                self._jobs.append(job)
                job.add_done_callback(self._jobs.remove)

    async def _notify(self, notice: PoolNotice, queue: str) -> None:
        with contextlib.suppress(ActivityError):  # it is gone, or learns of it with its next report
            await doors.notify_worker(notice, queue)

    # -- people -----------------------------------------------------------------------------

    @workflow.query(description="Rate, room, penalty, cool-down, breakers, workers, permits")
    def state(self, *_: Any) -> CapacityState | None:
        if self._pool is None:
            return None
        view = view_of(self._pool, _now())
        notes = [f"the server's rate cannot be set: {self._rate_error}"] if self._rate_error else []
        return view.model_copy(update={"notes": [*view.notes, *notes]})

    @workflow.update(
        description="Room before work starts {holder, requests, calls, wait_seconds, ttl_seconds}"
    )
    async def reserve(self, document: Any = None, *more: Any) -> PermitReply:
        wish = _read(Reserve, document, more)
        pool = await self._ready()
        reply = pool.reserve(wish, _now())
        self._is_changed = True
        if not reply.waiting or self._waiters >= WAITERS_MAX:
            return reply
        self._waiters += 1
        try:
            await workflow.wait_condition(
                lambda: not pool.waits(wish.holder) or self._is_ending,
                timeout=wish.answer_seconds,
                timeout_summary=f"{wish.holder}: answer",
            )
        except TimeoutError:
            pass  # it keeps its place
        finally:
            self._waiters -= 1
        # Asked once more without waiting: the answer says what it has, or its place in line.
        return pool.answer(wish.holder, _now())

    @workflow.update(description="Keep a permit {holder, ttl_seconds}")
    async def renew(self, document: Any = None, *more: Any) -> PermitReply:
        wish = _read(Renew, document, more)
        return await self._do(lambda pool, now: pool.renew(wish, now))

    @workflow.update(description="Give a permit back {holder}")
    async def release(self, document: Any = None, *more: Any) -> PermitReply:
        wish = _read(Release, document, more)
        return await self._do(lambda pool, now: pool.release(wish, now))

    @workflow.signal(name="renew", description="Keep a permit {holder, ttl_seconds}")
    async def renew_signal(self, document: Any = None, *more: Any) -> None:
        wish, _ = read_request(only_input(document, more), Renew)
        if wish is not None:
            await self._do(lambda pool, now: pool.renew(wish, now))

    @workflow.signal(name="release", description="Give a permit back {holder}")
    async def release_signal(self, document: Any = None, *more: Any) -> None:
        wish, _ = read_request(only_input(document, more), Release)
        if wish is not None:
            await self._do(lambda pool, now: pool.release(wish, now))

    @workflow.update(description="Change limits while it runs {requests_per_minute, parallel, …}")
    async def set(self, document: Any = None, *more: Any) -> Reply:
        change = _read(SetCapacity, document, more)
        await self._act(lambda pool, now: pool.set(change))
        return Reply(accepted=True, message="set")

    @workflow.update(description="Start no further call {reason, by}")
    async def drain(self, document: Any = None, *more: Any) -> Reply:
        why = _read(Because, document or {}, more)
        await self._act(lambda pool, now: pool.drain(why))
        return Reply(accepted=True, message="drained: calls wait until resume")

    @workflow.update(description="Open again, end cool-down and penalty, try breakers {reason, by}")
    async def resume(self, document: Any = None, *more: Any) -> Reply:
        why = _read(Because, document or {}, more)
        await self._act(lambda pool, now: pool.resume(why, now))
        return Reply(accepted=True, message="resumed")


def _read(model: type[M], document: Any, more: Sequence[Any]) -> M:
    """What a person sent.

    Raises:
        ApplicationError: `InvalidRequest`, with all that is wrong with it.
    """
    found, problems = read_request(only_input(document, more), model)
    if found is None:
        raise error_of(Failed(INVALID_REQUEST, problems))
    return found


def _now() -> float:
    return workflow.time()


def _wanted(pool: Pool, now: float) -> QueueRate:
    return QueueRate(
        task_queue=pool.state.task_queue,
        per_second=pool.queue_rate(now),
        weights=pool.state.overrides.get("tenants") or {},
        reason=_why(pool, now),
    )


def _is_alike(was: QueueRate | None, wanted: QueueRate) -> bool:
    if was is None or was.task_queue != wanted.task_queue or was.weights != wanted.weights:
        return False
    old, new = was.per_second, wanted.per_second
    if old is None or new is None or old == 0 or new == 0:
        return old == new
    return abs(old - new) <= RATE_STEP * old


def _why(pool: Pool, now: float) -> str:
    if pool.state.is_drained:
        return "drained"
    if pool.queue_rate(now) == 0:
        return "cool-down"
    return f"penalty {pool.state.penalty.value:.2f}" if pool.state.penalty.value else "settings"
