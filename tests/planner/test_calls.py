"""The planner's text, streamed: the cases of facts/llmcompiler.md §7 at every chunking."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planloom.planner.compile.pipeline import inputs_of
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import AtLeast, Task
from planloom.planner.language.references import resolve
from planloom.planner.syntax.calls.parser import CallsParser, ParsedEnd, call_text


def spec(name: str, *parameters: str) -> ToolSpec:
    return ToolSpec(name=name, parameters={"properties": {p: {} for p in parameters}})


TOOLS = [
    spec("search", "query"),
    spec("math", "problem", "context"),
    spec("total", "numbers"),
    spec("ask", "prompt", "context"),
]


def parse(
    chunks: Iterable[str], earlier: Any = (), cut: bool = False
) -> tuple[list[Task], ParsedEnd]:
    parser = CallsParser(TOOLS, earlier=earlier)
    tasks = [p.task for chunk in chunks for p in parser.feed(chunk)]
    end = parser.close(is_cut_off=cut)
    late, end.late = [p.task for p in end.late], []
    return tasks + late, end


@dataclass
class Case:
    """One row of §7: what the text must give."""

    text: str
    deps: dict[str, list[str]]
    values: dict[str, Any] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    warns: str = ""
    joins: bool = True
    earlier: tuple[str, ...] = ()
    cut: bool = False


CASES = {
    1: Case(
        '1. search("Oslo rainfall")\n2. search("Lima rainfall")\n'
        '3. math("wetter?", ["$1", "$2"])\n4. join()<END_OF_PLAN>',
        {"1": [], "2": [], "3": ["1", "2"]},
        {"3": {"problem": "wetter?", "context": ["${1}", "${2}"]}},
    ),
    2: Case(
        "\n".join(f'{n}. search("q{n}")' for n in range(1, 11))
        + '\n11. ask("$10 or $1, not ${1}0")\n12. join()',
        {str(n): [] for n in range(1, 11)} | {"11": ["10", "1"]},
        {"11": {"prompt": "${10} or ${1}, not ${1}0"}},
    ),
    3: Case(
        '4. search("a")\n7. math(problem="twice", context=["$4"])\n9. join()',
        {"4": [], "7": ["4"]},
        {"7": {"problem": "twice", "context": ["${4}"]}},
    ),
    4: Case(
        '1. search("x")\n2. ask({"given": ["$1", {"raw": "${1}"}], "n": 2})\n3. join()',
        {"1": [], "2": ["1"]},
        {"2": {"prompt": {"given": ["${1}", {"raw": "${1}"}], "n": 2}}},
    ),
    5: Case("1. total([3, 4, 5])\n2. join()", {"1": []}, {"1": {"numbers": [3, 4, 5]}}),
    6: Case(
        '1. search("Smile (it\'s live), take 2. ask(\\"no\\")")\n2. join()',
        {"1": []},
        {"1": {"query": 'Smile (it\'s live), take 2. ask("no")'}},
    ),
    7: Case(
        '1. search("Rome") # capital (of Italy)\n2. join()',
        {"1": []},
        {"1": {"query": "Rome"}},
        warns="comment dropped",
    ),
    8: Case(
        '1. search("Etna")\n2. math("height?", ["$1"]\n3. join()', {"1": []}, codes=["unclosed"]
    ),
    9: Case(
        '1. search("A") 2. search("B")\n3. join()',
        {"1": [], "2": []},
        warns="two calls on one line",
    ),
    10: Case(
        '1. search("A")\n2. lookup("B")\n3. math("$1")\n4. join()',
        {"1": [], "3": ["1"]},
        codes=["unknown_tool"],
    ),
    11: Case('1. search("A")\n1. search("B")\n2. join()', {"1": []}, codes=["duplicate_id"]),
    12: Case(
        '1. math("$2")\n2. search("A")\n3. math("$3")\n4. join()',
        {"2": []},
        codes=["forward_reference", "self_reference"],
    ),
    13: Case(
        '1. search("A")\n2. math("${8} + 1")\n3. join()', {"1": []}, codes=["missing_reference"]
    ),
    14: Case(
        '1. search("flat prices")\n2. ask("flats under $900 like $1")\n3. join()',
        {"1": [], "2": ["1"]},
        {"2": {"prompt": "flats under $900 like ${1}"}},
        warns='"$900" names no task',
    ),
    15: Case(
        '4. ask("shorter: $2")\n5. join()',
        {"4": ["2"]},
        {"4": {"prompt": "shorter: ${2}"}},
        earlier=("1", "2", "3"),
    ),
    16: Case(
        'Thought: maybe 2. search("no") later\n\n- 1. search(Blade Runner)\n- 2. join()',
        {"1": []},
        {"1": {"query": "Blade Runner"}},
        warns="unquoted",
    ),
    17: Case(
        '1. ask("""first\nsecond""")\n2. join()', {"1": []}, {"1": {"prompt": "first\nsecond"}}
    ),
    18: Case(
        '1. search("A")\n2. join()<END_OF_PLAN>\n3. search("B")', {"1": []}, warns="after join"
    ),
    19: Case(
        '$1 = search("A")\n$2 = math("$1")\n$3 = finish()',
        {"1": [], "2": ["1"]},
        {"2": {"problem": "${1}"}},
    ),
    20: Case(
        '1. search("A")\n2. math("double $1', {"1": []}, codes=["cut_off"], joins=False, cut=True
    ),
}


def arguments(task: Task) -> dict[str, Any]:
    if task.ask is not None:
        return task.ask_body().model_dump(exclude_unset=True)
    return dict(task.args)


@pytest.mark.parametrize("number", CASES)
def test_format_case(number: int) -> None:
    case = CASES[number]
    tasks, end = parse([case.text], case.earlier, case.cut)
    assert {t.id: list(inputs_of(t)) for t in tasks} == case.deps
    for task in tasks:
        if task.id in case.values:
            assert arguments(task) == case.values[task.id]
    assert [p.code for p in end.problems] == case.codes
    assert case.warns in "; ".join(end.warnings)
    assert bool(end.warnings) == bool(case.warns)
    assert end.is_complete is case.joins


@pytest.mark.parametrize("number", CASES)
def test_every_chunking_gives_the_same_and_each_task_by_the_end_of_its_line(
    number: int,
) -> None:
    case = CASES[number]
    whole = parse([case.text], case.earlier, case.cut)
    assert parse(case.text, case.earlier, case.cut) == whole  # one character a chunk
    for at in range(1, len(case.text)):
        parts = [case.text[:at], case.text[at:]]
        assert parse(parts, case.earlier, case.cut) == whole, parts
    parser = CallsParser(TOOLS, earlier=case.earlier)
    for n, char in enumerate(case.text):
        for planned in parser.feed(char):
            _, call, rest = case.text[: n + 1].rpartition(planned.text.strip())
            assert call, planned
            assert "\n" not in rest[:-1], planned


@pytest.mark.parametrize("number", CASES)
def test_line_ends_tabs_and_fences_change_nothing(number: int) -> None:
    case = CASES[number]
    if case.cut or number == 17:
        return
    tasks, end = parse([case.text], case.earlier)
    dressed = "```python\n" + case.text.replace("\n", "\r\n\t") + "\r\n```\r\n\r\n"
    same, other = parse([dressed], case.earlier)
    assert [t.model_dump() for t in same] == [t.model_dump() for t in tasks]
    assert [p.code for p in other.problems] == [p.code for p in end.problems]


def test_two_dollars_are_a_literal_one() -> None:
    tasks, end = parse(['1. search("a")\n2. math("$$1 is not $1")\n3. join()'])
    assert tasks[1].args == {"problem": "$1 is not ${1}"}
    assert end.warnings == []


def test_prose_is_no_plan() -> None:
    _, end = parse(["I cannot plan this."])
    assert [p.code for p in end.problems] == ["no_tasks"]
    assert "I cannot plan this." in end.problems[0].message


def test_join_names_what_the_joiner_is_shown() -> None:
    _, end = parse(['1. search("a")\n2. search("b")\n3. join($1, $2)'])
    assert end.join_only == ["1", "2"]


def test_join_may_give_the_answer_itself() -> None:
    _, end = parse(['a = search(query="x")\njoin(answer={"found": a, "text": f"see {a.url}"})'])
    assert end.answer == {"found": "${a}", "text": "see ${a.url}"}


def test_names_paths_and_f_strings_become_references() -> None:
    text = (
        'a = search(query="x")\n'
        "b = math(problem=f\"{a.rows[0]['n']} + 1\", "
        "context=[a, {'k': a[\"n\"]}, -2.5, None, true])\n"
        "join(b)"
    )
    tasks, end = parse([text])
    assert not end.problems
    assert tasks[1].args == {
        "problem": "${a.rows[0].n} + 1",
        "context": ["${a}", {"k": "${a.n}"}, -2.5, None, True],
    }


def test_options_of_a_task_are_keywords_with_an_underscore() -> None:
    text = (
        'a = search(query="x")\n'
        "m = search(query=item.name, _map=a.rows, _when='${a.ok}', _after=[a], _timeout=\"5s\",\n"
        '           _fallback=ask("Guess"), _requires="any", _note="each")\n'
        "join(m)"
    )
    tasks, end = parse([text])
    assert not end.problems
    task = tasks[1]
    assert (task.map, task.when, task.timeout) == ("${a.rows}", "${a.ok}", 5.0)
    assert task.args == {"query": "${item.name}"}
    assert task.fallback_body is not None
    assert task.fallback_body.ask_body().prompt == "Guess"
    assert (task.requires, task.description) == ("any", "each")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a = search(query=__import__('os'))", "bad_argument"),
        ("a = search(query=1 + 2)", "bad_argument"),
        ("a = search(query=[x for x in y])", "bad_argument"),
        ('a = search("x", "y")', "too_many_arguments"),
        ('a = search(query="x" "y" =)', "syntax"),
        ('item = search(query="x")', "reserved_id"),
        ("a = search(query=search(query=1))", "bad_argument"),
    ],
)
def test_what_is_no_literal_call_is_a_problem_and_is_never_evaluated(line: str, code: str) -> None:
    tasks, end = parse([line + "\njoin()"])
    assert tasks == []
    assert code in [p.code for p in end.problems]


def test_a_reader_of_a_refused_task_is_told_so() -> None:
    _, end = parse(['a = serch(query="x")\nb = search(query=a)\njoin(b)'])
    assert [p.code for p in end.problems] == [
        "unknown_tool",
        "input_not_accepted",
        "input_not_accepted",
    ]
    assert 'Did you mean "search"' in end.problems[0].hint


def test_a_model_that_writes_accepted_lines_again_is_not_punished() -> None:
    tasks, end = parse(['a = search(query="x")\nb = search(query=a)\njoin(b)'], earlier=("a",))
    assert [t.id for t in tasks] == ["b"]
    assert not end.problems


def test_a_known_id_with_another_call_is_a_problem_and_never_silently_the_old_one() -> None:
    before = {"1": '1. search(query="old")'}
    tasks, end = parse(['1. search("new")\n2. math("$1")\n3. join()'], earlier=before)
    assert [t.id for t in tasks] == ["2"]
    assert [(p.path, p.code) for p in end.problems] == [("tasks.1", "duplicate_id")]
    tasks, end = parse(['1. search("old")\n2. math("$1")\n3. join()'], earlier=before)
    assert ([t.id for t in tasks], end.problems, end.warnings) == (["2"], [], [])


def test_a_known_id_whose_call_is_not_told_is_left_out_with_a_warning() -> None:
    tasks, end = parse(['a = search("new")\nb = math(a)\njoin(b)'], earlier=("a",))
    assert ([t.id for t in tasks], end.problems) == (["b"], [])
    assert '"a" exists already' in end.warnings[0]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("a", "${a}"),
        ("a.value", "${a.value}"),
        ('a["x"][0]', "${a.x[0]}"),
        ("a[-1]", "${a[-1]}"),
        ("a[1:3]", "${a[1:3]}"),
        ('a["two words"]', '${a."two words"}'),
        ("${a.rows[0]}", "${a.rows[0]}"),
        ('${a."b c"}', '${a."b c"}'),
        ("$a", "${a}"),
        ('f"at {a.x}, {3}"', "at ${a.x}, 3"),
        ('f"at ${a.x}"', "at ${a.x}"),
        ('f"{{a}}"', "{a}"),
        ('"at " + a.x + " now"', "at ${a.x} now"),
        ('"at " + str(a)', "at ${a}"),
        ('"US$" + a.x', "US${a.x | join('', ['$', to_string(@)])}"),
        ('"costs $1"', "costs $1"),
        (r'"\d+\.csv in C:\users\new"', "\\d+\\.csv in C:\\users\new"),
        (r'r"\d\n"', "\\d\\n"),
        (r'"a\/b"', "a/b"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("(1, -2.5, +3)", [1, -2.5, 3]),
        ("{1: true, None: null}", {"1": True, "null": None}),
        ('"two" " parts"', "two parts"),
        ('"two\nlines"', "two\nlines"),
    ],
)
def test_a_value_as_models_write_it(written: str, value: object) -> None:
    tasks, end = parse([f'a = search("x")\nb = math(problem={written})\njoin(b)'])
    assert (end.problems, end.warnings) == ([], [])
    assert tasks[1].args == {"problem": value}


def test_a_dollar_before_a_name_is_text_before_its_value() -> None:
    tasks, _ = parse(['a = search("x")\nb = math("US$" + a.x)\njoin(b)'])
    assert resolve(tasks[1].args["problem"], {"a": {"x": 4.5}}) == "US$4.5"


@pytest.mark.parametrize(
    "written",
    [
        "a + a",
        "a.x + 1",
        '"x" + 1',
        "-a",
        "a * 2",
        "1e999",
        '"\\ud800"',
        "f'{a:.2f}'",
        "len(a)",
        "b''",
    ],
)
def test_what_would_need_work_is_no_value(written: str) -> None:
    tasks, end = parse([f'a = search("x")\nb = math(problem={written})\njoin(a)'])
    assert [t.id for t in tasks] == ["a"]
    assert [p.code for p in end.problems] == ["bad_argument"]
    assert end.problems[0].path.startswith("tasks.b")


def test_specials_are_called_by_name() -> None:
    text = """
