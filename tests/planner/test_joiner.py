"""The joiner's answer: the cases at the end of facts/llmcompiler.md §7, and JSON."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from planloom.planner.syntax.joiner import (
    JOIN_SCHEMA,
    LOOK_IDS_MAX,
    JoinDecision,
    check_look,
    parse_join,
)
from tests.support.linear import assert_linear, repeated


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
        ("finish(answer=42)", "42"),
        ("Action: Finish(answer = b + c)", "answer = b + c"),
        ("Action：Finish（42）", "42"),
        ('{"action": "Final Answer", "action_input": "x"}\n{"action": "finish", "answer": 1}', 1),
        ('{"action": "finish", "action_input": {"answer": "x"}}', "x"),
        ('{"action": "finish", "action_input": {"city": "Oslo"}}', {"city": "Oslo"}),
        ('Action: Finish("Paris")', "Paris"),
        ('Action: Finish("a" or "b")', '"a" or "b"'),
        ('Action: Finish({"action": "buy"})', '{"action": "buy"}'),
        (
            "Action: Finish(do this:\nAction: Replan the trip\ndone)",
            "do this:\nAction: Replan the trip\ndone",
        ),
        ("Action: Replan(no)\nAction: Finish(yes)", "yes"),
        ("Action:\nFinish(42)", "42"),
        ("- **Action: Finish(42)**", "42"),
        ("Action: Finish(Done :)", "Done :"),
        ('{"action": "finish", "answer": "two\nlines",}', "two\nlines"),
        ('{"decision": {"action": "Finish", "answer": 0}}', 0),
        ('If {"action": "replan", "feedback": "x"} no; {"action": "finish", "answer": 1}', 1),
        ('A stray { or "quote: {"action": "finish", "answer": [1]}', [1]),
        ('Action: finish\n{"action": "finish", "answer": "x"}', "x"),
        (
            '{"action": "finish", "answer": {"action": "replan", "feedback": "x"}}',
            {"action": "replan", "feedback": "x"},
        ),
        ('{"action": "finish", "answer": false}', False),
        ("Thought: done\nAction: Finish\nAction Input: 42", "42"),
        ("Action: Finish\nAnswer: 42", "42"),
        ("Action: FINISH\nFinal Answer: 42", "42"),
        ("**Action:** Finish\n**Answer:** 42", "42"),
        ("Action: **Finish**(42)", "42"),
        ('Action: Finish(answer="42")', "42"),
        ("Action: Finish(answer = 6 times 7)", "answer = 6 times 7"),
        ('{"Action": "Finish", "Answer": "42"}', "42"),
        ('Action: Finish\nAction Input: {"answer": "42"}', "42"),
        ('Action: Finish\nAction Input: {"n": 1, "m": 2}', '{"n": 1, "m": 2}'),
        ("**Action:** Finish\n**Action Input:** Oslo\nand Bergen", "Oslo\nand Bergen"),
        ("Action: Finish[42]", "42"),
        ("Finish[Oslo [the capital]]", "Oslo [the capital]"),
        ('{"action": "finish", "action_input": "42"}', "42"),
        ('{"action": "Finish", "final_answer": 42}', 42),
        ("Thought: done\nFinal Answer: 42", "42"),
        ("**Final Answer:** Oslo", "Oslo"),
        ("{'action': 'finish', 'answer': 'it's done',}", "it's done"),
        ('{"action": "finish", // done\n "answer": True}', True),
        ('{"action": "finish", "answer": "half \\ud83d"}', "half \ufffd"),
        ("Action: Finish(half \ud83d)", "half \ufffd"),
        ("Action: Finish(half \ud83d\ude00)", "half 😀"),
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
        ('{"action": "replan", "reason": "look elsewhere"}', "look elsewhere"),
        ("Action: Replan\nAction Input: need the year", "need the year"),
        ("Action: Replan[need the year]", "need the year"),
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
        ('{"action": "finish", "answer": ""}', "bad_action"),
        ('Action: Finish\nAction Input: {"answer": "cut o', "broken_input"),
        ('{"action": "replan", "feedback": " "}', "bad_action"),
        ("Action: Finish()", "no_answer"),
        ("Action: Finish(...)", "no_answer"),
        ("Action: Finish(<answer>)", "no_answer"),
        ('{"action": "finish", "answer": "  "}', "bad_action"),
        ('{"action": "finish", "answer": "…"}', "bad_action"),
        ("Action: Finish", "no_answer"),
        ('{"action": "finish", "answer": "cut o', "no_action"),
        ('{"action": "finish", "answer": NaN}', "no_action"),
        pytest.param('{"a": ' * 5_000, "no_action", id="nested too deeply"),
    ],
)
def test_what_is_no_decision_is_a_problem_to_repair_and_never_an_empty_success(
    text: str, code: str
) -> None:
    found = parse_join(text)
    assert isinstance(found, list)
    assert found[0].code == code
    assert "finish" in found[0].hint


@pytest.mark.parametrize(
    "text",
    [
        "Action: Finish(The three cities are Oslo, Bergen and Tron",
        "Action: Finish(The three cities are Oslo)",
        '{"action": "finish", "answer": "Oslo"} because',
        "Action: Replan(need",
        "Final Answer: Os",
    ],
)
def test_an_answer_that_was_cut_off_holds_no_decision(text: str) -> None:
    found = parse_join(text, is_cut_off=True)
    assert isinstance(found, list)
    assert found[0].code == "cut_off"


def test_the_schema_is_that_of_what_is_read() -> None:
    checker = Draft202012Validator(JOIN_SCHEMA)
    for good in (
        {"action": "finish", "answer": None},
        {"action": "replan", "feedback": "x"},
        {"action": "look", "ids": ["a"], "question": "when?"},
    ):
        checker.validate(good)
        assert isinstance(parse_join(json.dumps(good)), JoinDecision)
    assert not checker.is_valid({"action": "stop"})
    assert not checker.is_valid({"answer": 1})


def test_a_look_names_outputs_each_once_and_what_is_looked_for() -> None:
    found = parse_join('{"action": "Look", "ids": ["a", " b", "a"], "question": " when? "}')
    assert found == JoinDecision("look", ids=("a", "b"), question="when?")
    assert parse_join('{"action": "look", "ids": "a"}') == JoinDecision("look", ids=("a",))
    for ids in ("[]", "[1]", "null", '{"a": 1}'):
        wrong = parse_join(f'{{"action": "look", "ids": {ids}}}')
        assert isinstance(wrong, list)
        assert wrong[0].code == "bad_action"


def test_a_look_is_at_outputs_that_were_cut_and_a_bounded_number_of_times() -> None:
    look = JoinDecision("look", ids=("a",))
    assert check_look(look, ["a"], 1) == []
    assert check_look(JoinDecision("finish"), [], 0) == []
    many = JoinDecision("look", ids=tuple(f"t{n}" for n in range(LOOK_IDS_MAX + 1)))
    codes = [
        check_look(d, cut, left)[0].code
        for d, cut, left in ((look, ["a"], 0), (look, [], 1), (look, ["b"], 1), (many, many.ids, 1))
    ]
    assert codes == ["no_look", "no_look", "unknown_id", "too_many"]


@pytest.mark.parametrize(
    "unit",
    [
        "Action: Finish(\n",
        "{",
        ")(",
        "(",
        "Finish[",
        '{"action": "finish", "answer": 1} ',
        "Thought:\n",
    ],
)
def test_twice_the_answer_takes_at_most_two_and_a_half_times_the_time(unit: str) -> None:
    assert_linear(lambda t: parse_join("Action: Finish(" + t), repeated(unit), 200_000)
