"""Where calls begin and end, whatever the chunks: fuzzed, and the cases that went wrong once."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.syntax.calls.parser import CallsParser, ParsedEnd
from planloom.planner.syntax.calls.scan import CallScanner, CallText

TOOLS = [
    ToolSpec(name=name, parameters={"properties": {"query": {}, "limit": {}}})
    for name in ("search", "math")
]

HEADS = ["a = search(", "b=math(", "1. search(", "2) math(", "$3 = search(", "- 4. math(", "x = y("]
MARKS = ["join(", "Thought: ", "thought", "```", "`", "<END_OF_PLAN>", "query = ", "_when = math("]
VALUES = ['"x"', "it's", "f'{a} (b'", "$1", "${a}", "a.rows", ".rows", "[0]", "-2", "# no (t", "é"]
SIGNS = ['"', "'", '"""', "\\", '\\"', *"#[]{}(),;=1. \t\n\n\n", "\r\n", "  "]
PIECES = st.one_of(*(st.sampled_from(group) for group in (HEADS, MARKS, VALUES, SIGNS)))
TEXTS = st.lists(PIECES, max_size=24).map("".join)


def parse(chunks: list[str], cut: bool) -> tuple[list[dict[str, object]], ParsedEnd]:
    parser = CallsParser(TOOLS, earlier=["1", "a0"])
    tasks = [p.model_dump() for chunk in chunks for p in parser.feed(chunk)]
    return tasks, parser.close(is_cut_off=cut)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.data(), st.booleans())
@example('a = search(\n"x")', None, False)
@example("a = search(x\n1", None, False)
@example('a = search("x\nb = math(1)', None, True)
@example("1. search(it's)\n2. math('''a'')''')", None, False)
def test_any_text_gives_the_same_however_it_is_cut(text: str, data, cut: bool) -> None:
    whole = parse([text], cut)
    assert parse(list(text), cut) == whole
    if data is not None:
        at = data.draw(st.integers(0, len(text)))
        assert parse([text[:at], text[at:]], cut) == whole


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_a_task_comes_by_the_end_of_its_line(text: str) -> None:
    parser = CallsParser(TOOLS)
    given_out = ""
    for char in text.replace("\r", ""):
        given_out += char
        for planned in parser.feed(char):
            _, call, rest = given_out.rpartition(planned.text)
            assert call.endswith(")")
            assert "\n" not in rest[:-1]
    parser.close()


def calls(text: str) -> list[tuple[str | None, str, bool]]:
    scanner = CallScanner()
    pieces = [*scanner.feed(text), *scanner.close()]
    return [(p.label, p.arguments, p.is_closed) for p in pieces if isinstance(p, CallText)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a = f(g='it (b')", [("a", "g='it (b'", True)]),
        ("a = f(f'it (b')", [("a", "f'it (b'", True)]),
        ("1. f(Schindler's List)", [("1", "Schindler's List", True)]),
        ("1. f(C# (sharp))", [("1", "C# (sharp)", True)]),
        ('a = f("x",  # not (closed\n 2)', [("a", '"x",  # not (closed\n 2', True)]),
        ('1. f("x",  # don"t\n 2)', [("1", '"x",  # don"t\n 2', True)]),
        ('a = f(\n  b = "x",\n_fallback = g(1))', [("a", '\n  b = "x",\n_fallback = g(1)', True)]),
        ("a = f(\n    b = g(1))", [("a", "\n    b = g(1)", True)]),
        ('a = f("x"\nb = g(2)', [("a", '"x"', False), ("b", "2", True)]),
        ('  1. f("x\n  2. g(2)', [("1", '"x', False), ("2", "2", True)]),
        ('> 1. f("x")', [("1", '"x"', True)]),
        ('1) f("x")\n2: g("y")', [("1", '"x"', True), ("2", '"y"', True)]),
        ("3. total = f(1)", [("total", "1", True)]),
        ("`a = f(1)`", [("a", "1", True)]),
        ("${4} = f(1)", [("4", "1", True)]),
        ("Thoughts = f(1)\nThought (late): f(2)", [("Thoughts", "1", True)]),
        ('a = f("x", [1)', [("a", '"x", [1', True)]),
        ("a = f(])", [("a", "]", True)]),
        ('a = f("""x\n1. g(2)\n""")', [("a", '"""x\n1. g(2)\n"""', True)]),
    ],
)
def test_a_call_ends_with_its_own_bracket(text: str, found: list[object]) -> None:
    assert calls(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "y" * 100_000,
        "a = search(x\n" + "y" * 100_000,
        'a = search("' + "y" * 100_000 + '")',
        'a = search("' + ("y" * 70 + "\n") * 1_400 + '")',
        "1. search(" + "# " * 50_000,
        "(" * 100_000,
        "\n" * 100_000,
    ],
    ids=["a word", "a word in a call", "a string", "lines", "comments", "brackets", "newlines"],
)
def test_a_long_text_by_characters_takes_linear_time(text: str) -> None:
    parser = CallsParser(TOOLS)
    began = time.process_time()
    for char in text:
        parser.feed(char)
    parser.close()
    assert time.process_time() - began < 5  # 0.1 to 0.3 s; quadratic work takes a minute
