"""What a talk does about repeats, failed turns, cut answers and what a turn's reply notes."""

from __future__ import annotations

import pytest

from planloom.planner.contract.jobs import CallResult, TaskOutput
from planloom.planner.contract.repeats import REPEATS_MAX, REPEATS_TOLD
from planloom.planner.language.values import Stored, Usage
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.shared.estimates import ANSWER_TOKENS, WIDER
from tests.support.agents import CATALOG, calls, drive, result, says
from tests.support.driving import Driver

ECHO = ("echo", {"v": 1})


def call(made: Driver[AgentState], turn: int, value: object) -> list[CallResult]:
    """A turn that calls `echo`, which gives the value; what the next turn is told of it."""
    made.returns(f"helper.{turn}", calls(ECHO))
    made.returns(f"helper.{turn}.c0", TaskOutput(output=Stored(value=value)))  # type: ignore[arg-type]
    found: list[CallResult] = made.flight[f"helper.{turn + 1}"].job.results
    return found


def test_the_same_call_with_the_same_result_is_told_and_then_has_to_end() -> None:
    made = drive()
    for turn in range(1, REPEATS_MAX + 1):
        (told,) = call(made, turn, "pending")
        assert (told.note is not None) == (turn >= REPEATS_TOLD), turn
        assert made.flight[f"helper.{turn + 1}"].job.is_last == (turn == REPEATS_MAX)
    made.returns(f"helper.{REPEATS_MAX + 1}", says("it is pending still"))
    found = result(made)
    assert (found.status, found.output) == ("completed", "it is pending still")
    assert found.reason == "the same call came 5 times with the same result"


def test_an_agent_that_repeats_itself_and_says_nothing_ends_without_an_answer() -> None:
    made = drive()
    for turn in range(1, REPEATS_MAX + 1):
        call(made, turn, "pending")
    made.returns(f"helper.{REPEATS_MAX + 1}", says("", problems=["empty output"]))
    found = result(made)
    assert (found.status, found.output) == ("partial", None)
    assert found.reason is not None
    assert found.reason.endswith("without an answer")


def test_an_agent_that_polls_may_go_on() -> None:
    made = drive(max_turns=30)
    for turn in range(1, 20):
        (told,) = call(made, turn, f"{turn} %")
        assert told.note is None
        assert not made.flight[f"helper.{turn + 1}"].job.is_last


def test_the_calls_of_a_turn_beyond_the_bound_are_not_counted_as_made() -> None:
    made = drive()
    made.returns("helper.1", calls(*[ECHO] * 40))
    for key in [k for k in made.flight if k.startswith("helper.1.")]:
        made.returns(key, TaskOutput(output=Stored(value=1)))
    made.returns("helper.2", says("done"))
    assert result(made).tool_calls == 16


def test_a_turn_after_a_cut_answer_has_more_room() -> None:
    made = drive(budget={"tokens": 50_000})
    first = made.flight["helper.1"].job.tokens_max
    made.returns("helper.1", says("half of", problems=["cut off"], is_cut_off=True))
    assert made.flight["helper.2"].job.tokens_max - first >= (WIDER - 1) * ANSWER_TOKENS
    made.returns("helper.2", says("whole"))
    assert result(made).status == "completed"


def test_a_cut_answer_is_tried_once_more_with_what_the_budget_has() -> None:
    made = drive(budget={"tokens": 6_000})
    cut = says("half of", problems=["cut off"], is_cut_off=True)
    paid = Usage(input_tokens=900, output_tokens=4_000, model_calls=1)
    made.returns("helper.1", cut.model_copy(update={"usage": paid}))
    assert made.flight["helper.2"].job.tokens_max == 1_100


@pytest.mark.parametrize("reply", [says("done"), calls(ECHO)], ids=["answer", "calls"])
def test_what_a_turns_reply_notes_is_among_the_agents_notes(reply: object) -> None:
    made = drive()
    made.returns("helper.1", reply.model_copy(update={"notes": ["the prompt was cut"]}))  # type: ignore[attr-defined]
    assert made.state.notes == ["helper: the prompt was cut"]


def test_a_cap_of_money_alone_limits_a_turn() -> None:
    catalog = CATALOG.model_copy(update={"prices": {"m": (1_000, 4_000)}})
    rich = drive(catalog, budget={"usd": 9.0}).flight["helper.1"].job
    assert 4_096 < rich.tokens_max < 10_000
    poor = drive(catalog, budget={"usd": 0.002})
    job, held = poor.flight["helper.1"].job, poor.state.account.ledger.reserved["helper.1"]
    assert 64 < job.tokens_max < 1_000
    assert (job.tokens_max - 200) * 4_000 <= held.usd_nano == 2_000_000
