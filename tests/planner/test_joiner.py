"""The joiner's answer: the cases at the end of facts/llmcompiler.md §7, and JSON."""

from __future__ import annotations

import pytest

from planner.joiner import JoinDecision, parse_join


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Action: Finish(Mission: Impossible (1996 film))", "Mission: Impossible (1996 film)"),
        ("Thought: done\nAction: Finish(f(x)=2)", "f(x)=2"),
        ("Action: Finish(12.5", "12.5"),
        ("Action: Finish(Replan the trip)", "Replan the trip"),
        ("**Action:** Finish(42)", "42"),
        ("  Action: Finish(42)<END_OF_RESPONSE> Action: Replan(no)", "42"),
        ("Action: Finish(one\ntwo (b)\nthree)", "one\ntwo (b)\nthree"),
        ('{"action": "finish", "answer": {"n": 1}}', {"n": 1}),
        ('Here:\n```json\n{"action": "finish", "answer": null}\n```', None),
        ("Finish(7)", "7"),
    ],
)
def test_finish_gives_the_whole_answer(text: str, answer: object) -> None:
    found = parse_join(text)
    assert isinstance(found, JoinDecision)
    assert (found.action, found.answer) == ("finish", answer)


@pytest.mark.parametrize(
    ("text", "feedback"),
    [
        ("**Action:** Replan(need the 2020 figure)", "need the 2020 figure"),
        ("Thought: no data\nAction: Replan()", "no data"),
        ('{"action": "replan", "feedback": "look elsewhere"}', "look elsewhere"),
    ],
)
def test_replan_gives_its_reason(text: str, feedback: str) -> None:
    found = parse_join(text)
    assert isinstance(found, JoinDecision)
    assert (found.action, found.feedback) == ("replan", feedback)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The answer is 42.", "no_action"),
        ("", "no_action"),
        ('{"action": "stop"}', "bad_action"),
        ('{"action": "finish"}', "bad_action"),
        ('{"action": "replan", "feedback": " "}', "bad_action"),
        ("Action: Finish()", "no_answer"),
    ],
)
def test_what_is_no_decision_is_a_problem_to_repair_and_never_an_empty_success(
    text: str, code: str
) -> None:
    found = parse_join(text)
    assert isinstance(found, list)
    assert found[0].code == code
    assert "finish" in found[0].hint
