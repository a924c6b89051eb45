"""The activity `run_tool`: one call of a registered tool, with heartbeats."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from planloom.activities.models.heartbeats import Heartbeat, deadline_seconds
from planloom.activities.tools.runner import ToolCallError, ToolRunner
from planloom.planner.contract.jobs import TaskOutput, ToolJob


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
        async with Heartbeat():
            try:
                return await self._runner.call(
                    job,
                    attempt=info.attempt,
                    run_id=info.workflow_id or "",
                    deadline_seconds=deadline_seconds(),
                )
            except ToolCallError as failure:
                raise failure_of(failure, job, info.attempt) from failure.__cause__


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
