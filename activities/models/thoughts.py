"""The thoughts of a model, kept apart from its answer. Pure, and linear in the text.

Local reasoning models put their thoughts before the answer, between tags. Where the chat template
opens the thought, only its end tag arrives: then all before it is thought. A tag in a code fence or
between backticks is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "seed:think")
_NAMES = "|".join(re.escape(t) for t in TAGS)
_TOKEN = re.compile(
    r"(?P<line>\n)|(?P<fence>```+|~~~+)|(?P<tick>`)|"
    rf"(?P<open><(?:{_NAMES})\s?>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary))|"
    rf"(?P<close></(?:{_NAMES})\s?>|\[/THINK\]|◁/think▷)|"
    # gpt-oss where the server does not take its channels apart.
    r"(?P<final><\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
_WORDS = (
    *(f"<{t}>" for t in TAGS),
    *(f"</{t}>" for t in TAGS),
    "[think]",
    "[/think]",
    "◁think▷",
    "◁/think▷",
    "<|channel|>analysis",
    "<|channel|>commentary",
    "<|channel|>final<|message|>",
    "```",
    "~~~",
)
_LONGEST = max(map(len, _WORDS)) + 1
_HARMONY_END = re.compile(r"<\|(?:return|end)\|>\s*\Z")

Holds = Callable[[str], bool]
"""Whether a text so far may still be a thought whose start tag never came."""


class _Scanner:
    """Finds where the answer begins, piece by piece. Offsets count from the first character."""

    def __init__(self) -> None:
        self.answer_from = 0
        self.is_thinking = False
        """Inside a thought before the answer."""
        self.is_untagged = False
        """An end tag came without its start."""
        self.is_harmony = False
        self.position = 0
        """All before it is decided."""
        self._rest = ""
        self._depth = 0
        self.last_close = 0
        """Of an end inside such a thought, when no other thought has begun since."""
        self._is_leading = True
        """Nothing of an answer has come yet, but for white space."""
        self._is_fenced = False
        self._ticks = 0
        self._is_line_blank = True

    def feed(self, text: str, *, is_end: bool = False) -> None:
        text = self._rest + text
        keep = 0 if is_end else _undecided(text)
        seen = 0
        for token in _TOKEN.finditer(text, 0, len(text)):
            if token.end() > len(text) - keep:
                break
            self._words(text[seen : token.start()])
            self._token(token.lastgroup or "", self.position + token.start(), token)
            seen = token.end()
        decided = max(seen, len(text) - keep)
        self._words(text[seen:decided])
        self.position += decided
        self._rest = text[decided:]

    def end(self) -> int:
        """Where the answer begins, once all has come; behind the end when there is none."""
        self.feed("", is_end=True)
        if not self.is_thinking:
            return self.answer_from
        # A thought that opens another and closes once: what follows the last end is the answer.
        return self.last_close or self.position

    def _words(self, text: str) -> None:
        if text.strip():
            self._is_line_blank = False
            if not self.is_thinking:
                self._is_leading = False

    def _token(self, kind: str, start: int, token: re.Match[str]) -> None:
        match kind:
            case "line":
                self._ticks, self._is_line_blank = 0, True
            case "fence" if self._is_line_blank:
                self._is_fenced = not self._is_fenced
                self._words(token[0])
            case "tick":
                self._ticks += 1
                self._words(token[0])
            case "open" | "close" | "final" if not self._is_fenced and self._ticks % 2 == 0:
                self._tag(kind, start, token)
            case _:
                self._words(token[0])

    def _tag(self, kind: str, start: int, token: re.Match[str]) -> None:
        end = start + len(token[0])
        self.is_harmony = self.is_harmony or "<|" in token[0]
        if kind == "open":
            self.is_thinking = self.is_thinking or self._is_leading
            self.last_close = 0
            self._depth += 1
            self._is_line_blank = False
            return
        self.last_close = end
        if kind == "final" or self._depth == 0:
            self.is_untagged = self.is_untagged or (kind == "close" and self._depth == 0)
            self._depth = 0
        else:
            self._depth -= 1
            if self._depth or not self.is_thinking:
                return
        self.is_thinking, self._is_leading, self.answer_from = False, True, end
        self._ticks, self._is_line_blank = 0, True


def _undecided(text: str) -> int:
    """How many characters at the end may be the beginning of a tag or fence."""
    tail = text[-_LONGEST:]
    for start in range(len(tail)):
        if tail[start] in "<[◁`~":
            part = tail[start:].lower()
            if any(word.startswith(part) or part.rstrip() + ">" == word for word in _WORDS):
                return len(tail) - start
    return 0


def without_thoughts(text: str) -> tuple[str, bool]:
    """The answer in a whole text, and whether a thought came without its start tag."""
    scanner = _Scanner()
    scanner.feed(text)
    start = scanner.end()
    answer = text[start:].lstrip() if start else text
    return (_HARMONY_END.sub("", answer) if scanner.is_harmony else answer), scanner.is_untagged


class ThoughtFilter:
    """Lets the answer through while it comes, and keeps thoughts back.

    What `holds` says may still be an untagged thought is held back until its end tag, or the end of
    the answer. An end tag without a start, after something went through, sets `is_retracted`: all
    that went through before was a thought.
    """

    def __init__(self, holds: Holds | None = None) -> None:
        self._scanner = _Scanner()
        self._holds = holds
        self._pending = ""
        self._pending_from = 0
        self._has_passed = False
        self._is_trimming = False
        self.is_retracted = False

    @property
    def is_untagged(self) -> bool:
        return self._scanner.is_untagged

    def feed(self, text: str) -> str:
        """The part of all text so far that is answer and was not given before."""
        self._pending += text
        before = self._scanner.answer_from
        self._scanner.feed(text)
        return self._released(before, self._scanner.position)

    def close(self) -> str:
        """What is left when the answer ends: nothing of a thought that was never closed."""
        before = self._scanner.answer_from
        start = self._scanner.end()
        if self._scanner.is_thinking:
            self._pending = self._pending[max(0, start - self._pending_from) :].lstrip()
            return self._pending
        self._holds = None
        return self._released(before, self._scanner.position, is_end=True)

    def _released(self, before: int, until: int, *, is_end: bool = False) -> str:
        scanner = self._scanner
        if scanner.answer_from > before:
            self._drop_to(scanner.answer_from)
            self.is_retracted = self.is_retracted or self._has_passed
            self._has_passed, self._is_trimming = False, True
        if scanner.is_thinking:
            self._drop_to(scanner.last_close or until)
            return ""
        if self._is_trimming:
            self._pending_from += len(self._pending) - len(self._pending.lstrip())
            self._pending = self._pending.lstrip()
            self._is_trimming = not self._pending
        ready = self._pending[: max(0, until - self._pending_from)]
        if not self._has_passed and not is_end:
            if not ready.strip():
                return ""  # a tag may still follow the white space
            if self._holds is not None and self._holds(ready):
                return ""
        self._drop_to(self._pending_from + len(ready))
        self._has_passed = self._has_passed or bool(ready)
        return ready

    def _drop_to(self, offset: int) -> None:
        cut = max(0, offset - self._pending_from)
        self._pending, self._pending_from = self._pending[cut:], self._pending_from + cut
