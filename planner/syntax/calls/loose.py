"""Lines that are not calls in the planner's own form: other ways to write one, or a sentence. Pure.

`b, c = f(1), f(2)`, `b = await f(1)`, `let b = f(1);`, `b: list = f(1)`, `b := (f(1))`,
`` 1. `f(1)` `` and `1. **f**(1)` are read as calls. A line that is written like one and cannot be
read is `unreadable`: it goes back to the model. Words around a call make a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

CALLS_PER_LINE_MAX = 50

_BULLET = re.compile(r"[-*•>+][ \t]+(?:\[[ xX]?\][ \t]+)?")
_NUMBER = re.compile(
    r"(?:\*\*)?(?:(?:task|step|action|call|node)[ \t]*#?)?(\d+)[ \t]*[.):–-](?:\*\*)?[ \t]+",
    re.IGNORECASE,
)
_MARKED = re.compile(r"([*`]{1,3})([^\W\d][\w.-]*)\1(?=[ \t]*\()")
_DECLARED = re.compile(
    r"(?:(?:let|const|var|val)[ \t]+)?(?P<names>[^\W\d][\w-]*(?:[ \t]*,[ \t]*[^\W\d][\w-]*)*)"
    r"(?:[ \t]*:[ \t]{0,20}[\w\[\],.|][\w\[\], .|]{0,39})?[ \t]*(?::=|=(?!=)|<-|←)[ \t]*"
)
_PREFIX = re.compile(r"(?:(?:await|return|yield)[ \t]+)+")
_CALL_HEAD = re.compile(r"[^\W\d][\w.-]*[ \t]*\(")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
_STRING_OR_ESCAPE = re.compile(r"\\.|" + _STRING.pattern)
_WORD = re.compile(r"[^\W\d_]{2,}")
_CODE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "await return yield let const var val print list str int float bool dict set tuple for in "
        "if else lambda async def from import as not and or none null true false",
    )
)
_SENTENCE_SIGN = re.compile(r"[?!…—–]")
_END_NOISE = " \t`*,.;"
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class LooseCall:
    """A call out of a line: its name or number, if it has one, and its text from the tool on."""

    label: str | None
    is_numbered: bool
    text: str


def tool_mention(names: Collection[str]) -> re.Pattern[str]:
    """Finds a tool's name with an opening bracket of any kind, or a quote, behind it."""
    listed = "|".join(re.escape(name) for name in names) or r"(?!)"
    opened = r"[(（]|[\[{]?[ \t]*[\"'“‘]"
    return re.compile(rf"(?<![\w.])(?:{listed})[*`]{{0,3}}[ \t]*(?:{opened})")


def loose_calls(
    line: str, mention: re.Pattern[str]
) -> list[LooseCall] | Literal["unreadable", "prose"]:
    """The calls that a line means, or why there are none."""
    text = _MARKED.sub(r"\2", line.strip())
    text = _BULLET.sub("", text, count=1) if _BULLET.match(text) else text
    number = _NUMBER.match(text)
    text = text[number.end() :] if number else text
    text = text.strip("`*" + _END_NOISE)
    declared = _DECLARED.match(text)
    names = [n.strip() for n in declared["names"].split(",")] if declared else []
    calls = _calls_in(text[declared.end() :] if declared else text)
    if calls is not None and declared and len(names) == len(calls):
        return [LooseCall(n, False, c) for n, c in zip(names, calls, strict=True)]
    if calls is not None and not declared and (len(calls) == 1 or not number):
        label = number[1] if number else None
        # Without a name only what names a tool: "sum (of all)" may be a sentence.
        if all(mention.match(call) for call in calls):
            return [LooseCall(label, number is not None, call) for call in calls]
    found = mention.search(text)
    if found is None:
        return "prose"
    return "unreadable" if declared or not is_sentence(text, mention) else "prose"


def is_sentence(text: str, mention: re.Pattern[str]) -> bool:
    """Whether words stand around the calls of a text, other than those of programs."""
    bare = mention.sub("(", _STRING_OR_ESCAPE.sub('""', text))
    first, last = bare.find("("), max(bare.rfind(sign) for sign in _CLOSE)
    behind = bare[last + 1 :] if last >= 0 else ""
    words = _WORD.findall(f"{bare[: max(0, first)]} {behind}")
    return bool(_SENTENCE_SIGN.search(behind)) or any(w.lower() not in _CODE_WORDS for w in words)


def _calls_in(text: str) -> list[str] | None:
    """The calls that a text wholly consists of, separated by commas; None when it does not."""
    calls: list[str] = []
    at = 0
    while at < len(text) and len(calls) < CALLS_PER_LINE_MAX:
        begin = _after_openings(text, at)
        head = _CALL_HEAD.match(text, begin)
        end = _end_of_call(text, head.end()) if head else None
        if end is None:
            return None
        calls.append(text[begin:end])
        at = end
        while at < len(text) and text[at] in ") \t;`":
            at += 1
        if at < len(text) and text[at] != ",":
            return None
        at += 1
    return calls or None


def _after_openings(text: str, at: int) -> int:
    """Where a call begins behind `(`, blanks, `await`."""
    while at < len(text):
        if text[at] in "( \t`":
            at += 1
        elif prefix := _PREFIX.match(text, at):
            at = prefix.end()
        else:
            break
    return at


def _end_of_call(text: str, at: int) -> int | None:
    """Behind the bracket that closes the one before `at`; None when there is none."""
    depth = 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] in "\"'":
            string = _STRING.match(text, at)
            at = string.end() if string else at + 1
            continue
        depth += (text[at] in _OPEN) - (text[at] in _CLOSE)
        at += 1
        if depth == 0:
            return at
    return None
