"""How runs end before all has run: enough is known, something failed, a person, the budget."""

from __future__ import annotations

import pytest

from planloom.planner.contract.jobs import Resolved, TaskOutput
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run.state import Stage
from planloom.workflows.machines.run.view import (
    details,
    diff,
    estimate_document,
    graph,
    outputs,
    plan_document,
    published,
    revisions_document,
    usage_document,
)
from planloom.workflows.machines.shared.commands import (
    Answer,
    Cancel,
    DropTimer,
    JoinOutcomes,
    Resolve,
    RunTool,
)
from planloom.workflows.machines.shared.events import CancelRequested, SignalIgnored
from tests.support.run_driver import Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=9_000, preview="…")


# -- enough is known --------------------------------------------------------------------------


def test_a_run_whose_condition_is_met_cancels_the_rest_and_is_complete() -> None:
    drive = Drive(plan=plan(work("a"), work("b"), work("c", "${b}"), stop_when="${a} == `1`"))
    drive.begin()
    drive.ends("a", 1)
    assert drive.sent(Cancel) == ["b#body"]
    drive.cancelled("b#body")
    assert drive.result.status == "completed"
    assert drive.result.usage.saved["tasks"] == 2


def test_a_condition_over_a_large_output_is_looked_at_by_an_activity() -> None:
    drive = Drive(plan=plan(work("a"), work("b"), stop_when="length(${a}) > `1`"))
    drive.begin()
    drive.returns("a#body", TaskOutput(output=LARGE))
    assert drive.sent(Resolve) == ["stop_when"]
    drive.returns("stop_when", Resolved(stored=Stored(value=True)))
    assert drive.sent(Cancel) == ["b#body"]


def test_a_condition_that_can_never_be_read_is_noted_once_and_counts_as_not_true() -> None:
    drive = Drive(plan=plan(work("a"), work("b"), stop_when="length(${a}) > `1`"))
    drive.begin()
    drive.ends("a", 7)
    drive.ends("b", 8)
    assert drive.result.status == "completed"
    noted = [n for n in drive.result.notes if n.startswith("stop_when: ")]
    assert len(noted) == 1
    assert noted[0].endswith("taken as not true")


def test_what_the_joiner_is_not_shown_is_called_off_and_the_rest_is_enough() -> None:
    tasks = work("a"), work("b", "${a}"), work("c", "other ${a}")
    drive = Drive(goal="reach it")
    drive.begin()
    drive.writes(*tasks)
    drive.ends("a", 1)
    drive.wrote(*tasks, join_only=["b"])
    assert drive.sent(Cancel) == ["c#body"]
    drive.ends("b", 2)
    assert drive.run.stop is not None
    assert drive.run.stop.reason == "early join: b"
    drive.cancelled("c#body")
    assert [t.id for t in drive.command(JoinOutcomes).job.finished] == ["b"]


def test_a_task_that_acts_is_not_cut_off_by_an_early_join() -> None:
    acts = {"id": "c", "tool": "post", "args": {"key": "${a}"}}
    drive = Drive(goal="reach it")
    drive.begin()
    drive.wrote(work("a"), work("b", "${a}"), acts, join_only=["b"])
    drive.ends("a", 1)
    drive.ends("b", 2)
    assert drive.sent(Cancel) == []
    assert drive.run.stage is Stage.RUNNING


# -- failures, people, budget -----------------------------------------------------------------


def test_a_failure_ends_the_run_at_once_where_the_request_says_so() -> None:
    drive = Drive(plan=plan(work("a"), work("b")), on_failure="fail", retry_rounds=0)
    drive.begin()
    drive.breaks("a#body", "refused")
    assert drive.sent(Cancel) == ["b#body"]
    drive.cancelled("b#body")
    assert (drive.result.status, drive.result.reason) == ("failed", "task a failed: it failed")


def test_a_failure_that_may_pass_is_tried_again_after_all_else() -> None:
    drive = Drive(plan=plan(work("a"), work("b")), retry_rounds=1)
    drive.begin()
    drive.breaks("a#body", "unknown")
    assert drive.sent(RunTool) == []
    drive.ends("b", 2)
    assert drive.sent(RunTool) == ["a#body"]
    assert "round 2: a" in drive.run.notes
    drive.ends("a", 1)
    assert drive.result.answer == {"a": 1, "b": 2}


def test_another_round_leaves_alone_what_an_edit_took_out() -> None:
    """Seed 74963: `c` was opened again, and waited for `b`, which was no task any more."""
    tasks = [work("a"), work("b"), work("c", ["${a}", "${b}"]), work("d", "${a}")]
    drive = Drive(plan=plan(*tasks), budget={"parallel": 1}, retry_rounds=1)
    drive.begin()
    drive.control("pause")
    drive.breaks("a#body", "unknown")
    edited = drive.control("edit_plan", revision=1, plan=plan(work("a"), work("d", "${a}")))
    assert isinstance(edited, Answer)
    drive.control("resume")
    assert "round 2: a" in drive.run.notes
    drive.ends("a", 1)
    assert drive.sent(RunTool) == ["d#body"]
    drive.ends("d", 2)
    outcomes = {str(t): r.outcome.value for t, r in drive.result.tasks.items()}
    assert outcomes == {"a": "succeeded", "c": "skipped", "d": "succeeded"}


