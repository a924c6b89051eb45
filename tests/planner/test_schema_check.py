"""Arguments and answers against a schema, with references let through; schemas themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.compile.schema_check import check_arguments, check_schema, check_value
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Plan

COLOURS = {"enum": ["red", "blue"], "type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"point": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}},
    "properties": {
        "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 5},
        "name": {"type": "string", "minLength": 2, "maxLength": 4},
        "colour": COLOURS,
        "maybe": {"anyOf": [COLOURS, {"type": "null"}]},
        "many": {"type": "array", "items": {"type": "number"}, "minItems": 1},
        "at": {"$ref": "#/$defs/point"},
        "one": {"const": 1},
    },
    "required": ["n"],
    "additionalProperties": False,
}


def codes(args: dict[str, Any]) -> list[str]:
    return [p.code for p in check_arguments({"n": 1} | args, SCHEMA)]


_SMALL = (
    st.none() | st.booleans() | st.integers(0, 6) | st.sampled_from(["", "red", "toolong", 1.5])
)


@example({"n": 1, "one": True})
@given(
    st.dictionaries(
        st.sampled_from([*SCHEMA["properties"], "other"]), _SMALL | st.lists(_SMALL, max_size=3)
    )
)
def test_plain_values_are_judged_as_jsonschema_judges_them(value: dict[str, Any]) -> None:
    assert (check_value(value, SCHEMA) == []) == Draft202012Validator(SCHEMA).is_valid(value)


@pytest.mark.parametrize("name", list(SCHEMA["properties"]))
def test_a_reference_fits_everywhere(name: str) -> None:
    assert codes({name: "${a.x}"}) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [("n", "wrong_type"), ("many", "wrong_type"), ("at", "wrong_type")]
    + [(n, None) for n in ("name", "colour", "maybe")],
)
def test_text_with_a_reference_fits_where_text_does(name: str, code: str | None) -> None:
    assert codes({name: "so ${a} it is, whatever it says"}) == ([code] if code else [])


def test_inside_lists_and_objects_references_are_let_through_too() -> None:
    assert codes({"many": [1, "${a}"]}) == []
    assert codes({"many": ["${a}", "no"]}) == ["wrong_type"]


def test_a_long_text_is_never_shown() -> None:
    key = "sk-0123456789abcdefghijkl"
    problems = check_arguments({"n": key, "colour": key, "one": key}, SCHEMA)
    assert len(problems) == 3
    assert all(key not in p.line() for p in problems)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "strng"}, "s.type"),
        ({"type": ["string", 3]}, "s.type"),
        ({"properties": ["a"]}, "s.properties"),
        ({"properties": {"a": 3}}, "s.properties.a"),
        ({"required": "a"}, "s.required"),
        ({"enum": "a"}, "s.enum"),
        ({"minimum": "3"}, "s.minimum"),
        ({"maxLength": 2.5}, "s.maxLength"),
        ({"anyOf": [{"type": "integr"}]}, "s.anyOf[0].type"),
        ({"items": {"$ref": 3}}, "s.items.$ref"),
        ("text", "s"),
    ],
)
def test_a_schema_that_cannot_be_read_is_told_before_a_person_answers(
    schema: Any, path: str
) -> None:
    assert [(p.path, p.code) for p in check_schema(schema, "s")] == [(path, "bad_schema")]
    assert check_value("x", schema)  # and never raises
    if isinstance(schema, dict):
        task = {"id": "h", "human": {"question": "?", "schema": schema}}
        problems = compile_plan(Plan.model_validate({"tasks": [task]}), Catalog()).problems
        assert [p.path for p in problems] == [path.replace("s", "tasks.h.human.schema", 1)]


@example({"required": [[]]}, {})
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["object", "array", "#"]),
        lambda v: (
            st.lists(v, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "items", "required", "enum", "anyOf", "$ref", "minimum"]
                ),
                v,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
    st.recursive(
        _SMALL,
        lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), v),
        max_leaves=4,
    ),
)
def test_no_schema_breaks_the_check(schema: Any, value: Any) -> None:
    check_value(value, schema)


def test_a_schema_may_refer_to_itself() -> None:
    tree: dict[str, Any] = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "a/b": {"type": "integer"}, "n": {}},
        "additionalProperties": False,
    }
    tree["properties"]["n"] = {"$ref": "#/properties/a~1b"}
    assert check_value({"left": {"left": {"n": 1}}}, tree) == []
    assert [p.path for p in check_value({"left": {"left": {"n": "x"}}}, tree)] == [
        "output.left.left.n"
    ]


def test_a_schema_that_refers_to_itself_is_done_in_time() -> None:
    endless = {"anyOf": [{"$ref": "#"}] * 8}
    began = time.process_time()
    check_value("x", endless)
    assert time.process_time() - began < 1
