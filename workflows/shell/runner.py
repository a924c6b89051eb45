"""Runs workflow code so that what it does first is what its replay does first.

A query that comes with a workflow task closes it at once. When a local activity has ended by then,
its marker is recorded in that task, but its result reaches the workflow in the next one, together
with the signals, updates and results that came meanwhile. The SDK would apply those first. Replay
finds the marker in the earlier task and applies the result there: other commands come first, and
the run fails its workflow task for good. (Chaos run 100029; temporalio 1.35.0.)

A query that is on its way while its worker dies reaches another one, with the whole history. That
one also applies the events that wait for a workflow task, so that the answer is new. What comes
later would be applied after them; replay applies all of it in one workflow task, signals first.
So the task that follows is refused once. The worker forgets the run and replays it at the next try.
(Chaos runs 200033 and 500003.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

from planloom.workflows.shell.publish import LiveDetails

Activate: TypeAlias = Callable[[WorkflowActivation], WorkflowActivationCompletion]

UNORDERED = ("query_workflow", "remove_from_cache")
TRIED_AGAIN = (
    "a query was answered before this workflow task: it is tried again, from the beginning"
)

ENDS = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)


class InOrderRunner(UnsandboxedWorkflowRunner):
    """Without a sandbox, with results of local activities before all else, and with details that
    are made when they are asked for."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance: Any = super().create_instance(det)
        instance.activate = InOrder(instance.activate)
        instance.workflow_get_current_details = partial(
            _made, instance.workflow_get_current_details
        )
        made: WorkflowInstance = instance
        return made


def _made(current: Callable[[], str]) -> str:
    """The current details as text, for the query that the Web UI sends."""
    details = current()
    return details.make() if isinstance(details, LiveDetails) else details


class InOrder:
    """One run in this worker's cache."""

    def __init__(self, activate: Activate) -> None:
        self._activate = activate
        self._length = self._time_ns = 0
        """Of the last activation: events so far, and when its workflow task began."""
        self._is_ahead = False
        """A query has applied events before their workflow task."""

    def __call__(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if any(job.WhichOneof("variant") in UNORDERED for job in act.jobs):
            return self._activate(act)
        time_ns = act.timestamp.ToNanoseconds()
        is_of_last_task = time_ns == self._time_ns
        if self._is_ahead and not is_of_last_task:
            return _refused(act)
        # It brings events for which no workflow task has begun yet.
        is_newer = act.history_length > self._length > 0
        if is_newer and is_of_last_task and not act.is_replaying:
            self._is_ahead = True
        self._length, self._time_ns = act.history_length, time_ns
        return activate_in_order(self._activate, act)


def _refused(act: WorkflowActivation) -> WorkflowActivationCompletion:
    refused = WorkflowActivationCompletion(run_id=act.run_id)
    refused.failed.failure.message = TRIED_AGAIN
    return refused


def activate_in_order(activate: Activate, act: WorkflowActivation) -> WorkflowActivationCompletion:
    """Apply the results of local activities, let the workflow go on, then apply the rest."""
    local = [job for job in act.jobs if _is_local_result(job)]
    rest = [job for job in act.jobs if not _is_local_result(job)]
    if act.is_replaying or not local or not rest:
        return activate(act)
    first = activate(_with(act, local))
    if first.HasField("failed") or any(_ends(c) for c in first.successful.commands):
        return first  # there is nobody left for the rest
    then = activate(_with(act, rest))
    if then.HasField("successful"):
        commands = [*first.successful.commands, *then.successful.commands]
        del then.successful.commands[:]
        then.successful.commands.extend(commands)
    return then


def _is_local_result(job: WorkflowActivationJob) -> bool:
    return job.HasField("resolve_activity") and job.resolve_activity.is_local


def _ends(command: object) -> bool:
    return command.WhichOneof("variant") in ENDS  # type: ignore[attr-defined]


def _with(act: WorkflowActivation, jobs: list[WorkflowActivationJob]) -> WorkflowActivation:
    part = WorkflowActivation()
    part.CopyFrom(act)
    del part.jobs[:]
    part.jobs.extend(jobs)
    return part
