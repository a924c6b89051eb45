"""Results of local activities come before all else, in a workflow task that is run and replayed."""

from __future__ import annotations

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from planloom.workflows.shell.runner import activate_in_order


def jobs(*names: str) -> WorkflowActivation:
    """`result` is of a local activity, `remote` of another; else the name of an update."""
    act = WorkflowActivation(run_id="r")
    for name in names:
        job = WorkflowActivationJob()
        if name in ("result", "remote"):
            job.resolve_activity.is_local = name == "result"
        else:
            job.do_update.name = name
        act.jobs.append(job)
    return act


class Workflow:
    """Answers each job with a command of its name; `ends` at the first, or `breaks` at the last."""

    def __init__(self, ends: bool = False, breaks: bool = False) -> None:
        self.activations: list[list[str]] = []
        self._ends, self._breaks = ends, breaks

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        names = [
            job.do_update.name or ("result" if job.resolve_activity.is_local else "remote")
            for job in act.jobs
        ]
        self.activations.append(names)
        done = WorkflowActivationCompletion(run_id=act.run_id)
        done.successful.SetInParent()
        for name in names:
            done.successful.commands.add().update_response.protocol_instance_id = name
        if self._ends:
            done.successful.commands.add().complete_workflow_execution.SetInParent()
        if self._breaks and len(self.activations) == 2:
            done.failed.failure.message = "a bug"
        return done


def commands(done: WorkflowActivationCompletion) -> list[str]:
    return [c.update_response.protocol_instance_id for c in done.successful.commands]


def test_a_result_comes_before_what_came_while_it_waited() -> None:
    """Chaos run 100029: an update came first, and the run could not be replayed."""
    workflow = Workflow()
    done = activate_in_order(workflow.activate, jobs("pause", "remote", "result"))
    assert workflow.activations == [["result"], ["pause", "remote"]]
    assert commands(done) == ["result", "pause", "remote"]


def test_all_else_is_left_as_it_is() -> None:
    for names in (["pause", "remote"], ["result", "result"], []):
        workflow = Workflow()
        activate_in_order(workflow.activate, jobs(*names))
        assert workflow.activations == [names]
    workflow, replayed = Workflow(), jobs("pause", "result")
    replayed.is_replaying = True
    activate_in_order(workflow.activate, replayed)
    assert workflow.activations == [["pause", "result"]]


def test_a_run_that_has_ended_hears_no_more() -> None:
    workflow = Workflow(ends=True)
    activate_in_order(workflow.activate, jobs("pause", "result"))
    assert workflow.activations == [["result"]]


def test_a_bug_in_the_second_part_is_told() -> None:
    done = activate_in_order(Workflow(breaks=True).activate, jobs("pause", "result"))
    assert done.failed.failure.message == "a bug"
