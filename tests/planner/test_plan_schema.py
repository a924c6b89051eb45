"""The planner's JSON Schema: it admits every plan of this run's tools and nothing else.

Checked with an engine that servers hold a model to a schema with (llguidance) and against OpenAI's
rules for strict schemas; `tests/real_servers` has the engines that do not install everywhere.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from planloom.planner.compile.answers import AnswerSchema
from planloom.planner.compile.schema_check import check_arguments
from planloom.planner.compile.tool_arguments import meant_arguments
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.syntax.json_stream import JsonPlanParser
from planloom.planner.syntax.plan_schema import SCHEMA_MAX_BYTES, TASKS_MAX, plan_schema
from planloom.planner.syntax.strict_schema import strict_form
from tests.support.gbnf import Grammar
from tests.support.linear import assert_linear, repeated
from tests.support.planner_plans import BAD, FULL, GOOD, SCHEMA, TOOLS, TREE, strict_plan, task


def engine_admits(schema: dict[str, Any], document: Any) -> bool:
    """What llguidance says of the text, byte by byte, as a server would mask tokens."""
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    assert LLMatcher.validate_grammar(grammar) == ""
    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    text = json.dumps(document, ensure_ascii=False).encode()
    return matcher.try_consume_tokens(list(text)) == len(text) and bool(matcher.is_accepting())


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_every_plan_of_these_tools_is_admitted(document: Any) -> None:
    assert Draft202012Validator(SCHEMA).is_valid(document)
    assert engine_admits(SCHEMA, document)


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_no_other_plan_is_admitted(document: Any) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(document)
    assert not engine_admits(SCHEMA, document)


def test_the_recogniser_of_grammars_tells_good_from_bad() -> None:
    grammar = Grammar('root ::= "a" b{0,2} ( "c" | [x-z]+ )?\nb ::= "\\"" [^"]* "\\""')
    assert all(map(grammar.accepts, ["a", 'a"q"', 'a"q"""c', "axyz", "ac"]))
    assert not any(map(grammar.accepts, ["", "b", 'a"q', 'a"1""2""3"', "acx"]))


def test_a_plan_that_the_schema_admits_is_read_and_compiles_in_shape() -> None:
    parser = JsonPlanParser(TOOLS, meant=meant_arguments)
    tasks = [p.task for p in parser.feed(json.dumps(FULL))]
    end = parser.close()
    assert end.problems == []
    assert [t.id for t in tasks] == [t["id"] for t in FULL["tasks"]]  # type: ignore[index]
    specs = {t.name: t for t in TOOLS}
    for made in tasks:
        if made.tool:
            assert check_arguments(made.args, specs[made.tool].parameters) == []


# OpenAI's strict subset.


