"""The thoughts of a model, kept apart from its answer. Pure, and linear in the text.

Local reasoning models put their thoughts before the answer, between tags. Where the chat template
opens the thought, only its end tag arrives: then all before it is thought. A tag in a code fence or
between backticks is text.
"""

from __future__ import annotations

import re

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
        self.is_leading = True
        """Nothing of an answer has come yet, except white space."""
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
                self.is_leading = False

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
            self.is_thinking = self.is_thinking or self.is_leading
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
        self.is_thinking, self.is_leading, self.answer_from = False, True, end
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
    """Lets the answer through while it comes, and keeps the thoughts before it back.

    Once a part of the answer went through, all that follows does: a planner's text goes on to a
    parser that knows the tags, and that has to see an end whose start never came.
    """

    def __init__(self) -> None:
        self._scanner = _Scanner()
        self._pending: list[str] = []
        self._pending_from = 0
        self._is_open = False

    def feed(self, text: str) -> str:
        """The part of `text` that is answer; what may still become a tag is held back."""
        if self._is_open:
            return text
        self._pending.append(text)
        self._scanner.feed(text)
        return self._released()

    def close(self) -> str:
        """What is left when the answer ends: nothing of a thought that was never closed."""
        if self._is_open:
            return ""
        start = self._scanner.end()
        return self._after(start).lstrip() if start else self._after(0)

    def _released(self) -> str:
        scanner = self._scanner
        if scanner.is_thinking:
            start = scanner.last_close or scanner.position
            if start != self._pending_from:
                self._pending, self._pending_from = [self._after(start)], start
            return ""
        if scanner.is_leading:
            return ""  # a tag may still follow the white space
        start = scanner.answer_from
        answer = self._after(start).lstrip() if start else self._after(0)
        self._is_open, self._pending = True, []
        return answer

    def _after(self, offset: int) -> str:
        return "".join(self._pending)[max(0, offset - self._pending_from) :]
