"""Units at work: conditions, items, questions, bodies, fallbacks, what is cancelled on the way."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.jobs import Resolved
from planloom.planner.contract.results import AgentResult, UsageReport
from planloom.planner.language.values import Outcome, Stored, TaskId, Usage
from planloom.workflows.machines.shared.commands import (
    AskModel,
    Cancel,
    Resolve,
    RunTool,
    StartChild,
)
from tests.support.run_driver import CATALOG, Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=9_000, preview="…")
PAID = Usage(input_tokens=10, output_tokens=5, model_calls=1)


def large(drive: Drive, task: str) -> None:
    """A task ends with an output that only an activity can read."""
    drive.returns(f"{task}#body", _output(LARGE))


def _output(stored: Stored) -> Any:
    from planloom.planner.contract.jobs import TaskOutput

    return TaskOutput(output=stored)


def test_an_agent_that_expects_few_tokens_starts() -> None:
    """It parked for ever: what it wanted was less than the least that an agent gets."""
    drive = Drive(
        plan=plan({"id": "a", "agent": "helper", "args": {"task": "x"}, "estimate": {"tokens": 10}})
    )
    drive.begin()
    assert drive.sent(StartChild) == ["a#body"]


# -- cancelled on the way -------------------------------------------------------------------


def test_a_task_cancelled_while_its_condition_is_looked_at_does_not_start() -> None:
    drive = Drive(plan=plan(work("a"), work("b", when="length(${a.items}) > `1`")))
    drive.begin()
    large(drive, "a")
    drive.control("cancel_task", id="b")
    assert drive.command(Cancel).key == "b#condition"
    # The result was on its way already when the cancellation came.
    drive.returns("b#condition", Resolved(stored=Stored(value=True)))
    assert drive.sent(RunTool) == []
    assert drive.outcome("b") is Outcome.CANCELLED


def test_a_map_cancelled_while_its_list_is_looked_up_has_no_items() -> None:
    drive = Drive(plan=plan(work("a"), work("b", "${item}", map="${a}")))
    drive.begin()
    large(drive, "a")
    drive.control("cancel_task", id="b")
    drive.returns("b#items", Resolved(stored=LARGE, count=3))
    assert drive.sent(RunTool) == []
    assert drive.outcome("b") is Outcome.CANCELLED


def test_a_question_cancelled_while_it_is_made_is_not_asked() -> None:
    drive = Drive(plan=plan(work("a"), {"id": "b", "human": {"question": "is it ${a}?"}}))
    drive.begin()
    large(drive, "a")
    drive.control("cancel_task", id="b")
    drive.returns("b#question", Resolved(stored=Stored(value="is it?")))
    assert drive.run.questions == {}
    assert drive.outcome("b") is Outcome.CANCELLED


@pytest.mark.parametrize("fallback", ["value", {"tool": "work", "args": {"key": "other"}}])
def test_a_task_that_fails_as_it_is_cancelled_takes_no_fallback(fallback: Any) -> None:
    """The fallback ran although a person had cancelled the task."""
    drive = Drive(plan=plan(work("a", fallback=fallback)))
    drive.begin()
    drive.control("cancel_task", id="a")
    drive.breaks("a#body", "tool", usage=PAID)
    assert drive.sent(RunTool) == []
    assert drive.outcome("a") is Outcome.CANCELLED
    assert drive.result.usage.tokens == PAID.tokens


def test_no_fallback_starts_once_the_run_is_stopped() -> None:
    drive = Drive(
        plan=plan(
            work("a"),
            work("b", fallback={"tool": "work", "args": {"key": "other"}}),
            stop_when="a.outcome == 'succeeded'",
        )
    )
    drive.begin()
    drive.ends("a", 1)
    assert drive.sent(Cancel) == ["b#body"]
    drive.breaks("b#body", "timeout")
    assert drive.sent(RunTool) == []
    assert drive.result.status == "completed"


# -- fallbacks ------------------------------------------------------------------------------


def test_the_fallback_of_a_map_has_its_budget_set_aside() -> None:
    other = {"tool": "pay", "args": {"key": "k"}}
    drive = Drive(plan=plan(work("a", "${item}", map="${params.none}", fallback=other)))
    drive.begin()
    assert drive.sent(RunTool) == ["a#body"]
    assert drive.run.account.ledger.reserved["a"].usd_nano == 10_000_000
    drive.ends("a", 1, usage=Usage(usd_nano=10_000_000, tool_calls=1))
    assert drive.result.usage.tasks == 1


@pytest.mark.parametrize("how", ["ends", "fails", "is cancelled"])
def test_a_fallback_is_the_same_task(how: str) -> None:
    """A cancelled one was counted as a second task."""
    other = {"tool": "work", "args": {"key": "other"}}
    drive = Drive(plan=plan(work("a", fallback=other)), retry_rounds=0)
    drive.begin()
    drive.breaks("a#body")
    match how:
        case "ends":
            drive.ends("a", 1)
        case "fails":
            drive.breaks("a#body")
        case _:
            drive.control("cancel_task", id="a")
            drive.cancelled("a#body")
    assert drive.result.usage.tasks == 1


@pytest.mark.parametrize("where", ["question", "condition"])
def test_a_task_that_cannot_begin_is_not_counted(where: str) -> None:
    """A question that could not be made was counted as a task in every round."""
    lacking = {"when": "length(a.output) > `1`", "human": {"question": "is it?"}}
    if where == "question":
        lacking = {"human": {"question": "is it ${a.items[0]}?"}}
    drive = Drive(plan=plan(work("a"), {"id": "b", **lacking}))
    drive.begin()
    drive.ends("a", 1)
    assert drive.outcome("b") is Outcome.FAILED
    assert drive.result.usage.tasks == 1


def test_the_fallback_of_a_task_that_could_not_begin_is_its_one_task() -> None:
    """Its budget is set aside, as nothing was counted for the body."""
    other = {"tool": "pay", "args": {"key": "k"}}
    asks = {"id": "b", "human": {"question": "is it ${a.items[0]}?"}, "fallback": other}
    drive = Drive(plan=plan(work("a"), asks), budget={"tasks": 2})
    drive.begin()
    drive.ends("a", 1)
    assert drive.run.account.ledger.reserved["b"].tasks == 1
    drive.ends("b", 1)
    assert drive.outcome("b") is Outcome.FALLBACK
    assert drive.result.usage.tasks == 2


def test_of_a_child_run_as_fallback_only_what_ran_inside_it_counts_beside_the_task() -> None:
    drive = Drive(plan=plan(work("a", fallback={"agent": "helper", "args": {"task": "x"}})))
    drive.begin()
    drive.breaks("a#body")
    drive.returns("a#body", AgentResult(status="completed", output="y", usage=UsageReport(tasks=2)))
    assert drive.result.usage.tasks == 3


def test_what_a_failed_child_run_asked_is_not_shown_while_the_fallback_runs() -> None:
    from planloom.planner.contract.controls import ChildAsks
    from planloom.workflows.machines.shared.events import QuestionOfChild

    agent = {"id": "a", "agent": "helper", "args": {"task": "x"}}
    other = {"tool": "work", "args": {"key": "other"}}
    drive = Drive(plan=plan({**agent, "fallback": other}))
    drive.begin()
    asks = ChildAsks(child="run/a", name="me", key="a", question="what now?")
    drive.send(QuestionOfChild(asks))
    drive.breaks("a#body", "timeout")
    assert drive.run.asked == {}


def test_a_side_effect_whose_fallback_fails_gets_no_other_round() -> None:
    """The round ran the side effect again, under the same key."""
    post = {"id": "a", "tool": "post", "args": {"key": "k"}}
    drive = Drive(plan=plan({**post, "fallback": {"ask": "what now?"}}))
    drive.begin()
    drive.breaks("a#body", "refused")
    assert drive.sent(AskModel) == ["a#body"]
    drive.breaks("a#body", "timeout")
    assert drive.result.status == "failed"


# -- maps -----------------------------------------------------------------------------------


def test_a_list_that_could_not_be_stored_is_made_again_without_its_items() -> None:
    """The round ran all items again, side effects too."""
    post = {"id": "a", "tool": "post", "args": {"key": "${item}"}, "map": [1, 2]}
    drive = Drive(plan=plan(post))
    drive.begin()
    drive.returns("a[0]#body", _output(LARGE))
    drive.returns("a[1]#body", _output(LARGE))
    assert drive.sent(Resolve) == ["a#list"]
    drive.breaks("a#list", "unknown")
    assert (drive.sent(RunTool), drive.sent(Resolve)) == ([], ["a#list"])
    drive.returns("a#list", Resolved(stored=LARGE))
    assert drive.outcome("a") is Outcome.SUCCEEDED


def test_a_map_that_cannot_begin_counts_no_task() -> None:
    drive = Drive(plan=plan(work("a", "${item}", map="${params.none}")), retry_rounds=0)
    drive.begin()
    assert drive.result.usage.tasks == 0
    assert drive.outcome("a") is Outcome.FAILED


def test_a_map_of_which_an_item_may_have_acted_gets_no_other_round() -> None:
    """A question had timed out; the side effect in its place may have acted, and was repeated."""
    post = {"tool": "post", "args": {"key": "${item}"}}
    asks = {"id": "a", "human": {"question": "ok?"}, "timeout": 5, "map": [1], "fallback": post}
    drive = Drive(plan=plan(asks))
    drive.begin()
    drive.fires("answer:a[0]", after=5)
    assert drive.sent(RunTool) == ["a[0]#body"]
    drive.ends("a[0]", None, outcome=Outcome.UNKNOWN)
    assert drive.result.status == "failed"


# -- answers that were cut off --------------------------------------------------------------

CUT = Usage(input_tokens=40, output_tokens=4_096, model_calls=1)


def cut_ask(**request: Any) -> Drive:
    """An ask within a budget whose answer was cut off at what was reserved for it."""
    ask = {"id": "a", "ask": {"prompt": "hi", **request.pop("ask", {})}}
    drive = Drive(plan=plan(ask), **{"budget": {"tokens": 20_000}, **request})
    drive.begin()
    assert drive.command(AskModel).job.max_tokens == 4_096
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=4_096)
    return drive


def test_an_ask_that_its_budgets_room_cut_off_is_made_once_more_with_more_room() -> None:
    drive = cut_ask()
    again = drive.command(AskModel)
    assert again.job.max_tokens > 3 * 4_096
    assert again.activity_id == "a.wider"
    drive.ends("a", "whole", usage=Usage(input_tokens=40, output_tokens=5_000, model_calls=1))
    found = drive.result
    assert (found.status, found.usage.tokens) == ("completed", 4_136 + 5_040)
    assert (found.usage.tasks, found.tasks["a"].attempts) == (1, 2)


def test_an_ask_that_is_cut_off_again_has_failed() -> None:
    drive = cut_ask()
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=15_000)
    assert drive.sent(AskModel) == []
    assert (drive.result.status, drive.result.usage.tokens) == ("failed", 2 * 4_136)


@pytest.mark.parametrize(
    "request_",
    [{"budget": {"tokens": 8_500}}, {"ask": {"max_tokens": 4_096}}],
    ids=["no more in the budget", "a limit of the user's own"],
)
def test_an_ask_that_may_have_no_more_room_fails_at_once(request_: dict[str, Any]) -> None:
    drive = cut_ask(**request_)
    assert drive.sent(AskModel) == []
    assert (drive.result.status, drive.result.usage.tokens) == ("failed", 4_136)


def test_the_fallback_of_an_ask_that_is_cut_off_twice_is_counted_as_the_same_task() -> None:
    drive = Drive(
        plan=plan({"id": "a", "ask": "hi", "fallback": {"tool": "work", "args": {"key": 1}}}),
        budget={"tokens": 20_000, "tasks": 2},
    )
    drive.begin()
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=4_096)
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=9_000)
    assert drive.sent(RunTool) == ["a#body"]
    drive.ends("a", 1)
    assert (drive.result.status, drive.result.usage.tasks) == ("completed", 1)


def test_the_fallback_of_an_ask_whose_answer_was_cut_off_gets_more_room_of_its_own() -> None:
    """Seed 345799: it was called the wider try of itself, and had no other."""
    task = {"id": "a", "ask": "hi", "fallback": {"ask": {"prompt": "ho"}}}
    drive = Drive(plan=plan(task), budget={"tokens": 30_000})
    drive.begin()
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=4_096)
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=15_000)
    assert drive.command(AskModel).activity_id == "a.fallback"
    drive.breaks("a#body", "context_length", usage=CUT, cut_at=4_096)
    assert drive.command(AskModel).activity_id == "a.fallback.wider"
    drive.ends("a", "whole", usage=Usage(input_tokens=40, output_tokens=5_000, model_calls=1))
    assert (drive.result.status, drive.result.usage.tasks) == ("completed", 1)


# -- lists and expressions ------------------------------------------------------------------


def test_a_list_that_was_written_as_text_is_a_list_for_a_map() -> None:
    drive = Drive(plan=plan(work("a"), work("b", "${item}", map="${a}")))
    drive.begin()
    drive.ends("a", '["Oslo", "Bergen"]')
    assert drive.sent(RunTool) == ["b[0]#body", "b[1]#body"]


def test_a_map_over_a_text_says_what_is_wanted() -> None:
    drive = Drive(plan=plan(work("a"), work("b", "${item}", map="${a}")))
    drive.begin()
    drive.ends("a", "Oslo and Bergen")
    error = drive.result.tasks["b"].error
    assert error.startswith('tasks.b.map: needs a list; "${a}" is a text.')
    assert "output_schema" in error


def test_items_without_a_value_are_named_with_their_cause() -> None:
    drive = Drive(plan=plan(work("m", "${item}", map=[1, 2, 3])), retry_rounds=0)
    drive.begin()
    drive.ends("m[0]", 1)
    drive.ends("m[2]", 3)
    drive.breaks("m[1]#body", "tool")
    found = drive.result.tasks["m"]
    assert found.reason == "1 of 3 items have no value: [1]; item [1]: it failed"


def test_expressions_of_one_activation_share_their_bounds_and_go_on_in_an_activity() -> None:
    """A hundred ends in one activation, each within the bounds, took ten seconds together."""
    heavy = "${a | [*].[@,@] | length(@)} ?"
    asks = [{"id": f"q{n}", "human": heavy} for n in range(100)]
    drive = Drive(plan=plan(work("a"), *asks))
    drive.begin()
    drive.ends("a", list(range(1_000)))
    made = len(drive.run.questions)
    assert 0 < made < 100
    assert len(drive.sent(Resolve)) == 100 - made
    assert drive.run.metering.meter.steps <= 2 * drive.run.metering.meter.bounds.steps


def test_a_fallback_without_budget_is_skipped_where_a_failure_would_be() -> None:
    task = work("a", fallback={"tool": "pay", "args": {"key": 1}}, on_error="skip")
    drive = Drive(plan=plan(task), budget={"usd": 0.001}, on_budget="partial", retry_rounds=0)
    drive.begin()
    drive.breaks("a#body")
    assert (drive.outcome("a"), drive.result.status) == ("skipped", "completed")
    assert "no budget for the fallback" in drive.run.records[TaskId("a")].error


@pytest.mark.parametrize(("usd", "limit"), [(1.0, 76 + 4_096), (1e-6, 76 + (1_000 - 76) // 4)])
def test_a_cap_of_money_alone_limits_what_a_call_may_use(usd: float, limit: int) -> None:
    """It was charged up to 4,096 tokens and its repairs, whatever the cap had left."""
    drive = Drive(plan=plan({"id": "a", "ask": "x" * 6}), budget={"usd": usd})
    drive.begin()
    job = drive.command(AskModel).job
    assert (job.tokens_max, job.max_tokens) == (limit, limit - 76)
    most = 76 * 1 + job.max_tokens * 4
    assert most <= drive.run.account.ledger.reserved[TaskId("a")].usd_nano


def test_a_cap_of_money_limits_no_model_whose_price_is_unknown_or_nothing() -> None:
    for prices in ({}, {"m": (0, 0)}):
        catalog = CATALOG.model_copy(update={"prices": prices})
        drive = Drive(catalog, plan=plan({"id": "a", "ask": "x"}), budget={"usd": 1.0})
        drive.begin()
        assert drive.command(AskModel).job.tokens_max is None
