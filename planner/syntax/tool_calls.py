"""Tool calls of models: names and arguments as every server takes them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from planloom.planner.language.clean_text import clean_text
from planloom.planner.syntax.json_text import parse_json

WIRE_NAME_MAX_CHARS = 64
UNKNOWN_NAME = "unknown_tool"
_ENCODED_MAX = 2
"""JSON text inside JSON text is read so often."""
_NOTHING = ("", "null", "None", None)
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_PREFIX = re.compile(r"(?:functions?|tools?|default_api|namespace|assistant)(?:\.|::?|/)", re.I)
_BEHIND = re.compile(r"(?:<\|.*|\(.*|:\d+)\Z", re.DOTALL)


def wire_name(name: str) -> str:
    """A name as every server takes it: `^[a-zA-Z0-9_-]{1,64}$`."""
    return _NOT_IN_NAMES.sub("_", name)[:WIRE_NAME_MAX_CHARS] or UNKNOWN_NAME


def wire_names(names: Iterable[str]) -> dict[str, str]:
    """Tool names by the names under which servers and models see them, each once."""
    taken: dict[str, str] = {}
    for name in names:
        wire, number = wire_name(name), 2
        while wire in taken:
            wire = f"{wire_name(name)[: WIRE_NAME_MAX_CHARS - 4]}_{number}"
            number += 1
        taken[wire] = name
    return taken


def called_name(written: str, names: Collection[str]) -> str | None:
    """Which of the names a model means by what it wrote; None when it means none of them.

    Models write `functions.look`, `look<|channel|>json`, `look:0`, `Look` and `look-up` too.
    """
    plain = clean_text(written).strip()
    if plain in names:
        return plain
    plain = _BEHIND.sub("", plain)
    while prefix := _PREFIX.match(plain):
        plain = plain[prefix.end() :]
    if plain in names:
        return plain
    same = [name for name in names if _folded(name) == _folded(plain)]
    return same[0] if len(same) == 1 and plain else None


def _folded(name: str) -> str:
    return wire_name(name).lower().replace("-", "_")


def read_value(text: str) -> Any:
    """What a call's argument text holds, JSON inside JSON text taken out; None when it is nothing.

    Raises:
        ValueError: it is not JSON.
    """
    value: Any = clean_text(text).strip()
    for is_inner in [False] + [True] * _ENCODED_MAX:
        if not isinstance(value, str) or value in _NOTHING:
            break
        try:
            value = parse_json(value)
        except ValueError:
            if is_inner:
                break
            raise
    return None if value in _NOTHING else value


def object_text(text: str) -> str:
    """The arguments for the conversation that goes on: servers refuse all but a JSON object."""
    try:
        value = read_value(text)
    except ValueError:
        value = None
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else "{}"
