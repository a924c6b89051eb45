"""Values against a JSON Schema, by `jsonschema`: whole, with references let through, bounded.

This runs in workflow code, on schemas and values of models and people. So no check may hang, and
each must come out the same in every process: work and depth are counted (not timed), patterns do
not backtrack, and no error quotes a value. See
docs/decisions/0008-schemas-are-checked-in-bounded-time.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from jsonschema import ValidationError

from planloom.planner.compile.schema_document import (
    NESTING_MAX,
    SchemaDocument,
    name_of,
    read_schema,
)
from planloom.planner.compile.schema_keywords import STEPS_MAX, TooMuchError, errors_of
from planloom.planner.language.values import JsonValue, Problem, is_deeper

OPTIONS_MAX_CHARS = 300
SHOWN_MAX_CHARS = 100
NAMES_MAX = 100
"""Looked through for the nearest to a wrong one."""


def check_arguments(
    args: Mapping[str, JsonValue], schema: Mapping[str, Any], where: str = "args"
) -> list[Problem]:
    """All that is wrong with a call's arguments before its references have values.

    What of the tool's own schema cannot be evaluated is left to the tool.
    """
    return _check(dict(args), read_schema(schema), where, lets_references=True)


def check_value(value: JsonValue, schema: Any, where: str = "output") -> list[Problem]:
    """All that is wrong with a plain value, such as a person's answer."""
    document = read_schema(schema)
    if document.faults:
        return check_schema(schema, where)
    return _check(value, document, where, lets_references=False)


def check_schema(schema: Any, where: str) -> list[Problem]:
    """What is wrong with a schema that a person or a model wrote, before a value comes."""
    return [
        Problem(path=_joined(where, f.path), code="bad_schema", message=f.message, hint=f.hint)
        for f in read_schema(schema).faults
    ]


def _joined(where: str, path: str) -> str:
    return f"{where}.{path}" if path else where


def _check(
    value: JsonValue, document: SchemaDocument, where: str, *, lets_references: bool
) -> list[Problem]:
    if is_deeper(value, NESTING_MAX):
        message = f"is nested deeper than {NESTING_MAX} levels"
        return [Problem(path=where, code="too_deep", message=message)]
    try:
        errors = errors_of(value, document, lets_references=lets_references)
    except TooMuchError:
        message = f"is too much to check against its schema (over {STEPS_MAX:,} steps)"
        hint = "Make the value smaller or its schema simpler."
        return [Problem(path=where, code="too_complex", message=message, hint=hint)]
    noun = "argument" if lets_references else "field"
    problems = [problem for error in errors for problem in _problems(error, where, noun)]
    return list({(p.path, p.message): p for p in problems}.values())


def _problems(error: ValidationError, where: str, noun: str) -> list[Problem]:
    path = where + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path
    )
    wanted, value = error.validator_value, error.instance
    match error.validator:
        case "anyOf" | "oneOf" if error.context:
            return _nearest(error, path, where, noun)
        case "oneOf":
            message = "fits more than one of the alternatives; needs exactly one"
            return [Problem(path=path, code="ambiguous", message=message)]
        case "type":
            return [_wrong_type(path, _as_list(wanted), value)]
        case "required":
            name = str(error.path[-1])
            hint = _described(error.schema, name)
            message = f'"{name}" is missing'
            return [Problem(path=path, code="missing_argument", message=message, hint=hint)]
        case "additionalProperties":
            name, known = str(error.path[-1]), list(_properties(error.schema))
            near = get_close_matches(name[:100], known[:NAMES_MAX], n=1)
            hint = (
                f'Did you mean "{near[0]}"?'
                if near
                else "Known: " + (", ".join(known[:20]) or "none")
            )
            message = f'no {noun} "{name}"'
            return [Problem(path=path, code="unknown_argument", message=message, hint=hint)]
        case keyword:
            message = _limit(str(keyword), wanted, value)
            return [Problem(path=path, code="out_of_range", message=message)]


def _nearest(error: ValidationError, path: str, where: str, noun: str) -> list[Problem]:
    """What is wrong by the alternative that fits best."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    tries = list(branches.values())
    if all(len(t) == 1 and t[0].validator == "type" and not t[0].path for t in tries):
        kinds = [kind for t in tries for kind in _as_list(t[0].validator_value)]
        return [_wrong_type(path, list(dict.fromkeys(kinds)), error.instance)]
    return [p for inner in min(tries, key=len) for p in _problems(inner, where, noun)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _wrong_type(path: str, kinds: list[Any], value: Any) -> Problem:
    message = f"needs {' or '.join(map(str, kinds))}, found {name_of(value)}"
    return Problem(path=path, code="wrong_type", message=message)


def _properties(schema: Any) -> Mapping[str, Any]:
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _described(schema: Any, name: str) -> str:
    part = _properties(schema).get(name)
    return str(part.get("description") or "") if isinstance(part, Mapping) else ""


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_UNITS = {"Length": "characters", "Items": "items", "Properties": "fields"}


def _limit(keyword: str, wanted: Any, value: Any) -> str:
    """What a keyword asks for, and what was seen."""
    seen = name_of(value)
    match keyword:
        case "enum":
            options = ", ".join(str(o) for o in wanted[:20])[:OPTIONS_MAX_CHARS]
            return f"needs one of {options}; found {seen}"
        case "const":
            return f"needs {str(wanted[0])[:OPTIONS_MAX_CHARS]}; found {seen}"
        case _ if keyword in _BOUNDS:
            return f"needs {_BOUNDS[keyword]} {str(wanted)[:SHOWN_MAX_CHARS]}, found {seen}"
        case "pattern":
            return f"needs text that matches {wanted[:SHOWN_MAX_CHARS]}; found {seen}"
        case "uniqueItems":
            return "needs items that differ from each other"
        case "contains":
            return "has no item that fits the schema of contains"
        case "minContains":
            return f"needs at least {wanted} items that fit the schema of contains"
        case "maxContains":
            return f"may have {wanted} items that fit the schema of contains"
        case "dependentRequired":
            return f"lacks what other fields ask for: {_dependents(wanted, value)}"
        case _ if keyword[3:] in _UNITS:
            least = "needs at least" if keyword.startswith("min") else "may have"
            return f"has {len(value):,} {_UNITS[keyword[3:]]}; {least} {wanted}"
        case _:
            return "is not allowed here"


def _dependents(wanted: Mapping[str, list[str]], value: Mapping[str, Any]) -> str:
    missing = [n for k, names in wanted.items() if k in value for n in names if n not in value]
    return ", ".join(f'"{n}"' for n in dict.fromkeys(missing))[:OPTIONS_MAX_CHARS]
