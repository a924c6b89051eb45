"""References `${id}` and `${id.path}`: found, and resolved in one pass with types kept.

A string that is wholly one reference becomes the value itself; inside a longer string the value
becomes text (strings as they are, others as compact JSON). The path is JMESPath. `$${` is a
literal `${`. What a value itself contains is never looked at again.

The name ends at the first `.`, `[`, `|` or space; one that holds a dot is quoted: `${"a.b".x}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult

from planloom.planner.language.values import JsonValue, Problem

REFERENCE_MAX_CHARS = 1_000
"""From `${` to `}`: what is longer is text."""
UNCLOSED_MAX = 20
"""After so many references of a string that never close, its rest is text: keeps it linear."""
PATH_DEPTH_MAX = 100
"""Levels of a JMESPath expression, so that evaluating it never runs out of stack."""
SHORT_MAX_CHARS = 2_000
SHOWN_MAX_CHARS = 80

FAULTS = (JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError)
"""What JMESPath raises: its own errors, and Python's where it does not look."""

_BEGIN = re.compile(r'\s*[A-Za-z0-9_"]')
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_ROOT = re.compile(
    r'\s*(?:([A-Za-z0-9_][A-Za-z0-9_-]*)|"([A-Za-z0-9_][A-Za-z0-9_.-]*)")\s*(.*?)\s*$', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference as written: `root` is the first name, `path` the JMESPath after it."""

    root: str
    path: str
    text: str


class UnresolvedError(ValueError):
    """A reference that cannot be resolved; the message says which, and how to mend it."""


class MissingReferenceError(UnresolvedError):
    """No value of that name."""

    def __init__(self, reference: Reference, ids: Iterable[str]) -> None:
        names = list(ids)
        near = get_close_matches(reference.root, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        listed = f" Known: {', '.join(names[:12])}." if names and not near else ""
        text = shortened(reference.text)
        super().__init__(f'no value "{shortened(reference.root)}" for "{text}".{hint}{listed}')


class BadPathError(UnresolvedError):
    """What follows the name is no JMESPath, or does not fit the value."""


def _parts(text: str) -> tuple[str | Reference, ...]:
    """A string as literal parts and references, in order."""
    return _short_parts(text) if len(text) <= SHORT_MAX_CHARS else _long_parts(text)


@lru_cache(maxsize=4096)
def _short_parts(text: str) -> tuple[str | Reference, ...]:
    return _split(text)


@lru_cache(maxsize=16)  # a plan reads each of its texts several times, and they may be large
def _long_parts(text: str) -> tuple[str | Reference, ...]:
    return _split(text)


def _split(text: str) -> tuple[str | Reference, ...]:
    parts: list[str | Reference] = []
    literal, at, unclosed = "", 0, 0
    while (begin := text.find("${", at)) >= 0 and unclosed < UNCLOSED_MAX:
        if begin > 0 and text[begin - 1] == "$":
            literal += text[at:begin] + "{"
            at = begin + 2
            continue
        end = end_of_reference(text, begin + 2)
        unclosed += end == _NEVER
        match = _ROOT.match(text[begin + 2 : end]) if end >= 0 else None
        if match is None:
            literal += text[at : begin + 2]
            at = begin + 2
            continue
        literal += text[at:begin]
        if literal:
            parts.append(literal)
        literal, at = "", end + 1
        parts.append(Reference(match[1] or match[2], match[3], text[begin:at]))
    literal += text[at:]
    if literal:
        parts.append(literal)
    return tuple(parts)


_NONE, _NEVER = -1, -2


def end_of_reference(text: str, at: int) -> int:
    """Where the brace of a reference closes that opens before `at`; negative when it does not.

    Braces and quotes inside its path count; another `${` in it means that it never closed.
    """
    if not _BEGIN.match(text, at):
        return _NONE
    depth, quote, last = 0, "", min(len(text), at + REFERENCE_MAX_CHARS)
    while at < last:
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"`":
            quote = char
        elif char == "{":
            if text[at - 1] == "$":
                return _NONE
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return _NEVER


def references_in(text: str) -> list[Reference]:
    """The references of one string, in order."""
    if "${" not in text:
        return []
    return [p for p in _parts(text) if isinstance(p, Reference)]


def find_references(value: JsonValue) -> list[Reference]:
    """All references in a value, in any nesting; keys of objects are not looked at."""
    match value:
        case str():
            return references_in(value)
        case list():
            return [r for v in value for r in find_references(v)]
        case dict():
            return [r for v in value.values() for r in find_references(v)]
        case _:
            return []


def roots_of(value: JsonValue) -> tuple[str, ...]:
    """The first names that a value's references start with, each once, in order."""
    return tuple(dict.fromkeys(r.root for r in find_references(value)))


def whole_reference(text: str) -> Reference | None:
    """The reference that a string wholly is, or None."""
    parts = _parts(text) if "${" in text else ()
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Reference) else None


