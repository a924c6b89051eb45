"""Finds calls in a planner's text while it streams: brackets and quotes decide where one ends.

The same text gives the same parts however it is cut into chunks. A call is given out as soon as it
is known what follows it on its line: the line's end, a comment, another call, or words (its
`tail`), which make it a call inside a sentence. Thoughts between tags are left out; the end of one
that never began is told (`thought_end`). Knows nothing of tools or arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from planloom.planner.syntax.calls.values import BEFORE_COMMENT
from planloom.planner.syntax.thoughts import CLOSE_TAG, OPEN_TAG, TAG_MAX_CHARS

HEAD_MAX_CHARS = 250
"""A call's name and tool stand within this much of its line: no long line is looked at twice."""
LINE_MAX_CHARS = 8_000
"""The rest of a longer line that is not a call is dropped while it streams."""
CALL_MAX_CHARS = 400_000
"""A call that is longer counts as one whose bracket is not closed."""

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
    r"[^\W\d][\w.-]*[ \t]*(?:=[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?)?)?|<[/\w:]{0,20}[ \t]?"
)
_THOUGHT_HEAD = re.compile(r"Thoughts?[ \t]*\(")
_STRING_PREFIX = re.compile(r"(?<!\w)(?:[rbuf]|rb|br|fr|rf)$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[^\W\d]|\[")
_BRACKETS_MAX = 250
"""Python's grammar ends at 200 brackets."""
_OPEN, _CLOSE = "([{", ")]}"
_AFTER_CALL = " \t`*,.;)]}"
"""Signs that may stand between a call and its line's end."""
_CLEAN_ENDS = ("\n", "#", "//", "<END_OF_PLAN>")
_SCANNED_MIN_CHARS = 4_096
_LOOK_BACK_CHARS = 256
"""What is kept of the part of an open call that has been looked at."""


Form = Literal["named", "numbered", "bare"]


@dataclass(frozen=True, slots=True)
class CallText:
    """One call as written. `label` is its number or name, `arguments` the text in its brackets.

    `tail` is what else stands on its line: such a call is part of a sentence. With `has_suffix` it
    is glued to the bracket, as in `f(x).rows`.
    """

    label: str | None
    is_numbered: bool
    tool: str
    arguments: str
    text: str
    line: int
    is_closed: bool = True
    shares_line: bool = False
    tail: str = ""
    has_suffix: bool = False
    indent: int = 0
    """Blanks before its line."""

    @property
    def form(self) -> Form:
        """How the call is written: `a = f(…)`, `1. f(…)` or `f(…)`."""
        if self.label is None:
            return "bare"
        return "numbered" if self.is_numbered else "named"


@dataclass(frozen=True, slots=True)
class Prose:
    """A line, or the rest of one, that is no call. `kind` says what it may mean.

    `thought_end`: a thought ended here that has no beginning: all before it was the thought.
    """

    kind: Literal["thought", "comment", "fence", "end", "thought_end", "text"]
    text: str
    line: int
    indent: int = 0
    is_mid_line: bool = False
    """A call stands before it on its line."""


ScannedText = CallText | Prose


