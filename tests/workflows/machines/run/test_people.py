"""People decide: questions, tasks that need a yes, revisions; in time, early, late, never."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.controls import ChildAsks
from planloom.planner.contract.jobs import Resolved
from planloom.planner.contract.requests import Lineage
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.run.view import awaiting, open_waits, progress_of, status_word
from planloom.workflows.machines.shared.commands import (
    Answer,
    Refuse,
    Resolve,
    RunTool,
    StartChild,
    Tell,
    WritePlan,
)
from planloom.workflows.machines.shared.events import Begun, QuestionOfChild
from tests.support.run_driver import Drive, plan, work


def human(id: str = "ask", **fields: Any) -> dict[str, Any]:
    return {"id": id, "human": {"question": "which?", **fields}}


def helper(id: str = "h") -> dict[str, Any]:
    return {"id": id, "agent": "helper", "args": {"task": "x"}}


def message(answer: Any, kind: type[Answer] | type[Refuse] = Refuse) -> str:
    assert isinstance(answer, kind), answer
    return answer.reply.message if isinstance(answer, Answer) else answer.message


def begun(*tasks: dict[str, Any], **request: Any) -> Drive:
    drive = Drive(plan=plan(*tasks), **request)
    drive.begin()
    return drive


# -- questions ------------------------------------------------------------------------------


def test_an_answer_is_the_output_of_the_task_that_asked() -> None:
    drive = begun(human(), work("b", "${ask}"))
    assert (awaiting(drive.run), status_word(drive.run)) == ("human", "waiting")
    [wait] = open_waits(drive.run, drive.now)
    assert "ask" in str(wait.model_dump())
    drive.control("complete_task", id="ask", output="this")
    assert drive.command(RunTool).job.bindings.inputs["ask"] == Stored(value="this")


def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open() -> None:
    drive = begun(human(schema={"type": "integer"}))
    refused = message(drive.control("complete_task", id="ask", output="no number"))
    assert refused.startswith("complete_task: ")
    assert list(drive.run.questions) == ["ask"]
    drive.control("complete_task", id="ask", output=3)
    assert drive.outcome("ask") is Outcome.SUCCEEDED


def test_a_large_answer_is_stored_and_a_second_one_is_refused_meanwhile() -> None:
    drive = begun(human())
    drive.control("complete_task", id="ask", output="x" * 200_000)
    [key] = drive.sent(Resolve)
    again = drive.control("complete_task", id="ask", output="other")
    assert message(again) == 'complete_task: "ask" is answered already'
    drive.returns(key, Resolved(stored=Stored(blob="b" * 64, size_bytes=200_000, preview="x")))
    assert drive.outcome("ask") is Outcome.SUCCEEDED


def test_an_answer_that_comes_before_the_question_counts_when_it_is_asked() -> None:
    drive = begun(work("a"), {**human(), "depends_on": ["a"]})
    kept = message(drive.control("complete_task", id="ask", output="this", by="Ada"), Answer)
    assert kept.startswith("kept: ")
    drive.ends("a", 1)
    assert drive.result.tasks["ask"].output == "this"
    assert 'ask: answered early by "Ada"' in drive.run.notes


def test_an_early_answer_that_does_not_fit_is_left_aside_for_the_next() -> None:
    drive = begun(work("a"), {**human(schema={"type": "integer"}), "depends_on": ["a"]})
    drive.control("complete_task", id="ask", output="no")
    drive.control("complete_task", id="ask", output=4)
    drive.ends("a", 1)
    assert drive.result.tasks["ask"].output == 4
    assert any(n.startswith("early answer ignored: complete_task") for n in drive.run.notes)


def test_an_early_answer_to_a_task_that_never_asks_is_told() -> None:
    drive = begun(work("a"), {**human(), "depends_on": ["a"], "when": "${a} == `2`"})
    drive.control("complete_task", id="ask", output="this")
    drive.ends("a", 1)
    assert drive.outcome("ask") is Outcome.SKIPPED
    assert "ask: ended without asking; its early answer was not used" in drive.run.notes


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("b", 'task "b" does not wait for a person; it is running. Waiting: ask'),
        ("nobody", 'no task "nobody". Waiting: ask'),
        ("ask[0]", 'no task "ask[0]". Waiting: ask'),
    ],
)
def test_an_answer_that_nobody_waits_for_is_refused_with_who_waits(id: str, says: str) -> None:
    drive = begun(human(), work("b"))
    assert message(drive.control("complete_task", id=id, output=1)) == f"complete_task: {says}"


def test_a_signal_with_an_answer_that_nobody_waits_for_is_noted() -> None:
    drive = begun(work("b"))
    drive.signal("complete_task", id="b", output=1)
    assert any(n.startswith('signal ignored: complete_task: task "b"') for n in drive.run.notes)


def test_a_question_that_nobody_answers_in_time_fails_its_task() -> None:
    drive = begun({**human(), "timeout": 60}, retry_rounds=0)
    drive.fires("answer:ask", after=60)
    assert drive.result.tasks["ask"].error_class == "timeout"


# -- questions of agents in child runs --------------------------------------------------------


def asks(drive: Drive, question: str | None = "which?") -> None:
    [child] = drive.run.children
    asked = ChildAsks(child=child, name="q1", key="h", question=question)
    drive.send(QuestionOfChild(asked))


def test_an_answer_goes_down_to_the_child_run_that_asked() -> None:
    drive = begun(helper())
    asks(drive)
    assert awaiting(drive.run) == "human"
    drive.control("complete_task", id="h", output="this")
    told = drive.command(Tell)
    assert (told.run, told.signal, told.payload.id) == ("run/h", "complete_task", "q1")
    assert awaiting(drive.run) is None


def test_an_early_answer_goes_down_as_soon_as_the_child_asks() -> None:
    drive = begun(helper())
    drive.control("complete_task", id="h", output="this")
    asks(drive)
    assert drive.command(Tell).payload.output == "this"
    assert drive.run.asked == {}


def test_what_a_child_asked_is_forgotten_with_its_end() -> None:
    drive = begun(helper(), work("b"))
    asks(drive)
    drive.breaks("h#body", "refused")
    assert drive.run.asked == {}
    asked = ChildAsks(child="run/h", name="q2", key="h", question="too late?")
    drive.send(QuestionOfChild(asked))
    assert drive.run.asked == {}


def test_a_child_that_asks_no_more_leaves_no_wait() -> None:
    drive = begun(helper())
    asks(drive)
    asks(drive, None)
    assert (drive.run.asked, open_waits(drive.run, drive.now)) == ({}, [])


# -- tasks that need a yes --------------------------------------------------------------------


def test_a_task_that_needs_a_yes_runs_with_it_and_not_before() -> None:
    drive = begun(work("a", approval=True))
    assert (drive.sent(RunTool), awaiting(drive.run)) == ([], "approval")
    drive.control("approve_task", id="a")
    assert drive.sent(RunTool) == ["a#body"]


def test_a_task_that_gets_a_no_is_cancelled_with_who_and_why() -> None:
    drive = begun(work("a", approval=True), work("b"))
    drive.control("approve_task", id="a", approve=False, by="Ada", note="too dear")
    drive.ends("b", 1)
    assert drive.outcome("a") is Outcome.CANCELLED
    assert 'not approved by "Ada": too dear' in str(drive.result.tasks["a"])


def test_a_yes_that_comes_early_counts_when_the_task_is_ready() -> None:
    drive = begun(work("z"), work("a", "${z}", approval=True))
    kept = message(drive.control("approve_task", id="a", by="Ada"), Answer)
    assert kept.startswith("kept: ")
    drive.ends("z", 1)
    assert drive.sent(RunTool) == ["a#body"]
    assert 'a: approved early by "Ada"' in drive.run.notes


def test_a_yes_for_a_task_that_needs_none_is_refused_with_who_waits() -> None:
    drive = begun(work("a", approval=True), work("b"))
    says = 'approve_task: task "b" does not wait for approval. Waiting: a'
    assert message(drive.control("approve_task", id="b")) == says


def test_an_approval_of_the_plan_names_the_tasks_that_wait_for_one() -> None:
    drive = begun(work("a", approval=True), work("b"))
    says = "approve_plan: revision 1 does not wait for approval. For approve_task wait: a."
    assert message(drive.control("approve_plan", revision=1)) == says


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("approve", None), ("reject", Outcome.CANCELLED)]
)
def test_a_task_that_nobody_decides_about_goes_as_the_policy_says(
    on_timeout: str, outcome: Outcome | None
) -> None:
    policy = {"mode": "never", "timeout": 60, "on_timeout": on_timeout}
    drive = begun(work("a", approval=True), approval=policy)
    drive.fires("approve:a", after=60)
    assert drive.outcome("a") is outcome
    assert drive.sent(RunTool) == (["a#body"] if outcome is None else [])


# -- revisions --------------------------------------------------------------------------------


def test_a_rejected_plan_starts_nothing_and_says_who_and_why() -> None:
    drive = begun(work("a"), approval="plan")
    drive.control("reject_plan", revision=1, by="Ada", reason="not today")
    assert (drive.result.status, drive.run.works) == ("rejected", {})
    assert drive.result.reason == 'revision 1 rejected by "Ada": not today'


def test_a_decision_about_a_plan_that_is_being_written_is_kept() -> None:
    drive = Drive(goal="reach it", approval="plan")
    drive.begin()
    assert drive.sent(WritePlan)
    kept = message(drive.control("approve_plan", revision=1), Answer)
    assert kept.startswith("kept: revision 1 is not written yet")
    drive.wrote(work("a"))
    assert drive.sent(RunTool) == ["a#body"]
    assert "revision 1 was approved early" in drive.run.notes


def test_a_decision_about_another_revision_is_refused() -> None:
    drive = begun(work("a"), approval="plan")
    assert "approve_plan" in message(drive.control("approve_plan", revision=7))
    assert drive.run.approval.is_open


@pytest.mark.parametrize(("on_timeout", "status"), [("reject", "rejected"), ("approve", None)])
def test_a_plan_that_nobody_decides_about_goes_as_the_policy_says(
    on_timeout: str, status: str | None
) -> None:
    policy = {"mode": "plan", "timeout": 60, "on_timeout": on_timeout}
    drive = begun(work("a"), approval=policy)
    drive.fires("approval", after=60)
    assert (drive.run.result and drive.run.result.status) == status
    assert drive.sent(RunTool) == (["a#body"] if status is None else [])


def test_a_paused_run_starts_nothing_tells_its_children_and_goes_on() -> None:
    drive = begun(work("a"), work("b", "${a}"), helper())
    drive.control("pause")
    assert [(c.run, c.signal) for c in drive.commands if isinstance(c, Tell)] == [
        ("run/h", "pause")
    ]
    assert status_word(drive.run) == "paused"
    drive.ends("a", 1)
    assert drive.sent(RunTool) == []
    drive.control("resume")
    assert drive.sent(RunTool) == ["b#body"]


@pytest.mark.parametrize(
    ("id", "says"),
    [("nobody", 'no task "nobody". Tasks: a, b'), ("a", 'task "a" has ended: succeeded')],
)
def test_a_task_that_cannot_be_cancelled_says_why(id: str, says: str) -> None:
    drive = begun(work("a"), work("b"))
    drive.ends("a", 1)
    assert message(drive.control("cancel_task", id=id)) == f"cancel_task: {says}"


def test_progress_counts_every_state() -> None:
    drive = begun(work("a"), work("b", "${a}"), work("c"))
    drive.ends("c", 1)
    shown = progress_of(drive.run, drive.now)
    assert shown.counts == {"running": 1, "waiting": 1, "succeeded": 1}
    assert shown.running == ["a"]


def test_a_run_without_a_planner_takes_no_replan() -> None:
    drive = begun(work("a"))
    says = message(drive.control("request_replan", feedback="more"))
    assert "this run has no planner" in says
    assert "edit_plan" in says


def test_a_raise_without_a_cap_is_refused_with_an_example() -> None:
    assert '{"tokens": 60000}' in message(begun(work("a")).control("raise_budget"))


def test_a_raise_is_noted_with_who_and_what() -> None:
    drive = begun(work("a"), budget={"tokens": 100, "parallel": 1})
    answer = drive.control("raise_budget", tokens=500, parallel=3, by="Ada")
    assert message(answer, Answer) == "caps: tokens 500, parallel 3"
    assert drive.run.frontier.parallel == 3
    assert 'budget raised by "Ada": tokens 500, parallel 3' in drive.run.notes


def test_an_answer_that_comes_before_the_run_has_heard_of_its_worker_is_kept() -> None:
    """Started while the worker was down: the answer to the plan's question was dropped."""
    drive = Drive(plan=plan(human()))
    drive.send(Begun())
    drive.signal("complete_task", id="ask", output="red")
    drive.returns("prepared", drive.catalog)
    assert drive.result.tasks["ask"].output == "red"


