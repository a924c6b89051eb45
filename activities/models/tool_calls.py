"""The tool calls of an answer, put together from the pieces that endpoints send. Pure.

Servers number the calls of one answer as the protocol says, or give all of them the index 0
(ollama/ollama#15457), or none (ollama/ollama#7881); they send the id with the first piece, with
each, or later. A piece belongs to a call when its id says so, else its index, else it goes on with
the last call, unless it begins a new one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.language.clean_text import clean_text, clean_value
from planloom.planner.language.values import is_deeper

CALLS_MAX = 128
EXTRA_MAX_DEPTH = 100
"""What is handed back to the endpoint is left out where it is nested deeper: the answer counts."""
BLANK_MAX_CHARS = 100
"""Of an empty object with the white space around it."""
ID_CHARS = 9
"""Mistral takes ids of nine letters and digits only."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is the JSON text as the model wrote it.

    `extra` is what the endpoint wants to see again with the call, such as a thought signature.
    """

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    chars: int = 0
    """Of the arguments."""
    _depth: int = 0
    _is_quoted: bool = False
    _is_escaped: bool = False
    is_whole: bool = False
    """Its arguments are an object that has been closed, as far as brackets tell."""

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    def add(self, text: str) -> None:
        """More of the arguments. Each character is looked at once."""
        self.arguments.append(text)
        self.chars += len(text)
        for sign in text:
            if self._is_escaped:
                self._is_escaped = False
            elif sign == "\\":
                self._is_escaped = self._is_quoted
            elif sign == '"':
                self._is_quoted = not self._is_quoted
            elif not self._is_quoted and sign in "{[":
                self._depth += 1
            elif not self._is_quoted and sign in "]}":
                self._depth -= 1
        self.is_whole = (
            (not text and self.is_whole)
            or (self._depth == 0 and not self._is_quoted and "}" in text)
            or (self.is_whole and not text.strip())
        )

    def clear(self) -> None:
        """Take the arguments back."""
        self.arguments.clear()
        self.chars, self.is_whole = 0, False


class CallAssembler:
    """Pieces in, whole calls out."""

    def __init__(self) -> None:
        self._calls: list[_Open] = []
        self.received_chars = 0

    def add_whole(self, calls: object) -> None:
        """The `tool_calls` of a whole message: each entry is its own call."""
        for entry in _entries(calls):
            self._write(self._opened(_index_of(entry)), entry)

    def add_delta(self, calls: object) -> None:
        """The `tool_calls` of one stream event."""
        entries = _entries(calls)
        for position, entry in enumerate(entries):
            index = _index_of(entry)
            if index is None and len(entries) > 1:
                index = position
            self._write(self._call_of(entry, index), entry)

    def calls(self) -> tuple[ToolCall, ...]:
        """All calls in the order in which they began, each with its own id."""
        found: list[ToolCall] = []
        seen: set[str] = set()
        for call in self._calls:
            if not (call.name or call.arguments):
                continue
            id = call.id if call.id and call.id not in seen else uuid.uuid4().hex[:ID_CHARS]
            seen.add(id)
            extra: Any = {} if is_deeper(call.extra, EXTRA_MAX_DEPTH) else clean_value(call.extra)
            found.append(
                ToolCall(clean_text(id), clean_text(call.name), clean_text(call.text), extra)
            )
        return tuple(found)

    # -- inside -----------------------------------------------------------------------------

    def _opened(self, index: int | None) -> _Open | None:
        if len(self._calls) >= CALLS_MAX:
            return None
        self._calls.append(_Open(index))
        return self._calls[-1]

    def _call_of(self, entry: Mapping[str, Any], index: int | None) -> _Open | None:
        id = str(entry.get("id") or "")
        same = [c for c in self._calls if index is None or c.index == index]
        if id:
            mine = [c for c in same if c.id == id]
            if mine and not _begins(entry, mine[-1]):
                return mine[-1]
            # An id may come after the first piece.
            late = [c for c in same[-1:] if not c.id and not _begins(entry, c)]
            return late[0] if late else self._opened(index)
        if not same or _begins(entry, same[-1]):
            return self._opened(index)
        return same[-1]

    def _write(self, call: _Open | None, entry: Mapping[str, Any]) -> None:
        if call is None:
            return
        function = _function_of(entry)
        call.name = _name_with(call, entry)
        call.id = call.id or str(entry.get("id") or "")
        call.extra |= {
            k: v for k, v in entry.items() if k not in ("index", "id", "type", "function") and v
        }
        arguments = function.get("arguments")
        if arguments is not None and arguments != "":
            # Some servers send arguments as an object.
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            is_empty = call.is_whole and call.chars < BLANK_MAX_CHARS and call.text.strip() == "{}"
            if is_empty and text.lstrip().startswith("{"):
                call.clear()  # an empty object stood there for what was to come
            elif text[:2] == '{"' and len(text) >= call.chars > 1 and text.startswith(call.text):
                # All that was written so far, again.
                text = text[call.chars :]
            call.add(text)
            self.received_chars += len(text)


def _entries(calls: object) -> list[Mapping[str, Any]]:
    """The entries that are calls: servers also send null, one call without a list, and words."""
    if isinstance(calls, Mapping):
        calls = [calls]
    return [c for c in calls if isinstance(c, Mapping)] if isinstance(calls, list) else []


def _index_of(entry: Mapping[str, Any]) -> int | None:
    index = entry.get("index")
    if isinstance(index, bool) or index is None:
        return None
    if isinstance(index, int):
        return index
    return int(index) if isinstance(index, str) and index.isdecimal() else None


def _function_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    function = entry.get("function")
    if isinstance(function, Mapping):
        return function
    if isinstance(function, str):
        return {"name": function, "arguments": entry.get("arguments")}
    return {k: entry.get(k) for k in ("name", "arguments")}


def _begins(entry: Mapping[str, Any], call: _Open) -> bool:
    """Whether a piece begins a new call, though index or id are those of `call`."""
    function = _function_of(entry)
    name = str(function.get("name") or "")
    if not name or not call.name:
        return False
    if name != call.name:
        return not _goes_on(entry, call)
    if not call.is_whole or not (arguments := function.get("arguments")):
        return False
    # The last event may repeat what the ones before brought.
    is_its_id = bool(call.id) and call.id == str(entry.get("id") or "")
    is_as_long = isinstance(arguments, str) and len(arguments) == call.chars
    return not (is_its_id and is_as_long and arguments == call.text)


def _goes_on(entry: Mapping[str, Any], call: _Open) -> bool:
    """Whether a name is the rest of the name of `call`: nothing else of it has come but its id."""
    return bool(call.id) and not call.chars and not entry.get("id") and _index_of(entry) is not None


def _name_with(call: _Open, entry: Mapping[str, Any]) -> str:
    name = str(_function_of(entry).get("name") or "")
    if not name or not call.name or name.startswith(call.name):
        return name or call.name
    return call.name + name if _goes_on(entry, call) else name
