"""What comes to a run is applied in the order and under the length that any replay will see."""

from __future__ import annotations

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from planloom.workflows.shell.runner import (
    EVENTS_FAR_TOO_MANY,
    EVENTS_MAX,
    TRIED_AGAIN,
    InOrder,
)


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
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.activations: list[list[str]] = []
        self.lengths: list[int] = []
        self.is_long: list[bool] = []

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        names = [
            job.do_update.name or ("result" if job.resolve_activity.is_local else "remote")
            for job in act.jobs
        ]
        self.activations.append(names)
        self.lengths.append(act.history_length)
        self.is_long.append(act.continue_as_new_suggested)
        done = WorkflowActivationCompletion(run_id=act.run_id)
        done.successful.SetInParent()
        return done


def test_a_result_among_others_is_tried_again() -> None:
    """Chaos runs 100029 and 300022: whether replay applies the result before the update or after it
    depends on where its marker is, and nothing tells."""
    workflow = Workflow()
    refused = InOrder(workflow.activate)(jobs("pause", "remote", "result"))
    assert refused.failed.failure.message == TRIED_AGAIN
    assert workflow.activations == []


def test_all_else_is_left_as_it_is() -> None:
    for names in (["pause", "remote"], ["result", "result"], []):
        workflow = Workflow()
        InOrder(workflow.activate)(jobs(*names))
        assert workflow.activations == [names]
    workflow, replayed = Workflow(), jobs("pause", "result")
    replayed.is_replaying = True
    InOrder(workflow.activate)(replayed)
    assert workflow.activations == [["pause", "result"]]


def test_a_result_alone_belongs_to_the_task_in_which_its_activity_began() -> None:
    """Chaos run 200024: replay gives both tasks as one, with the length of the second."""
    first_run, replay = Workflow(), Workflow()
    run = InOrder(first_run.activate)
    run(at(59, 10, "remote"))
    run(at(62, 11, "result"))
    again = InOrder(replay.activate)
    again(at(62, 11, "remote", is_replaying=True))
    again(at(62, 11, "result", is_replaying=True))
    assert first_run.activations == replay.activations == [["remote"], ["result"]]
    assert (first_run.lengths, replay.lengths) == ([59, 59], [62, 62])  # one number, one task


def test_where_a_result_comes_a_history_is_not_long() -> None:
    """The sweep of `graph`, event 27: the marker was in the task before, and so it came in replay
    before the history was long. After the result, both see how long it is."""
    workflow = Workflow()
    run = InOrder(workflow.activate)
    for act in (
        at(EVENTS_MAX, 10, "remote"),
        at(EVENTS_MAX + 3, 11, "result"),
        at(EVENTS_MAX + 5, 12, "pause", "result", is_replaying=True),
        at(EVENTS_MAX + 9, 13, "pause"),
        at(EVENTS_FAR_TOO_MANY + 1, 14, "result"),
    ):
        run(act)
    assert workflow.is_long == [False, False, False, True, True]


def test_what_the_server_suggests_is_told_but_where_a_result_comes() -> None:
    workflow = Workflow()
    run = InOrder(workflow.activate)
    for names in (["remote"], ["result"]):
        act = at(50, 10, *names)
        act.continue_as_new_suggested = True
        run(act)
    assert workflow.is_long == [True, False]


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
