"""Reads a JSON Schema (2020-12) that a person, a model or a tool's author wrote.

What comes out holds only keywords that are enforced, refers only to itself, and can be evaluated
in bounded time. What cannot be enforced is a fault: nothing is ignored silently. `format` is an
annotation, as the standard says; unknown keywords are, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from planloom.planner.compile.patterns import PatternError, matcher
from planloom.planner.language.values import JsonValue, is_deeper

DEPTH_MAX = 30
"""Levels of schemas in schemas."""
SUBSCHEMAS_MAX = 2_000
PATTERNS_MAX = 25
"""The engine takes up to 0.05 s for one."""
SCHEMA_MAX_CHARS = 256 * 1024
NESTING_MAX = 100
"""Levels of objects and lists in a schema or a value: deeper ones run Python out of stack."""
HUGE = 10**300
"""A larger number is neither shown nor written out."""

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = (
    "items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else",
)  # fmt: skip
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = (
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "minContains", "maxContains",
)  # fmt: skip
_IN_PLACE = ("$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas")
"""Their schemas look at the same value: a circle of them would never end."""
_REFUSED = {
    "$dynamicRef": "Use $ref with #/$defs/….",
    "$recursiveRef": "Use $ref with #/$defs/….",
    "unevaluatedItems": "Use items.",
    "unevaluatedProperties": "Use additionalProperties.",
    "additionalItems": "JSON Schema 2020-12 has prefixItems and items for this.",
    "dependencies": "JSON Schema 2020-12 has dependentRequired and dependentSchemas for this.",
}

_ESCAPED = re.compile("(?:%[0-9A-Fa-f]{2})+")
"""What a reference, which is part of an address, may write for other characters."""

_Pointer = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at `path` inside a schema (`""` is the whole)."""

    path: str
    message: str
    hint: str = ""


@dataclass(frozen=True, eq=False)
class SchemaDocument:
    """A schema to evaluate, without what `faults` names. One object for equal schemas."""

    schema: dict[str, Any]
    faults: tuple[Fault, ...]


class Options(list[JsonValue]):
    """The values of `enum` or `const`, with a key of each, equal where JSON values are."""

    def __init__(self, values: Iterable[JsonValue]) -> None:
        super().__init__(values)
        self.keys = frozenset(json_key(v) for v in self)
        self.shapes = frozenset(_shape(v) for v in self)

    def has(self, value: JsonValue) -> bool:
        return _shape(value) in self.shapes and json_key(value) in self.keys


def _shape(value: JsonValue) -> tuple[str, int]:
    match value:
        case dict():
            return "object", len(value)
        case list():
            return "list", len(value)
        case _:
            return "", 0


def json_key(value: JsonValue) -> str:
    """A text that two values share when JSON calls them equal: 1 and 1.0, but not 1 and true."""
    return json.dumps(_normal(value), sort_keys=True)


def _normal(value: JsonValue) -> JsonValue:
    match value:
        case dict():
            return {k: _normal(v) for k, v in value.items()}
        case list():
            return [_normal(v) for v in value]
        case float() if value.is_integer():
            return _normal(int(value))
        case int() if abs(value) >= HUGE:
            return {"int": hex(value)}
        case _:
            return value


def read_schema(schema: Any) -> SchemaDocument:
    """What a schema says, and all that is wrong with it."""
    if is_deeper(schema, NESTING_MAX):
        return _unusable(f"is nested deeper than {NESTING_MAX} levels")
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError):
        return _unusable("is not valid JSON")
    if len(text) > SCHEMA_MAX_CHARS:
        return _unusable(f"has {len(text):,} characters; at most {SCHEMA_MAX_CHARS:,}")
    return _read(text)


def _unusable(message: str) -> SchemaDocument:
    return SchemaDocument({}, (Fault("", message),))


