"""What a planner only talks about is not executed, and what it clearly meant does not vanish."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.syntax.calls.parser import CallsParser, ParsedEnd
from planloom.planner.syntax.calls.scan import CALL_MAX_CHARS
from planloom.planner.syntax.parsed_plan import PLAN_TEXT_MAX_CHARS
from tests.support.linear import assert_linear, repeated

TOOLS = [
    ToolSpec(name="look", parameters={"properties": {"q": {}}}),
    ToolSpec(name="math", parameters={"properties": {"problem": {}}}),
    ToolSpec(
        name="write_file", side_effects=True, parameters={"properties": {"path": {}, "text": {}}}
    ),
]


def parse(*chunks: str, cut: bool = False) -> tuple[list[Task], ParsedEnd]:
    parser = CallsParser(TOOLS)
    tasks = [p.task for chunk in chunks for p in parser.feed(chunk)]
    end = parser.close(is_cut_off=cut)
    return [*tasks, *(p.task for p in end.late)], end


def streamed(text: str) -> list[str]:
    """Ids of the tasks that are given out before the text has ended, fed by characters."""
    parser = CallsParser(TOOLS)
    return [str(p.task.id) for char in text for p in parser.feed(char)]


def codes(end: ParsedEnd) -> list[str]:
    return [p.code for p in end.problems]


# The plan after it is whole and has nothing to do with it.
PLAN = 'a = look("x")\njoin(a)'

ONLY_TALK = {
    "a bullet before the plan": (
        '- write_file("keep.txt", "overwritten") would destroy the file, so I leave it.\n' + PLAN
    ),
    "a bullet under a heading": (
        'What I will not do:\n- write_file("a.txt", "deleted") would lose the data\n\n'
        "The plan:\n" + PLAN
    ),
    "a clean bullet under a heading": (
        'What I will not do:\n- write_file("a.txt", "deleted")\n\nThe plan:\n' + PLAN
    ),
    "a bare call among prose": 'I leave this one out.\nwrite_file("a", "b")\nIt is bad.\n' + PLAN,
    "a numbered idea with words behind it": (
        'Rejected ideas:\n1. write_file("b.txt", "deleted") - would lose the data\n\nPlan:\n' + PLAN
    ),
    "a dash behind the bracket": 'write_file("b.txt", "x") — no, too risky\n' + PLAN,
    "a question": 'write_file("b.txt", "x")?\nNo.\n' + PLAN,
    "inside a sentence": 'I thought of write_file("z", "") first, but it is not needed.\n' + PLAN,
    "several ideas": (
        'I thought of look("z") first, but it is not needed.\n- look("w") would be too slow\n'
        'First: look("v")?\n' + PLAN + '\n\nNote: look("y") could be added later.'
    ),
    "thoughts between tags": (
        '<thinking>\nwrite_file("keep3.txt", "overwritten")\nno, that would lose data\n'
        "</thinking>\n" + PLAN
    ),
    "thoughts in tags, on one line": '<think>w = write_file("a", "b")</think>\n' + PLAN,
    "an orphan end of thoughts": (
        'write_file("keep3.txt", "overwritten")\nno, that would lose data\n</think>\n' + PLAN
    ),
    "an orphan end behind a named call": (
        'w = write_file("keep3.txt", "overwritten")\nhm\n</think>\n' + PLAN
    ),
    "an orphan end behind a whole plan": (
        'Let me think.\nw = write_file("a", "b")\njoin(w)\nNo, better not.\n</think>\n' + PLAN
    ),
    "an orphan end inside the line": 'maybe w = write_file("a", "b") </think>' + PLAN,
    "an orphan end right behind a call": 'w = write_file("a", "b")</think>\n' + PLAN,
    "an open bracket in a thought": "I could search( or write_file( it\n</think>\n" + PLAN,
    "Mistral's tags": '[THINK]w = write_file("a", "b")\n[/THINK]' + PLAN,
    "Kimi's tags": '◁think▷w = write_file("a", "b")\n◁/think▷' + PLAN,
    "a thought of its own line": 'Thought: write_file("a", "b") would be wrong\n' + PLAN,
    "a call after the join": PLAN + '\n\nNot needed:\nwrite_file("keep2.txt", "overwritten")\n',
    "an idea in a numbered plan": (
        '- write_file("a", "b") would be wrong\n1. look("x")\n2. join(1)'
    ),
}


@pytest.mark.parametrize("text", ONLY_TALK.values(), ids=ONLY_TALK)
def test_a_call_that_the_planner_only_talks_about_is_no_task(text: str) -> None:
    for chunks in ([text], list(text), [text[:40], text[40:]]):
        tasks, end = parse(*chunks)
        assert [(t.tool, t.args) for t in tasks] == [("look", {"q": "x"})]
        assert end.problems == []
        assert end.is_complete
        assert not any("a call without a name" in w for w in end.warnings)
    assert "write_file" not in " ".join(streamed(text))


UNSURE = {
    "a bare call with side effects": 'write_file("a", "b")\na = look("x")\njoin(a)',
    "a plan of one bare call with side effects": 'write_file("a", "b")\njoin()',
    "prose behind a named one": 'w = write_file("a", "b")\nOn second thought, no.\n' + PLAN,
    "a numbered one in a plan of names": '1. write_file("a", "b")\n' + PLAN,
    "words behind a named one": 'w = write_file("a", "b") would destroy it\n' + PLAN,
    "a heading between": 'Ideas:\nw = write_file("a", "b")\n\nPlan:\n' + PLAN,
    "words in a numbered plan": (
        'Rejected:\n1. write_file("a", "b") - loses data\nPlan:\n1. look("x")\n2. join(1)'
    ),
    "a comment behind it that speaks against it": (
        'w = write_file("a", "b")  # do NOT run this\n' + PLAN
    ),
    "a comment over it that speaks against it": (
        '# What I will not do:\nw = write_file("a", "b")\n# The plan:\n' + PLAN
    ),
    "a condition in words over the last call": (
        'a = look("x")\nIf that fails:\nw = write_file("a", "b")\njoin(a)'
    ),
    "under words that open a block": 'unless x:\n  w = write_file("a", "b")\n' + PLAN,
    "behind a word and a colon": 'BAD: w = write_file("a", "b")\n' + PLAN,
    "behind a word that is no": 'Not: w = write_file("a", "b")\n' + PLAN,
    "behind a condition on its line": 'if needed: w = write_file("a", "b")\n' + PLAN,
}


@pytest.mark.parametrize("text", UNSURE.values(), ids=UNSURE)
def test_a_call_with_side_effects_is_never_run_on_a_guess(text: str) -> None:
    for chunks in ([text], list(text)):
        tasks, end = parse(*chunks)
        assert "write_file" not in [t.tool for t in tasks]
        assert set(codes(end)) <= {"unsure", "unreadable_line"}
        assert end.problems
        assert "write_file" in " ".join(p.message for p in end.problems)


def test_a_task_with_side_effects_waits_for_the_end_of_the_plan_with_those_that_read_it() -> None:
    text = 'a = look("x")\nw = write_file("a", text=a)\nb = math(w)\nc = look("y")\njoin(b, c)\n'
    before_join, join = text.split("join")
    assert streamed(before_join) == ["a", "c"]
    assert streamed(text) == ["a", "c", "w", "b"]
    tasks, end = parse(before_join, "join" + join)
    assert ([t.id for t in tasks], end.problems, end.tasks) == (["a", "c", "w", "b"], [], 4)


def test_a_plan_that_was_cut_off_starts_no_side_effect() -> None:
    tasks, end = parse('a = look("x")\nw = write_file("a", "b")\nb = look("', cut=True)
    assert [t.id for t in tasks] == ["a"]
    assert codes(end) == ["cut_off"]
    assert end.tasks == 1


def test_an_agent_with_a_tool_that_acts_and_a_fallback_that_acts_wait_too() -> None:
    text = (
        'a = agent({"id": "x", "tools": ["write_file"]}, task="do it")\n'
        'b = look("x", _fallback=write_file("a", "b"))\n'
        'c = plan({"tasks": [{"id": "t", "tool": "write_file", "args": {}}]})\n'
        'd = look("y")\n'
    )
    assert streamed(text) == ["d"]
    assert streamed(text + "join(a)\n") == ["d", "a", "b", "c"]


def test_a_heading_before_a_plan_does_not_stop_it_from_starting_at_once() -> None:
    for preface in ("Here is the plan:\n", "# Plan\n", "**Plan**\n", "Sure.\nThe plan:\n```\n"):
        started = streamed(preface + 'a = look("x")\nb = look("y")\n')
        assert started == (["a", "b"] if not preface.startswith("Sure") else [])


def test_what_begins_like_a_thought_is_given_out_when_it_has_ended() -> None:
    text = 'maybe search first\nz = look("thought")\n'
    assert streamed(text + PLAN + "\n") == []
    tasks, end = parse(text + PLAN)
    assert ([t.id for t in tasks], end.problems) == (["z", "a"], [])
    tasks, end = parse(text + "</think>\n" + PLAN)
    assert [t.id for t in tasks] == ["a"]


def test_a_task_that_had_started_when_a_thought_ended_stays_and_may_be_used() -> None:
    thought = 'z = look("thought")\na = look("old")\nhm\n</think>\n'
    tasks, end = parse(thought + 'z = look("thought")\nb = math(z)\njoin(b)')
    assert [t.id for t in tasks] == ["z", "a", "b"]
    assert end.problems == []
    assert any("had started" in w for w in end.warnings)
    tasks, end = parse(thought + 'a = look("new")\njoin(a)')
    assert codes(end) == ["duplicate_id"]  # the task that runs as "a" is another


def test_a_bare_call_is_a_task_only_where_there_is_nothing_but_calls() -> None:
    tasks, end = parse('look("x")\nlook("y")\njoin()')
    assert ([t.id for t in tasks], end.problems) == (["look_1", "look_2"], [])
    tasks, end = parse('Plan:\n```\nlook("x")\nlook("y")\njoin()\n```\n')
    assert ([t.id for t in tasks], end.problems) == (["look_1", "look_2"], [])
    tasks, end = parse('look("w")\nis too slow.\na = look("x")\njoin(a)')
    assert ([t.id for t in tasks], end.problems) == (["a"], [])


MEANT = {
    'b, c = look("y"), look("z")': ["b", "c"],
    'b, c = (look("y"), look("z"))': ["b", "c"],
    'b, c = await look("y"), await look("z");': ["b", "c"],
    'b = await look("y")': ["b"],
    'b: list = look("y")': ["b"],
    'b: dict[str, int] = look("y")': ["b"],
    'b = (look("y"))': ["b"],
    'b = ( await look("y") )': ["b"],
    'let b = look("y")': ["b"],
    'const b = await look("y");': ["b"],
    'var b = look("y");': ["b"],
    'b := look("y")': ["b"],
    'b <- look("y")': ["b"],
    'h-1 = look("y")': ["h-1"],
    '1. `look("y")`': ["1"],
    '1. **look**("y")': ["1"],
    '1. **look("y")**': ["1"],
    '- `b = look("y")`': ["b"],
    '- **b = look("y")**': ["b"],
    'await look("y")': ["look_1"],
    'b = look("y").': ["b"],
    'b = look("y");': ["b"],
    'b = look("y")  # the y': ["b"],
    'b = look("y") // the y': ["b"],
    'Task 1: look("y")': ["1"],
    '**Step 2:** look("y")': ["2"],
    'Step 2: b = look("y")': ["b"],
    'Action 3 - look("y")': ["3"],
    '**1.** look("y")': ["1"],
    '- [ ] b = look("y")': ["b"],
    '* `b = look("y")`': ["b"],
}


@pytest.mark.parametrize(("line", "ids"), MEANT.items(), ids=MEANT)
def test_a_line_that_clearly_means_a_task_is_read(line: str, ids: list[str]) -> None:
    for text in (f"{line}\njoin()", f"{line}\njoin()\n"):
        for chunks in ([text], list(text)):
            tasks, end = parse(*chunks)
            assert [t.id for t in tasks] == ids
            assert {t.tool for t in tasks} == {"look"}
            assert tasks[0].args == {"q": "y"}
            assert end.problems == []


UNREADABLE = [
    'r = [look(q) for q in ["y", "z"]]',
    'r = [look("y"), look("z")]',
    'e = f = look("v")',
    'b, c = look("y")',
    'b = look("y") if True else look("z")',
    'b = look("y") + look("z")',
    'print(look("y"))',
    'for q in ["y"]: look(q)',
    'b = lambda: look("y")',
    'b = look("y"), look("z")',
    'b.c = look("y")',
    'b = await look("y',
    'look("y"), look("z")',
    'first(look("y"))',
    'b = look["y"]',
    'b = look{"q": "y"}',
    'b = look "y"',
    'b = look（"y"）',
    'if a:\n    b = look("y")',
    'else:\n  b = look("y")',
    'while True:\n    b = look("y")',
    'try:\n    b = look("y")\nexcept ValueError:\n    c = look("z")',
    '- if a:\n  - b = look("y")',
    'if len(a) > 0:\n    b = look("y")',
    'if (a):\n    b = look("y")',
    'if (a) {\n    b = look("y");\n}',
    'if a:  # only then\n    b = look("y")',
    'if a:\nb = look("y")',
    'def more():\n    b = look("y")',
    'match a:\n  b = look("y")',
    'with a: b = look("y")',
]


@pytest.mark.parametrize("line", UNREADABLE)
def test_a_line_that_is_written_like_a_task_and_cannot_be_read_is_a_problem(line: str) -> None:
    text = f'a = look("x")\n{line}\njoin()'
    for chunks in ([text], list(text)):
        tasks, end = parse(*chunks)
        assert [t.id for t in tasks] == ["a"]
        assert end.problems, line
        assert any(f"line {n}" in end.problems[0].message for n in (2, 3))


@pytest.mark.parametrize("join", ["* `join(a)`", "**2.** join(a)", "- [x] join(a)"])
def test_a_join_that_is_dressed_up_ends_the_plan(join: str) -> None:
    _, end = parse(f'a = look("x")\n{join}\n')
    assert (end.join_only, end.is_complete, end.problems) == (["a"], True, [])


def test_words_that_only_look_like_a_statement_are_none() -> None:
    tasks, end = parse('for each of the cities:\n    a = look("x")\njoin(a)')
    assert ([t.id for t in tasks], end.problems) == (["a"], [])
    tasks, end = parse('a = look("x")\nif it rains:\nb = look("y")\njoin(a, b)')
    assert ([t.id for t in tasks], end.problems) == (["a", "b"], [])


def test_one_object_stands_for_all_arguments() -> None:
    text = {"type": "object", "properties": {"q": {"type": "string"}}}
    tools = [ToolSpec(name="find", parameters=text)]
    for line in ('a = find({"q": "x"})', '1. find({"q": "x"})'):
        (planned,) = CallsParser(tools).feed(f"{line}\njoin()\n")
        assert planned.task.args == {"q": "x"}


@pytest.mark.parametrize("said", ["A wrong plan would be:", "First idea."])
def test_of_two_plans_none_is_run_on_a_guess(said: str) -> None:
    """The one that was shown as wrong ran, and the one that was meant was left out."""
    wrong = f'{said}\n```\nw = write_file("a", "b")\njoin(w)\n```\n'
    for chunks in ([text := f"{wrong}The right one:\n```\n{PLAN}\n```\n"], list(text)):
        tasks, end = parse(*chunks)
        assert (tasks, codes(end)) == ([], ["two_plans"])


def test_the_same_line_repeated_is_left_out_and_another_call_under_its_name_is_not() -> None:
    line = 'a = look("x")\n'
    tasks, end = parse(line * 3 + "join(a)")
    assert ([t.id for t in tasks], end.problems) == (["a"], [])
    assert end.warnings == [f"line {n} repeats line 1; it was left out" for n in (2, 3)]
    tasks, end = parse('1. look("x")\n1. look("x")\n2. join()')
    assert ([t.id for t in tasks], end.problems) == (["1"], [])
    tasks, end = parse(line + 'a = look("y")\njoin(a)')
    assert codes(end) == ["duplicate_id"]


def test_words_behind_a_numbered_call_in_a_numbered_plan_are_a_problem_and_lose_no_task() -> None:
    tasks, end = parse('1. look("x")\n2. look("y") - for the rest\n3. join()')
    assert codes(end) == ["unreadable_line"]
    assert "for the rest" in end.problems[0].message
    tasks, end = parse('1. look("x") - first\n2. look("y") - second\n3. join()')
    assert tasks == []
    assert codes(end) == ["unreadable_line", "unreadable_line"]


def test_half_a_character_between_two_chunks_is_whole_and_a_lone_one_can_be_stored() -> None:
    tasks, end = parse('a = look("ok \ud83d', '\ude00")\n', "join(a)")
    assert (tasks[0].args, end.problems) == ({"q": "ok 😀"}, [])
    tasks, end = parse('a = look("half \ud83d")\n', "join(a)")
    assert (tasks[0].args, end.problems) == ({"q": "half \ufffd"}, [])
    tasks[0].model_dump_json().encode()


def test_reading_ends_with_the_join() -> None:
    parser = CallsParser(TOOLS)
    parser.feed('a = look("x")\njoin(a)')
    assert not parser.is_over
    parser.feed("\n")
    assert parser.is_over
    parser = CallsParser(TOOLS)
    parser.feed('Hm.\na = look("x")\njoin(a)\n')
    assert not parser.is_over  # the end of a thought may follow


def test_a_join_inside_a_sentence_does_not_end_the_plan() -> None:
    tasks, end = parse('join(a) must come last.\na = look("x")\nb = look("y")\njoin(a)')
    assert ([t.id for t in tasks], end.join_only) == (["a", "b"], ["a"])
    tasks, end = parse('a = look("x")\nb = look("y")\njoin(b) and done')
    assert (end.is_complete, end.join_only, end.problems) == (True, ["b"], [])


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "word ",
        'a = look("x")\n',
        'look("x") and so on\n',
        "look(",
        'look("',
        '"',
        "<think>",
        "</think>\n",
        "<thi",
        "- [ ] look(\n",
        "b, c = look(1), look(2)\n",
        "\n",
        ";",
        "a = look(x) `",
        "look(" + '\\"' * 3_000 + "\n",
        "b = await look(" + "\\'" * 3_000 + "\n",
        "(((",
    ],
)
def test_twice_the_text_takes_at_most_two_and_a_half_times_the_time(unit: str) -> None:
    def read(text: str) -> None:
        parser = CallsParser(TOOLS)
        for n in range(0, len(text), 4):
            parser.feed(text[n : n + 4])
        parser.close()

    assert_linear(read, repeated(unit), 50_000)


@pytest.mark.parametrize(
    "unit", ["\\'", '\\"', "$a", "${", "'a", "((", "[1,", '"""', "# ", "-", "a="]
)
@pytest.mark.parametrize("begin", ["1. look(it's ", "a = look(", 'a = look("'])
def test_twice_the_arguments_take_at_most_two_and_a_half_times_the_time(
    begin: str, unit: str
) -> None:
    def read(text: str) -> None:
        parser = CallsParser(TOOLS)
        parser.feed(f"{begin}{text})\njoin()\n")
        parser.close()

    assert_linear(read, repeated(unit), 50_000)


