"""The planner's syntax `json`: tasks while the document streams, and all that is wrong with it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.syntax.calls.parser import ParsedEnd
from planloom.planner.syntax.calls.text import call_text
from planloom.planner.syntax.json_stream import JsonPlanParser

TOOLS = [ToolSpec(name=name, parameters={"properties": {"query": {}}}) for name in ("find", "math")]


def parse(
    chunks: str | list[str], earlier: Any = (), cut: bool = False
) -> tuple[list[str], ParsedEnd]:
    parser = JsonPlanParser(TOOLS, earlier=earlier)
    ids = [p.task.id for chunk in chunks for p in parser.feed(chunk)]
    return [str(i) for i in ids], parser.close(is_cut_off=cut)


def find(name: str, query: str = "x", **more: Any) -> dict[str, Any]:
    return {"id": name, "tool": "find", "args": {"query": query}, **more}


def plan(*tasks: Any, **more: Any) -> str:
    return json.dumps({"tasks": list(tasks), **more})


GOOD = plan(find("a", 'say "}]" {'), find("b", "${a.n} \\ é"), answer="${b}")


def test_a_task_comes_with_the_character_that_closes_it() -> None:
    parser, given_out = JsonPlanParser(TOOLS), ""
    came: dict[str, str] = {}
    for char in GOOD:
        given_out += char
        for planned in parser.feed(char):
            came[planned.task.id] = given_out
            assert json.loads(planned.text)["id"] == planned.task.id
    end = parser.close()
    assert came["a"].endswith('{"}}')
    assert came["b"].endswith('é"}}') or came["b"].endswith('\\u00e9"}}')
    assert len(came["a"]) < len(came["b"]) < len(GOOD)
    assert (end.answer, end.has_answer, end.is_complete, end.problems) == ("${b}", True, True, [])


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "```json\n" + GOOD + "\n```\nThat is the plan {really}.",
        "Here {it} is [1], as asked: " + GOOD,
        '{"plan": ' + GOOD + "}",
        GOOD.replace("]", ",]"),
        GOOD.replace("}}]", "\n}}\r\n]"),
        json.dumps({"answer": "${b}", "thought": "hm", "tasks": json.loads(GOOD)["tasks"]}),
    ],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_prose_wrappers_order_and_chunks_change_nothing(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    ids, end = parse([text[:at], text[at:]])
    assert parse(list(text)) == (ids, end)
    assert (ids, end.answer, end.problems, end.is_complete) == (["a", "b"], "${b}", [], True)


def test_a_bare_list_of_tasks_is_a_plan() -> None:
    ids, end = parse(json.dumps([find("a"), find("b", "${a}")]))
    assert (ids, end.problems, end.is_complete) == (["a", "b"], [], True)


def test_an_inline_plan_inside_a_task_is_not_the_plan() -> None:
    inner = {"tasks": [find("in"), find("out", "${in}")]}
    ids, end = parse(plan({"id": "p", "plan": inner}, find("z", "${p}")))
    assert (ids, end.problems) == (["p", "z"], [])


def test_tasks_may_stand_in_any_order() -> None:
    parser = JsonPlanParser(TOOLS)
    first = parser.feed('{"tasks": [' + json.dumps(find("c", "${b}")) + ",")
    second = parser.feed(json.dumps(find("b", "${a}")) + ",")
    third = parser.feed(json.dumps(find("a")) + "]}")
    assert (first, second) == ([], [])
    assert [p.task.id for p in third] == ["a", "b", "c"]
    assert parser.close().problems == []


CASES: list[tuple[str, list[str], list[tuple[str, str]]]] = [
    (plan(find("a"), find("a", "y")), ["a"], [("tasks.a", "duplicate_id")]),
    (plan({"id": "a", "tool": "fnd"}), [], [("tasks.a.tool", "unknown_tool")]),
    (plan(find("a", "${z}")), [], [("tasks.a.args.query", "missing_reference")]),
    (plan(find("a", "${a}")), [], [("tasks.a.args.query", "self_reference")]),
    (
        plan(find("a", "${b}"), find("b", "${a}")),
        [],
        [("tasks", "cycle")],
    ),
    (
        plan(find("c", "${a}"), find("a", "${b}"), find("b", "${a}")),
        [],
        [("tasks", "cycle"), ("tasks.c.args.query", "input_not_accepted")],
    ),
    (
        plan({"id": "a", "tool": "fnd"}, find("b", "${a}")),
        [],
        [("tasks.a.tool", "unknown_tool"), ("tasks.b.args.query", "input_not_accepted")],
    ),
    (plan(find("a", when="z.ok")), [], [("tasks.a.when", "missing_reference")]),
    (plan(find("a", depends_on=["z"])), [], [("tasks.a.depends_on", "missing_reference")]),
    (plan(find("item")), [], [("tasks.item", "reserved_id")]),
    (plan({"tool": "find"}), [], [("tasks[0].id", "missing")]),
    (
        plan({"id": "a", "tool": "find", "ask": "x"}, {"id": "b", "tool": "find", "argz": {}}),
        [],
        [("tasks.a", "value_error"), ("tasks.b.argz", "extra_forbidden")],
    ),
    (plan(find("a"), "search"), ["a"], [("tasks[1]", "model_type")]),
    ('{"tasks": {"a": {"tool": "find"}}}', [], [("tasks", "list_type")]),
    (plan(find("a"), answer="${z}"), ["a"], [("answer", "missing_reference")]),
    (plan(find("a"), join=["z"]), ["a"], [("join", "missing_reference")]),
    (plan(find("a"), gaol="x"), ["a"], [("gaol", "extra_forbidden")]),
    ('{"tasks": [{"id": "a", "tool": "find", "args": {"n": NaN}}]}', [], [("tasks[0]", "syntax")]),
    ('{"tasks": [{"id": "\\ud800"}]}', [], [("tasks[0]", "syntax")]),
    (
        '{"tasks": [{"id": "a", "args": ' + "[" * 5000 + "]" * 5000 + "}]}",
        [],
        [("tasks[0]", "syntax")],
    ),
    ('{"tasks": []}', [], [("plan", "no_tasks")]),
    ("I cannot plan this {sorry}.", [], [("plan", "syntax")]),
    ("I cannot plan this.", [], [("plan", "no_tasks")]),
    ("", [], [("plan", "no_tasks")]),
]


@pytest.mark.parametrize(("text", "ids", "problems"), CASES, ids=[c[0][:60] for c in CASES])
def test_every_fault_is_told_with_its_place(
    text: str, ids: list[str], problems: list[tuple[str, str]]
) -> None:
    found, end = parse([text])
    assert found == ids
    assert [(p.path, p.code) for p in end.problems] == problems


def test_near_names_are_offered() -> None:
    _, end = parse(plan({"id": "first", "tool": "fnd"}, find("b", "${frist}")))
    assert [p.hint for p in end.problems] == ['Did you mean "find"?', 'Did you mean "first"?']


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        (plan(find("a"), find("bee"))[:-8], "tasks.bee"),
        (plan(find("a"))[:-2] + ', {"to', "plan"),
        (plan(find("a"))[:-1], "plan"),
    ],
)
def test_what_ends_too_early_keeps_the_tasks_before_it(text: str, path: str, cut: bool) -> None:
    ids, end = parse(text, cut=cut)
    assert ids == ["a"]
    assert [(p.path, p.code) for p in end.problems] == [(path, "cut_off")]
    assert not end.is_complete


def test_known_tasks_may_be_read_and_written_again_but_not_changed() -> None:
    before = call_text(Task.model_validate(find("a")))
    ids, end = parse(plan(find("a"), find("b", "${a}")), earlier={"a": before})
    assert (ids, end.problems, end.warnings) == (["b"], [], [])
    ids, end = parse(plan(find("a", "else"), find("b", "${a}")), earlier={"a": before})
    assert (ids, [p.code for p in end.problems]) == (["b"], ["duplicate_id"])
    ids, end = parse(plan(find("a", "else"), find("b", "${a}")), earlier=["a"])
    assert (ids, end.problems) == (["b"], [])
    assert "stands already" in end.warnings[0]


def test_more_than_two_thousand_tasks_are_told_once() -> None:
    ids, end = parse(plan(*(find(f"a{n}") for n in range(2_003))))
    assert len(ids) == 2_000
    assert [p.code for p in end.problems] == ["too_many"]


def test_a_long_document_by_characters_takes_linear_time() -> None:
    text = plan(*(find(f"a{n}", "y" * 60) for n in range(1_000)))
    began = time.process_time()
    assert len(parse(text)[0]) == 1_000
    parse("{" * 100_000)
    assert time.process_time() - began < 5  # about 0.1 s; quadratic work takes a minute


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(['{"tasks": [', '{"id": "a", "tool": "find"}', *'{}[],:"\\x'])))
def test_no_text_makes_it_fail_and_chunks_never_matter(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert parse([text]) == parse(list(text))