@lru_cache(maxsize=256)
def _read(text: str) -> SchemaDocument:
    reader = _Reader()
    schema = reader.read(json.loads(text), "", (), 0)
    reader.follow()
    usable = schema if reader.is_finite() else {}
    return SchemaDocument(usable, tuple(reader.faults))


class _Reader:
    """Walks one schema: copies what is enforced, and notes what is not."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.subschemas = 0
        self.patterns = 0
        self.in_place: dict[_Pointer, list[_Pointer]] = {}
        """Each schema, and those that look at the same value."""
        self.paths: dict[_Pointer, str] = {}
        self.references: list[tuple[str, _Pointer, dict[str, Any]]] = []

    def fault(self, path: str, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path.lstrip("."), message, hint))

    def read(self, schema: JsonValue, path: str, at: _Pointer, depth: int) -> dict[str, Any]:
        self.in_place[at] = []
        self.paths[at] = path
        self.subschemas += 1
        if isinstance(schema, bool):
            return {} if schema else {"not": {}}
        if not isinstance(schema, dict):
            self.fault(path, f"needs a JSON Schema, found {name_of(schema)}")
            return {}
        if depth > DEPTH_MAX:
            self.fault(path, f"schemas are nested deeper than {DEPTH_MAX} levels")
            return {}
        if self.subschemas > SUBSCHEMAS_MAX:
            if self.subschemas == SUBSCHEMAS_MAX + 1:
                self.fault(path, f"there are more than {SUBSCHEMAS_MAX:,} schemas in this one")
            return {}
        copy: dict[str, Any] = {}
        for keyword, value in schema.items():
            self._keyword(keyword, value, f"{path}.{keyword}", at, depth, copy)
        return copy

    def _keyword(
        self,
        keyword: str,
        value: JsonValue,
        path: str,
        at: _Pointer,
        depth: int,
        copy: dict[str, Any],
    ) -> None:
        parts: list[tuple[str, _Pointer]] = []
        if keyword in _REFUSED or (keyword == "$id" and at):
            hint = _REFUSED.get(keyword, "Only the whole schema has an $id.")
            self.fault(path, f"{keyword} is not supported", hint)
        elif keyword in _MAPS:
            if self._is(isinstance(value, dict), path, "an object", value):
                assert isinstance(value, dict)
                parts = [(f"{path}.{n}", (*at, keyword, n)) for n in value]
                copy[keyword] = {
                    name: self.read(part, *where, depth + 1)
                    for (name, part), where in zip(value.items(), parts, strict=True)
                    if keyword != "patternProperties" or self._is_pattern(name, where[0])
                }
        elif keyword in _LISTS:
            if self._is(isinstance(value, list) and bool(value), path, "a list of schemas", value):
                assert isinstance(value, list)
                parts = [(f"{path}[{n}]", (*at, keyword, str(n))) for n in range(len(value))]
                copy[keyword] = [
                    self.read(part, *where, depth + 1)
                    for part, where in zip(value, parts, strict=True)
                ]
        elif keyword in _SINGLES:
            parts = [(path, (*at, keyword))]
            inner = self.read(value, *parts[0], depth + 1)
            copy[keyword] = False if (keyword, value) == ("additionalProperties", False) else inner
        elif keyword == "$ref":
            if self._is(isinstance(value, str), path, "text", value):
                copy[keyword] = value
                self.references.append((path, at, copy))
        else:
            self._limit(keyword, value, path, copy)
        if keyword in _IN_PLACE:
            self.in_place[at] += [pointer for _, pointer in parts]

    def _limit(self, keyword: str, value: Any, path: str, copy: dict[str, Any]) -> None:
        """A keyword without schemas in it."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        match keyword:
            case "type":
                fits = self._are_types(value, path)
            case "enum":
                fits = self._is(isinstance(value, list), path, "a list", value)
                value = Options(value) if fits else value
            case "const":
                fits, value = True, Options([value])
            case "pattern":
                fits = self._is(isinstance(value, str), path, "text", value)
                fits = fits and self._is_pattern(value, path)
            case "required":
                fits = self._are_names(value, path)
            case "dependentRequired":
                fits = self._is(isinstance(value, dict), path, "an object", value)
                fits = fits and all(self._are_names(v, f"{path}.{k}") for k, v in value.items())
            case "uniqueItems":
                fits = self._is(isinstance(value, bool), path, "true or false", value)
            case "multipleOf":
                fits = self._is(is_number and value > 0, path, "a number above 0", value)
            case _ if keyword in _NUMBERS:
                fits = self._is(is_number, path, "a number", value)
            case _ if keyword in _COUNTS:
                is_count = is_number and value >= 0 and value == value // 1
                fits = self._is(is_count, path, "a whole number", value)
                value = int(value) if fits else value
            case "description":
                fits = isinstance(value, str)
            case _:
                fits = False
        if fits:
            copy[keyword] = value

    def _is(self, fits: bool, path: str, wanted: str, value: object) -> bool:
        if not fits:
            self.fault(path, f"needs {wanted}, found {name_of(value)}")
        return fits

    def _are_types(self, value: Any, path: str) -> bool:
        names = value if isinstance(value, list) else [value]
        fits = self._is(bool(names), path, "a type", value)
        for kind in names:
            if not isinstance(kind, str) or kind not in TYPES:
                near = get_close_matches(str(kind)[:50], TYPES, n=1)
                hint = f'Did you mean "{near[0]}"?' if near else "Types: " + ", ".join(TYPES)
                self.fault(path, f"no type {name_of(kind)}", hint)
                fits = False
        return fits and self._is(_are_once(names), path, "each type once", value)

    def _are_names(self, value: Any, path: str) -> bool:
        fits = isinstance(value, list) and all(isinstance(n, str) for n in value)
        return self._is(fits and _are_once(value), path, "a list of names, each once", value)

    def _is_pattern(self, pattern: str, path: str) -> bool:
        self.patterns += 1
        if self.patterns > PATTERNS_MAX:
            if self.patterns == PATTERNS_MAX + 1:
                self.fault(path, f"there are more than {PATTERNS_MAX} patterns in this schema")
            return False
        try:
            matcher(pattern)
        except PatternError as error:
            hint = "Patterns are matched without backtracking: no look-behind, no back references."
            self.fault(path, f"this pattern cannot be used: {error}", hint)
            return False
        return True

    def follow(self) -> None:
        """Check where each `$ref` leads; one that leads nowhere is taken out."""
        for path, at, copy in self.references:
            reference = copy["$ref"]
            target = _target(reference)
            if target in self.in_place:
                self.in_place[at].append(target)
                continue
            del copy["$ref"]
            shown = name_of(reference).removeprefix("the text ")
            if target is None:
                hint = "Only references into the schema itself are followed: #/$defs/…"
                self.fault(path, f"{shown} leads outside the schema", hint)
            else:
                self.fault(path, f"there is no schema at {shown}", "Write it under $defs.")

    def is_finite(self) -> bool:
        """Whether no schema refers to itself without going into the value."""
        try:
            TopologicalSorter(self.in_place).prepare()
        except CycleError as error:
            self.fault(self.paths[min(error.args[1])], "refers to itself without end")
            return False
        return True


def _target(reference: str) -> _Pointer | None:
    """What a JSON pointer into the schema itself names; `#` is the whole schema."""
    if reference == "#":
        return ()
    if not reference.startswith("#/"):
        return None
    steps = _ESCAPED.sub(_unescaped, reference[2:]).split("/")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def _unescaped(escaped: re.Match[str]) -> str:
    return bytes.fromhex(escaped[0].replace("%", "")).decode("utf-8", "replace")


def _are_once(values: list[Any]) -> bool:
    return len({json_key(v) for v in values}) == len(values)


SEEN_MAX_CHARS = 24
"""A longer text is not shown in a message: it may be a prompt, or a key."""


def name_of(value: object) -> str:
    """What a message calls a value."""
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
