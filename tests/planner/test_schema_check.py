"""Arguments and answers against a schema, with references let through; schemas themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
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
        ({"multipleOf": 0}, "s.multipleOf"),
        ({"dependentRequired": {"a": "b"}}, "s.dependentRequired.a"),
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


# What was silently ignored before `jsonschema` did the checking.
@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"pattern": "^[A-Z]{2}$"}, "DE", "DEU"),
        ({"multipleOf": 0.01}, 19.99, 19.999),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], [1, 1.0]),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 2}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 1, 3),
        ({"anyOf": [{"type": "string"}], "minLength": 3}, "abc", "x"),
        ({"$ref": "#/$defs/n", "minimum": 3, "$defs": {"n": {"type": "integer"}}}, 3, 1),
        ({"not": {"const": 1}}, 2, 1.0),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}, 2, 1),
        ({"contains": {"const": 1}, "maxContains": 1}, [1, 2], [1, 1]),
        ({"propertyNames": {"maxLength": 2}}, {"ab": 1}, {"abc": 1}),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1}, {"x1": "a"}),
        ({"minProperties": 1}, {"a": 1}, {}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"b": 1}, {"a": 1}),
        ({"prefixItems": [{}], "items": False}, [1], [1, 2]),
        (False, None, 1),
    ],
)
def test_no_keyword_is_silently_ignored(schema: Any, fits: Any, does_not: Any) -> None:
    assert check_schema(schema, "s") == []
    if schema is not False:
        assert check_value(fits, schema) == []
    assert len(check_value(does_not, schema)) == 1


_SCALARS = (
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([0.0, 1.5, "", "a", "ab"])
)
_NAMES = st.sampled_from(["a", "ab", "b"])
_VALUES = st.recursive(
    _SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(_NAMES, v, max_size=3),
    max_leaves=6,
)
_COUNT = st.integers(0, 2)
_PATTERNS = st.sampled_from(["a", "^a$", "b|^$", "^(a|b){2}$"])


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    types = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=2, unique=True),
            "enum": st.lists(_VALUES, max_size=2),
            "const": _VALUES,
            "minimum": _COUNT,
            "exclusiveMaximum": _COUNT,
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": _COUNT,
            "maxItems": _COUNT,
            "minProperties": _COUNT,
            "pattern": _PATTERNS,
            "uniqueItems": st.booleans(),
            "required": st.lists(_NAMES, max_size=2, unique=True),
            "dependentRequired": st.dictionaries(_NAMES, st.lists(_NAMES, max_size=1), max_size=1),
            "properties": st.dictionaries(_NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(_PATTERNS, inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "dependentSchemas": st.dictionaries(_NAMES, inner, max_size=1),
            "items": inner,
            "prefixItems": several,
            "contains": inner,
            "minContains": _COUNT,
            "maxContains": _COUNT,
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


_LEAVES = st.booleans() | st.sampled_from([{}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a~1b"}])
_SCHEMAS = st.builds(
    lambda schema, first, second: {**schema, "$defs": {"a": first, "a/b": second}},
    _keywords(st.recursive(_LEAVES, _keywords, max_leaves=4)),
    _keywords(st.booleans() | st.just({"type": "string"})),
    st.just({"type": ["array", "null"], "maxItems": 1}),
)


@settings(max_examples=150, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_values_are_judged_as_jsonschema_judges_them(schema: Any, value: Any) -> None:
    assert check_schema(schema, "s") == []
    problems = check_value(value, schema)
    assert (problems == []) == Draft202012Validator(schema).is_valid(value)
    assert len({(p.path, p.message) for p in problems}) == len(problems)


@settings(max_examples=150, deadline=None)
@given(_SCHEMAS, _VALUES, st.data())
def test_a_reference_never_makes_a_fitting_value_wrong(
    schema: Any, value: Any, data: st.DataObject
) -> None:
    """Whatever the references turn out to be: if the whole fits then, nothing is wrong now."""
    assume(Draft202012Validator(schema).is_valid({"x": value}))

    def hidden(part: Any) -> Any:
        if data.draw(st.integers(0, 2)) == 0:
            return "${t}"
        if isinstance(part, str) and part and data.draw(st.booleans()):
            return f"{part[0]}${{t.rest}}"
        if isinstance(part, list):
            return [hidden(p) for p in part]
        return {k: hidden(p) for k, p in part.items()} if isinstance(part, dict) else part

    assert check_arguments({"x": hidden(value)}, schema) == []


_WRONG = st.sampled_from([None, -1, 1.5, "integr", {}, [], ["a", "a"], {"a": 3}, [3], True, "("])


@settings(max_examples=150, deadline=None)
@given(_SCHEMAS, st.data())
def test_a_schema_is_wrong_where_the_standard_calls_it_wrong(
    schema: Any, data: st.DataObject
) -> None:
    keyword = data.draw(st.sampled_from(sorted(schema)))
    assume(keyword != "$defs")
    schema = {**schema, keyword: data.draw(_WRONG)}
    assume(schema.get("pattern") != "(")
    is_valid = Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid(schema)
    assert (check_schema(schema, "s") == []) == is_valid


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"pattern": "("}, "this pattern cannot be used: unclosed group"),
        ({"pattern": r"(?<=a)b"}, "look-around"),
        ({"pattern": r"(a)\1"}, "backreferences"),
        ({"pattern": "(a{1000}){1000}"}, "size limit"),
        ({"patternProperties": {"[": {}}}, "this pattern cannot be used"),
        ({"$ref": "https://example.com/schema"}, "leads outside the schema"),
        ({"$ref": "other.json#/$defs/a"}, "leads outside the schema"),
        ({"$ref": "#/$defs/none"}, "there is no schema at"),
        ({"$ref": "#/examples/0", "examples": [{"type": "strng"}]}, "there is no schema at"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"anyOf": [{"type": "string"}, {"not": {"$ref": "#"}}]}, "refers to itself without end"),
        ({"unevaluatedProperties": False}, "is not supported"),
        ({"items": [{"type": "string"}]}, "needs a JSON Schema, found a list"),
        ({"properties": {"a": {"$id": "b"}}}, "$id is not supported"),
        ({"anyOf": [{}] * 2_001}, "more than 2,000 schemas"),
        ({"allOf": [{"pattern": f"a{n}"} for n in range(26)]}, "more than 25 patterns"),
        ({"description": "x" * 300_000}, "at most 262,144"),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_a_person_answers(
    schema: Any, message: str
) -> None:
    problems = check_schema(schema, "s")
    assert [p.code for p in problems] == ["bad_schema"]
    assert message in problems[0].message
    assert check_value("x", schema) == [
        p.model_copy(update={"path": "output" + p.path[1:]}) for p in problems
    ]
    # A tool checks its arguments itself: what cannot be evaluated here is left to it.
    assert check_arguments({}, schema) == []


def nested(levels: int, key: str, inner: Any) -> Any:
    for _ in range(levels):
        inner = {key: inner}
    return inner


def test_schemas_and_values_nested_without_end_are_told() -> None:
    assert "nested deeper" in check_schema(nested(31, "not", {}), "s")[0].message
    assert "nested deeper" in check_schema(nested(5_000, "not", {}), "s")[0].message
    assert check_value(nested(5_000, "a", 1), {"type": "object"})[0].code == "too_deep"
    tree = {"properties": {"a": {"$ref": "#"}}}
    assert check_value(nested(40, "a", 1), tree) == []
    assert check_value(nested(90, "a", 1), tree)[0].code == "too_complex"


_DOUBLING = {
    "$defs": {
        **{f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(28)},
        "a28": {"type": "string"},
    },
    "$ref": "#/$defs/a0",
}


@pytest.mark.parametrize(
    ("schema", "value", "code"),
    [
        ({"pattern": "(x+x+)+y"}, "x" * 200_000, "out_of_range"),
        ({"pattern": "^(a|a)*$"}, "a" * 40 + "!", "out_of_range"),
        ({"pattern": "1[01]{9000}2"}, "01" * 500_000, "too_complex"),
        (_DOUBLING, "x", "too_complex"),
        ({"uniqueItems": True}, [{"a": n} for n in range(50_000)], None),
        (
            {"oneOf": [{"const": {"a": [n]}} for n in range(999)]},
            {"a": [1.0] * 100_000},
            "too_complex",
        ),
        ({"allOf": [{"type": "integer"}] * 1_000}, "x" * 1_000_000, "wrong_type"),
        (
            {"items": {"anyOf": [{"enum": ["x" * 40] * 3_000}, {"type": "null"}]}},
            [None] * 9_000,
            None,
        ),
        ({"items": {"type": "integer"}}, ["x"] * 200_000, "wrong_type"),
        ({"items": {"type": "string"}}, [10**5_000], "wrong_type"),
    ],
)
def test_no_schema_and_no_value_hang_a_check(schema: Any, value: Any, code: str | None) -> None:
    began = time.process_time()
    problems = check_value(value, schema)
    assert time.process_time() - began < 1.9  # a workflow task that takes two seconds is failed
    assert [p.code for p in problems[:1]] == ([code] if code else [])
    assert len(problems) <= 50


def test_of_alternatives_the_one_that_fits_best_is_told() -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert check_value(3, either)[0].message == "needs string or null, found the number 3"
    shapes = {
        "oneOf": [
            {"required": ["a", "b"], "properties": {"kind": {"const": 1}}},
            {"required": ["a"], "properties": {"a": {"type": "integer"}}},
        ]
    }
    assert [p.line() for p in check_value({"a": "x", "kind": 2}, shapes)] == [
        'output.a: needs integer, found the text "x"'
    ]


def test_a_generic_name_in_a_reference_is_found() -> None:
    schema = {
        "$ref": "#/definitions/Box%3Cint%3E",
        "definitions": {"Box<int>": {"type": "integer"}},
    }
    assert check_schema(schema, "s") == []
    assert check_value("x", schema)[0].code == "wrong_type"
