"""The planner's syntax `json`: tasks while the document streams, and all that is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.syntax.calls.parser import ParsedEnd
from planloom.planner.syntax.calls.text import call_text
from planloom.planner.syntax.json_stream import JsonPlanParser
from tests.support.linear import assert_linear, repeated

TOOLS = [ToolSpec(name=name, parameters={"properties": {"query": {}}}) for name in ("find", "math")]


def parse(
    chunks: str | list[str], earlier: Any = (), cut: bool = False
) -> tuple[list[str], ParsedEnd]:
    parser = JsonPlanParser(TOOLS, earlier=earlier)
    ids = [p.task.id for chunk in chunks for p in parser.feed(chunk)]
    end = parser.close(is_cut_off=cut)
    late, end.late = [p.task.id for p in end.late], []
    return [str(i) for i in [*ids, *late]], end


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
    (
        '{"tasks": [{"id": "a", "tool": "find", "args": {"n": NaN}}]}',
        [],
        [("tasks[0]", "syntax")],
    ),
    ('{"tasks": [{"id": "\\ud800"}]}', [], [("tasks.\ufffd.id", "string_pattern_mismatch")]),
    (
        '{"tasks": [{"id": "a", "args": ' + "[" * 5000 + "]" * 5000 + "}]}",
        [],
        [("tasks[0]", "syntax")],
    ),
    ('{"tasks": []}', [], [("plan", "no_tasks")]),
    ("I cannot plan this {sorry}.", [], [("plan", "no_tasks")]),
    ("{sorry}", [], [("plan", "syntax")]),
    ('Here: {"tasks": [{"id": "a" "tool": "find"}]}', [], [("plan", "syntax")]),
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
    assert "exists already" in end.warnings[0]


def test_more_than_two_thousand_tasks_are_told_once() -> None:
    ids, end = parse(plan(*(find(f"a{n}") for n in range(2_003))))
    assert len(ids) == 2_000
    assert [p.code for p in end.problems] == ["too_many"]


ACTS = ToolSpec(name="write_file", side_effects=True, parameters={"properties": {"path": {}}})
SAVE = {"id": "w", "tool": "write_file", "args": {"path": "a"}}


def parse_acting(text: str, cut: bool = False) -> tuple[list[str], list[str], ParsedEnd]:
    """Ids given out before the text's last character, all ids, and the end."""
    parser = JsonPlanParser([*TOOLS, ACTS])
    early = [str(p.task.id) for char in text[:-1] for p in parser.feed(char)]
    ids = early + [str(p.task.id) for p in parser.feed(text[-1])]
    end = parser.close(is_cut_off=cut)
    return early, ids + [str(p.task.id) for p in end.late], end


def test_a_task_with_side_effects_waits_for_the_end_of_the_document_with_its_readers() -> None:
    text = plan(find("a"), SAVE, find("b", "${w}"), find("c"), answer="${b}")
    early, ids, end = parse_acting(text)
    assert (early, ids, end.problems, end.tasks) == (["a", "c"], ["a", "c", "w", "b"], [], 4)
    early, ids, end = parse_acting(text[:-12], cut=True)
    assert (ids, [p.code for p in end.problems]) == (["a", "c"], ["cut_off"])


TALK = {
    "an example in a sentence": f"Example: {plan()} and now {plan(find('a'), answer='${a}')}",
    "an example of its own": f"For example:\n{plan(SAVE)}\nNow the plan:\n{plan(find('a'))}",
    "a rejected plan": f"I could write {plan(SAVE)}, but it loses data.\n{plan(find('a'))}",
    "a rejected plan on a line": f"Not this, it loses data:\n{plan(SAVE)}\n\n{plan(find('a'))}",
    "thoughts between tags": f"<think>\n{plan(SAVE)}\nno\n</think>\n{plan(find('a'))}",
    "an orphan end of thoughts": f"Maybe\n{plan(SAVE)}\nno\n</think>\n{plan(find('a'))}",
    "an orphan end behind an open one": f"{plan(SAVE)[:-2]}, </think>{plan(find('a'))}",
    "Mistral's tags": f"[THINK]{plan(SAVE)}[/THINK]{plan(find('a'))}",
    "a stray brace": f"A {{ stray brace.\n{{ and one more\n{plan(find('a'))}",
    "single quotes": "{'tasks': [{'id': 'a', 'tool': 'find', 'args': {'query': 'it's'}}]}",
    "keys without quotes": '{tasks: [{id: "a", tool: "find", args: {query: "x"}}]}',
    "comments": '{"tasks": [ // it\'s {one}\n{"id": "a", /* "b" ] */ "tool": "find"},\n# "c"\n]}',
    "typographic quotes": "{“tasks”: [{“id”: “a”, “tool”: “find”}]}",
    "an empty plan first": f"{plan()}\n{plan(find('a'))}",
}


