"""Results of local activities come before all else, in a workflow task that is run and replayed."""

from __future__ import annotations

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from planloom.workflows.shell.runner import TRIED_AGAIN, InOrder, activate_in_order


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


def at(length: int, seconds: int, *names: str, is_replaying: bool = False) -> WorkflowActivation:
    """An activation of the workflow task that began at `seconds`, up to the event `length`."""
    act = jobs(*names)
    act.history_length, act.is_replaying = length, is_replaying
    act.timestamp.FromSeconds(seconds)
    return act


def query(length: int, seconds: int) -> WorkflowActivation:
    act = at(length, seconds, is_replaying=True)
    act.jobs.add().query_workflow.query_type = "progress"
    return act


def removal() -> WorkflowActivation:
    act = WorkflowActivation(run_id="r")
    act.jobs.add().remove_from_cache.SetInParent()
    return act


def test_the_task_after_events_that_a_query_applied_is_tried_again() -> None:
    """Chaos runs 200033 and 500003: a result was applied before signals; replay does it after."""
    workflow = Workflow()
    run = InOrder(workflow.activate)
    run(at(3, 10, "begin", is_replaying=True))
    run(at(8, 10, "remote"))  # of no workflow task: the last one began at 10
    assert not run(at(8, 10, "result")).HasField("failed")  # the answer needs it
    run(query(8, 10))
    refused = run(at(12, 15, "pause"))
    assert refused.failed.failure.message == TRIED_AGAIN
    assert not run(removal()).HasField("failed")
    assert "pause" not in [name for names in workflow.activations for name in names]


def test_no_other_task_is_refused() -> None:
    run = InOrder(Workflow().activate)
    for act in (
        at(3, 10, "begin"),
        at(3, 10, "result"),  # of a local activity, in the same workflow task
        at(8, 11, "remote"),
        query(8, 11),
        at(12, 15, "pause"),
        at(12, 16, "pause"),  # after an update that was refused and left no event
        at(20, 17, "remote", is_replaying=True),
        at(24, 17, "remote", is_replaying=True),
        at(28, 18, "pause"),
    ):
        assert not run(act).HasField("failed"), act
