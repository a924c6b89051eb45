"""References `${id}` and `${id.path}`: found, and resolved in one pass with types kept.

A string that is wholly one reference becomes the value itself; inside a longer string the value
becomes text (strings as they are, others as compact JSON). The path is JMESPath. `$${` is a
literal `${`. What a value itself contains is never looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from planner.values import JsonValue, Problem

_ROOT = re.compile(r"\s*([A-Za-z0-9_][A-Za-z0-9_-]*)\s*(.*?)\s*$", re.DOTALL)


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

    def __init__(self, reference: Reference, known: Iterable[str]) -> None:
        names = list(known)
        near = get_close_matches(reference.root, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        listed = f" Known: {', '.join(names[:12])}." if names and not near else ""
        super().__init__(f'no value "{reference.root}" for "{reference.text}".{hint}{listed}')


class BadPathError(UnresolvedError):
    """What follows the name is no JMESPath, or does not fit the value."""


@lru_cache(maxsize=4096)
def _parts(text: str) -> tuple[str | Reference, ...]:
    """A string as literal pieces and references, in order."""
    parts: list[str | Reference] = []
    literal, at = "", 0
    while True:
        begin = text.find("${", at)
        if begin < 0:
            literal += text[at:]
            break
        if begin > 0 and text[begin - 1] == "$":
            literal += text[at:begin] + "{"
            at = begin + 2
            continue
        end = _end_of(text, begin + 2)
        found = _ROOT.match(text[begin + 2 : end]) if end >= 0 else None
        if found is None:
            literal += text[at : begin + 2]
            at = begin + 2
            continue
        literal += text[at:begin]
        if literal:
            parts.append(literal)
        literal, at = "", end + 1
        parts.append(Reference(found[1], found[2], text[begin:at]))
    if literal:
        parts.append(literal)
    return tuple(parts)


def _end_of(text: str, at: int) -> int:
    """Where the brace of a reference closes; braces and quotes inside its path count."""
    depth, quote = 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"`":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return -1


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
    found = scope[reference.root]
    if not reference.path:
        return found
    try:
        result: Any = compiled_path(reference.path).search(found)
    except JMESPathError as error:
        raise BadPathError(f'"{reference.text}": {_short(error)}') from None
    return result  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def compiled_path(path: str) -> ParsedResult:
    """The JMESPath after a reference's name: `.a.b`, `[0]`, ` | length(@)`.

    Raises:
        JMESPathError: it does not parse.
    """
    return jmespath.compile("@" + path if path[0] in ".[|" else f"@.{path}")


def _short(error: JMESPathError) -> str:
    return str(error).split("\n")[0][:200]


def check_path(reference: Reference, where: str) -> list[Problem]:
    """Whether a reference's path parses."""
    if not reference.path:
        return []
    try:
        compiled_path(reference.path)
    except JMESPathError as error:
        return [
            Problem(
                path=where,
                code="bad_path",
                message=f'"{reference.text}": {_short(error)}',
                hint="The part after the name is JMESPath, for example ${a.items[0].name}.",
            )
        ]
    return []


def rename(value: JsonValue, names: Mapping[str, str]) -> JsonValue:
    """The value with the first names of its references replaced."""
    match value:
        case str() if "${" in value:
            pieces = []
            for part in _parts(value):
                if isinstance(part, str):
                    pieces.append(part.replace("${", "$${"))
                elif part.root in names:
                    pieces.append(part.text.replace(part.root, names[part.root], 1))
                else:
                    pieces.append(part.text)
            return "".join(pieces)
        case list():
            return [rename(v, names) for v in value]
        case dict():
            return {k: rename(v, names) for k, v in value.items()}
        case _:
            return value