def with_words(text: str, words: Callable[[Reference], str | None]) -> str:
    """The text with plain words in place of references, where `words` gives some; else as it is."""
    made = ""
    for part in _parts(text) if "${" in text else (text,):
        if isinstance(part, Reference):
            said = words(part)
            made += part.text if said is None else said.replace("${", "$${")
        else:
            made += part.replace("${", "$${")
    return made


def resolve(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """The value with every reference replaced, once.

    Raises:
        MissingReferenceError: a name that is not in `scope`.
        BadPathError: a path that is no JMESPath or does not fit the value.
    """
    match value:
        case str():
            return _resolve_text(value, scope) if "${" in value else value
        case list():
            return [resolve(v, scope) for v in value]
        case dict():
            return {k: resolve(v, scope) for k, v in value.items()}
        case _:
            return value


def _resolve_text(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    parts = _parts(text)
    if len(parts) == 1 and isinstance(parts[0], Reference):
        return _look_up(parts[0], scope)
    return "".join(p if isinstance(p, str) else as_text(_look_up(p, scope)) for p in parts)


def as_text(value: JsonValue) -> str:
    """A value inside a longer string."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _look_up(reference: Reference, scope: Mapping[str, JsonValue]) -> JsonValue:
    if reference.root not in scope:
        raise MissingReferenceError(reference, scope)
    value = scope[reference.root]
    if not reference.path:
        return value
    try:
        result: Any = compiled_path(reference.path).search(value)
    except BadPathError as error:
        raise BadPathError(f'"{shortened(reference.text)}": {error}') from None
    except FAULTS as error:
        raise BadPathError(f'"{shortened(reference.text)}": {fault_of(error)}') from None
    return result  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def compiled_path(path: str) -> ParsedResult:
    """The JMESPath after a reference's name: `.a.b`, `[0]`, ` | length(@)`.

    Raises:
        BadPathError: it does not parse, nests too deep, or calls a function that there is not.
    """
    if path[0] not in ".[|":
        raise BadPathError(f'a name is followed by ".", "[" or "|", not by "{path[0]}"')
    return compiled_expression("@" + path)


def compiled_expression(expression: str) -> ParsedResult:
    """A JMESPath expression that can be evaluated.

    Raises:
        BadPathError: as `compiled_path`.
    """
    try:
        parsed = jmespath.compile(expression)
    except FAULTS as error:
        raise BadPathError(fault_of(error)) from None
    level: list[Any] = [parsed.parsed]
    for _ in range(PATH_DEPTH_MAX):
        for node in level:
            if node["type"] == "function_expression":
                _check_function(node["value"])
        level = [c for n in level for c in n.get("children", ()) if isinstance(c, dict)]
        if not level:
            return parsed
    raise BadPathError(f"is nested deeper than {PATH_DEPTH_MAX} levels")


def _check_function(name: str) -> None:
    functions = Functions.FUNCTION_TABLE
    if name not in functions:
        near = get_close_matches(name, list(functions), n=1)
        raise BadPathError(
            f'no function "{shortened(name)}".' + (f' Did you mean "{near[0]}"?' if near else "")
        )


def fault_of(error: Exception) -> str:
    """What JMESPath found wrong, in one line and without the values that it looked at."""
    match error:
        case RecursionError():
            return "is nested too deeply"
        case JMESPathTypeError():
            wanted = " or ".join(error.expected_types)
            return f"{error.function_name}() needs {wanted}, found {error.actual_type}"
        case _:
            return str(error).split("\n")[0].removesuffix(", for expression:")[:160]


def shortened(text: str) -> str:
    """A text as messages show it."""
    return text if len(text) <= SHOWN_MAX_CHARS else text[: SHOWN_MAX_CHARS - 1] + "…"


def check_path(reference: Reference, where: str) -> list[Problem]:
    """Whether a reference's path can be evaluated."""
    if not reference.path:
        return []
    try:
        compiled_path(reference.path)
    except BadPathError as error:
        return [
            Problem(
                path=where,
                code="bad_path",
                message=f'"{shortened(reference.text)}": {error}',
                hint="The part after the name is JMESPath, for example ${a.items[0].name}; "
                "for a literal ${ write $${.",
            )
        ]
    return []


def rename(value: JsonValue, names: Mapping[str, str]) -> JsonValue:
    """The value with the first names of its references replaced."""
    match value:
        case str() if "${" in value:
            parts = []
            for part in _parts(value):
                if isinstance(part, str):
                    parts.append(part.replace("${", "$${"))
                elif part.root in names:
                    parts.append(_written(names[part.root], part.path))
                else:
                    parts.append(part.text)
            return "".join(parts)
        case list():
            return [rename(v, names) for v in value]
        case dict():
            return {k: rename(v, names) for k, v in value.items()}
        case _:
            return value


def _written(root: str, path: str) -> str:
    name = root if _PLAIN.fullmatch(root) else f'"{root}"'
    return "${" + name + (path if path[:1] in ("", ".", "[", "|") else f" {path}") + "}"
