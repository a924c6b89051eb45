"""Workflow tasks that failed because of Planloom, and not of what happened at the same time."""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent

from planloom.workflows.shell.runner import TRIED_AGAIN

FORGIVEN = (
    # Something happened at the same time: the task is made again, and that is all.
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_STICKY_TASK_QUEUE,
    # The workflow was terminated meanwhile.
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
    # A killed server knows an update as completed of which the worker tells once more.
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_UPDATE_WORKFLOW_EXECUTION_MESSAGE,
)


def failed_task(event: HistoryEvent) -> str | None:
    """Why a workflow task failed; None if the event is another one, or the failure is forgiven."""
    if not event.HasField("workflow_task_failed_event_attributes"):
        return None
    failed = event.workflow_task_failed_event_attributes
    if failed.cause in FORGIVEN or failed.failure.message == TRIED_AGAIN:
        return None
    cause = WorkflowTaskFailedCause.Name(failed.cause)
    return f"{cause}: {failed.failure.message[:300]}\n{failed.failure.stack_trace[-1500:]}".strip()