class CallScanner:
    """Text in; calls and prose out, in order."""

    def __init__(self, first_line: int = 1) -> None:
        self._buffer = ""
        self._line = first_line
        self._indent = 0
        """Blanks before the line that is looked at."""
        self._head: re.Match[str] | None = None
        """The beginning of the open call."""
        self._scanned: list[str] = []
        """The part of the open call that has left the buffer, and its length."""
        self._scanned_chars = 0
        self._at = 0
        """How far the buffer has been looked at: no character is looked at twice."""
        self._stack: list[str] = []
        self._quote = ""
        self._is_comment = False
        self._closed: CallText | None = None
        """The last call, until it is known what follows on its line."""
        self._is_mid_line = False
        self._is_skipping = False
        """The rest of the line is dropped."""
        self._is_thinking = False

    @property
    def open_call(self) -> CallText | None:
        """The call that is not closed yet."""
        return self._as_call(len(self._buffer), is_closed=False) if self._head else None

    def feed(self, text: str) -> list[ScannedText]:
        self._buffer += text.replace("\r\n", "\n").replace("\r", "")
        return self._scan(is_last=False)

    def close(self) -> list[ScannedText]:
        """What is left when no more text comes; an open call stays in `open_call`."""
        return self._scan(is_last=True)

    def _scan(self, *, is_last: bool) -> list[ScannedText]:
        scanned: list[ScannedText] = []
        while (part := self._next(is_last)) is not None:
            scanned.append(part)
        return scanned

    def _next(self, is_last: bool) -> ScannedText | None:
        """The next part; None when more text is needed for one."""
        while True:
            if self._is_thinking and not self._leave_thought():
                return None
            if self._is_skipping:
                part: ScannedText | None = self._skip_line()
                if part is not None or self._is_skipping:
                    return part
            if self._closed is not None:
                return self._ended_call(is_last)
            if self._head is None and not self._open_next():
                if self._is_thinking:
                    continue
                return self._next_line(is_last)
            part = self._next_call(is_last)
            if part is not None or self._closed is None:
                return part

    # -- thoughts, and what is dropped ------------------------------------------------------

    def _leave_thought(self) -> bool:
        """Drop text up to the end of the thought; whether that was reached."""
        tag = CLOSE_TAG.search(self._buffer)
        end = tag.end() if tag else max(0, len(self._buffer) - TAG_MAX_CHARS)
        self._line += self._buffer.count("\n", 0, end)
        self._buffer, self._at = self._buffer[end:], 0
        if tag is not None:
            self._is_thinking = self._is_mid_line = False
        return tag is not None

    def _skip_line(self) -> Prose | None:
        """Drop text up to the line's end, which stays; a thought may end before it."""
        end = self._buffer.find("\n")
        limit = len(self._buffer) if end < 0 else end
        if tag := CLOSE_TAG.search(self._buffer, 0, limit):
            return self._thought_end(tag)
        if end >= 0:
            self._buffer, self._is_skipping = self._buffer[end:], False
        else:
            self._buffer = self._buffer[-TAG_MAX_CHARS:]
        return None

    def _thought_end(self, tag: re.Match[str]) -> Prose:
        text = self._buffer[: tag.start()].strip()[:HEAD_MAX_CHARS]
        self._buffer, self._at = self._buffer[tag.end() :], 0
        self._closed, self._is_skipping, self._is_mid_line = None, False, False
        return Prose("thought_end", text, self._line)

    # -- outside a call ---------------------------------------------------------------------

    def _open_next(self) -> bool:
        """Whether a call begins here; it is open then."""
        self._skip_blank()
        if self._at > HEAD_MAX_CHARS:
            return False
        if not self._is_mid_line and (tag := OPEN_TAG.match(self._buffer)):
            self._buffer, self._at, self._is_thinking = self._buffer[tag.end() :], 0, True
            return False
        line = self._buffer[:HEAD_MAX_CHARS].split("\n", 1)[0]
        head = _HEAD.match(line)
        if head is None or _THOUGHT_HEAD.match(line):
            return False
        self._head, self._at = head, head.end()
        self._stack, self._quote, self._is_comment = ["("], "", False
        return True

    def _next_line(self, is_last: bool) -> Prose | None:
        """The line that is no call, once it is whole."""
        end = self._buffer.find("\n", self._at)
        limit = len(self._buffer) if end < 0 else end
        if tag := CLOSE_TAG.search(self._buffer, max(0, self._at - TAG_MAX_CHARS), limit):
            return self._thought_end(tag)
        self._is_skipping = end < 0 and len(self._buffer) > LINE_MAX_CHARS
        if end < 0 and not self._is_skipping and not (is_last and self._buffer):
            self._at = len(self._buffer)
            return None
        line = self._buffer[:limit]
        # What is skipped leaves the beginning of a tag that may be cut here.
        self._buffer, self._at = self._buffer[limit:], 0
        if self._is_skipping:
            self._buffer = line[-TAG_MAX_CHARS:]
        is_mid_line, self._is_mid_line = self._is_mid_line, True
        line = line[:LINE_MAX_CHARS].strip()  # as if it had come in pieces
        return Prose(*_kind_of(line), self._line, self._indent, is_mid_line)

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
        self._buffer, self._at = stripped, 0

    # -- inside a call ----------------------------------------------------------------------

    def _next_call(self, is_last: bool) -> ScannedText | None:
        """Look at the open call's new characters, until its bracket closes or another call begins.

        A closed call waits in `_closed`; one that is not closed is given out.
        """
        buffer = self._buffer
        while self._at < len(buffer):
            char = buffer[self._at]
            step = self._look_at(char, is_last)
            if not self._stack:
                self._closed = self._take_call(self._at + 1, is_closed=True)
                return None
            if step == 0:
                return None
            if char == "\n" and len(self._quote) < 3:
                is_head = self._next_is_head(is_last)
                if is_head is None:
                    return None
                if is_head:
                    return self._unclosed(self._at)
            self._at += step
        if self._scanned_chars + len(buffer) > CALL_MAX_CHARS:
            self._is_skipping = True
            return self._unclosed(len(buffer))
        if self._at > _SCANNED_MIN_CHARS:  # a long call is not copied again with each piece
            kept = self._at - _LOOK_BACK_CHARS
            self._scanned.append(buffer[:kept])
            self._scanned_chars += kept
            self._buffer, self._at = buffer[kept:], _LOOK_BACK_CHARS
        return None

    def _look_at(self, char: str, is_last: bool) -> int:
        """Follow one character; how many to go on by, 0 when more text is needed to tell."""
        if self._is_comment:
            self._is_comment = char != "\n"
        elif self._quote:
            return self._in_quote(char, is_last)
        elif char in "'\"":
            return self._open_quote(char, is_last)
        elif char == "#":
            self._is_comment = self._starts_comment()
        elif char in _OPEN:
            self._stack.append(char)
        elif char in _CLOSE:
            self._close_bracket(_OPEN[_CLOSE.index(char)])
        return 1

    def _unclosed(self, end: int) -> ScannedText:
        call = self._take_call(end, is_closed=False)
        if CLOSE_TAG.search(call.text):  # words of a thought looked like a call
            return Prose("thought_end", call.text[:HEAD_MAX_CHARS], call.line)
        return call

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
        head = self._head
        assert head is not None
        if head["number"] is None and head["dollar"] is None:
            return True
        return self._buffer[max(0, self._at - 64) : self._at].rstrip(" \t")[-1:] in BEFORE_COMMENT

    def _next_is_head(self, is_last: bool) -> bool | None:
        """Whether the line after this newline begins another call, or ends a thought.

        None: not known yet.
        """
        start = self._at + 1
        line = self._buffer[start : start + HEAD_MAX_CHARS].split("\n", 1)[0]
        is_whole = is_last or start + len(line) < len(self._buffer) or len(line) == HEAD_MAX_CHARS
        body = line.lstrip(" \t")
        if CLOSE_TAG.match(body):
            return True
        if len(line) - len(body) > self._indent:
            return False  # indented deeper than the call: one of its arguments
        if _NEXT_HEAD.match(body):
            return True
        return None if not is_whole and _NEXT_PARTIAL.fullmatch(body) else False

    # -- after a call -----------------------------------------------------------------------

    def _ended_call(self, is_last: bool) -> ScannedText | None:
        """The closed call, once it is known what follows on its line; None: not known yet."""
        call, buffer = self._closed, self._buffer
        assert call is not None
        has_suffix = _SUFFIX.match(buffer) is not None
        rest = buffer if has_suffix else buffer.lstrip(_AFTER_CALL)
        if not rest and not is_last:
            if len(buffer) > HEAD_MAX_CHARS:
                self._buffer = buffer[-1:]
            return None
        if not rest or rest.startswith(_CLEAN_ENDS):
            return self._give(call)
        end = rest.find("\n")
        line = rest[: min(HEAD_MAX_CHARS, len(rest) if end < 0 else end)]
        if end < 0 and len(line) < HEAD_MAX_CHARS and not is_last:
            return None
        if tag := CLOSE_TAG.search(buffer, 0, len(buffer) - len(rest) + len(line)):
            return self._thought_end(tag)
        head = None if has_suffix else _HEAD.match(line)
        is_separate = ";" in buffer[: len(buffer) - len(rest)]
        if head and (is_separate or head["name"] or head["number"] or head["dollar"]):
            self._buffer = rest
            return self._give(call)
        self._is_skipping = True
        return self._give(replace(call, tail=line.strip(), has_suffix=has_suffix))

    def _give(self, call: CallText) -> CallText:
        self._closed, self._is_mid_line = None, True
        return call

    def _take_call(self, end: int, *, is_closed: bool) -> CallText:
        call = self._as_call(end, is_closed=is_closed)
        self._line += sum(text.count("\n") for text in self._scanned)
        self._line += self._buffer.count("\n", 0, end)
        self._buffer = self._buffer[end:]
        self._head, self._at, self._quote, self._is_comment = None, 0, "", False
        self._scanned, self._scanned_chars = [], 0
        self._is_mid_line = True
        return call

    def _as_call(self, end: int, *, is_closed: bool) -> CallText:
        head = self._head
        assert head is not None
        whole = "".join(self._scanned) + self._buffer[:end]
        number, dollar, name = head["number"], head["dollar"], head["name"]
        first = next((g for g in ("name", "number", "dollar") if head[g]), "tool")
        begin = head.start(first) - (1 if dollar else 0)
        if dollar and whole[begin] == "{":
            begin -= 1
        return CallText(
            label=name or number or dollar,
            is_numbered=number is not None or dollar is not None,
            tool=head["tool"].rstrip("( \t"),
            arguments=whole[head.end() : len(whole) - 1 if is_closed else len(whole)],
            text=whole[begin:].strip(),
            line=self._line,
            is_closed=is_closed,
            shares_line=self._is_mid_line,
            indent=self._indent,
        )


def _kind_of(text: str) -> tuple[Literal["thought", "comment", "fence", "end", "text"], str]:
    if text.lower().startswith("thought:"):
        return "thought", text[8:].strip()
    if text.startswith(("#", "//")):
        return "comment", text
    if text.startswith(("```", "~~~")):
        return "fence", text
    if text.startswith("<END_OF_PLAN>"):
        return "end", text
    return "text", text
