"""The activity `run_tool`: one call of a registered tool, with heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from planloom.activities.models.heartbeats import Heartbeat, deadline_seconds
from planloom.activities.tools.call import ToolCallError
from planloom.activities.tools.runner import ToolRunner
from planloom.planner.contract.jobs import TaskOutput, ToolJob

NOTHING_DONE = "nothing_done"
"""In heartbeat details: attempts 1 to this one had no side effect. A retry on any worker reads it,
also on one that does not see the claims of the attempt before."""


class ToolActivities:
    """What a worker registers for tools."""

    def __init__(self, runner: ToolRunner) -> None:
        self._runner = runner

    @activity.defn(name="run_tool")
    async def run_tool(self, job: ToolJob) -> TaskOutput:
        """One attempt of a tool call.

        Raises:
            ApplicationError: its type is the error class; details hold class, tool and usage.
        """
        info = activity.info()
        nothing_done = nothing_done_of(info.heartbeat_details)
        attempt = job.attempts_before + info.attempt
        details = [{NOTHING_DONE: nothing_done}] if nothing_done else []
        async with Heartbeat(*details) as beat:
            try:
                return await self._runner.call(
                    job,
                    attempt=attempt,
                    run_id=info.workflow_id or "",
                    deadline_seconds=deadline_seconds(),
                    # A task that is run again may have the same activity id; it begins later.
                    execution=f"{info.workflow_run_id}/{info.activity_id}/"
                    f"{info.scheduled_time.isoformat()}",
                    nothing_done=nothing_done,
                )
            except ToolCallError as failure:
                if failure.nothing_done and failure.retry:
                    beat.set({NOTHING_DONE: info.attempt})
                raise failure_of(failure, job, attempt) from failure.__cause__


def nothing_done_of(details: Sequence[Any]) -> int:
    """How many attempts, from the first on, are known to have done nothing; 0 when in doubt."""
    last = details[0] if details else None
    count = last.get(NOTHING_DONE) if isinstance(last, dict) else None
    return count if type(count) is int and count > 0 else 0


def failure_of(failure: ToolCallError, job: ToolJob, attempt: int) -> ApplicationError:
    """A failed call as Temporal sees it."""
    wait = failure.retry_after
    return ApplicationError(
        failure.message,
        {
            "error_class": failure.error_class,
            "tool": job.tool,
            "attempts": attempt,
            "usage": failure.usage.model_dump(),
        },
        type=failure.error_class,
        # What a tool tells the model is no fault of the worker: no traceback in its log.
        category=ApplicationErrorCategory.BENIGN,
        non_retryable=not failure.retry,
        next_retry_delay=None if wait is None else timedelta(seconds=max(wait, 0.0)),
    )
