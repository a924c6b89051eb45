"""Runs workflow code so that what it does first is what its replay does first.

A query that comes with a workflow task closes it at once. When a local activity has ended by then,
its marker is recorded in that task, but its result reaches the workflow in the next one, together
with the signals, updates and results that came meanwhile. The SDK would apply those first. Replay
finds the marker in the earlier task and applies the result there: other commands come first, and
the run fails its workflow task for good. (Chaos run 100029; temporalio 1.35.0.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

Activate: TypeAlias = Callable[[WorkflowActivation], WorkflowActivationCompletion]

ENDS = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)


class InOrderRunner(UnsandboxedWorkflowRunner):
    """Without a sandbox, and with results of local activities before all else."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        instance.activate = partial(activate_in_order, instance.activate)  # type: ignore[method-assign]
        return instance


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
