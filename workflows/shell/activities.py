"""One typed door per activity: its name, queue, timeouts and retry policy.

Workflows may not import activities, so they call them by name here and nowhere else; a test checks
that the worker registers every name in `ACTIVITIES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, TimeoutError, TimeoutType
from temporalio.workflow import ActivityCancellationType

from planloom.planner.contract.capacity import PoolLoaded, PoolNotice, QueueRate
from planloom.planner.contract.groups import GroupJob, GroupReply
from planloom.planner.contract.jobs import (
    AskJob,
    JoinJob,
    JoinReply,
    LoadedDefinition,
    LoadJob,
    PatchedPlan,
    PatchJob,
    PermitJob,
    PlanJob,
    PlanReply,
    PrepareJob,
    Resolved,
    ResolveJob,
    TaskOutput,
    ToolJob,
    TurnJob,
    TurnReply,
)
from planloom.planner.contract.large_plans import PART_CHARS, PreparedPlan, PreparePlanJob
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import PRIORITY_KEYS, Bindings, Stored

Job = TypeVar("Job", AskJob, TurnJob)
R = TypeVar("R", TaskOutput, TurnReply)
T = TypeVar("T")

ACTIVITIES = (
    "prepare_run",
    "prepare_plan",
    "run_tool",
    "run_group",
    "ask_model",
    "write_plan",
    "join_outcomes",
    "resolve_value",
    "pack_bindings",
    "patch_plan",
    "load_definition",
    "agent_turn",
    "read_output",
    "set_queue_rate",
    "load_pool",
    "take_permit",
    "look_at_run",
    "notify_worker",
)

HEARTBEAT = timedelta(seconds=10)
"""A killed worker costs this long, no more; workers beat at a fraction of it."""
TOOL_TIMEOUT = timedelta(minutes=10)
GROUP_TIMEOUT = timedelta(seconds=60)
"""A group ends by itself after seconds: this is for a worker that is stuck."""
MODEL_TIMEOUT = timedelta(minutes=15)
MODEL_PATIENCE = timedelta(hours=24)
"""Waiting for capacity uses up no attempt, so something else must bound it."""
STARVING = timedelta(seconds=60)
"""A model call that waits this long for its turn moves up one priority; the next step takes twice
as long. So the least urgent is as urgent as any after 15 minutes."""
NEVER_AGAIN = ["PayloadsTooLarge"]
"""The SDK's own error for a result over 2 MiB is retryable: the work would be paid again."""
RETRY_DEFAULT = Retry()


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how urgently an activity runs, and what the Web UI shows of it."""

    queue: str
    activity_id: str
    summary: str
    priority: Priority


def _clip(summary: str) -> str:
    # The server's limit is 400 bytes; four bytes a character at worst.
    return summary if len(summary) <= 96 else summary[:95] + "…"


@dataclass(slots=True)
class LocalWork:
    """The local activities of one workflow."""

    at_work: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One of them, until it has ended."""
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1


LOCAL_WORK: ContextVar[LocalWork | None] = ContextVar("local_work", default=None)
"""Of the workflow whose task this is, if it asks."""


def _counted() -> AbstractContextManager[None]:
    work = LOCAL_WORK.get()
    return nullcontext() if work is None else work.counted()


async def _local(
    name: str, args: Sequence[Any], result: type[T], *, seconds: float = 20, attempts: int = 3
) -> T:
    """A local activity: it takes no event before its end, and no queue."""
    with _counted():
        found: T = await workflow.execute_local_activity(
            name,
            args=args,
            result_type=result,
            start_to_close_timeout=timedelta(seconds=seconds),
            retry_policy=RetryPolicy(maximum_attempts=attempts),
        )
    return found


async def prepare_run(job: PrepareJob) -> Catalog:
    """What this run must know of its worker; recorded once, in the run's first workflow task."""
    return await _local("prepare_run", [job], Catalog)


async def prepare_plan(job: PreparePlanJob) -> PreparedPlan:
    """The same for a run with a large plan, which takes seconds to compile."""
    prepared: PreparedPlan = await workflow.execute_activity(
        "prepare_plan",
        job,
        result_type=PreparedPlan,
        start_to_close_timeout=timedelta(minutes=5),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(maximum_attempts=5),
        summary="compile a large plan",
    )
    return prepared


