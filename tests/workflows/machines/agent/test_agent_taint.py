"""An agent that has seen the outside asks before it acts, under `approval: tainted`."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.controls import CompleteTask
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import Lineage
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import Stored
from planloom.workflows.machines.agent import machine
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.shared.commands import RunTool
from tests.support.agents import CATALOG, agent, calls, drive, result, says
from tests.support.driving import Driver

TOOLS = ["fetch", "post", "ask_human"]
OUTSIDE = CATALOG.model_copy(
    update={
        "tools": [
            ToolSpec(name="fetch", outside=True),
            ToolSpec(name="post", side_effects=True, idempotent=False),
        ],
        "tool_names": ["fetch", "post"],
    }
)
GOT = TaskOutput(output=Stored(value="<html>"))


def begun(approval: str = "tainted", **request: Any) -> Driver[AgentState]:
    return drive(OUTSIDE, agent=agent(TOOLS), approval=approval, **request)


def after_a_page(approval: str = "tainted", **request: Any) -> Driver[AgentState]:
    made = begun(approval, **request)
    made.returns("helper.1", calls(("fetch", {})))
    made.returns("helper.1.c0", GOT)
    return made


def answer(made: Driver[AgentState], output: Any) -> str | None:
    given = CompleteTask(id="helper", output=output)
    refusal = machine.check(made.state, "complete_task", given, 1_000.0)
    if refusal is None:
        made.control("complete_task", given)
    return refusal.message if refusal else None


def test_after_a_page_a_side_effect_waits_for_a_person() -> None:
    made = after_a_page()
    assert made.flight["helper.2"].job.results[0].is_outside
    made.returns("helper.2", calls(("post", {"text": "buy"})))
    assert "helper.2.c0" not in made.flight
    question = made.state.questions.open["helper"].text
    assert 'post({"text": "buy"})' in question
    assert "from outside" in question
    assert answer(made, {"approve": True}) is None
    assert isinstance(made.flight["helper.2.c0"], RunTool)
    made.returns("helper.2.c0", TaskOutput(output=Stored(value="done")))
    made.returns("helper.3", says("fine"))
    assert result(made).tainted


def test_no_long_argument_hides_the_others_from_whom_says_yes() -> None:
    """Found: the arguments were cut after 1,500 characters, without a sign."""
    made = after_a_page()
    args = {"note": "x" * 5_000, "to": "mallory", "more": ["y" * 5_000]}
    made.returns("helper.2", calls(("post", args)))
    question = made.state.questions.open["helper"].text
    assert '"to": "mallory"' in question
    assert question.count("characters left out") == 2
    made = after_a_page()
    many = {f"a{n}": "x" * 200 for n in range(50)} | {"to": "mallory"}
    made.returns("helper.2", calls(("post", many)))
    question = made.state.questions.open["helper"].text
    assert "characters left out" in question
    assert '"to": "mallory"' in question
    assert len(question) < 2_000


def test_a_call_that_is_not_allowed_is_told_to_the_model_and_not_made() -> None:
    made = after_a_page()
    made.returns("helper.2", calls(("post", {})))
    answer(made, {"approve": False})
    assert "helper.2.c0" not in made.flight
    assert made.flight["helper.3"].job.results[0].error == "a person did not allow this call"


@pytest.mark.parametrize("output", ["yes", True, {"approve": "yes"}, {"approve": True, "x": 1}])
def test_only_a_plain_decision_counts(output: Any) -> None:
    made = after_a_page()
    made.returns("helper.2", calls(("post", {})))
    refused = answer(made, output)
    assert refused is not None
    assert '{"approve": true}' in refused
    assert "helper.2.c0" not in made.flight


def test_an_answer_that_came_early_decides_nothing() -> None:
    made = begun()
    answer(made, {"approve": True})
    made.returns("helper.1", calls(("fetch", {})))
    made.returns("helper.1.c0", GOT)
    made.returns("helper.2", calls(("post", {})))
    assert "helper.2.c0" not in made.flight


def test_before_it_has_seen_the_outside_it_need_not_ask() -> None:
    made = begun()
    made.returns("helper.1", calls(("fetch", {}), ("post", {})))
    assert isinstance(made.flight["helper.1.c1"], RunTool)


def test_without_the_policy_it_does_not_ask() -> None:
    made = after_a_page("never")
    made.returns("helper.2", calls(("post", {})))
    assert isinstance(made.flight["helper.2.c0"], RunTool)
    made.returns("helper.2.c0", GOT)
    made.returns("helper.3", says("fine"))
    assert result(made).tainted


@pytest.mark.parametrize("given", ["tainted_inputs", "tainted_plan"])
def test_what_it_was_given_counts_as_seen(given: str) -> None:
    made = begun(lineage=Lineage.model_validate({"parent": "p", given: True}))
    made.returns("helper.1", calls(("post", {})))
    assert "helper.1.c0" not in made.flight
    assert made.told[0].payload.is_decision


def test_two_side_effects_are_asked_about_one_after_the_other() -> None:
    made = after_a_page()
    made.returns("helper.2", calls(("post", {"n": 1}), ("post", {"n": 2})))
    assert '"n": 1' in made.state.questions.open["helper"].text
    answer(made, {"approve": False})
    assert '"n": 2' in made.state.questions.open["helper"].text
    answer(made, {"approve": True})
    assert isinstance(made.flight["helper.2.c1"], RunTool)
    assert "helper.2.c0" not in made.flight
