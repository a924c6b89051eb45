"""What pydantic found wrong with a value, in plain words."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from planloom.planner.language.values import Problem

FIELD_CUTOFF = 0.7
"""At 0.6 "expression" becomes "depends_on"."""
VALUE_SHOWN_MAX_CHARS = 24
"""A longer text is not shown in a message: it may be a prompt, or a key."""

_CALLED_ELSEWHERE = {
    **dict.fromkeys(("arguments", "parameters", "params", "input", "inputs", "kwargs"), ("args",)),
    **dict.fromkeys(("tool_name", "function", "action", "call", "operation"), ("tool",)),
    "name": ("id", "tool"),
    **dict.fromkeys(("task_id", "step", "key"), ("id",)),
    **dict.fromkeys(("dependencies", "deps", "needs", "after", "requires_tasks"), ("depends_on",)),
    **dict.fromkeys(("condition", "if", "only_if"), ("when",)),
    **dict.fromkeys(("foreach", "for_each", "loop", "items", "over"), ("map",)),
    **dict.fromkeys(("steps", "nodes", "plan", "calls"), ("tasks",)),
    **dict.fromkeys(("output", "result", "final", "return", "final_answer"), ("answer",)),
    **dict.fromkeys(("default", "else", "on_failure"), ("fallback",)),
    **dict.fromkeys(("question", "text", "message", "query"), ("prompt",)),
    **dict.fromkeys(("schema", "response_format", "json_schema"), ("output_schema",)),
    **dict.fromkeys(("retries", "max_retries", "attempts"), ("retry", "max_attempts")),
    **dict.fromkeys(("timeout_seconds", "deadline"), ("timeout",)),
    **dict.fromkeys(("note", "notes", "comment", "reason", "purpose"), ("description",)),
}
"""What other tools and models call our fields: nearer in meaning than in letters."""
_NO_ID = "is not an id: use letters, digits, _ - . only"
_PATTERNS = {
    r"^[A-Za-z][A-Za-z0-9_]*$": "is not a name: use letters, digits and _, and begin with a letter",
    r"^[0-9a-f]{64}$": "is not the SHA-256 of a stored plan: 64 hexadecimal digits",
}
_TIGHT_COLON = re.compile(r"(\w{1,24}):\S")
_WRAPPERS = (typing.Union, types.UnionType, list, typing.Annotated)
_NEEDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "invalid-json-value": "a JSON value",
    "list_type": "a list",
    "string_type": "text",
}
_KINDS: dict[type, str] = {
    type(None): "null",
    str: "text",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
_LIMITS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
}
_LENGTHS = {
    "string_too_long": ("max_length", "at most {} characters"),
    "string_too_short": ("min_length", "at least {} characters"),
    "too_long": ("max_length", "at most {} items"),
    "too_short": ("min_length", "at least {} items"),
}


class Hidden(typing.NamedTuple):
    """Stands for a value that no message may show."""

    kind: str


def needed(error: Mapping[str, Any]) -> str:
    """What a value of pydantic's `error` must be, to stand after "needs"; "" for other errors."""
    kind = error["type"]
    if kind in _NEEDS:
        return _NEEDS[kind]
    name, words = (_LIMITS | _LENGTHS).get(kind, ("", ""))
    limit = error.get("ctx", {}).get(name)
    if limit is None:
        return ""
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    written = f"{limit:,}" if isinstance(limit, int | float) else str(limit)
    words = words.format(written)
    return words.removesuffix("s") if limit == 1 and kind in _LENGTHS else words


def kind_of(value: object) -> str:
    """What a value is, without the value: it may be long, or a secret."""
    if isinstance(value, Hidden):
        return value.kind
    name = type(value).__name__  # YAML has dates
    return _KINDS.get(type(value), f"{'an' if name[:1] in 'aeio' else 'a'} {name}")


