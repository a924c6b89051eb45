"""Regular expressions of people and models, matched in time linear in the text.

Python's `re` backtracks: `(x+x+)+y` hangs a worker on 40 characters, and cannot be interrupted.
Patterns run on the engine that pydantic brings, which has no backtracking and therefore neither
look-around nor back references. Look-aheads right after a leading `^`, the form in common use, are
split off and matched one by one. See docs/decisions/0008-schemas-are-checked-in-bounded-time.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

PATTERN_MAX_CHARS = 1_000
STATES_MAX = 400_000
"""What fits into the ten megabytes that the engine gives a compiled pattern."""

_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")
_LOOK_AHEAD = ("(?=", "(?!")


class PatternError(ValueError):
    """A pattern that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One pattern: `parts` are what must match, or with False must not; `width` is their size."""

    parts: tuple[tuple[bool, SchemaValidator], ...]
    width: int

    def is_found_in(self, text: str) -> bool:
        """Whether the pattern matches somewhere in the text (unanchored, as JSON Schema says)."""
        return all(part.isinstance_python(text) is wanted for wanted, part in self.parts)

    def work(self, text: str) -> int:
        """An upper bound of states times characters: about 4 ns each."""
        return self.width * len(text)


@lru_cache(maxsize=512)
def matcher(pattern: str) -> Matcher:
    """The pattern, ready to match.

    Raises:
        PatternError: it is too long, is not a regular expression, or needs backtracking.
    """
    if len(pattern) > PATTERN_MAX_CHARS:
        raise PatternError(f"has {len(pattern):,} characters; at most {PATTERN_MAX_CHARS:,}")
    repeats = 1
    for count in _COUNT.finditer(pattern):
        repeats = min(STATES_MAX, repeats * max(1, int(count[2] or count[1])))
    parts = tuple((wanted, _compiled(part)) for wanted, part in _split(pattern))
    return Matcher(parts, len(pattern) + repeats)


def _compiled(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise PatternError(reason.removeprefix("error: ").removeprefix("SchemaError: ")) from None


def _split(pattern: str) -> list[tuple[bool, str]]:
    """A pattern as its leading look-aheads and the rest, each with whether it must match."""
    rest, parts = pattern.removeprefix("^"), list[tuple[bool, str]]()
    if rest == pattern:
        return [(True, pattern)]
    while rest.startswith(_LOOK_AHEAD) and (end := _end_of_group(rest)) is not None:
        parts.append((rest.startswith("(?="), f"^(?:{rest[3:end]})"))
        rest = rest[end + 1 :]
    if parts and _has_choice(rest):
        return [(True, pattern)]  # the look-aheads belong to the first alternative only
    return [*parts, (True, f"^{rest}")]


def _end_of_group(text: str) -> int | None:
    """Where the group closes that `text` begins with."""
    return next((at for at, char, depth in _structure(text) if char == ")" and not depth), None)


def _has_choice(text: str) -> bool:
    return any(char == "|" and not depth for _, char, depth in _structure(text))


def _structure(text: str) -> list[tuple[int, str, int]]:
    """Each `(`, `)` and `|` that means something: where it stands, and how many groups are open
    around it (for a `)`: after it)."""
    found: list[tuple[int, str, int]] = []
    depth, at, in_class = 0, 0, False
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]" or text[at - 1] == "[" or text[at - 2 : at] == "[^"
        elif char == "[":
            in_class = True
        elif char in "()|":
            depth -= char == ")"
            found.append((at, char, depth))
            depth += char == "("
        at += 1
    return found
