"""What a child run's result means for the task that started it."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.requests import Lineage
from planloom.planner.contract.results import (
    AgentResult,
    MemberReport,
    RunResult,
    TeamResult,
    UsageReport,
)
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.run.children import inputs_of, usage_from_report
from planloom.workflows.machines.run.machine import CHILD_LOOK_SECONDS
from planloom.workflows.machines.shared.commands import Cancel, LookAtChild, StartChild, Tell
from planloom.workflows.machines.shared.events import CancelRequested, Continued, Failure
from tests.support.run_driver import CATALOG, Drive, plan

USED = UsageReport(tokens=15, input_tokens=10, output_tokens=5, usd=0.25, model_calls=1, tasks=2)
BODIES: dict[str, dict[str, Any]] = {
    "plan": {"plan": plan({"id": "x", "tool": "work", "args": {"key": 1}})},
    "agent": {"agent": "helper", "args": {"task": "x"}},
    "team": {"team": "panel", "args": {"task": "x"}},
}


def begun(kind: str, **fields: Any) -> Drive:
    drive = Drive(CATALOG, plan=plan({"id": "c", **BODIES[kind], **fields}), retry_rounds=0)
    drive.begin()
    return drive


def result(kind: str, status: str, answer: Any, **fields: Any) -> Any:
    match kind:
        case "plan":
            return RunResult(status=status, answer=answer, usage=USED, **fields)  # type: ignore[arg-type]
        case "agent":
            return AgentResult(status=status, output=answer, usage=USED, **fields)  # type: ignore[arg-type]
        case _:
            return TeamResult(status=status, answer=answer, usage=USED, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BODIES)
def test_a_child_that_completed_is_its_tasks_output(kind: str) -> None:
    drive = begun(kind)
    assert drive.command(StartChild).id == "run/c"
    drive.returns("c#body", result(kind, "completed", 7))
    assert (drive.result.status, drive.result.answer) == ("completed", {"c": 7})
    assert (drive.result.usage.tokens, drive.result.usage.usd) == (15, 0.25)
    assert drive.result.usage.tasks == 3


@pytest.mark.parametrize("kind", BODIES)
def test_a_child_that_ended_partial_with_an_answer_says_so(kind: str) -> None:
    drive = begun(kind)
    drive.returns("c#body", result(kind, "partial", 7, reason="time is over"))
    assert drive.outcome("c") is Outcome.SUCCEEDED
    assert drive.result.tasks["c"].reason == "partial: time is over"


@pytest.mark.parametrize("kind", BODIES)
def test_a_child_that_ended_without_an_answer_has_failed_and_is_paid(kind: str) -> None:
    drive = begun(kind)
    drive.returns("c#body", result(kind, "partial", None))
    assert drive.outcome("c") is Outcome.FAILED
    assert drive.result.tasks["c"].error == "ended partial without an answer"
    assert drive.result.usage.tokens == 15


@pytest.mark.parametrize("kind", BODIES)
def test_a_child_that_somebody_cancelled_is_a_cancelled_task(kind: str) -> None:
    drive = begun(kind)
    drive.returns("c#body", result(kind, "cancelled", None))
    assert drive.outcome("c") is Outcome.CANCELLED


def test_an_agents_error_class_is_its_tasks() -> None:
    drive = begun("agent")
    drive.returns("c#body", result("agent", "failed", None, error_class="auth", reason="no key"))
    assert drive.result.tasks["c"].error_class == "auth"


def test_a_long_answer_of_a_child_stays_where_it_is_stored() -> None:
    drive = begun("plan")
    stored = Stored(blob="b" * 64, size_bytes=90_000, preview="…")
    drive.returns("c#body", result("plan", "completed", {"preview": "…"}, answer_ref=stored))
    assert drive.run.records["c"].output == stored  # type: ignore[index]


def test_members_of_a_team_that_failed_are_known_to_the_run() -> None:
    drive = begun("team")
    members = {
        "ann": MemberReport(outcome=Outcome.FAILED),
        "bob": MemberReport(outcome=Outcome.SUCCEEDED),
    }
    drive.returns("c#body", result("team", "partial", "so far", members=members))
    assert drive.run.failed_members == {"c": ["ann"]}


def test_money_of_a_child_is_exact_to_the_nano_dollar() -> None:
    report = UsageReport(usd=0.123456789, model_calls=1)
    assert usage_from_report(report).usd_nano == 123_456_789


# -- the request ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tenant", "priority"])
def test_arguments_of_an_agent_cannot_name_what_belongs_to_the_run(name: str) -> None:
    drive = begun("agent", args={"task": "x", name: "bob"})
    assert drive.sent(StartChild) == []
    said = drive.result.tasks["c"].error
    assert said == f"tasks.c.args.{name}: a child run has its run's {name}. Leave it out."


def test_a_childs_tools_are_those_it_wants_among_its_runs() -> None:
    body = {"agent": "helper", "args": {"task": "x", "tools": ["pay", "work"]}}
    drive = Drive(plan=plan({"id": "c", **body}), tools=["work"])
    drive.begin()
    command = drive.command(StartChild)
    given = {"task": Stored(value="x"), "args": Stored(value={"tools": ["pay", "work"]})}
    inputs: Any = inputs_of(command, given)
    assert inputs[0].tools == ["work"]


def test_arguments_that_make_no_request_are_the_tasks_failure() -> None:
    drive = begun("agent", args={"task": "x", "budget": "${params.b}"})
    given = {"task": Stored(value="x"), "args": Stored(value={"budget": {"tokens": -1}})}
    failed = inputs_of(drive.command(StartChild), given)
    assert isinstance(failed, Failure)
    assert failed.message.startswith("tasks.c.args: ")


def test_a_budget_that_comes_by_reference_names_nothing_that_is_the_runs() -> None:
    """Only the plan was looked at, not what its reference stands for."""
    drive = begun("agent", args={"task": "x", "budget": "${params.b}"})
    budget = {"tokens": 5, "on_budget": "park"}
    given = {"task": Stored(value="x"), "args": Stored(value={"budget": budget})}
    failed = inputs_of(drive.command(StartChild), given)
    assert isinstance(failed, Failure)
    assert failed.message == "tasks.c.args.budget.on_budget: it is the run's. Leave it out."


def test_arguments_that_are_too_large_are_refused_and_not_left_out() -> None:
    """Found: an agent whose arguments were longer than 12,000 bytes ran without them, and so with
    all tools of its run.
    """
    drive = begun("agent", args={"task": "x", "tools": ["work"], "output_schema": "${params.s}"})
    far = Stored(blob="0" * 64, size_bytes=300_000)
    failed = inputs_of(drive.command(StartChild), {"task": Stored(value="x"), "args": far})
    assert isinstance(failed, Failure)
    assert failed.message.startswith("tasks.c.args: has 300,000 bytes, at most 200,000.")


# -- children that a run has adopted ------------------------------------------------------------


def test_an_adopted_child_that_was_terminated_is_noticed() -> None:
    """It does not report, and the run waited for ever."""
    drive = begun("agent")
    drive.send(Continued())
    drive.fires("children", after=CHILD_LOOK_SECONDS)
    look = drive.command(LookAtChild)
    drive.returns(look.key, "TERMINATED")
    assert drive.result.tasks["c"].error == "the child run ended as TERMINATED without a result"


def test_an_adopted_child_that_runs_is_left_alone() -> None:
    drive = begun("agent")
    drive.send(Continued())
    drive.fires("children", after=CHILD_LOOK_SECONDS)
    drive.returns(drive.command(LookAtChild).key, "RUNNING")
    assert drive.run.result is None
    drive.returns("c#body", result("agent", "completed", 7))
    assert drive.result.answer == {"c": 7}


def test_a_child_whose_time_is_over_is_cancelled_and_has_timed_out() -> None:
    drive = begun("agent", timeout=30)
    drive.fires("child:c", after=30)
    assert drive.sent(Cancel) == ["c#body"]
    drive.returns("c#body", result("agent", "cancelled", None))
    assert drive.result.tasks["c"].error == "timed out after 30 s"
    assert drive.result.tasks["c"].error_class == "timeout"


def test_a_child_that_begins_in_a_pause_is_paused() -> None:
    """The fallback of a task that failed in a pause began an agent, which worked on through it."""
    other = {"agent": "helper", "args": {"task": "x"}}
    broken = {"id": "c", "tool": "work", "args": {"key": 1}, "fallback": other}
    drive = Drive(CATALOG, plan=plan(broken), retry_rounds=0)
    drive.begin()
    drive.control("pause")
    drive.breaks("c#body", "tool")
    start, tell = drive.commands
    assert isinstance(start, StartChild)
    assert tell == Tell(start.id, "pause")


def test_a_run_that_is_cancelled_waits_for_what_its_children_cost() -> None:
    drive = begun("agent")
    drive.send(CancelRequested())
    assert drive.sent(Cancel) == ["c#body"]
    assert drive.run.result is None
    drive.returns("c#body", result("agent", "cancelled", None))
    assert (drive.result.status, drive.result.usage.tokens) == ("cancelled", 15)


def test_a_tree_of_sub_plans_does_not_grow_without_end() -> None:
    """A template that starts itself twice made 63 runs: each level is as wide as those above."""
    sub = {"id": "s", "plan": plan({"id": "x", "tool": "work", "args": {"key": 1}})}
    two = plan(sub, {**sub, "id": "s2"}, {"id": "a", "agent": "helper", "args": {"task": "x"}})
    drive = Drive(plan=two, lineage=Lineage(breadth=50_000))
    drive.begin()
    starts = [c for c in drive.commands if isinstance(c, StartChild)]
    assert {c.id: c.lineage.breadth for c in starts if c.kind == "DagWorkflow"} == {
        "run/s": 100_000,
        "run/s2": 100_000,
    }
    items = plan({**sub, "map": [1, 2, 3]})
    drive = Drive(plan=items, lineage=Lineage(breadth=50_000), retry_rounds=0)
    drive.begin()
    assert drive.sent(StartChild) == []
    assert "may grow to 150,000 runs on one level" in str(drive.result.tasks["s"].error)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("agent", {"id": "y", "system": "Act.", "tools": ["post"]}),
        ("agent", "helper"),
        ("team", {"members": [{"id": "m", "tools": ["post"]}]}),
    ],
)
def test_arguments_put_nobody_in_the_place_of_whom_the_task_names(kind: str, other: Any) -> None:
    """Found: `approval: major` saw an agent without tools, and the one in `args` acted."""
    own = {"agent": {"id": "x", "tools": []}, "team": {"members": [{"id": "m", "tools": []}]}}
    drive = begun(kind, **{kind: own[kind]}, args={"task": "x", kind: other})
    assert not drive.sent(StartChild)
    assert f"args.{kind}" in (drive.result.tasks["c"].error or "")
