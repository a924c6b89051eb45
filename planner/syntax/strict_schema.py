"""A schema in OpenAI's strict subset: then every answer fits it. Pure.

There all objects are closed and require all their fields; a field that may be left out is `null`
instead, and `AnswerSchema.fitted` and the plan reader leave such nulls out again.
Source: OpenAI's guide to structured outputs, "Supported schemas" (2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROPERTIES_MAX = 5_000
NESTING_MAX = 10
ENUM_VALUES_MAX = 1_000
NAME_CHARS_MAX = 120_000
"""Of all names of properties, definitions, and values of enums together."""
_KEPT = ("description", "pattern", "minItems", "maxItems")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_REFUSED = (
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "prefixItems",
    "contains",
    "unevaluatedProperties",
    "propertyNames",
)

PASSES_MAX = 10
"""A chain of definitions that cannot be said, each for the next one: time stays linear."""
ANY = "any"
"""The definition that stands for any JSON."""

Schema = dict[str, Any]


class _OpenSchemaError(Exception):
    """A part that allows what the subset cannot say, such as an object of any fields."""


def strict_form(schema: Mapping[str, Any]) -> Schema | None:
    """The schema in the strict subset; None when no part of it can be said there.

    What fits the result fits `schema`, once fields that are `null` and may be left out are. A
    definition called `any` stands for any JSON: of it what can be said is kept, all but objects.
    """
    try:
        made = _object_form(schema)
    except (_OpenSchemaError, RecursionError):
        return None
    return made if _is_within_limits(made) else None


def _object_form(schema: Mapping[str, Any]) -> Schema:
    if schema.get("type") != "object" or "properties" not in schema:
        raise _OpenSchemaError
    defs = schema.get("$defs")
    shared = defs if isinstance(defs, Mapping) else {}
    made: dict[str, Schema] = {}
    usable = _usable(shared)
    names = set(usable)
    for name in usable:
        made[name] = _form(shared[name], names, is_narrowed=name == ANY)
    root = _form(schema, set(made))
    used, waiting = set[str](), _refs_of(root)
    while waiting:
        name = waiting.pop()
        used.add(name)
        waiting |= _refs_of(made[name]) - used
    kept = {name: made[name] for name in made if name in used}
    return {**root, "$defs": kept} if kept else root


def _usable(shared: Mapping[str, Any]) -> list[str]:
    """The definitions that can be said, found by leaving out those that cannot until all can."""
    usable = list(shared)
    for _ in range(PASSES_MAX):
        good, names = [], set(usable)
        for name in usable:
            try:
                _form(shared[name], names, is_narrowed=name == ANY)
            except _OpenSchemaError:
                continue
            good.append(name)
        if good == usable:
            return usable
        usable = good
    raise _OpenSchemaError


def _form(schema: Any, usable: set[str], *, is_narrowed: bool = False) -> Schema:
    if not isinstance(schema, Mapping) or any(word in schema for word in _REFUSED):
        raise _OpenSchemaError
    if isinstance(target := schema.get("$ref"), str):
        name = target.removeprefix("#/$defs/")
        if name not in usable:
            raise _OpenSchemaError
        return {"$ref": target}
    options = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(options, Sequence) and not isinstance(options, str):
        return _alternatives(options, usable, is_narrowed=is_narrowed)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return _alternatives([{**schema, "type": kind} for kind in kinds], usable)
    if isinstance(schema.get("enum"), list):
        typed = {"type": kinds} if isinstance(kinds, str) else {}
        return {**typed, "enum": list(schema["enum"])}
    if "const" in schema:
        return {"enum": [schema["const"]]}
    kept = {k: schema[k] for k in _KEPT if k in schema}
    match kinds:
        case "string" | "boolean" | "null":
            return {"type": kinds, **kept}
        case "number" | "integer":
            return {"type": kinds, **kept, **{k: schema[k] for k in _NUMBERS if k in schema}}
        case "array" if "items" in schema:
            return {"type": "array", "items": _form(schema["items"], usable), **kept}
        case "object":
            return _closed(schema, usable)
        case _:
            raise _OpenSchemaError


def _closed(schema: Mapping[str, Any], usable: set[str]) -> Schema:
    properties = schema.get("properties", {})
    # Without the word an object is open to more fields; with `false` all are named.
    if schema.get("additionalProperties", not properties) not in (False, None):
        raise _OpenSchemaError
    required = schema.get("required", ())
    made = {}
    for name, part in properties.items():
        form = _form(part, usable)
        made[name] = form if name in required else _nullable(form)
    return {
        "type": "object",
        "properties": made,
        "required": list(made),
        "additionalProperties": False,
    }


def _nullable(form: Schema) -> Schema:
    options = form.get("anyOf", [form])
    if {"type": "null"} in options:
        return form
    return {"anyOf": [*options, {"type": "null"}]}


def _alternatives(options: Sequence[Any], usable: set[str], *, is_narrowed: bool = False) -> Schema:
    forms: list[Schema] = []
    for option in options:
        try:
            form = _form(option, usable)
        except _OpenSchemaError:
            if not is_narrowed:
                raise
            continue
        forms += form.get("anyOf", [form])
    unique = [f for n, f in enumerate(forms) if f not in forms[:n]]
    if not unique:
        raise _OpenSchemaError
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _refs_of(value: Any) -> set[str]:
    match value:
        case dict():
            found = {r for k, v in value.items() if k != "$defs" for r in _refs_of(v)}
            target = value.get("$ref")
            return found | {target.removeprefix("#/$defs/")} if isinstance(target, str) else found
        case list():
            return {r for v in value for r in _refs_of(v)}
        case _:
            return set()


def _is_within_limits(schema: Schema) -> bool:
    properties = values = chars = 0
    level: list[tuple[Any, int]] = [(schema, 0)]
    deepest = 0
    while level:
        value, depth = level.pop()
        deepest = max(deepest, depth)
        if isinstance(value, list):
            level += [(v, depth) for v in value]
        elif isinstance(value, dict):
            fields = value.get("properties") if value.get("type") == "object" else None
            if isinstance(fields, dict):
                properties += len(fields)
                chars += sum(map(len, fields))
            if isinstance(listed := value.get("enum"), list):
                values += len(listed)
                chars += sum(len(str(v)) for v in listed)
            for key, part in value.items():
                is_deeper = key in ("properties", "items")
                level.append((part, depth + is_deeper))
    return (
        properties <= PROPERTIES_MAX
        and values <= ENUM_VALUES_MAX
        and chars <= NAME_CHARS_MAX
        and deepest <= NESTING_MAX
    )
