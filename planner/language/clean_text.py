"""Text from models and endpoints made safe to store: valid Unicode, once, where it enters. Pure.

A JSON escape such as `\\ud83d` without its other half becomes a lone surrogate in Python. Such text
cannot be encoded as UTF-8, so no payload, blob or log can hold it.
"""

from __future__ import annotations

import re

from planloom.planner.language.values import JsonValue

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SURROGATE = re.compile("[\ud800-\udfff]")
_OPEN_HALF = re.compile("[\ud800-\udbff]\\Z")


def clean_text(text: str) -> str:
    """The text with halves of one character put together and lone halves replaced by U+FFFD.

    Valid text is returned as it is. Time is linear in the length.
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_value(value: JsonValue) -> JsonValue:
    """A JSON value with all its texts and keys cleaned; the same object if nothing was to clean.

    Two keys that become the same text keep the value of the last one, as in any JSON object.

    Raises:
        ValueError: it is nested too deep for Python; nothing can store it.
    """
    try:
        return _cleaned(value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _cleaned(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return clean_text(value)
        case list():
            items = [_cleaned(v) for v in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        case dict():
            made = {clean_text(k): _cleaned(v) for k, v in value.items()}
            is_same = all(a is b and made[a] is value[b] for a, b in zip(made, value, strict=False))
            return value if is_same and len(made) == len(value) else made
        case _:
            return value


class TextCleaner:
    """`clean_text` for text that arrives in pieces: a character may be cut between two of them."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """The piece, cleaned; a first half at its end is held back until the next piece."""
        if not text:
            return ""
        text, self._half = self._half + text, ""
        if _OPEN_HALF.search(text):
            text, self._half = text[:-1], text[-1]
        return clean_text(text)

    def close(self) -> str:
        """What is left when no more text comes."""
        rest, self._half = self._half, ""
        return clean_text(rest)


REORDERING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
"""Embeddings, overrides and isolates: they show what follows in another order than it is read in,
so that a command or a path looks like another one."""


def in_its_order(text: str) -> str:
    """The text as people are shown it: nothing in it changes the order of its letters.

    Arabic and Hebrew need none of these marks: letters know their own direction.
    """
    return text if text.isascii() else text.translate(REORDERING)
