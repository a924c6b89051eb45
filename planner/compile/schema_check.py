"""Literal values against a JSON Schema, with references let through; pure and small.

Covers what tool signatures give: type, properties, required, additionalProperties, items,
prefixItems, enum, const, anyOf/oneOf/allOf, $ref to $defs, (exclusive) minimum and maximum,
minLength/maxLength, minItems/maxItems.
Model output is checked in full, by `jsonschema`, where the output arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from planloom.planner.language.references import references_in, whole_reference
from planloom.planner.language.values import JsonValue, Problem

DEPTH_MAX = 20
STEPS_MAX = 100_000
"""Values and schemas looked at: a schema that refers to itself can ask for endlessly many."""

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


SEEN_MAX_CHARS = 24
"""A longer text is not shown in a message: it may be a prompt, or a key."""
OPTIONS_MAX_CHARS = 300

_MAPS = ("properties", "$defs")
_LISTS = ("required", "enum", "anyOf", "oneOf", "allOf", "prefixItems")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")


def check_arguments(
    args: Mapping[str, JsonValue], schema: Mapping[str, Any], where: str = "args"
) -> list[Problem]:
    """All that is wrong with a call's arguments before its references have values."""
    return _Checker(schema, lets_references=True).check(dict(args), schema, where)


def check_value(
    value: JsonValue, schema: Mapping[str, Any], where: str = "output"
) -> list[Problem]:
    """All that is wrong with a plain value, such as a person's answer."""
    if faults := check_schema(schema, where):
        return faults
    return _Checker(schema, lets_references=False).check(value, schema, where)


def check_schema(schema: Any, where: str, depth: int = 0) -> list[Problem]:
    """What is wrong with a schema that a person wrote: the keywords that are read here."""
    if isinstance(schema, bool) or depth > DEPTH_MAX:
        return []
    if not isinstance(schema, Mapping):
        return [_fault(where, f"needs a JSON Schema, found {_name(schema)}")]
    problems: list[Problem] = []
    types = schema.get("type", [])
    for kind in types if isinstance(types, list) else [types]:
        if not isinstance(kind, str) or kind not in _TYPES:
            near = get_close_matches(str(kind)[:50], list(_TYPES), n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Types: " + ", ".join(_TYPES)
            problems.append(_fault(f"{where}.type", f"no type {_name(kind)}", hint))
    wanted: list[tuple[tuple[str, ...], type | tuple[type, ...], str]] = [
        (_MAPS, Mapping, "an object"),
        (_LISTS, list, "a list"),
        (_NUMBERS, (int, float), "a number"),
        (_COUNTS, int, "a whole number"),
        (("$ref",), str, "text"),
    ]
    for names, kinds, said in wanted:
        for name in names:
            value = schema.get(name)
            if name in schema and (not isinstance(value, kinds) or isinstance(value, bool)):
                problems.append(_fault(f"{where}.{name}", f"needs {said}, found {_name(value)}"))
    if problems:
        return problems
    if not all(isinstance(name, str) for name in schema.get("required", ())):
        return [_fault(f"{where}.required", "needs a list of names")]
    inner = [(f"{n}.{k}", v) for n in _MAPS for k, v in schema.get(n, {}).items()]
    inner += [
        (f"{n}[{i}]", v)
        for n in ("anyOf", "oneOf", "allOf", "prefixItems")
        for i, v in enumerate(schema.get(n, []))
    ]
    inner += [(n, schema[n]) for n in ("items", "additionalProperties") if n in schema]
    for name, part in inner:
        problems += check_schema(part, f"{where}.{name}", depth + 1)
    return problems


def _fault(where: str, message: str, hint: str = "") -> Problem:
    return Problem(path=where, code="bad_schema", message=message, hint=hint)


def _name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str() if len(value) > SEEN_MAX_CHARS:
            return f"a text of {len(value):,} characters"
        case str():
            return f'the text "{value}"'
        case int() | float():
            return f"the number {value}" if abs(value) < 1e15 else "a huge number"
        case list():
            return "a list"
        case _:
            return "an object"


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON is: true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _described(part: Any) -> str:
    return str(part.get("description") or "") if isinstance(part, Mapping) else ""


class _Open(str):
    """A text with references in it: what it will say is not known yet."""

    __slots__ = ()


class _Checker:
    def __init__(self, root: Mapping[str, Any], *, lets_references: bool) -> None:
        self.root = root
        self.lets = lets_references
        self.steps = 0

    def check(self, value: JsonValue, schema: Any, where: str, depth: int = 0) -> list[Problem]:
        self.steps += 1
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX or self.steps > STEPS_MAX:
            return []
        if self.lets and isinstance(value, str) and "${" in value:
            if whole_reference(value) is not None:
                return []  # its type is known when its task has ended
            if references_in(value):
                value = _Open()
        if "$ref" in schema:
            return self.check(value, self._target(schema["$ref"]), where, depth + 1)
        for kind in ("anyOf", "oneOf"):
            if schema.get(kind):
                tries = [self.check(value, s, where, depth + 1) for s in schema[kind]]
                return [] if any(not t for t in tries) else min(tries, key=len)
        problems = [p for s in schema.get("allOf", ()) for p in self.check(value, s, where, depth)]
        if (kind_problem := self._check_type(value, schema, where)) is not None:
            return [*problems, kind_problem]
        problems += self._check_limits(value, schema, where)
        if isinstance(value, dict):
            problems += self._check_object(value, schema, where, depth)
        if isinstance(value, list):
            first = schema.get("prefixItems", [])
            for n, item in enumerate(value):
                part = first[n] if n < len(first) else schema.get("items")
                problems += self.check(item, part, f"{where}[{n}]", depth + 1)
        return problems

    def _target(self, ref: str) -> Any:
        """What a JSON pointer into the schema itself leads to; `#` is the whole schema."""
        node: Any = self.root
        for step in ref.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            node = node.get(name, {}) if isinstance(node, Mapping) else {}
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
        if isinstance(value, _Open):
            return []
        if "enum" in schema and not any(_same(value, e) for e in schema["enum"]):
            options = ", ".join(str(e) for e in schema["enum"][:20])[:OPTIONS_MAX_CHARS]
            found.append(f"needs one of {options}; found {_name(value)}")
        if "const" in schema and not _same(value, schema["const"]):
            found.append(f"needs {schema['const']}; found {_name(value)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value < schema.get("minimum", value):
                found.append(f"needs at least {schema['minimum']}, found {value}")
            if value > schema.get("maximum", value):
                found.append(f"needs at most {schema['maximum']}, found {value}")
            if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
                found.append(f"needs more than {schema['exclusiveMinimum']}, found {value}")
            if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
                found.append(f"needs less than {schema['exclusiveMaximum']}, found {value}")
        if isinstance(value, str | list):
            unit = "characters" if isinstance(value, str) else "items"
            low = schema.get("minLength" if isinstance(value, str) else "minItems", 0)
            high = schema.get("maxLength" if isinstance(value, str) else "maxItems")
            if len(value) < low:
                found.append(f"has {len(value)} {unit}; needs at least {low}")
            elif high is not None and len(value) > high:
                found.append(f"has {len(value)} {unit}; may have {high}")
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
                hint=_described(known.get(name)),
            )
            for name in schema.get("required", ())
            if name not in value
        ]
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known:
                problems += self.check(item, known[name], f"{where}.{name}", depth + 1)
            elif rest is False:
                near = get_close_matches(name[:100], list(known), n=1)
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