def test_another_round_does_not_repeat_what_an_edit_took_out() -> None:
    drive = Drive(plan=plan(work("a"), work("b")), retry_rounds=1)
    drive.begin()
    drive.breaks("a#body", "unknown")
    drive.control("edit_plan", revision=1, plan=plan(work("b")))
    drive.ends("b", 2)
    assert (drive.run.round, drive.outcome("a")) == (0, Outcome.FAILED)


def test_a_run_that_is_cancelled_says_what_it_had_finished() -> None:
    drive = Drive(plan=plan(work("a"), work("b"), work("c", "${b}")), budget={"seconds": 60})
    drive.begin()
    drive.ends("a", 1)
    drive.send(CancelRequested())
    assert drive.sent(Cancel) == ["b#body"]
    drive.cancelled("b#body", usage=Usage(tool_calls=1))
    assert drive.sent(DropTimer) == ["budget.seconds"]
    assert drive.result.status == "cancelled"
    assert {t: r.outcome for t, r in drive.result.tasks.items()} == {
        "a": Outcome.SUCCEEDED,
        "b": Outcome.CANCELLED,
        "c": Outcome.CANCELLED,
    }


def test_a_cap_of_tasks_that_is_reached_ends_partial() -> None:
    budget = {"tasks": 1, "on_budget": "partial"}
    drive = Drive(plan=plan(work("a"), work("b", "${a}")), budget=budget)
    drive.begin()
    drive.ends("a", 1)
    assert drive.result.status == "partial"
    assert drive.result.reason.startswith('budget: Task "b"')


def test_a_cap_of_tasks_that_is_reached_parks_and_a_raise_goes_on() -> None:
    budget = {"tasks": 1, "on_budget": "park"}
    drive = Drive(plan=plan(work("a"), work("b", "${a}")), budget=budget)
    drive.begin()
    drive.ends("a", 1)
    assert published(drive.run).awaiting == "budget"
    drive.control("raise_budget", tasks=2)
    assert drive.sent(RunTool) == ["b#body"]


# -- speculation ------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "outcome"), [(1, Outcome.SUCCEEDED), (2, Outcome.SKIPPED)])
def test_a_branch_that_runs_ahead_counts_only_if_its_condition_comes_true(
    value: int, outcome: Outcome
) -> None:
    ahead = work("b", when="${a} == `1`", speculate=True)
    drive = Drive(plan=plan(work("a"), ahead))
    drive.begin()
    assert drive.sent(RunTool) == ["a#body", "b#body"]
    drive.ends("b", "early")
    assert drive.outcome("b") is None
    drive.ends("a", value)
    assert drive.outcome("b") is outcome
    won = int(value == 1)
    assert drive.result.speculation == {"won": won, "lost": 1 - won}


def test_a_branch_that_still_runs_when_its_condition_is_false_is_cancelled_and_paid() -> None:
    drive = Drive(plan=plan(work("a"), work("b", when="${a} == `1`", speculate=True)))
    drive.begin()
    drive.ends("a", 2)
    assert drive.sent(Cancel) == ["b#body"]
    drive.cancelled("b#body", usage=Usage(tool_calls=1))
    assert drive.outcome("b") is Outcome.SKIPPED
    assert (drive.result.usage.tasks, drive.result.usage.tool_calls) == (2, 1)


def test_the_condition_of_a_branch_that_runs_ahead_may_need_an_activity() -> None:
    drive = Drive(plan=plan(work("a"), work("b", when="length(${a}) > `1`", speculate=True)))
    drive.begin()
    drive.returns("a#body", TaskOutput(output=LARGE))
    assert drive.sent(Resolve) == ["b#ahead"]
    drive.ends("b", "early")
    drive.returns("b#ahead", Resolved(stored=Stored(value=True)))
    assert drive.outcome("b") is Outcome.SUCCEEDED


# -- what a run shows -------------------------------------------------------------------------


def test_queries_show_the_run_as_it_is() -> None:
    drive = Drive(plan=plan(work("a"), work("b", "${a}")), budget={"tokens": 500})
    assert (plan_document(drive.run), graph(drive.run, drive.now)) == (None, "flowchart TD")
    drive.begin()
    drive.ends("a", 1)
    document = plan_document(drive.run)
    assert document is not None
    assert [t["id"] for t in document["tasks"]] == ["a", "b"]
    assert graph(drive.run, drive.now).startswith("flowchart TD\n")
    assert usage_document(drive.run)["caps"]["tokens"] == 500
    assert usage_document(drive.run)["reserved"]["tasks"] == 1
    assert outputs(drive.run) == {"a": {"outcome": "succeeded", "output": {"value": 1}}}
    estimate = estimate_document(drive.run, drive.now)
    assert estimate is not None
    assert "actual" in estimate["tasks"]["a"]
    assert "actual" not in estimate["tasks"]["b"]
    assert [r["why"] for r in revisions_document(drive.run)] == ["given"]
    assert diff(drive.run) == []


def test_a_signal_that_nobody_could_read_is_noted() -> None:
    drive = Drive(plan=plan(work("a")))
    drive.begin()
    drive.send(SignalIgnored("approve_plan: no such thing"))
    assert "signal ignored: approve_plan: no such thing" in drive.run.notes


def test_the_details_show_what_runs_first() -> None:
    drive = Drive(plan=plan(work("a"), work("b")))
    drive.begin()
    drive.ends("a", 1)
    shown = published(drive.run)
    assert (shown.status, shown.revision) == ("running", 1)
    page = details(drive.run, drive.now)
    assert page.index("| b") < page.index("| a")