@pytest.mark.parametrize("text", ["x", "look(", 'a = look("x', 'a = look("x")\n', "word \n"])
def test_a_text_without_end_is_not_read_beyond_its_limit(text: str) -> None:
    parser = CallsParser(TOOLS)
    for _ in range(PLAN_TEXT_MAX_CHARS // (100 * len(text)) + 1):
        parser.feed(text * 100)
    assert parser.is_over
    assert parser.feed('z = look("y")\njoin(z)\n') == []
    end = parser.close()
    assert "too_long" in codes(end)
    assert len(end.warnings) <= 102


def test_a_call_without_end_is_a_problem_and_the_rest_is_read() -> None:
    tasks, end = parse(f'a = look("{"x" * CALL_MAX_CHARS}', 'more"\nb = look("y")\njoin(b)')
    assert [t.id for t in tasks] == ["b"]
    assert codes(end) == ["unclosed"]


WORDS = [*ONLY_TALK.values(), *UNSURE.values(), *UNREADABLE, *MEANT]
LINES = st.lists(st.sampled_from([line for text in WORDS for line in text.split("\n")]), max_size=8)


@given(LINES, st.data())
def test_no_text_starts_a_side_effect_before_its_end_and_chunks_never_matter(
    lines: list[str], data: st.DataObject
) -> None:
    text = "\n".join(lines)
    tasks, end = parse(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    chunks = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    assert parse(*chunks) == (tasks, end)
    before_join = text.split("join")[0]
    assert not any(name.startswith(("w", "write")) for name in streamed(before_join))
