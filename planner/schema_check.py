"""Literal values against a JSON Schema, with references let through; pure and small.

Covers what tool signatures give: type, properties, required, additionalProperties, items, enum,
const, anyOf/oneOf/allOf, $ref to $defs, minimum/maximum, minLength/maxLength, minItems/maxItems.
Model output is checked in full, by `jsonschema`, where the output arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from planner.references import references_in, whole_reference
from planner.values import JsonValue, Problem

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def check_arguments(
    args: Mapping[str, JsonValue], schema: Mapping[str, Any], where: str = "args"
) -> list[Problem]:
    """All that is wrong with a call's arguments before its references have values."""
    return _Checker(schema, lets_references=True).check(dict(args), schema, where)


def check_value(
    value: JsonValue, schema: Mapping[str, Any], where: str = "output"
) -> list[Problem]:
    """All that is wrong with a plain value, such as a person's answer."""
    return _Checker(schema, lets_references=False).check(value, schema, where)


def _name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return f'the text "{value[:40]}"'
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case _:
            return "an object"


class _Checker:
    def __init__(self, root: Mapping[str, Any], *, lets_references: bool) -> None:
        self.root = root
        self.lets = lets_references

    def check(self, value: JsonValue, schema: Any, where: str, depth: int = 0) -> list[Problem]:
        if not isinstance(schema, Mapping) or depth > 20:
            return []
        if self.lets and isinstance(value, str) and "${" in value:
            if whole_reference(value) is not None:
                return []  # its type is known when its task has ended
            if references_in(value):
                value = ""
                schema = {k: v for k, v in schema.items() if k in ("type", "anyOf", "$ref")}
        if "$ref" in schema:
            return self.check(value, self._target(schema["$ref"]), where, depth + 1)
        for kind in ("anyOf", "oneOf"):
            if kind in schema:
                tries = [self.check(value, s, where, depth + 1) for s in schema[kind]]
                return [] if any(not t for t in tries) else min(tries, key=len)
        problems = [p for s in schema.get("allOf", ()) for p in self.check(value, s, where, depth)]
        if (kind_problem := self._check_type(value, schema, where)) is not None:
            return [*problems, kind_problem]
        problems += self._check_limits(value, schema, where)
        if isinstance(value, dict):
            problems += self._check_object(value, schema, where, depth)
        if isinstance(value, list) and "items" in schema:
            for n, item in enumerate(value):
                problems += self.check(item, schema["items"], f"{where}[{n}]", depth + 1)
        return problems

    def _target(self, ref: str) -> Any:
        node: Any = self.root
        for step in ref.removeprefix("#/").split("/"):
            node = node.get(step, {}) if isinstance(node, Mapping) else {}
        return node

    def _check_type(self, value: JsonValue, schema: Any, where: str) -> Problem | None:
        wanted = schema.get("type")
        if wanted is None:
            return None
        kinds = [wanted] if isinstance(wanted, str) else list(wanted)
        for kind in kinds:
            fits = isinstance(value, _TYPES.get(kind, (object,)))
            if isinstance(value, bool) and kind in ("integer", "number"):
                fits = False
            if kind == "integer" and isinstance(value, float) and value.is_integer():
                fits = True
            if fits:
                return None
        message = f"needs {' or '.join(kinds)}, found {_name(value)}"
        return Problem(path=where, code="wrong_type", message=message)

    def _check_limits(self, value: JsonValue, schema: Any, where: str) -> list[Problem]:
        found: list[str] = []
        if "enum" in schema and value not in schema["enum"]:
            options = ", ".join(str(e) for e in schema["enum"][:20])
            found.append(f"needs one of {options}; found {_name(value)}")
        if "const" in schema and value != schema["const"]:
            found.append(f"needs {schema['const']}; found {_name(value)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value < schema.get("minimum", value):
                found.append(f"needs at least {schema['minimum']}, found {value}")
            if value > schema.get("maximum", value):
                found.append(f"needs at most {schema['maximum']}, found {value}")
            if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
                found.append(f"needs more than {schema['exclusiveMinimum']}, found {value}")
        if isinstance(value, str | list) and not (self.lets and value == ""):
            unit = "characters" if isinstance(value, str) else "items"
            low = schema.get("minLength" if isinstance(value, str) else "minItems", 0)
            high = schema.get("maxLength" if isinstance(value, str) else "maxItems", len(value))
            if not low <= len(value) <= high:
                found.append(f"has {len(value)} {unit}; needs {low} to {high}")
        return [Problem(path=where, code="out_of_range", message=m) for m in found]

    def _check_object(
        self, value: Mapping[str, JsonValue], schema: Any, where: str, depth: int
    ) -> list[Problem]:
        known: Mapping[str, Any] = schema.get("properties", {})
        problems = [
            Problem(
                path=f"{where}.{name}",
                code="missing_argument",
                message=f'"{name}" is missing',
                hint=str(known.get(name, {}).get("description", "")) if known else "",
            )
            for name in schema.get("required", ())
            if name not in value
        ]
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known:
                problems += self.check(item, known[name], f"{where}.{name}", depth + 1)
            elif rest is False:
                near = get_close_matches(name, list(known), n=1)
                hint = f'Did you mean "{near[0]}"?' if near else "Known: " + ", ".join(known)
                problems.append(
                    Problem(
                        path=f"{where}.{name}",
                        code="unknown_argument",
                        message=f'no argument "{name}"',
                        hint=hint,
                    )
                )
            elif isinstance(rest, Mapping):
                problems += self.check(item, rest, f"{where}.{name}", depth + 1)
        return problems