def test_an_approval_that_comes_before_the_run_has_heard_of_its_worker_is_kept() -> None:
    drive = Drive(plan=plan(work("a", approval=True)))
    drive.send(Begun())
    drive.signal("approve_task", id="a", approve=True)
    drive.returns("prepared", drive.catalog)
    assert drive.sent(RunTool) == ["a#body"]


# -- what waits in a sub-plan ---------------------------------------------------------------


def below(*tasks: dict[str, Any]) -> Drive:
    """A run below the run `top`; there it is the task `run`."""
    return begun(*tasks, lineage=Lineage(parent="top"))


def told(drive: Drive, run: str = "top") -> list[tuple[str, str | None, str]]:
    """What the last step told the parent: the id it answers by, the question, what answers it."""
    asks = [c.payload for c in drive.commands if isinstance(c, Tell) and c.run == run]
    return [(a.key, a.question, a.control) for a in asks if isinstance(a, ChildAsks)]


def test_a_question_in_a_sub_plan_is_told_upwards_and_taken_back() -> None:
    drive = below(human(schema={"type": "integer"}), work("b", "${ask}"))
    assert told(drive) == [("run.ask", "which?", "complete_task")]
    drive.control("complete_task", id="ask", output=3)
    assert told(drive) == [("run.ask", None, "complete_task")]