async def long_text(stored: Stored) -> str:
    """A part of a long text. The run cannot go on without it: it is asked for until it is there."""
    given = Bindings(inputs={"given": stored})
    job = ResolveJob(value="${given}", bindings=given, inline_max_bytes=2 * PART_CHARS)
    resolved: Resolved = await workflow.execute_activity(
        "resolve_value",
        job,
        result_type=Resolved,
        start_to_close_timeout=timedelta(minutes=1),
        retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
        summary="a part of a large plan or state",
    )
    return str(resolved.stored.value)


async def run_tool(job: ToolJob, place: Place, retry: Retry, timeout: float | None) -> TaskOutput:
    """One tool call on the tools queue."""
    output: TaskOutput = await workflow.execute_activity(
        "run_tool",
        job,
        result_type=TaskOutput,
        task_queue=place.queue,
        activity_id=place.activity_id,
        start_to_close_timeout=timedelta(seconds=timeout) if timeout else TOOL_TIMEOUT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_policy(retry),
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        priority=place.priority,
        summary=_clip(place.summary),
    )
    return output


async def run_group(job: GroupJob, place: Place) -> GroupReply:
    """Many cheap tasks in one activity, which bounds its own time."""
    reply: GroupReply = await workflow.execute_activity(
        "run_group",
        job,
        result_type=GroupReply,
        task_queue=place.queue,
        activity_id=place.activity_id,
        start_to_close_timeout=GROUP_TIMEOUT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=GROUP_RETRY,
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        priority=place.priority,
        summary=_clip(place.summary),
    )
    return reply


async def run_local_tool(job: ToolJob, retry: Retry, timeout: float | None) -> TaskOutput:
    """A tool of a few milliseconds, in the workflow's own worker (`@tool(local=True)`)."""
    with _counted():
        output: TaskOutput = await workflow.execute_local_activity(
            "run_tool",
            job,
            result_type=TaskOutput,
            start_to_close_timeout=timedelta(seconds=timeout or 10),
            retry_policy=_policy(retry),
        )
    return output


async def ask_model(job: AskJob, place: Place, timeout: float | None) -> TaskOutput:
    """One model call on its pool's queue. The activity counts its own failed attempts."""
    return await _on_pool("ask_model", job, place, TaskOutput, timeout)


def write_plan(job: PlanJob, priority: Priority) -> workflow.ActivityHandle[PlanReply]:
    """One planner call, to await or cancel; accepted tasks arrive by signal while it runs."""
    return workflow.start_activity(
        "write_plan",
        job,
        result_type=PlanReply,
        activity_id=f"plan.{job.call}",
        start_to_close_timeout=MODEL_TIMEOUT,
        schedule_to_close_timeout=MODEL_PATIENCE,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=MODEL_RETRY,
        priority=priority,
        summary=_clip(f"plan, revision {job.revision}: {job.goal}"),
    )


async def join_outcomes(job: JoinJob, name: str, priority: Priority) -> JoinReply:
    """The joiner model's decision."""
    reply: JoinReply = await workflow.execute_activity(
        "join_outcomes",
        job,
        result_type=JoinReply,
        activity_id=name,
        start_to_close_timeout=MODEL_TIMEOUT,
        schedule_to_close_timeout=MODEL_PATIENCE,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=MODEL_RETRY,
        priority=priority,
        summary=_clip(f"join {len(job.finished)} outcomes"),
    )
    return reply


async def resolve_value(job: ResolveJob) -> Resolved:
    """References over large values, resolved where blobs can be read."""
    if job.is_long:
        return await _resolve_long(job)
    return await _local("resolve_value", [job], Resolved, seconds=60)