def breaches(schema: Any, root: dict[str, Any], where: str = "") -> list[str]:
    """What OpenAI's guide to structured outputs says is not allowed in a strict schema."""
    allowed = {"type", "properties", "required", "additionalProperties", "items", "enum", "anyOf"}
    allowed |= {"$ref", "$defs", "description", "pattern", "minItems", "maxItems", "minimum"}
    allowed |= {"maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    found = [f"{where}: {word}" for word in schema if word not in allowed]
    if not where and (schema.get("type") != "object" or "anyOf" in schema):
        found.append("the root must be an object")
    if "$ref" in schema and schema["$ref"].removeprefix("#/$defs/") not in root.get("$defs", {}):
        found.append(f"{where}: a reference to nothing")
    if not schema.keys() & {"type", "anyOf", "enum", "$ref"}:
        found.append(f"{where}: allows anything")
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            found.append(f"{where}: is open")
        if sorted(schema.get("required", ())) != sorted(schema["properties"]):
            found.append(f"{where}: does not require all fields")
    for name, part in (schema.get("properties") or {}).items():
        found += breaches(part, root, f"{where}.{name}")
    for n, part in enumerate(schema.get("anyOf") or ()):
        found += breaches(part, root, f"{where}|{n}")
    if "items" in schema:
        found += breaches(schema["items"], root, f"{where}[]")
    for name, part in (schema.get("$defs") or {}).items():
        found += breaches(part, root, f"{where}${name}")
    return found


def test_the_strict_form_keeps_to_openais_subset_and_admits_plans() -> None:
    strict = strict_form(plan_schema(TOOLS[:-1], agents=["researcher"]))
    assert strict is not None
    assert breaches(strict, strict) == []
    plan = strict_plan()
    assert Draft202012Validator(strict).is_valid(plan)
    assert engine_admits(strict, plan)
    assert not engine_admits(strict, {"tasks": [task("a", "nope", q="x")]})
    # A tool with an object of any fields cannot be said there: then all is sent as it is.
    assert strict_form(SCHEMA) is None


def test_a_plan_of_a_strict_endpoint_is_read_without_its_nulls() -> None:
    parser = JsonPlanParser(TOOLS, meant=meant_arguments)
    tasks = [p.task for p in parser.feed(json.dumps(strict_plan()))]
    end = parser.close()
    assert (end.problems, end.has_answer, end.stop_when) == ([], False, None)
    assert [t.args for t in tasks][:3] == [
        {"q": "x"},
        {"values": ["${a.n}"], "note": None},
        {},
    ]
    assert not tasks[1].has_fallback
    assert tasks[2].depends_on == ["a"]


STRICT: list[tuple[dict[str, Any], bool]] = [
    ({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}, True),
    ({"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}, True),
    ({"type": "object", "properties": {"n": {"oneOf": [{"type": "integer"}, {}]}}}, False),
    ({"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]}, True),
    (TREE, True),
    ({"type": "object", "properties": {"n": {}}}, False),
    ({"type": "object", "properties": {"n": {"type": "object"}}}, False),
    ({"type": "object"}, False),
    ({"type": "array", "items": {"type": "string"}}, False),
    ({"type": "object", "properties": {"n": {"allOf": [{"type": "integer"}]}}}, False),
    ({"type": "object", "properties": {}, "additionalProperties": True}, False),
    ({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(5_001)}}, False),
]


@pytest.mark.parametrize(("schema", "is_strict"), STRICT)
def test_a_schema_has_a_strict_form_or_is_sent_as_it_is(
    schema: dict[str, Any], is_strict: bool
) -> None:
    strict = strict_form(schema)
    assert (strict is not None) == is_strict
    if strict is not None:
        assert breaches(strict, strict) == []


def test_an_answer_of_a_strict_endpoint_fits_the_schema_that_was_asked_for() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "more": {"type": "object", "properties": {"x": {"type": "string"}}},
        },
        "required": ["n"],
    }
    strict = strict_form(schema)
    assert strict is not None
    answer = {"n": 1, "more": {"x": None}}
    assert Draft202012Validator(strict).is_valid(answer)
    assert AnswerSchema(schema).fitted(answer) == ({"n": 1, "more": {}}, [])
    assert AnswerSchema(schema).fitted({"n": 1, "more": None}) == ({"n": 1}, [])
    assert AnswerSchema(schema).fitted({"n": None})[1] != []


def test_arguments_of_a_plan_are_read_as_they_were_meant() -> None:
    total = TOOLS[1].parameters
    assert meant_arguments({"values": "[1, 2]"}, total) == {"values": [1, 2]}
    assert meant_arguments({"values": "${a}", "how": None}, total) == {"values": "${a}"}
    assert meant_arguments({"values": "some", "note": None}, total) == {
        "values": "some",
        "note": None,
    }
    assert meant_arguments({"q": "[1]", "limit": "3"}, TOOLS[0].parameters) == {
        "q": "[1]",
        "limit": 3,
    }


# Bounds.


def test_many_or_large_tools_make_a_short_schema_that_still_names_them() -> None:
    parameters = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(40)}}
    tools = [ToolSpec(name=f"tool_{n}", parameters=parameters) for n in range(100)]
    schema = plan_schema(tools)
    assert len(json.dumps(schema)) < SCHEMA_MAX_BYTES
    assert engine_admits(schema, {"tasks": [task("a", "tool_7", p1="x")]})
    assert not engine_admits(schema, {"tasks": [task("a", "tool_777", p1="x")]})


def test_a_run_without_tools_may_only_answer() -> None:
    schema = plan_schema([])
    assert engine_admits(schema, {"tasks": [], "answer": "42"})
    assert not engine_admits(schema, {"tasks": [task("a", "look", q="x")]})


def test_a_model_in_a_loop_ends_at_the_bound() -> None:
    tasks = [task(f"t{n}", "ping") for n in range(TASKS_MAX + 1)]
    assert Draft202012Validator(SCHEMA).is_valid({"tasks": tasks[:-1]})
    assert not Draft202012Validator(SCHEMA).is_valid({"tasks": tasks})


@pytest.mark.parametrize("last", ["string", "object"], ids=["sayable", "not sayable"])
def test_a_chain_of_definitions_is_made_strict_in_linear_time(last: str) -> None:
    """Found: 2,000 definitions, each of which names the next, took 10 s in the event loop."""

    def read(text: str) -> object:
        count = len(text)
        refs = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(count)}
        defs = {n: {"type": "object", "properties": {"a": ref}} for n, ref in refs.items()}
        root = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}
        return strict_form({**root, "$defs": {**defs, f"d{count}": {"type": last}}})

    assert_linear(read, repeated("x"), 1_000)
    assert (read("x" * 20) is None) == (last == "object")