def test_a_task_of_a_sub_plan_that_waits_for_approval_is_told_upwards() -> None:
    drive = below({**work("a", "x"), "approval": True, "description": "Pay"})
    assert told(drive) == [("run.a", "Pay", "approve_task")]
    drive.control("approve_task", id="a", approve=True)
    assert told(drive) == [("run.a", None, "complete_task")]
    assert drive.command(RunTool)


def test_a_run_without_a_parent_tells_nobody() -> None:
    drive = begun(human(), {**work("a", "x"), "approval": True})
    assert not [c for c in drive.commands if isinstance(c, Tell)]


def test_what_waits_in_a_sub_plan_is_shown_and_answered_on_top() -> None:
    drive = begun({"id": "sub", "plan": plan(work("a", "x"))})
    child = drive.command(StartChild).id
    common = {"child": child, "question": "which?"}
    for more in (
        {"name": "ask", "key": "sub.ask", "answer_schema": {"type": "integer"}},
        {"name": "pay", "key": "sub.pay", "control": "approve_task"},
    ):
        drive.send(QuestionOfChild(ChildAsks.model_validate({**common, **more})))
    assert awaiting(drive.run) == "approval"
    waits = {w.task: w.update for w in open_waits(drive.run, drive.now)}
    assert waits == {"sub.pay": "approve_task", "sub.ask": "complete_task"}
    refused = message(drive.control("complete_task", id="sub.ask", output="none"))
    assert refused.startswith("complete_task: ")
    assert "approve_task" in message(drive.control("complete_task", id="sub.pay", output=1))
    assert "sub.pay" in message(drive.control("approve_task", id="sub.ask", approve=True))
    drive.control("complete_task", id="sub.ask", output=3)
    assert [(t.run, t.signal, t.payload.id) for t in drive.commands if isinstance(t, Tell)] == [
        (child, "complete_task", "ask")
    ]
    drive.control("approve_task", id="sub.pay", approve=False)
    assert [(t.run, t.signal, t.payload.id) for t in drive.commands if isinstance(t, Tell)] == [
        (child, "approve_task", "pay")
    ]
    assert not open_waits(drive.run, drive.now)


LONG = "é" * 1_000_000


def test_long_words_beside_a_decision_make_no_result_and_no_call_too_large() -> None:
    """Found: a `reason` or `feedback` of two megabytes went whole into what has at most as many."""
    drive = Drive(plan=plan(work("a")), approval="always")
    drive.begin()
    drive.control("reject_plan", revision=1, reason=LONG, by=LONG)
    assert drive.result.status == "rejected"
    assert len(drive.result.model_dump_json()) < 20_000
    assert "characters left out" in drive.result.reason
    drive = Drive(plan=plan(work("a")), joiner=True, context="c" * 900_000)
    drive.begin()
    drive.control("request_replan", feedback=f"{LONG} and no ships", by=LONG)
    job = drive.command(WritePlan).job
    assert len(job.model_dump_json()) < 1_000_000
    assert job.feedback.endswith("and no ships")