async def _resolve_long(job: ResolveJob) -> Resolved:
    """Not as a local activity: one that takes seconds holds back everything else of its run."""
    resolved: Resolved = await workflow.execute_activity(
        "resolve_value",
        job,
        result_type=Resolved,
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return resolved


async def pack_bindings(bindings: Bindings) -> Bindings:
    """The same bindings with their values behind one reference: history holds no wide fan-in."""
    return await _local("pack_bindings", [bindings], Bindings, seconds=60)


async def patch_plan(job: PatchJob) -> PatchedPlan:
    """An RFC 6902 patch applied to a plan document."""
    return await _local("patch_plan", [job], PatchedPlan)


async def load_definition(job: LoadJob) -> LoadedDefinition:
    """An agent or team by name, as the worker knows it."""
    return await _local("load_definition", [job], LoadedDefinition)


async def agent_turn(job: TurnJob, place: Place, timeout: float | None = None) -> TurnReply:
    """One model turn of an agent, on its pool's queue."""
    return await _on_pool("agent_turn", job, place, TurnReply, timeout)


async def _on_pool(
    name: str, job: Job, place: Place, result: type[R], timeout: float | None = None
) -> R:
    """A model call on a pool's queue. One that is passed over for long gets more urgent.

    The server keeps strict order of priority, so a pool that is always full with urgent calls would
    never serve the others. A call that has waited is put in line again one level up; what its
    attempts have counted so far goes along.
    """
    priority, patience = place.priority, STARVING
    while True:
        key = priority.priority_key or PRIORITY_KEYS["normal"]
        try:
            found: R = await workflow.execute_activity(
                name,
                job,
                result_type=result,
                task_queue=place.queue,
                activity_id=place.activity_id,
                start_to_close_timeout=timedelta(seconds=timeout) if timeout else MODEL_TIMEOUT,
                schedule_to_close_timeout=MODEL_PATIENCE,
                schedule_to_start_timeout=patience if key > 1 else None,
                heartbeat_timeout=HEARTBEAT,
                retry_policy=MODEL_RETRY,
                priority=priority,
                summary=_clip(place.summary),
            )
        except ActivityError as error:
            late = error.cause
            if not isinstance(late, TimeoutError) or late.type != TimeoutType.SCHEDULE_TO_START:
                raise
            details = late.last_heartbeat_details
            before = details[0] if details and isinstance(details[0], dict) else job.before
            job = job.model_copy(update={"before": before})
            priority = replace(priority, priority_key=key - 1)
            patience *= 2
        else:
            return found


async def read_output(stored: Stored, start: int, end: int) -> Stored:
    """A part of a large value."""
    return await _local("read_output", [stored, start, end], Stored, attempts=2)


async def set_queue_rate(rate: QueueRate) -> str:
    """What the server lets a pool's queue dispatch; "" when it is set, else why not."""
    problem: str = await workflow.execute_activity(
        "set_queue_rate",
        rate,
        result_type=str,
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_attempts=3),
        priority=Priority(priority_key=1),
        summary=f"{rate.task_queue}: {rate.reason}",
    )
    return problem


async def notify_worker(notice: PoolNotice, queue: str) -> None:
    """Notify one worker process. One that is gone does not answer, and is not waited for long.

    Raises:
        ActivityError: it did not answer.
    """
    await workflow.execute_activity(
        "notify_worker",
        notice,
        task_queue=queue,
        schedule_to_close_timeout=timedelta(seconds=3),
        retry_policy=RetryPolicy(maximum_attempts=1),
        priority=Priority(priority_key=1),
        summary=f"notice of pool {notice.pool}",
    )


async def take_permit(job: PermitJob) -> None:
    """Returns when the holder has its permit; waiting for it uses up no attempt.

    Raises:
        ActivityError: `InvalidRequest`: it asks for more than the pool can ever give.
    """
    await workflow.execute_activity(
        "take_permit",
        job,
        activity_id="permit",
        start_to_close_timeout=MODEL_PATIENCE,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=MODEL_RETRY,
        priority=Priority(priority_key=PRIORITY_KEYS[job.priority]),
        summary=f"room in pool {job.pool}",
    )


async def look_at_run(id: str, run_key: str | None = None) -> str:
    """The server's word for the status of a workflow: RUNNING, COMPLETED, TERMINATED, …

    With `run_key`, `GONE` too when that id is another workflow's now.
    """
    status: str = await workflow.execute_activity(
        "look_at_run",
        args=[id, run_key],
        result_type=str,
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_attempts=3),
        summary=f"does {id} still run?",
    )
    return status


async def load_pool(pool: str) -> PoolLoaded:
    """The worker's settings of a pool."""
    return await _local("load_pool", [pool], PoolLoaded, seconds=10)


MODEL_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=0,
    non_retryable_error_types=NEVER_AGAIN,
)


GROUP_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=100),
    maximum_attempts=2,
    non_retryable_error_types=NEVER_AGAIN,
)
"""A group fails only with its worker. When it does so twice, each of its tasks goes on alone."""


def _policy(retry: Retry) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(seconds=retry.initial_seconds),
        backoff_coefficient=retry.backoff,
        maximum_interval=timedelta(seconds=max(retry.max_seconds, retry.initial_seconds)),
        maximum_attempts=retry.max_attempts,
        non_retryable_error_types=NEVER_AGAIN,
    )