def hidden(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The error without its value, which may be a secret in the wrong place."""
    return {**entry, "input": Hidden(kind_of(entry["input"]))}


def problem_of(
    entry: Mapping[str, Any], loc: tuple[int | str, ...], path: str, model: type[BaseModel]
) -> Problem:
    """One of pydantic's errors as a problem of `path`, the place that people know.

    `loc` is the place in `model`.
    """
    found = shown(entry["input"])
    kind, message, hint = entry["type"], str(entry["msg"]), ""
    match kind:
        case "extra_forbidden":
            message = f'no field "{loc[-1] if loc else path}"'
            fields = _fields_at(model, loc[:-1])
            hint = _field_hint(str(loc[-1])[:100] if loc else "", fields)
        case "missing":
            message = "is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"needs an object, found {kind_of(entry['input'])}"
            hint = _object_hint(entry["input"], _fields_at(model, loc))
        case "value_error":
            message = message.removeprefix("Value error, ")
            if isinstance(entry["input"], str) and len(entry["input"]) > VALUE_SHOWN_MAX_CHARS:
                message = message.replace(entry["input"], "…")
        case "literal_error":
            expected = entry.get("ctx", {}).get("expected", "")
            message = f"needs {expected}; found {found}"
            hint = _nearest(found, expected)
        case "string_pattern_mismatch":
            message = f"{found} {_PATTERNS.get(entry['ctx']['pattern'], _NO_ID)}"
        case "string_type":
            message = f"needs text, found {found}"
            if isinstance(entry["input"], bool | int | float):
                hint = f'Write it in quotes: "{found}".'
        case "list_type":
            message = f"needs a list, found {found}"
            if loc[-1:] == ("tasks",) and isinstance(entry["input"], Mapping):
                hint = "Write each task as a list item with an id: [{id: a, tool: …}]."
        case "too_short" if entry["input"] == []:
            message = "is empty: it needs at least one"
        case _ if must := needed(entry):
            message = f"needs {must}; found {found}"
        case _:
            message = f"{message[:1].lower()}{message[1:]}, found {found}"
    return Problem(path=path, code=kind, message=message, hint=hint)


def _nearest(found: str, expected: str) -> str:
    options = [o.strip(" '") for o in expected.replace(" or ", ", ").split(",")]
    near = get_close_matches(found.strip('"')[:100], options, n=1)
    return f'Did you mean "{near[0]}"?' if near else ""


def _object_hint(found: Any, fields: Sequence[str]) -> str:
    """How to write the object that is needed."""
    if found is None:
        return "Its fields stand below it, indented further than it is."
    if isinstance(found, str) and (tight := _TIGHT_COLON.match(found)):
        return f'A colon needs a space after it: "{tight[1]}: …".'
    return "Fields: " + ", ".join(fields) if fields else ""


def _field_hint(written: str, fields: Sequence[str]) -> str:
    """The field that was meant: by what it is called elsewhere, else the nearest in its letters."""
    elsewhere = _CALLED_ELSEWHERE.get(written.lower().replace("-", "_"), ())
    near = [name for name in elsewhere if name in fields]
    near = near or get_close_matches(written, fields, n=1, cutoff=FIELD_CUTOFF)
    listed = "Fields: " + ", ".join(fields) if fields else ""
    return f'Did you mean "{near[0]}"?' if near else listed


def shown(value: Any) -> str:
    """A value as a message shows it: short ones whole, of others what they are."""
    if isinstance(value, str):
        if len(value) > VALUE_SHOWN_MAX_CHARS:
            return f"a text of {len(value):,} characters"
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(value) if abs(value) < 1e15 or isinstance(value, float) else "a huge number"
    return kind_of(value)


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names legal at a place, by walking the model's annotations."""
    here: list[Any] = [model]
    for step in loc:
        if isinstance(step, str):
            here = [inner for each in here for inner in _inside(each, step)]
    models = [each for each in here if typing.get_origin(each) is not dict]
    names = (f.alias or n for m in models for n, f in m.model_fields.items())
    return list(dict.fromkeys(names))


def _inside(holder: Any, step: str) -> list[Any]:
    if typing.get_origin(holder) is dict:
        return _holders_in(typing.get_args(holder)[1])
    info = holder.model_fields.get(step)
    return _holders_in(info.annotation) if info is not None else []


def _holders_in(annotation: Any) -> list[Any]:
    """The models and dictionaries that a value of this type may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is dict:
        return [annotation]
    if typing.get_origin(annotation) in _WRAPPERS:
        return [h for a in typing.get_args(annotation) for h in _holders_in(a)]
    return []
