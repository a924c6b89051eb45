"""Rough sizes of JSON values, without building their text."""

from __future__ import annotations

from planloom.planner.language.values import JsonValue


def text_bytes(value: JsonValue) -> int:
    """Rough size of a JSON value, without building its text."""
    if isinstance(value, str):
        return utf8_bytes(value) + 2
    if isinstance(value, list):
        return 2 + sum(text_bytes(v) + 1 for v in value)
    if isinstance(value, dict):
        return 2 + sum(utf8_bytes(k) + 4 + text_bytes(v) for k, v in value.items())
    return 8


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