who = agent("scout", task="look", context={"n": 1})
two = agent(scout, "look again")
all = team("pair", task=f"judge {who}", rounds=2)
sub = plan("report", name="Bob", template="x")
go = human("Go on?", schema={"type": "boolean"}, _timeout="1h")
why = ask("Why?", [all], max_tokens=50)
join(why)"""
    tasks, end = parse([text])
    assert (end.problems, end.warnings) == ([], [])
    found = {t.id: t for t in tasks}
    assert (found["who"].agent, found["who"].args) == (
        "scout",
        {"task": "look", "context": {"n": 1}},
    )
    assert (found["two"].agent, found["two"].args) == ("scout", {"task": "look again"})
    assert (found["all"].team, found["all"].args["rounds"]) == ("pair", 2)
    assert (found["sub"].plan, found["sub"].args) == ("report", {"name": "Bob", "template": "x"})
    assert found["go"].human_body().schema_ == {"type": "boolean"}
    assert found["why"].ask_body().context == ["${all}"]


@pytest.mark.parametrize(
    ("line", "path", "code", "hint"),
    [
        ('a = agent("scuot", task="x")', "tasks.a.agent", "unknown_agent", '"scout"'),
        ('a = team("x", task="x")', "tasks.a.team", "unknown_team", "Teams: pair"),
        ('a = plan("reprot")', "tasks.a.plan", "unknown_template", '"report"'),
        ('a = agent(task="x")', "tasks.a.agent", "bad_argument", ""),
        ('a = search("x", _whem="b")', "tasks.a.args._whem", "bad_argument", '"_when"'),
        ('a = search("x", query="y")', "tasks.a.args.query", "bad_argument", ""),
        ('a = search("x", _requires=0)', "tasks.a.requires", "literal_error", ""),
        ('a = serch("x")', "tasks.a.tool", "unknown_tool", '"search"'),
        ('a = math("x", _when="z.ok")', "tasks.a.when", "missing_reference", ""),
        ('a = math("x", _after=[z])', "tasks.a.depends_on", "missing_reference", ""),
        (
            'a = math("x", b)\nb = search("y")',
            "tasks.a.args.context",
            "forward_reference",
            "b first",
        ),
    ],
)
def test_a_problem_says_where_and_offers_the_nearest_name(
    line: str, path: str, code: str, hint: str
) -> None:
    parser = CallsParser(TOOLS, agents=["scout"], teams=["pair"], template_names=["report"])
    parser.feed(line + "\njoin()")
    found = parser.close().problems[0]
    assert (found.path, found.code) == (path, code)
    assert hint in found.hint


def test_numbers_stand_for_the_short_forms_of_retry_and_requires() -> None:
    tasks, _ = parse(['a = search("x")\nb = math("x", _after=a, _retry=5, _requires=1)\njoin()'])
    assert tasks[1].retry is not None
    assert tasks[1].retry.max_attempts == 5
    assert tasks[1].requires == AtLeast(at_least=1)


@pytest.mark.parametrize(
    ("join", "only", "answer", "warns"),
    [
        ("join()", None, None, ""),
        ("join(a, b)", ["a", "b"], None, ""),
        ("join([a, b.x])", ["a", "b"], None, ""),
        ('join("${a}")', ["a"], None, ""),
        ("join(answer=a)", None, "${a}", ""),
        ('join(answer={"n": a.n, "t": "so"})', None, {"n": "${a.n}", "t": "so"}, ""),
        ('join(f"It is {a}.")', None, "It is ${a}.", ""),
        ("join(a, result=b)", ["a", "b"], None, 'no "result"'),
        ('join("sum it up")', None, None, "left out"),
        ("join(sum it up)", None, None, "left out"),
        ("3. join(sum up $1)", None, None, "left out"),
        ("Finish(a)", ["a"], None, ""),
        ("result = join(b)", ["b"], None, ""),
    ],
)
def test_what_join_may_hold(join: str, only: object, answer: object, warns: str) -> None:
    _, end = parse([f'a = search("x")\nb = search("y")\n{join}'])
    assert end.problems == []
    assert (end.is_complete, end.join_only, end.answer) == (True, only, answer)
    assert bool(end.warnings) == bool(warns)
    assert warns in "".join(end.warnings)


def test_a_join_without_tasks_may_be_the_answer() -> None:
    _, end = parse(['join("Nothing to look up.")'])
    assert (end.answer, end.problems) == ("Nothing to look up.", [])


def test_join_reads_only_what_there_is() -> None:
    _, end = parse(["""first = search("x")\njoin(answer={"n": frist})"""])
    assert [(p.path, p.code) for p in end.problems] == [("join", "missing_reference")]
    assert 'Did you mean "first"' in end.problems[0].hint


@pytest.mark.parametrize(
    ("line", "condition"),
    [
        ('stop_when("${a.n} > 10")', "${a.n} > 10"),
        ('stop_when(condition="a.ok")', "a.ok"),
        ("stop_when(a.ok)", "${a.ok}"),
    ],
)
def test_stop_when_stands_on_a_line_of_its_own(line: str, condition: str) -> None:
    _, end = parse([f'a = search("x")\n{line}\njoin(a)'])
    assert (end.stop_when, end.problems) == (condition, [])


def test_what_follows_a_call_is_not_lost() -> None:
    tasks, end = parse(['a = search("x").rows[0]\nb = math(a)\njoin(b)'])
    assert tasks == []  # b would have run with more than the row
    assert [(p.path, p.code) for p in end.problems] == [
        ("tasks.a", "syntax"),
        ("tasks.b.args.problem", "input_not_accepted"),
        ("join", "input_not_accepted"),
    ]
    assert "a.rows[0]" in end.problems[0].hint


def test_a_cut_before_the_bracket_names_the_task() -> None:
    for text in ('a = search("x")\nb = sea', 'a = search("x")\nb = search(query="ha'):
        tasks, end = parse([text], cut=True)
        assert [t.id for t in tasks] == ["a"]
        assert [(p.path, p.code) for p in end.problems] == [("tasks.b", "cut_off")]


def test_a_line_that_is_not_assigned_gets_a_name() -> None:
    tasks, end = parse(
        ['search("x")\nsearch("y")\njoin(search_1, search_2)'], earlier=("search_1",)
    )
    assert [t.id for t in tasks] == ["search_2", "search_3"]
    assert len(end.warnings) == 2


def test_an_inline_plan_reads_its_own_tasks() -> None:
    inner = '{"tasks": [{"id": "in", "ask": "x"}, {"id": "out", "ask": "${in}"}]}'
    tasks, end = parse([f"a = plan({inner})\nb = search('x', _fallback=plan({inner}))\njoin(a)"])
    assert ([t.id for t in tasks], end.problems) == (["a", "b"], [])


def test_regular_expressions_in_arguments_bring_no_python_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks, _ = parse([r'a = search("\d+\w\.py \y")' + "\njoin(a)"])
    assert tasks[0].args == {"query": r"\d+\w\.py \y"}


def test_a_long_text_fed_by_characters_takes_linear_time() -> None:
    text = "".join(f'a{n} = search(query="{"y" * 60}")\n' for n in range(1_000))
    began = time.process_time()
    tasks, _ = parse(text)
    assert len(tasks) == 1_000
    assert time.process_time() - began < 5  # about 0.1 s; quadratic work would take minutes


def test_more_than_two_thousand_tasks_stop_the_plan() -> None:
    text = "".join(f"a{n} = total(numbers={n})\n" for n in range(2_010)) + "join(a1)"
    tasks, end = parse([text])
    assert len(tasks) == 2_000
    assert [p.code for p in end.problems] == ["too_many"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(st.sampled_from(["problem", "context"]), VALUES, max_size=2),
    st.sampled_from([None, "5s", 3]),
    st.sampled_from([None, "all", "any", {"at_least": 2}]),
)
def test_a_task_written_back_reads_as_the_same_task(args, timeout, requires) -> None:
    document = {"id": "t", "tool": "math", "args": args}
    document |= {"timeout": timeout} if timeout else {}
    document |= {"requires": requires} if requires else {}
    task = Task.model_validate(document)
    again, end = parse([call_text(task) + "\njoin()"])
    if any(p.code == "missing_reference" for p in end.problems):
        return  # the text happened to look like a reference
    assert [t.model_dump() for t in again] == [task.model_dump()]


@pytest.mark.parametrize("levels", [95, 150, 195])
def test_what_no_payload_holds_is_told_and_not_taken(levels: int) -> None:
    """Found: a run could not read the plan of its planner, and its workflow task failed forever."""
    deep = "[" * levels + "1" + "]" * levels
    tasks, end = parse([f"a = search(query={deep})\njoin(a)\n"])
    assert not tasks
    assert "nested deeper than 90 levels" in end.problems[0].message
    _, end = parse([f"b = search(query=1)\njoin(answer={deep})\n"])
    assert not end.has_answer
    assert any("nested deeper" in p.message for p in end.problems)
    tasks, _ = parse([f"a = search(query={deep[6:-6] if levels == 95 else 1})\njoin(a)\n"])
    assert [t.id for t in tasks] == ["a"]


@pytest.mark.parametrize("number", ["0x" + "f" * 5_000, "-0x" + "f" * 5_000, "0b" + "1" * 15_000])
def test_a_number_that_python_reads_and_cannot_write_is_told(number: str) -> None:
    """Found: the planner's activity broke on it, and the model was paid again."""
    tasks, end = parse([f"a = search(query={number})\njoin(a)\n"])
    assert not tasks
    assert "too large for JSON" in end.problems[0].message