@pytest.mark.parametrize("text", TALK.values(), ids=TALK)
def test_what_the_planner_only_talks_about_is_no_plan_and_what_it_means_is(text: str) -> None:
    for chunks in ([text], list(text), [text[:30], text[30:]]):
        parser = JsonPlanParser([*TOOLS, ACTS])
        ids = [str(p.task.id) for chunk in chunks for p in parser.feed(chunk)]
        end = parser.close()
        assert ids + [str(p.task.id) for p in end.late] == ["a"]
        assert (end.problems, end.is_complete) == ([], True)


def test_reading_ends_with_the_closing_bracket() -> None:
    parser = JsonPlanParser(TOOLS)
    parser.feed(GOOD[:-1])
    assert not parser.is_over
    parser.feed(GOOD[-1])
    assert parser.is_over
    assert parser.feed(plan(find("z"))) == []


def test_a_task_that_had_started_when_a_thought_ended_stays() -> None:
    ids, end = parse(f"{plan(find('a'))[:-1]}, hm </think>\n{plan(find('a'), find('b', '${a}'))}")
    assert (ids, end.problems) == (["a", "b"], [])
    assert "had started" in end.warnings[0]


def test_the_same_task_repeated_is_left_out() -> None:
    ids, end = parse(plan(find("a"), find("a"), find("b")))
    assert (ids, end.problems) == (["a", "b"], [])
    assert end.warnings == ["task 2 repeats task 1; it was left out"]


def test_half_a_character_between_two_chunks_is_whole() -> None:
    parser = JsonPlanParser(TOOLS)
    text = '{"tasks": [{"id": "a", "tool": "find", "args": {"query": "'
    tasks = parser.feed(text + "\ud83d") + parser.feed('\ude00 \ud83d"}}]}')
    assert tasks[0].task.args == {"query": "😀 \ufffd"}
    tasks[0].model_dump_json().encode()


def test_a_text_without_end_is_not_read_beyond_its_limit() -> None:
    for begin in ("", '{"tasks": [{"id": "', "{", "'"):
        parser = JsonPlanParser(TOOLS)
        parser.feed(begin)
        while not parser.is_over:
            parser.feed("x" * 100_000)
        assert [p.code for p in parser.close().problems] == ["too_long"]


@pytest.mark.parametrize(
    "unit",
    ["{", "[", '"', "x\n", "'a", "</think>", "<think>", "/*", "# ", '{"tasks": [', "],", "“"],
)
@pytest.mark.parametrize("begin", ["", '{"tasks": [', "Hm. "])
def test_twice_the_text_takes_at_most_two_and_a_half_times_the_time(begin: str, unit: str) -> None:
    def read(text: str) -> None:
        parser = JsonPlanParser(TOOLS)
        parser.feed(begin)
        for n in range(0, len(text), 4):
            parser.feed(text[n : n + 4])
        parser.close()

    assert_linear(read, repeated(unit), 30_000)


def test_a_chain_of_tasks_that_all_wait_for_a_missing_one_is_told_in_linear_time() -> None:
    def chain(length: int) -> str:
        return plan(*(find(f"a{n}", f"${{a{n + 1}}}") for n in range(length)))

    assert_linear(parse, lambda chars: chain(chars // 60), 30_000)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(['{"tasks": [', '{"id": "a", "tool": "find"}', *'{}[],:"\\x'])))
def test_no_text_makes_it_fail_and_chunks_never_matter(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert parse([text]) == parse(list(text))


@pytest.mark.parametrize("levels", [98, 150, 210])
def test_what_no_payload_holds_is_told_and_not_taken(levels: int) -> None:
    """Found: a run could not read the plan of its planner, and its workflow task failed forever."""
    deep = json.loads("[" * levels + "1" + "]" * levels)
    ids, end = parse(plan({"id": "a", "tool": "find", "args": {"query": deep}}))
    assert not ids
    assert end.problems[0].code == "too_deep"
    _, end = parse(plan(find("a"), answer=[[[deep]]]))
    assert not end.has_answer
    assert [p.code for p in end.problems] == ["too_deep"]
