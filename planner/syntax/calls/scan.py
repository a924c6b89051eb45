"""Finds calls in a planner's text while it streams: brackets and quotes decide where one ends.

The same text gives the same parts however it is cut into chunks; each call is given out by the
chunk that holds its closing bracket. Knows nothing of tools or arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from planloom.planner.syntax.calls.values import BEFORE_COMMENT

HEAD_MAX_CHARS = 250
"""A call's name and tool stand within this much of its line: no long line is looked at twice."""

_BULLET = r"(?:[-*•>][ \t]+|`{1,2})?"
_TOOL = r"[^\W\d][\w.-]*[ \t]*\("
_HEAD = re.compile(
    rf"{_BULLET}(?:(?:\d+[.):][ \t]*)?(?P<name>[^\W\d]\w*)[ \t]*=[ \t]*|"
    r"(?P<number>\d+)[.):][ \t]*|\$\{?(?P<dollar>\w+)\}?[ \t]*=[ \t]*)?"
    rf"(?P<tool>{_TOOL})"
)
# Inside an open call only what is no argument for sure begins another: `x = f(` with a blank
# before `=`, `1. f(`, `$1 = f(`, `join(`; options such as `_fallback = f(` do not.
_NEXT_HEAD = re.compile(
    rf"{_BULLET}(?:\d+\.[ \t]*|\$\w+[ \t]*=[ \t]*|(?!_)[^\W\d]\w*[ \t]+=[ \t]*|(?=join[ \t]*\())"
    rf"{_TOOL}"
)
_NEXT_PARTIAL = re.compile(
    r"(?:[-*•>][ \t]*|`{1,2})?(?:\d+\.?[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?|"
    r"\$\w*[ \t]*(?:=[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?)?|"
    r"[^\W\d][\w.-]*[ \t]*(?:=[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?)?)?"
)
_THOUGHT_HEAD = re.compile(r"Thoughts?[ \t]*\(")
_STRING_PREFIX = re.compile(r"(?<!\w)(?:[rbuf]|rb|br|fr|rf)$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[^\W\d]|\[")
_BRACKETS_MAX = 250
"""Python's grammar ends at 200 brackets."""
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
    """A line, or the rest of one, that is no call. `kind` says what it may mean.

    `suffix` is text glued to a call's closing bracket, such as `.rows`.
    """

    kind: Literal["thought", "comment", "fence", "end", "suffix", "text"]
    text: str
    line: int


ScannedText = CallText | Prose


