"""Runs workflow code so that what it does first is what its replay does first.

A query that comes with a workflow task closes it at once. The result of a local activity then
reaches the workflow in the next task, together with the signals, updates and results that came
meanwhile. Its marker is recorded in the task that was closed if it had ended by then, and else in
the next one: replay applies the result before the rest, or after. Nothing tells which. So such a
task is refused. (Chaos runs 100029 and 300022; temporalio 1.35.0.)

A task that was closed so, without a command, is one with the task that follows at once: replay
applies its events when the second began, and with the length that the history had then. A result
alone reaches the workflow in the next task, and replay in the task that was closed if the marker is
there. So the length that workflow code sees stays that of the task in which the result's activity
began, and a history is not long to it where a result comes, or while a local activity is at work.
(Chaos run 200024, and the sweep of `graph`.)

A query that is on its way while its worker dies reaches another one, with the whole history. That
one also applies the events that wait for a workflow task, so that the answer is new. What comes
later would be applied after them; replay applies all of it in one workflow task, signals first.
So the task that follows is refused. (Chaos runs 200033 and 500003.)

The worker forgets the run whose task was refused, and the server gives the task out again at once:
then the run is replayed, and what came is new to it in the order in which any replay finds it.
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
EVENTS_MAX = 10_000
"""A longer history continues as new, even if the server has not suggested it."""
EVENTS_FAR_TOO_MANY = 40_000
"""A history that is so long is long at any moment: the server ends a workflow at 51,200 events."""


class InOrderRunner(UnsandboxedWorkflowRunner):
    """Without a sandbox, in the order of any replay, and with details that are made when they are
    asked for."""

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
        self._seen_length = 0
        """Events so far, as the workflow's code was told."""
        self._is_ahead = False
        """A query has applied events before their workflow task."""

    def __call__(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if any(job.WhichOneof("variant") in UNORDERED for job in act.jobs):
            return self._activate(act)
        time_ns = act.timestamp.ToNanoseconds()
        is_of_last_task = time_ns == self._time_ns
        are_local = [_is_local_result(job) for job in act.jobs]
        has_local, is_mixed = any(are_local), len(set(are_local)) > 1
        if (is_mixed and not act.is_replaying) or (self._is_ahead and not is_of_last_task):
            return _refused(act)
        # It brings events for which no workflow task has begun yet.
        is_newer = act.history_length > self._length > 0
        if is_newer and is_of_last_task and not act.is_replaying:
            self._is_ahead = True
        self._length, self._time_ns = act.history_length, time_ns
        if has_local:
            act.continue_as_new_suggested = act.history_length > EVENTS_FAR_TOO_MANY
        else:
            act.continue_as_new_suggested |= act.history_length > EVENTS_MAX
        if is_mixed or not has_local:
            self._seen_length = act.history_length
        act.history_length = self._seen_length
        return self._activate(act)


def _refused(act: WorkflowActivation) -> WorkflowActivationCompletion:
    refused = WorkflowActivationCompletion(run_id=act.run_id)
    refused.failed.failure.message = TRIED_AGAIN
    return refused


def _is_local_result(job: WorkflowActivationJob) -> bool:
    return job.HasField("resolve_activity") and job.resolve_activity.is_local
