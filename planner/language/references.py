"""References `${id}` and `${id.path}`: found, and resolved in one pass with types kept.

A string that is wholly one reference becomes the value itself; inside a longer string the value
becomes text (strings as they are, others as compact JSON). The path is JMESPath. `$${` is a
literal `${`. What a value itself contains is never looked at again.

The name ends at the first `.`, `[`, `|` or space; one that holds a dot is quoted: `${"a.b".x}`.
Functions may stand around it: `${length(rows)}` is `${rows | length(@)}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from planloom.planner.language.expressions import (
    BadPathError,
    Meter,
    TooMuchWorkError,
    UnresolvedError,
    compiled_path,
)
from planloom.planner.language.expressions import shortened as shortened
from planloom.planner.language.values import JsonValue, Problem

REFERENCE_MAX_CHARS = 1_000
"""From `${` to `}`: what is longer is text."""
UNCLOSED_MAX = 20
"""After so many references of a string that never close, its rest is text: keeps it linear."""
SHORT_MAX_CHARS = 2_000

_BEGIN = re.compile(r'\s*[A-Za-z0-9_"]')
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_ROOT = re.compile(
    r'\s*(?:([A-Za-z0-9_][A-Za-z0-9_-]*)|"([A-Za-z0-9_][A-Za-z0-9_.-]*)")\s*(.*?)\s*$', re.DOTALL
)
_CALL = re.compile(
    r"\s*((?:[a-z_]+\(\s*(?:'[^'\\]*'\s*,\s*)?)+)"
    r'(?:([A-Za-z0-9_][A-Za-z0-9_-]*)|"([A-Za-z0-9_][A-Za-z0-9_.-]*)")\s*(.*?)\s*$',
    re.DOTALL,
)
"""Functions around the name: `length(rows)`, `join(', ', names)`."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference as written: `root` is the first name, `path` the JMESPath after it."""

    root: str
    path: str
    text: str


class MissingReferenceError(UnresolvedError):
    """No value of that name."""

    def __init__(self, reference: Reference, ids: Iterable[str]) -> None:
        names = list(ids)
        near = get_close_matches(reference.root, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        listed = f" Known: {', '.join(names[:12])}." if names and not near else ""
        text = shortened(reference.text)
        super().__init__(f'no value "{shortened(reference.root)}" for "{text}".{hint}{listed}')


class NothingFoundError(UnresolvedError):
    """A path in the middle of a text that finds nothing there."""

    def __init__(self, reference: Reference) -> None:
        text = shortened(reference.text)
        example = shortened(f"${{{reference.root}{reference.path} || 'unknown'}}")
        super().__init__(
            f'"{text}" finds nothing, and stands inside a longer text. '
            f"Correct the path, or give a default: {example}."
        )


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
        found = _named(text[begin + 2 : end]) if end >= 0 else None
        if found is None:
            literal += text[at : begin + 2]
            at = begin + 2
            continue
        literal += text[at:begin]
        if literal:
            parts.append(literal)
        literal, at = "", end + 1
        parts.append(Reference(*found, text[begin:at]))
    literal += text[at:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def _named(inner: str) -> tuple[str, str] | None:
    """The first name of a reference, and the JMESPath that its value goes through."""
    if call := _CALL.match(inner):
        return call[2] or call[3], f"| {call[1]}@{call[4]}"
    match = _ROOT.match(inner)
    return (match[1] or match[2], match[3]) if match else None


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


def resolve(
    value: JsonValue, scope: Mapping[str, JsonValue], meter: Meter | None = None
) -> JsonValue:
    """The value with every reference replaced, once.

    A string that is wholly a reference becomes `null` where that finds nothing. Inside a longer
    text a path that finds nothing is an error; a value that is `null` as a whole, such as that of a
    task that failed, is named there: `(b has no value)`. `meter` bounds the work and the size of
    what is built, over all references; without it the bounds are those of workflow code.

    Raises:
        MissingReferenceError: a name that is not in `scope`.
        BadPathError: a path that is not JMESPath, does not fit the value, or builds too much.
        NothingFoundError: a path inside a longer text that finds nothing.
    """
    return _Resolving(scope, meter or Meter()).value(value)


class _Resolving:
    """One call of `resolve`."""

    def __init__(self, scope: Mapping[str, JsonValue], meter: Meter) -> None:
        self._scope = scope
        self._meter = meter
        self._seen: set[str] = set()

    def value(self, value: JsonValue) -> JsonValue:
        match value:
            case str():
                return self._text(value) if "${" in value else value
            case list():
                return [self.value(v) for v in value]
            case dict():
                return {k: self.value(v) for k, v in value.items()}
            case _:
                return value

    def _text(self, text: str) -> JsonValue:
        parts = _parts(text)
        if len(parts) == 1 and isinstance(parts[0], Reference):
            return self._whole(parts[0])
        return "".join(p if isinstance(p, str) else self._inside(p) for p in parts)

    def _whole(self, reference: Reference) -> JsonValue:
        found = self._found(reference)
        if reference.text in self._seen:  # the same value in many places makes a large document
            self._count(reference, found)
        self._seen.add(reference.text)
        return found

    def _inside(self, reference: Reference) -> str:
        found = self._found(reference)
        if found is None:
            if reference.path and self._scope[reference.root] is not None:
                raise NothingFoundError(reference)
            return f"({shortened(reference.root)} has no value)"
        text = as_text(found)
        self._count(reference, text)
        return text

    def _count(self, reference: Reference, found: JsonValue) -> None:
        try:
            self._meter.built(found)
        except TooMuchWorkError as error:
            raise TooMuchWorkError(f'"{shortened(reference.text)}": {error}') from None

    def _found(self, reference: Reference) -> JsonValue:
        if reference.root not in self._scope:
            raise MissingReferenceError(reference, self._scope)
        value = self._scope[reference.root]
        if not reference.path:
            return value
        try:
            return compiled_path(reference.path).search(value, self._meter)  # type: ignore[no-any-return]
        except BadPathError as error:
            raise type(error)(f'"{shortened(reference.text)}": {error}') from None


def builds(value: JsonValue) -> bool:
    """Whether a reference of the value computes something, beyond picking a part.

    Such a value may take seconds to resolve, so it should not be resolved in an event loop.
    """
    return any(not _is_selection(r) for r in find_references(value))


def _is_selection(reference: Reference) -> bool:
    try:
        return not reference.path or compiled_path(reference.path).is_selection
    except BadPathError:
        return True  # resolving it fails at once


def as_text(value: JsonValue) -> str:
    """A value inside a longer string."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
