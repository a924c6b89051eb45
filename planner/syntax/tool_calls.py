"""Tool calls of models: names as every server takes them, arguments as they were meant. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from planloom.planner.language.clean_text import clean_text
from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.json_answer import AnswerSchema, SchemaUnusableError
from planloom.planner.syntax.json_text import parse_json

WIRE_NAME_MAX_CHARS = 64
UNKNOWN_NAME = "unknown_tool"
_ENCODED_MAX = 2
"""JSON text inside JSON text is read so often."""
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_PREFIX = re.compile(r"(?:functions?|tools?|default_api|namespace|assistant)(?:\.|::|/)", re.I)
_BEHIND = re.compile(r"(?:<\|.*|\(.*|:\d+)\Z", re.DOTALL)


def wire_name(name: str) -> str:
    """A name as every server takes it: `^[a-zA-Z0-9_-]{1,64}$`."""
    return _NOT_IN_NAMES.sub("_", name)[:WIRE_NAME_MAX_CHARS] or UNKNOWN_NAME


def wire_names(names: Iterable[str]) -> dict[str, str]:
    """Tool names by the names under which servers and models see them, each once."""
    taken: dict[str, str] = {}
    for name in names:
        wire, number = wire_name(name), 2
        while wire in taken:
            wire = f"{wire_name(name)[: WIRE_NAME_MAX_CHARS - 4]}_{number}"
            number += 1
        taken[wire] = name
    return taken


def called_name(written: str, names: Collection[str]) -> str | None:
    """Which of the names a model means by what it wrote; None when it is none of them.

    Models write `functions.look`, `look<|channel|>json`, `look:0`, `Look` and `look-up` too.
    """
    plain = clean_text(written).strip()
    if plain in names:
        return plain
    plain = _BEHIND.sub("", plain)
    while prefix := _PREFIX.match(plain):
        plain = plain[prefix.end() :]
    if plain in names:
        return plain
    same = [name for name in names if _folded(name) == _folded(plain)]
    return same[0] if len(same) == 1 and plain else None


def _folded(name: str) -> str:
    return wire_name(name).lower().replace("-", "_")


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
    value: Any = clean_text(text).strip()
    for is_inner in [False] + [True] * _ENCODED_MAX:
        if not isinstance(value, str) or value in ("", "null", "None"):
            break
        try:
            value = parse_json(value)
        except ValueError as error:
            if is_inner:
                break
            return Arguments({}, _why_not_read(schema, error, is_cut_off=is_cut_off))
    if value in (None, "", "null", "None"):
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
