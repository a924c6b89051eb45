"""YAML as people write it: no surprises of YAML 1.1, no key twice, and a line for each part."""

from __future__ import annotations

import pytest

from planloom.yaml_documents import DocumentError, read_document_text

TEXT = """\
goal: x
version: 3.10
country: NO
at: 12:30:00
day: 2024-01-01
tasks:
  - id: a.b
    tool: calculate
    args: {expression: "1",
      deep: [1, {x: 2}]}
  - id: a
    tool: calculate
"""


def test_words_stay_words_and_numbers_that_look_like_texts_are_warned_of() -> None:
    read = read_document_text(TEXT)
    value = read.value
    assert (value["country"], value["at"], value["day"]) == ("NO", "12:30:00", "2024-01-01")
    assert value["version"] == 3.1
    assert read.warnings == ['line 2: 3.10 is read as the number 3.1; for the text write "3.10"']
    plain = read_document_text("a: true\nb: 12\nc: 1.5\nd: null\ne: ~\nf:\ng: -3\nh: 1e3\ni: 010")
    assert list(plain.value.values()) == [True, 12, 1.5, None, None, None, -3, 1000.0, 10]
    assert len(plain.warnings) == 1  # 010 is ten here, and eight elsewhere


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("goal", 1),
        ("tasks.a.b.args.expression", 9),
        ("tasks.a.b.args.deep[1].x", 10),
        ("tasks.a.tool", 12),
        ("tasks[1]", 11),
        ("tasks.zz", 6),
        ("nothing", None),
    ],
)
def test_a_path_has_the_line_of_its_deepest_part(path: str, line: int | None) -> None:
    assert read_document_text(TEXT).line_of(path) == line


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("tasks:\n - {id: a, args: {expression: ${a}}}\n", 2, "needs quotes"),
        ("x: [${a}, ${b}]\n", 1, "needs quotes"),
        ("{x: ${a}}", 1, "needs quotes"),
        ("a: 1\nb: 2\na: 3\n", 3, "Keep one of them."),
        ("a:\n\tb: 1", 2, "not with tabs"),
        ("a: [1, 2", 1, "the bracket that opens in line 1"),
        ("a:\n  ask: Say hi: now\n", 2, 'holds ": " needs quotes'),
        ("tasks:\n  -id: a\n   ask: x\n", 3, "a space after its dash"),
        ("a: x\n  b: y\n", 2, "in the same column"),
        ("- id: a\n tool: x\n", 2, "in the same column"),
        ("a: 1\n---\nb: 2\n", 2, "remove the line with ---"),
        ("a: 'what's up'\n", 1, "an apostrophe is written twice"),
        ('a: "hi\nb: x\n', 3, "The quote that opens in line 1"),
        ("a: *.csv\n", 1, "begins with * needs quotes"),
        ("a: *all\n", 1, "begins with * needs quotes"),
        ("a: !now go\n", 1, "begins with ! needs quotes"),
        ("a: @file\n", 1, "begins with @ needs quotes"),
        ("a: %d of\n", 1, "begins with % needs quotes"),
        ('{"a": 1,}', 1, "Remove the comma before }"),
        ('{"a": True}', 1, "true, false and null"),
        ("{\"a\": 'x'}", 1, 'strings are in "'),
        ('{"a": [1, 2]', 1, "before its last bracket"),
        ('{\n// why\n"a": 1}', 3, "no comments"),
    ],
)
def test_a_text_that_cannot_be_read_says_where_and_what_to_do(
    text: str, line: int, said: str
) -> None:
    with pytest.raises(DocumentError) as error:
        read_document_text(text)
    assert (error.value.line, said in error.value.hint) == (line, True)


def test_a_key_twice_is_refused_in_json_too() -> None:
    with pytest.raises(DocumentError, match='the key "a" stands twice'):
        read_document_text('{"a": 1, "a": 2}')
    assert read_document_text('{"b": [1,\n {"id": "q"}]}').line_of("b.q") == 2


def test_a_reference_in_a_block_needs_no_quotes() -> None:
    assert read_document_text("answer: ${a}\n").value == {"answer": "${a}"}


def test_a_number_is_known_as_it_was_written() -> None:
    read = read_document_text("tasks:\n  - id: a\n    ask: 010\n  - id: b\n    ask: 3.10\n")
    assert [read.number_at(f"tasks.{id}.ask") for id in ("a", "b", "c")] == ["010", "3.10", ""]
    assert read_document_text("a: text").number_at("a") == ""


def test_curly_quotes_are_warned_of() -> None:
    assert "“ is part of the text" in read_document_text("ask: “hi”").warnings[0]
    assert read_document_text('ask: "“hi”"').warnings == []
