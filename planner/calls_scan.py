"""Finds calls in a planner's text while it streams: brackets and quotes decide where one ends.

The same text gives the same pieces however it is cut into chunks; each call is given out by the
chunk that holds its closing bracket. Knows nothing of tools or arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_BULLET = r"(?:[-*•][ \t]+)?"
_HEAD = re.compile(
    rf"{_BULLET}(?:(?P<number>\d+)\.[ \t]*|\$(?P<dollar>\w+)[ \t]*=[ \t]*|"
    r"(?P<name>[^\W\d]\w*)[ \t]*=[ \t]*)?(?P<tool>[^\W\d][\w.-]*)[ \t]*\("
)
_PARTIAL = re.compile(
    r"(?:[-*•][ \t]*)?(?:\d+\.?[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?|"
    r"\$\w*[ \t]*(?:=[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?)?|"
    r"[^\W\d][\w.-]*[ \t]*(?:=[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?)?)?"
)
_NEXT_HEAD = re.compile(
    rf"{_BULLET}(?:\d+\.[ \t]*|\$\w+[ \t]*=[ \t]*|[^\W\d]\w*[ \t]+=[ \t]*|(?=join[ \t]*\())"
    r"[^\W\d][\w.-]*[ \t]*\("
)
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class CallText:
    """One call as written. `label` is its number or name, `arguments` the text in its brackets."""

    label: str | None
    is_numbered: bool
    tool: str
    arguments: str
    text: str
    line: int
    is_closed: bool = True
    shares_line: bool = False


@dataclass(frozen=True, slots=True)
class Prose:
    """A line, or the rest of one, that is no call. `kind` says what it may mean."""

    kind: Literal["thought", "comment", "fence", "end", "text"]
    text: str
    line: int


Piece = CallText | Prose


class CallScanner:
    """Text in, pieces out, in order."""

    def __init__(self, first_line: int = 1) -> None:
        self._buffer = ""
        self._line = first_line
        self._call: re.Match[str] | None = None
        self._at = 0
        """How far the open call has been looked at: no character is looked at twice."""
        self._stack: list[str] = []
        self._quote = ""
        self._is_mid_line = False

    @property
    def open_call(self) -> CallText | None:
        """The call that is not closed yet."""
        return self._as_call(len(self._buffer), is_closed=False) if self._call else None

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text.replace("\r\n", "\n").replace("\r", "")
        return self._pieces(is_last=False)

    def close(self) -> list[Piece]:
        """What is left when no more text comes; an open call stays in `open_call`."""
        return self._pieces(is_last=True)

    def _pieces(self, *, is_last: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while True:
            piece = self._next_call(is_last) if self._call else self._next_line(is_last)
            if piece is None:
                if self._call is None or not self._may_go_on:
                    return pieces
                continue
            pieces.append(piece)

    _may_go_on = False

    # -- outside a call ---------------------------------------------------------------------

    def _next_line(self, is_last: bool) -> Piece | None:
        self._may_go_on = False
        self._skip_blank()
        if not self._buffer:
            return None
        end = self._buffer.find("\n")
        line = self._buffer if end < 0 else self._buffer[:end]
        head = _HEAD.match(line)
        if head and not line.startswith("Thought"):
            self._call, self._at, self._may_go_on = head, head.end(), True
            self._stack, self._quote = ["("], ""
            return None
        is_whole = end >= 0 or is_last
        if not is_whole and (_PARTIAL.fullmatch(line) or not self._is_mid_line):
            return None
        if not is_whole:
            return None
        return self._take_line(line)

    def _take_line(self, line: str) -> Prose:
        number, self._buffer = self._line, self._buffer[len(line) :]
        text = line.strip()
        was_mid, self._is_mid_line = self._is_mid_line, True
        kind: Literal["thought", "comment", "fence", "end", "text"] = "text"
        if text.lower().startswith("thought:"):
            kind, text = "thought", text[8:].strip()
        elif text.startswith("#") and was_mid:
            kind = "comment"
        elif text.startswith(("```", "~~~")):
            kind = "fence"
        elif text.startswith("#"):
            kind = "comment"
        elif text.startswith("<END_OF_PLAN>"):
            kind = "end"
        return Prose(kind, text, number)

    def _skip_blank(self) -> None:
        stripped = self._buffer.lstrip(" \t\n;")
        skipped = self._buffer[: len(self._buffer) - len(stripped)]
        newlines = skipped.count("\n")
        if newlines:
            self._line += newlines
            self._is_mid_line = False
        self._buffer = stripped

    # -- inside a call ----------------------------------------------------------------------

    def _next_call(self, is_last: bool) -> Piece | None:
        """Look at the open call's new characters; the call when its bracket closes."""
        self._may_go_on = False
        buffer = self._buffer
        while self._at < len(buffer):
            char = buffer[self._at]
            if self._quote:
                step = self._in_quote(char, is_last)
            elif char in "'\"":
                step = self._open_quote(char, is_last)
            else:
                step = 1
                if char in _OPEN:
                    self._stack.append(char)
                elif char in _CLOSE and self._stack:
                    self._stack.pop()
                    if not self._stack:
                        return self._take_call(self._at + 1, is_closed=True)
            if step == 0:
                return None
            if char == "\n" and len(self._quote) < 3:
                verdict = self._next_is_head(is_last)
                if verdict is None:
                    return None
                if verdict:
                    return self._take_call(self._at, is_closed=False)
            self._at += step
        return None

    def _in_quote(self, char: str, is_last: bool) -> int:
        buffer, quote = self._buffer, self._quote
        if char == "\\":
            return 2 if self._at + 1 < len(buffer) else 0
        if char != quote[0]:
            return 1
        if len(quote) == 1:
            self._quote = ""
            return 1
        if buffer.startswith(quote, self._at):
            self._quote = ""
            return 3
        return 1 if len(buffer) - self._at >= 3 or is_last else 0

    def _open_quote(self, char: str, is_last: bool) -> int:
        rest = self._buffer[self._at : self._at + 3]
        if rest == char * 3:
            self._quote = char * 3
            return 3
        if len(rest) < 3 and rest == char * len(rest) and not is_last:
            return 0
        before = self._buffer[self._at - 1] if self._at else ""
        if before.isalnum() and char == "'":
            return 1  # an apostrophe in unquoted text
        self._quote = char
        return 1

    def _next_is_head(self, is_last: bool) -> bool | None:
        """Whether the line after this newline begins another call; None: not known yet."""
        start = self._at + 1
        end = self._buffer.find("\n", start)
        line = self._buffer[start:] if end < 0 else self._buffer[start:end]
        if _NEXT_HEAD.match(line):
            return True
        if end < 0 and not is_last and _PARTIAL.fullmatch(line):
            return None
        return False

    def _take_call(self, end: int, *, is_closed: bool) -> CallText:
        call = self._as_call(end, is_closed=is_closed)
        self._line += self._buffer[:end].count("\n")
        self._buffer = self._buffer[end:]
        self._call, self._at, self._stack, self._quote = None, 0, [], ""
        self._is_mid_line = True
        return call

    def _as_call(self, end: int, *, is_closed: bool) -> CallText:
        head = self._call
        assert head is not None
        number, dollar, name = head["number"], head["dollar"], head["name"]
        stop = end - 1 if is_closed else end
        return CallText(
            label=number or dollar or name,
            is_numbered=number is not None or dollar is not None,
            tool=head["tool"],
            arguments=self._buffer[head.end() : stop],
            text=self._buffer[:end].strip(),
            line=self._line,
            is_closed=is_closed,
            shares_line=self._is_mid_line,
        )
