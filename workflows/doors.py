"""One typed door per activity: its name, queue, time-outs and retry policy.

Workflows may not import activities, so they call them by name here and nowhere else; a test checks
that the worker registers every name in `ACTIVITIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType

from planner.catalog import Site
from planner.jobs import (
    AskJob,
    JoinJob,
    JoinReply,
    Loaded,
    LoadJob,
    PatchedPlan,
    PatchJob,
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
from planner.plan import Retry
from planner.values import Bindings, Stored

ACTIVITIES = (
    "prepare_run",
    "run_tool",
    "ask_model",
    "write_plan",
    "join_outcomes",
    "resolve_value",
    "pack_bindings",
    "patch_plan",
    "load_definition",
    "agent_turn",
    "read_output",
)

HEARTBEAT = timedelta(seconds=10)
"""A killed worker costs this long, no more; workers beat at a fraction of it."""
TOOL_TIMEOUT = timedelta(minutes=10)
MODEL_TIMEOUT = timedelta(minutes=15)
MODEL_PATIENCE = timedelta(hours=24)
"""Waiting for capacity uses up no attempt, so something else must bound it."""
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


async def prepare_run(job: PrepareJob) -> Site:
    """What this run must know of its worker; recorded once, in the run's first workflow task."""
    site: Site = await workflow.execute_local_activity(
        "prepare_run",
        job,
        result_type=Site,
        start_to_close_timeout=timedelta(seconds=20),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return site


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


async def run_local_tool(job: ToolJob, retry: Retry, timeout: float | None) -> TaskOutput:
    """A tool of a few milliseconds, in the workflow's own worker (`@tool(local=True)`)."""
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
    output: TaskOutput = await workflow.execute_activity(
        "ask_model",
        job,
        result_type=TaskOutput,
        task_queue=place.queue,
        activity_id=place.activity_id,
        start_to_close_timeout=timedelta(seconds=timeout) if timeout else MODEL_TIMEOUT,
        schedule_to_close_timeout=MODEL_PATIENCE,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=MODEL_RETRY,
        priority=place.priority,
        summary=_clip(place.summary),
    )
    return output


async def write_plan(job: PlanJob, priority: Priority) -> PlanReply:
    """One planner call; accepted tasks arrive by signal while it runs."""
    reply: PlanReply = await workflow.execute_activity(
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
    return reply


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
    resolved: Resolved = await workflow.execute_local_activity(
        "resolve_value",
        job,
        result_type=Resolved,
        start_to_close_timeout=timedelta(seconds=60),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return resolved


async def pack_bindings(bindings: Bindings) -> Bindings:
    """The same bindings with their values behind one reference: history holds no wide fan-in."""
    packed: Bindings = await workflow.execute_local_activity(
        "pack_bindings",
        bindings,
        result_type=Bindings,
        start_to_close_timeout=timedelta(seconds=60),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return packed


async def patch_plan(job: PatchJob) -> PatchedPlan:
    """An RFC 6902 patch applied to a plan document."""
    patched: PatchedPlan = await workflow.execute_local_activity(
        "patch_plan",
        job,
        result_type=PatchedPlan,
        start_to_close_timeout=timedelta(seconds=20),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return patched


async def load_definition(job: LoadJob) -> Loaded:
    """An agent or team by name, as the worker knows it."""
    loaded: Loaded = await workflow.execute_local_activity(
        "load_definition",
        job,
        result_type=Loaded,
        start_to_close_timeout=timedelta(seconds=20),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    return loaded


async def agent_turn(job: TurnJob, place: Place) -> TurnReply:
    """One model turn of an agent, on its pool's queue."""
    reply: TurnReply = await workflow.execute_activity(
        "agent_turn",
        job,
        result_type=TurnReply,
        task_queue=place.queue,
        activity_id=place.activity_id,
        start_to_close_timeout=MODEL_TIMEOUT,
        schedule_to_close_timeout=MODEL_PATIENCE,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=MODEL_RETRY,
        priority=place.priority,
        summary=_clip(place.summary),
    )
    return reply


async def read_output(stored: Stored, start: int, end: int) -> Stored:
    """A part of a large value."""
    part: Stored = await workflow.execute_local_activity(
        "read_output",
        args=[stored, start, end],
        result_type=Stored,
        start_to_close_timeout=timedelta(seconds=20),
        retry_policy=RetryPolicy(maximum_attempts=2),
    )
    return part


MODEL_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=0,
    non_retryable_error_types=NEVER_AGAIN,
)


def _policy(retry: Retry) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(seconds=retry.initial_seconds),
        backoff_coefficient=retry.backoff,
        maximum_interval=timedelta(seconds=max(retry.max_seconds, retry.initial_seconds)),
        maximum_attempts=retry.max_attempts,
        non_retryable_error_types=NEVER_AGAIN,
    )
