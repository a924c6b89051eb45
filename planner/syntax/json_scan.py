"""Follows a plan document while it streams: strings, comments and brackets only.

A document begins at the start of a line. Brackets inside prose are left to the end of the text,
when all of it is known. No character is looked at twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from planloom.planner.syntax.parsed_plan import is_preface
from planloom.planner.syntax.thoughts import CLOSE_TAG, OPEN_TAG, TAG_MAX_CHARS

_QUOTES = {'"': '"', "'": "'", "“": "”"}
_TAG_ENDS = ">]▷"
_MAY_END = ",:}]#/"
"""After a single quote that ends its string comes one of these."""
_KEY_MAX_CHARS = 100
_LINE_KEPT_CHARS = 1_000
_WORD = re.compile(r"[\w$-]")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)[\w-]*[ \t]*\Z")


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a character completed: a task object, a whole document, or a thought."""

    kind: Literal["task", "document", "thought_end"]
    text: str = ""


class PlanScanner:
    """Characters in; out come the task objects in the list `tasks` of a document, and its end.

    The document may stand inside `{"plan": …}`, or be the bare list of tasks.
    """

    def __init__(self) -> None:
        self._prose: list[str] = []
        """What stands before the document, without the line that is being read."""
        self._line = ""
        self._is_thinking = False
        self._recent = ""
        """The last characters outside strings: a tag may end with the next one."""
        self._leave_document()

    def _leave_document(self) -> None:
        self._text: list[str] = []
        self._stack: list[str] = []
        """Open brackets, each with the key it is the value of: `{`, `[tasks`."""
        self._quote = ""
        self._is_escaped = self._may_be_closed = False
        self._comment: Literal["", "line", "block"] = ""
        self._string: list[str] = []
        self._key = ""
        self._task_at: int | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._stack)

    @property
    def open_task(self) -> str | None:
        """The text of the task that is not closed yet."""
        return None if self._task_at is None else "".join(self._text[self._task_at :])

    def step(self, char: str) -> Scanned | None:
        """Follow one character; what it completes."""
        if not self._quote and not self._comment:
            self._recent = (self._recent + char)[-TAG_MAX_CHARS:]
            if char in _TAG_ENDS and self._ends_thought():
                return Scanned("thought_end")
        if self._is_thinking:
            return None
        if not self._stack:
            self._step_outside(char)
            return None
        self._text.append(char)
        return self._step_inside(char)

    def _ends_thought(self) -> bool:
        tag = CLOSE_TAG.search(self._recent)
        if tag is None or tag.end() != len(self._recent):
            return False
        was_opened, self._is_thinking = self._is_thinking, False
        self._recent = ""
        if was_opened:
            return False
        self._leave_document()
        self._prose, self._line = [], ""
        return True

    # -- outside a document -----------------------------------------------------------------

    def _step_outside(self, char: str) -> None:
        if char in "{[" and self._may_begin():
            self._leave_document()
            self._text = [char]
            self._stack.append(char)
        elif char == "\n":
            if self._line.strip() and not _FENCE.match(self._line):
                self._prose.append(self._line.strip())
            self._line = ""
        elif len(self._line) < _LINE_KEPT_CHARS:
            self._line += char
            if char in _TAG_ENDS and OPEN_TAG.fullmatch(self._line.strip()):
                self._is_thinking, self._line = True, ""

    def _may_begin(self) -> bool:
        """Whether the document that begins here is the plan, and not part of a thought."""
        return not self._line.strip() and is_preface(self._prose)

    # -- inside -----------------------------------------------------------------------------

    def _step_inside(self, char: str) -> Scanned | None:
        if self._comment:
            self._in_comment(char)
        elif not self._quote or self._is_behind(char):
            return self._step_structure(char)
        return None

    def _step_structure(self, char: str) -> Scanned | None:
        before = self._text[-2] if len(self._text) > 1 else ""
        if char in _QUOTES:
            self._quote, self._string = char, []
        elif char == "#" or (char == "/" and before == "/"):
            self._comment = "line"
        elif char == "*" and before == "/":
            self._comment = "block"
        elif char in "{[":
            if char == "{" and self._is_task_list():
                self._task_at = len(self._text) - 1
            self._stack.append(char + self._key)
            self._key, self._string = "", []
        elif char in "}]":
            return self._close()
        elif char == ":":
            self._key = "".join(self._string)
        elif char == ",":
            self._key, self._string = "", []
        elif _WORD.match(char) and len(self._stack) <= 2:
            self._add_to_string(char)  # a key without quotes
        return None

    def _in_comment(self, char: str) -> None:
        if self._comment == "line":
            self._comment = "" if char == "\n" else "line"
        elif char == "/" and self._text[-2] == "*":
            self._comment = ""

    def _is_behind(self, char: str) -> bool:
        """Follow a character of a string; whether it already stands behind the string's end."""
        if self._may_be_closed:
            if char in " \t\r\n":
                return False
            self._may_be_closed = False
            if char in _MAY_END:
                self._quote = ""
                return True
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == _QUOTES[self._quote]:
            if self._quote == "'":
                self._may_be_closed = True  # `'it's'`: what follows decides
            else:
                self._quote = ""
            return False
        self._add_to_string(char)
        return False

    def _add_to_string(self, char: str) -> None:
        if len(self._stack) <= 2 and len(self._string) < _KEY_MAX_CHARS:
            self._string.append(char)

    def _is_task_list(self) -> bool:
        return self._stack in (["["], ["{", "[tasks"], ["{", "{plan", "[tasks"])

    def _close(self) -> Scanned | None:
        self._stack.pop()
        self._key, self._string = "", []
        if not self._stack:
            text = "".join(self._text)
            self._leave_document()
            if OPEN_TAG.fullmatch(text):
                self._is_thinking = True
                return None
            self._line = text[-1]  # what follows on this line is prose
            return Scanned("document", text)
        if self._task_at is not None and self._is_task_list():
            task, self._task_at = "".join(self._text[self._task_at :]), None
            return Scanned("task", task)
        return None
