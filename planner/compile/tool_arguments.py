"""Arguments as they were meant by a tool's parameters: of an agent's call, and of a plan's task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planloom.planner.compile.answers import AnswerSchema, SchemaUnusableError
from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.tool_calls import read_value


@dataclass(frozen=True, slots=True)
class Arguments:
    """A call's arguments as read. `text` is their JSON for the conversation that goes on.

    With a `problem` the call is not made, and `text` is that of an empty object: servers refuse a
    conversation whose arguments are not a JSON object.
    """

    args: dict[str, JsonValue]
    problem: str | None = None

    @property
    def text(self) -> str:
        return json.dumps(self.args, ensure_ascii=False)


def read_arguments(
    text: str, schema: Mapping[str, Any] | None = None, *, is_cut_off: bool = False
) -> Arguments:
    """The arguments of a call as its model meant them.

    Nothing, `null` and blanks are no arguments; JSON inside JSON text is taken out; a value of
    another type than `schema` wants is read as JSON where that makes all of it fit.
    """
    try:
        value = read_value(text)
    except ValueError as error:
        return Arguments({}, _why_not_read(schema, error, is_cut_off=is_cut_off))
    if value is None:
        value = {}
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if not isinstance(value, dict):
        value = _as_only_argument(value, schema)
    if value is None:
        return Arguments({}, "the arguments must be a JSON object" + _shape_of(schema))
    return Arguments(_fitted(value, schema))


def _why_not_read(schema: Mapping[str, Any] | None, error: ValueError, *, is_cut_off: bool) -> str:
    if is_cut_off:
        return (
            "not run: the answer was cut off at its limit in the middle of this call. "
            "Call again, with shorter arguments"
        )
    return f"the arguments are not valid JSON: {error}{_shape_of(schema)}"


def _shape_of(schema: Mapping[str, Any] | None) -> str:
    properties = schema.get("properties") if schema else None
    if not isinstance(properties, Mapping) or not properties:
        return ""
    return ". Its parameters: " + ", ".join(list(properties)[:20])


def _as_only_argument(value: JsonValue, schema: Mapping[str, Any] | None) -> Any:
    """`"a.txt"` for a tool that has one parameter, which takes a text; None for all else."""
    properties = schema.get("properties") if schema else None
    if not isinstance(properties, Mapping) or len(properties) != 1:
        return None
    args = {str(name): value for name in properties}
    try:
        fits = schema is not None and not AnswerSchema(schema).problems(args)
    except SchemaUnusableError:
        return None
    return args if fits else None


def _fitted(args: dict[str, JsonValue], schema: Mapping[str, Any] | None) -> dict[str, JsonValue]:
    """The arguments with texts read as JSON where the schema wants another type."""
    if not schema:
        return args
    try:
        value, problems = AnswerSchema(schema).fitted(args)
    except SchemaUnusableError:
        return args  # checked where the tool is run
    return value if isinstance(value, dict) and not problems else args


# Of a task.


def meant_arguments(
    args: Mapping[str, JsonValue], parameters: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """A task's arguments as they were meant by its tool's parameters.

    Text that is JSON where another type is wanted is read (`"[1, 2]"` for a list); `null` for a
    parameter that may be left out and takes none is left out. All else stays, to be checked.
    """
    properties, required = parameters.get("properties"), parameters.get("required")
    if not isinstance(properties, Mapping):
        return dict(args)
    meant: dict[str, JsonValue] = {}
    for name, value in args.items():
        schema = properties.get(name)
        is_text = isinstance(value, str) and "${" not in value
        if isinstance(schema, Mapping) and (value is None or (is_text and not _takes_text(schema))):
            is_optional = not isinstance(required, list) or name not in required
            checked, fits = _by_schema(value, schema, parameters)
            if value is None and is_optional and not fits:
                continue
            value = checked
        meant[name] = value
    return meant


def _takes_text(schema: Any) -> bool:
    """Whether a text may fit; what refers elsewhere is not looked into."""
    if not isinstance(schema, Mapping):
        return True
    options = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(options, list):
        return any(_takes_text(option) for option in options)
    kinds = schema.get("type", "string")
    return "string" in kinds if isinstance(kinds, list) else kinds == "string"


def _by_schema(
    value: JsonValue, schema: Mapping[str, Any], root: Mapping[str, Any]
) -> tuple[JsonValue, bool]:
    """The value fitted to one parameter's schema, and whether it fits."""
    shared = {k: root[k] for k in ("$defs", "definitions") if k in root}
    try:
        fitted, problems = AnswerSchema({**schema, **shared}).fitted(value)
    except SchemaUnusableError:
        return value, True
    return (value, False) if problems else (fitted, True)
