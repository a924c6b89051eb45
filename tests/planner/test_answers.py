"""A model's answer held against its schema: what fits once read as it was meant is taken."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.compile.answers import AnswerSchema, SchemaUnusableError

NUMBER: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": True,
}
VALUES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "values": {"type": "array", "items": {"type": "number"}},
        "label": {"type": "string"},
        "deep": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 5,}', {"n": 5}),
        ("{'n': 5}", {"n": 5}),
        ('{"output": {"n": 5}}', {"n": 5}),
        ('{"n": "5"}', {"n": 5}),
        ('{"answer": {"n": "5"}}', {"n": 5}),
        ('{"n": 5 // five\n}', {"n": 5}),
        ('{"n": 5, "ok": True, "x": None}', {"n": 5, "ok": True, "x": None}),
        ('"{\\"n\\": 5}"', {"n": 5}),
        ('The form is {"n": 1}. Mine: {"n": 5}', {"n": 5}),
        ('As source [1] says, {"n": 5}', {"n": 5}),
    ],
)
def test_an_answer_that_fits_when_read_as_meant_needs_no_repair(text: str, value: object) -> None:
    assert AnswerSchema(NUMBER).read(text) == (value, [])


@pytest.mark.parametrize(
    ("value", "fitted"),
    [
        ({"values": "[1, 2]"}, {"values": [1, 2]}),
        ({"values": ["1", "2.5"]}, {"values": [1, 2.5]}),
        ({"values": "[1, '2',]"}, {"values": "[1, '2',]"}),
        ({"label": "[1, 2]"}, {"label": "[1, 2]"}),
        ({"deep": "{'ok': True}"}, {"deep": {"ok": True}}),
        ({"deep": {"ok": "true"}}, {"deep": {"ok": True}}),
        ({"maybe": "null"}, {"maybe": None}),
        ({"maybe": "7"}, {"maybe": 7}),
        ('{"values": "[1]"}', {"values": [1]}),
        ("nothing", "nothing"),
    ],
)
def test_texts_are_read_as_json_only_where_the_schema_wants_another_type(
    value: Any, fitted: Any
) -> None:
    assert AnswerSchema(VALUES).fitted(value)[0] == fitted


VERDICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["trusted", "partial"]},
        "confidence": {"type": "number"},
        "share": {"type": "number", "maximum": 100},
        "points": {"type": "integer"},
    },
}


@pytest.mark.parametrize(
    ("value", "fitted"),
    [
        ({"verdict": "Partial", "confidence": "60%"}, {"verdict": "partial", "confidence": 0.6}),
        ({"verdict": " TRUSTED "}, {"verdict": "trusted"}),
        ({"confidence": "62,5 %", "share": "60%"}, {"confidence": 0.625, "share": 60}),
        ({"points": "60 %"}, {"points": 60}),
        ({"verdict": "maybe"}, {"verdict": "maybe"}),
        ({"confidence": "8 of 10"}, {"confidence": "8 of 10"}),
    ],
)
def test_options_in_other_letters_and_percent_are_read(value: Any, fitted: Any) -> None:
    assert AnswerSchema(VERDICT).fitted(value)[0] == fitted


def test_a_list_wanted_is_found_in_an_object_of_one_field() -> None:
    schema = AnswerSchema({"type": "array", "items": {"type": "string"}})
    assert schema.read('{"value": ["Oslo", "Bergen"]}') == (["Oslo", "Bergen"], [])
    assert schema.read('{"a": ["Oslo"], "b": 1}')[1]


def test_a_scalar_wanted_is_found_in_an_object_of_one_field() -> None:
    assert AnswerSchema({"type": "integer"}).read('{"value": 42}') == (42, [])
    assert AnswerSchema({"enum": ["yes", "no"]}).read('{"value": "yes"}') == ("yes", [])


def test_what_does_not_fit_in_any_reading_keeps_its_own_problems() -> None:
    value, problems = AnswerSchema(NUMBER).read('{"n": "five", "m": 1}')
    assert value == {"n": "five", "m": 1}
    assert problems == ['answer.n: needs integer, found the text "five"']


def test_all_problems_come_at_once() -> None:
    schema = {**NUMBER, "properties": {"n": {"type": "integer"}, "z": {"type": "string"}}}
    assert len(AnswerSchema(schema).problems({"n": "x", "z": 1})) == 2


@pytest.mark.parametrize(
    "schema", [{"type": "strin"}, {"$ref": "https://x/y.json"}, {"properties": 5}]
)
def test_a_schema_that_nothing_can_fit_is_told_before_a_model_is_paid(schema: Any) -> None:
    with pytest.raises(SchemaUnusableError, match="output_schema"):
        AnswerSchema(schema)
