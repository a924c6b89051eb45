"""JSON as models write it: what is clearly meant is read, what is not whole is refused, in time."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.json_text import (
    CANDIDATES_MAX,
    best_json,
    json_in,
    json_or_text,
    meant_list,
    parse_json,
)
from tests.support.linear import assert_linear, repeated

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 5}', {"n": 5}),
        ('{"n": 5,}', {"n": 5}),
        ('{"n": [1, 2,],}', {"n": [1, 2]}),
        ("{'n': 5}", {"n": 5}),
        ("{'n': 'it's'}", {"n": "it's"}),
        ("['rock 'n' roll', 'x']", ["rock 'n' roll", "x"]),
        ("{‘n’: ‘it’s’, “m”: 1}", {"n": "it’s", "m": 1}),
        ('{\'n\': \'\'\'it\'s\'\'\', "m": """a "b" c"""}', {"n": "it's", "m": 'a "b" c'}),
        ("{'n': '', 'm': \"\"}", {"n": "", "m": ""}),
        ('{"n": "a\nb"}', {"n": "a\nb"}),
        ('{"n": "a\tb"}', {"n": "a\tb"}),
        ('{"n": 5 // five\n}', {"n": 5}),
        ('{"n": 5, # five\n"m": 6}', {"n": 5, "m": 6}),
        ('/* the answer */ {"n": /* five */ 5}', {"n": 5}),
        (
            '{"n": 5, "ok": True, "no": False, "x": None}',
            {"n": 5, "ok": True, "no": False, "x": None},
        ),
        ("{n: 5, m_1: 'x'}", {"n": 5, "m_1": "x"}),
        ("{“n”: “five”}", {"n": "five"}),
        ('{"a": 1\n"b": 2}', {"a": 1, "b": 2}),
        ('{"re": "\\d+\\.\\w", "dir": "C:\\\\x"}', {"re": "\\d+\\.\\w", "dir": "C:\\x"}),
        ('```json\n{"n": 5}\n```', {"n": 5}),
        ('\ufeff{"n": 5}', {"n": 5}),
        ('{"n": "\\ud83d\\ude00"}', {"n": "😀"}),
        ('{"n": "half \\ud83d"}', {"n": "half \ufffd"}),
        ("{'n': 'half \\ud83d'}", {"n": "half \ufffd"}),
        ('{"url": "http://x/y#z"}', {"url": "http://x/y#z"}),
        ("{'url': 'http://x/y#z', 'n': .5}", {"url": "http://x/y#z", "n": 0.5}),
        ('{"n": 1, "n": 2}', {"n": 2}),
    ],
)
def test_what_a_model_clearly_meant_is_read(text: str, value: object) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"n": [1, 2',
        '{"n": "half of the',
        '{"n": 5',
        "{'n': 'half",
        '{"n": NaN}',
        '{"n": -Infinity}',
        '{"n": 1e400}',
        "{'n': 1e400}",
        "[" + "9" * 5000 + "]",
        "['x', " + "9" * 5000 + "]",
        '{"n": ...}',
        '{"n": [1, 2, ...]}',
        '{"n": five}',
        "[1 2]",
        '{"n" 5}',
        '{"n": 007}',
        '{"n": 5} and more',
        '{"n": 5}{"n": 6}',
        '{"n": __import__("os")}',
        "",
        "[" * 5000 + "]" * 5000,
        "{/* never closed",
    ],
)
def test_what_is_not_whole_or_not_a_value_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+ at line \d+$"):
        parse_json(text)


@given(JSON)
def test_every_json_text_is_read_as_json_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=1)) == value


@given(st.lists(JSON, max_size=3) | st.dictionaries(st.text("ab'\"\\"), JSON, max_size=3))
def test_a_value_is_read_the_same_in_pythons_notation(value: Any) -> None:
    assert parse_json(repr(json.loads(json.dumps(value)))) == value


def is_five(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("n"), int)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('The form is {"n": 1}. Mine: {"n": 5}', {"n": 5}),
        ('"{\\"n\\": 5}"', {"n": 5}),
        ('As source [1] says, {"n": 5}', {"n": 5}),
        ('{"n": 5}, as [1] and [2] say', {"n": 5}),
        ('For example {"n": 0}:\n```json\n{"n": 5}\n```\n', {"n": 5}),
        ('```json\n{"n": 5}\n```\nwhere {"n": 1} would be wrong', {"n": 5}),
        ('```\n{"n": 1}\n```\nbetter:\n```\n{"n": 5}\n```', {"n": 5}),
        ('Schema: {"type": "object"}\nAnswer: {"n": 5} {"other": true}', {"n": 5}),
        ('I think {this} is it: {"n": 5} ok?', {"n": 5}),
        ('It\'s "done {almost: {"n": 5}', {"n": 5}),
        ('{not json {"n": 5}', {"n": 5}),
        ("- [ ] todo\n- [x] done\n{'n': 5,}", {"n": 5}),
        ('Done.\n{"n": 5}\n```', {"n": 5}),
    ],
)
def test_of_several_values_the_one_that_fits_is_taken_and_not_the_example(
    text: str, value: object
) -> None:
    assert best_json(text, is_five) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ('"text"', "text"),
        ("Here:\n```json\n42\n```", 42),
        ('Here:\n```json\n"words"\n```\nDone.', "words"),
        ('I meant {"a": {"b": 2}} ok?', {"a": {"b": 2}}),
        ('{"a": 1} or {"b": 2}', {"b": 2}),
    ],
)
def test_without_one_that_fits_the_fenced_or_the_last_value_is_taken(
    text: str, value: object
) -> None:
    assert best_json(text, lambda _: False) == value


@pytest.mark.parametrize("text", ["", "no", "NaN", "we have 3 apples", "true story", '"n": 5'])
def test_a_number_or_word_inside_prose_is_not_an_answer(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON value"):
        best_json(text, lambda _: True)


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (["a"], ["a"]),
        ('["Oslo", "Bergen"]', ["Oslo", "Bergen"]),
        (" ['Oslo',] ", ["Oslo"]),
        ("```json\n[1]\n```", [1]),
        ('["Oslo", "Ber', None),
        ("Oslo, Bergen", None),
        ('{"a": [1]}', None),
        ({"a": [1]}, None),
        (None, None),
    ],
)
def test_a_list_that_is_text_is_a_list(value: Any, items: object) -> None:
    assert meant_list(value) == items


def test_a_value_that_was_cut_off_says_where_it_is_wrong() -> None:
    with pytest.raises(ValueError, match="not valid JSON: it ends too early at line 2"):
        best_json('{"n": [1,\n2, 3', lambda _: True)


def test_of_very_many_values_the_last_are_kept_and_objects_are_not_lost_behind_lists() -> None:
    found = json_in('{"n": 5} ' + "[1] " * 5000)
    assert found[0].value == {"n": 5}
    assert len(found) == CANDIDATES_MAX + 1


def test_a_comment_that_never_closes_hides_nothing_before_it() -> None:
    assert [each.value for each in json_in("[ [ /* a */ 1] /* b")] == [[1]]
    assert [each.value for each in json_in('["x", ["y"] , "z')] == [["y"]]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ("blue", "blue"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("9" * 5_000, "9" * 5_000),
        ("[" * 100_000, "[" * 100_000),
        ('"\\ud83d"', "\ufffd"),
        ("\ud83d", "\ufffd"),
    ],
    ids=["object", "word", "no number", "too large", "digits", "deep", "half", "typed half"],
)
def test_what_a_person_typed_is_json_or_text(typed: str, value: JsonValue) -> None:
    assert json_or_text(typed) == value


@given(st.text(alphabet="{}[]\",:'\\/*#1a \n“”`tru-", max_size=60))
def test_any_text_gives_values_that_stand_in_it_in_order(text: str) -> None:
    found = json_in(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    for each in found:
        assert parse_json(text[each.start : each.end]) == each.value


SLOW_BEFORE = {
    "braces": "{",
    "brackets": "[",
    "quotes": '["',
    "apostrophes": "['a b",
    "open comments": "{/*",
    "objects": '{"a":',
    "lists": "[[1],",
    "whole lists": "[1] ",
    "escaped quotes": '["\\"',
    "fences": "```\n{",
    "line comments": "{#\n",
    "typographic quotes": "[“a",
    "numbers": "[1,",
}


@pytest.mark.parametrize("unit", SLOW_BEFORE.values(), ids=SLOW_BEFORE)
def test_twice_the_text_takes_at_most_two_and_a_half_times_the_time(unit: str) -> None:
    assert_linear(json_in, repeated(unit), 100_000)


def test_two_hundred_thousand_braces_are_read_at_once() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="not valid JSON"):
        best_json("{" * 200_000, lambda _: True)
    assert time.process_time() - began < 5