class CallScanner:
    """Text in; calls and prose out, in order."""

    def __init__(self, first_line: int = 1) -> None:
        self._buffer = ""
        self._line = first_line
        self._indent = 0
        """Blanks before the line that is looked at."""
        self._call: re.Match[str] | None = None
        self._at = 0
        """How far the buffer has been looked at: no character is looked at twice."""
        self._stack: list[str] = []
        self._quote = ""
        self._is_comment = False
        self._is_mid_line = False
        self._is_glued = False
        """Nothing stands between the last call's bracket and the buffer."""

    @property
    def open_call(self) -> CallText | None:
        """The call that is not closed yet."""
        return self._as_call(len(self._buffer), is_closed=False) if self._call else None

    def feed(self, text: str) -> list[ScannedText]:
        self._buffer += text.replace("\r\n", "\n").replace("\r", "")
        return self._scan(is_last=False)

    def close(self) -> list[ScannedText]:
        """What is left when no more text comes; an open call stays in `open_call`."""
        return self._scan(is_last=True)

    def _scan(self, *, is_last: bool) -> list[ScannedText]:
        scanned: list[ScannedText] = []
        while True:
            if self._call is None and not self._open_next():
                part: ScannedText | None = self._next_line(is_last)
            else:
                part = self._next_call(is_last)
            if part is None:
                return scanned
            scanned.append(part)

    # -- outside a call ---------------------------------------------------------------------

    def _open_next(self) -> bool:
        """Whether a call begins here; it is open then."""
        self._skip_blank()
        if self._at > HEAD_MAX_CHARS:
            return False
        line = self._buffer[:HEAD_MAX_CHARS].split("\n", 1)[0]
        head = _HEAD.match(line)
        if head is None or _THOUGHT_HEAD.match(line):
            return False
        self._call, self._at = head, head.end()
        self._stack, self._quote, self._is_comment = ["("], "", False
        return True

    def _next_line(self, is_last: bool) -> Prose | None:
        """The line that is no call, once it is whole."""
        end = self._buffer.find("\n", self._at)
        if end < 0 and not (is_last and self._buffer):
            self._at = len(self._buffer)
            return None
        line = self._buffer if end < 0 else self._buffer[:end]
        self._buffer, self._at = self._buffer[len(line) :], 0
        was_mid, self._is_mid_line = self._is_mid_line, True
        return Prose(*_kind_of(line.strip(), is_glued=was_mid and self._is_glued), self._line)

    def _skip_blank(self) -> None:
        stripped = self._buffer.lstrip(" \t\n;")
        skipped = self._buffer[: len(self._buffer) - len(stripped)]
        if not skipped:
            return
        newlines = skipped.count("\n")
        if newlines:
            self._line += newlines
            self._is_mid_line = False
            self._indent = 0
        if not self._is_mid_line:
            self._indent += len(skipped) - skipped.rfind("\n") - 1
        self._is_glued = False
        self._buffer, self._at = stripped, 0

    # -- inside a call ----------------------------------------------------------------------

    def _next_call(self, is_last: bool) -> CallText | None:
        """Look at the open call's new characters; the call when its bracket closes."""
        buffer = self._buffer
        while self._at < len(buffer):
            char = buffer[self._at]
            step = 1
            if self._is_comment:
                self._is_comment = char != "\n"
            elif self._quote:
                step = self._in_quote(char, is_last)
            elif char in "'\"":
                step = self._open_quote(char, is_last)
            elif char == "#":
                self._is_comment = self._starts_comment()
            elif char in _OPEN:
                self._stack.append(char)
            elif char in _CLOSE:
                self._close_bracket(_OPEN[_CLOSE.index(char)])
                if not self._stack:
                    return self._take_call(self._at + 1, is_closed=True)
            if step == 0:
                return None
            if char == "\n" and len(self._quote) < 3:
                is_head = self._next_is_head(is_last)
                if is_head is None:
                    return None
                if is_head:
                    return self._take_call(self._at, is_closed=False)
            self._at += step
        return None

    def _close_bracket(self, opened: str) -> None:
        """Close down to the bracket that matches; one that matches none inside it is left alone."""
        for at in range(len(self._stack) - 1, max(-1, len(self._stack) - _BRACKETS_MAX), -1):
            if self._stack[at] == opened:
                del self._stack[at:]
                return
            if self._stack[at] == "(":
                return

    def _in_quote(self, char: str, is_last: bool) -> int:
        """How many characters to go on by; 0: more text is needed to tell."""
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
        before = self._buffer[max(0, self._at - 3) : self._at]
        if char == "'" and before[-1:].isalnum() and not _STRING_PREFIX.search(before):
            return 1  # an apostrophe in unquoted text
        self._quote = char
        return 1

    def _starts_comment(self) -> bool:
        """Whether a `#` outside quotes begins a comment: always, but in LLMCompiler's text."""
        head = self._call
        assert head is not None
        if head["number"] is None and head["dollar"] is None:
            return True
        return self._buffer[max(0, self._at - 64) : self._at].rstrip(" \t")[-1:] in BEFORE_COMMENT

    def _next_is_head(self, is_last: bool) -> bool | None:
        """Whether the line after this newline begins another call; None: not known yet."""
        start = self._at + 1
        line = self._buffer[start : start + HEAD_MAX_CHARS].split("\n", 1)[0]
        is_whole = is_last or start + len(line) < len(self._buffer) or len(line) == HEAD_MAX_CHARS
        body = line.lstrip(" \t")
        if len(line) - len(body) > self._indent:
            return False  # indented deeper than the call: one of its arguments
        if _NEXT_HEAD.match(body):
            return True
        return None if not is_whole and _NEXT_PARTIAL.fullmatch(body) else False

    def _take_call(self, end: int, *, is_closed: bool) -> CallText:
        call = self._as_call(end, is_closed=is_closed)
        self._line += self._buffer[:end].count("\n")
        self._buffer = self._buffer[end:]
        self._call, self._at, self._quote, self._is_comment = None, 0, "", False
        self._is_mid_line = self._is_glued = True
        return call

    def _as_call(self, end: int, *, is_closed: bool) -> CallText:
        head = self._call
        assert head is not None
        number, dollar, name = head["number"], head["dollar"], head["name"]
        first = next((g for g in ("name", "number", "dollar") if head[g]), "tool")
        begin = head.start(first) - (1 if dollar else 0)
        if dollar and self._buffer[begin] == "{":
            begin -= 1
        return CallText(
            label=name or number or dollar,
            is_numbered=number is not None or dollar is not None,
            tool=head["tool"].rstrip("( \t"),
            arguments=self._buffer[head.end() : end - 1 if is_closed else end],
            text=self._buffer[begin:end].strip(),
            line=self._line,
            is_closed=is_closed,
            shares_line=self._is_mid_line,
        )


def _kind_of(
    text: str, *, is_glued: bool
) -> tuple[Literal["thought", "comment", "fence", "end", "suffix", "text"], str]:
    if text.lower().startswith("thought:"):
        return "thought", text[8:].strip()
    if text.startswith("#"):
        return "comment", text
    if text.startswith(("```", "~~~")):
        return "fence", text
    if text.startswith("<END_OF_PLAN>"):
        return "end", text
    if is_glued and _SUFFIX.match(text):
        return "suffix", text
    return "text", text
