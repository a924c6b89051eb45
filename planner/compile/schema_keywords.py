"""The keywords of JSON Schema as Planloom evaluates them: `jsonschema`, counted and made safe.

Work and depth are counted, not timed, so that a check comes out the same in every process. Patterns
do not backtrack, errors quote no value, and their order does not depend on hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry

from planloom.planner.compile.patterns import matcher
from planloom.planner.compile.schema_document import HUGE, Options, SchemaDocument, json_key
from planloom.planner.language.references import references_in, whole_reference
from planloom.planner.language.values import JsonValue

STEPS_MAX = 100_000
"""Less than a second. A schema may ask exponentially many questions of a value."""
DEPTH_MAX = 100
"""Schemas that are being looked into at once."""
ERRORS_MAX = 50
"""Of one keyword, and of one check."""
ERROR_STEPS = 5
PATTERN_WORK_A_STEP = 1_000
VALUES_A_STEP = 10
QUOTED_MAX_CHARS = 100

Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class TooMuchError(Exception):
    """The check would take more than `STEPS_MAX` or go deeper than `DEPTH_MAX`."""


def errors_of(
    value: JsonValue, document: SchemaDocument, *, lets_references: bool
) -> list[ValidationError]:
    """At most `ERRORS_MAX` of what does not fit.

    With `lets_references`, what has references in it is only checked for what is certain.

    Raises:
        TooMuchError: it takes too many steps.
    """
    marked = _marked(value, lets_references)
    token = _effort.set(_Effort())
    try:
        return list(islice(_validator_of(document).iter_errors(marked), ERRORS_MAX))
    finally:
        _effort.reset(token)


class _Unknown:
    """Stands for a whole reference: it fits everything."""

    def __repr__(self) -> str:
        return "…"


class _Text(str):
    """Long text. Errors of `jsonschema` quote values: these are quoted at no cost."""

    __slots__ = ()
    __repr__ = _Unknown.__repr__


class _Huge(int):
    __repr__ = _Unknown.__repr__


class _Items(list[Any]):
    __repr__ = _Unknown.__repr__

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__(items)
        self.size = sum(getattr(i, "size", 1) for i in items)


class _Fields(dict[str, Any]):
    __repr__ = _Unknown.__repr__

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.size = sum(getattr(f, "size", 1) for f in fields.values())


class _OpenText(_Text):
    """Text with references in it: what it will say is not known yet."""


class _OpenItems(_Items):
    """A list with references somewhere in it."""


class _OpenFields(_Fields):
    """An object with references somewhere in it."""


_UNKNOWN = _Unknown()
_OPEN = (_Unknown, _OpenText, _OpenItems, _OpenFields)


def _marked(value: JsonValue, lets_references: bool) -> Any:
    match value:
        case str():
            if lets_references and "${" in value:
                if whole_reference(value) is not None:
                    return _UNKNOWN
                if references_in(value):
                    return _OpenText(value)
            return _Text(value) if len(value) > QUOTED_MAX_CHARS else value
        case list():
            items = [_marked(v, lets_references) for v in value]
            return (_OpenItems if any(isinstance(i, _OPEN) for i in items) else _Items)(items)
        case dict():
            fields = {k: _marked(v, lets_references) for k, v in value.items()}
            is_open = any(isinstance(f, _OPEN) for f in fields.values())
            return (_OpenFields if is_open else _Fields)(fields)
        case int() if abs(value) >= HUGE:
            return _Huge(value)
        case _:
            return value


class _Effort:
    """Counts what a check does."""

    def __init__(self) -> None:
        self.steps = 0
        self.depth = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEPS_MAX or self.depth > DEPTH_MAX:
            raise TooMuchError


_effort: ContextVar[_Effort] = ContextVar("planloom_schema_effort")

_OF_KNOWN_TEXT = ("enum", "const", "pattern", "minLength", "maxLength", "not", "if")
"""What cannot be said of text with references in it."""
_OF_KNOWN_VALUES = ("enum", "const", "not", "if", "contains")
"""What cannot be said of a list or an object with references in it."""


def _bounded(keyword: str, check: Keyword) -> Keyword:
    def bounded(validator: Any, wanted: Any, value: Any, schema: Any) -> list[ValidationError]:
        if isinstance(value, _OPEN):
            left = _OF_KNOWN_TEXT if isinstance(value, _OpenText) else _OF_KNOWN_VALUES
            if value is _UNKNOWN or keyword in left:
                return []
        effort = _effort.get()
        effort.depth += 1
        effort.spend(1)
        # A list, so that nothing goes on later: `depth` is exact.
        errors = list(islice(check(validator, wanted, value, schema) or (), ERRORS_MAX))
        effort.spend(ERROR_STEPS * len(errors))
        effort.depth -= 1
        return errors

    return bounded


def _is_found(pattern: str, text: str) -> bool:
    found = matcher(pattern)
    _effort.get().spend(1 + found.work(text) // PATTERN_WORK_A_STEP)
    return found.is_found_in(text)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _is_found(pattern, value):
        yield ValidationError("")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], value: Any, _: Any
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for name, field in value.items():
                if _is_found(pattern, name):
                    yield from validator.descend(field, schema, path=name)


def _additional(
    validator: Any, rest: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, field in value.items():
        if name in known or any(_is_found(p, name) for p in patterns):
            continue
        if rest is False:
            yield ValidationError("", path=[name])
        else:
            yield from validator.descend(field, rest, path=name)


def _required(_: Any, names: list[str], value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        yield from (ValidationError("", path=[name]) for name in names if name not in value)


def _options(_: Any, options: Options, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, _Items | _Fields):
        _effort.get().spend(value.size // VALUES_A_STEP)
    if not options.has(value):
        yield ValidationError("")


def _multiple_of(_: Any, factor: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # As written: 19.99 is a multiple of 0.01, though not in binary.
        ratio = _as_written(value) / _as_written(factor)
        if ratio.denominator != 1:
            yield ValidationError("")


def _as_written(number: float) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _unique(_: Any, wanted: bool, value: Any, __: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(value, _Items):
        _effort.get().spend(value.size // VALUES_A_STEP)
        keys = [json_key(item) for item in value if not isinstance(item, _OPEN)]
        if len(set(keys)) < len(keys):
            yield ValidationError("")


def _not(validator: Any, schema: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if validator.evolve(schema=schema).is_valid(value):
        yield ValidationError("")


def _one_of(
    validator: Any, schemas: list[Any], value: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(value, _OPEN):  # of several that fit now, later only one may
        yield from _STOCK["anyOf"](validator, schemas, value, schema) or ()
        return
    fits = 0
    context: list[ValidationError] = []
    for number, part in enumerate(schemas):
        errors = list(validator.descend(value, part, schema_path=number))
        fits += not errors
        context += errors
    if fits != 1:
        yield ValidationError("", context=() if fits else context)


_STOCK: Mapping[str, Keyword] = Draft202012Validator.VALIDATORS
_OWN: dict[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "required": _required,
    "enum": _options,
    "const": _options,
    "multipleOf": _multiple_of,
    "uniqueItems": _unique,
    "not": _not,
    "oneOf": _one_of,
}
_Validator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {k: _bounded(k, f) for k, f in {**_STOCK, **_OWN}.items()}
)


@lru_cache(maxsize=256)
def _validator_of(document: SchemaDocument) -> Any:
    # An empty registry: nothing is ever fetched.
    return _Validator(document.schema, registry=Registry())
