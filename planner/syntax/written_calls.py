"""Tool calls that a model wrote as text, in the many forms of its training. Pure, linear.

Such a text is not an answer. `{"name": "look", "arguments": {…}}`, the same in `<tool_call>` tags,
`[TOOL_CALLS]`, `<function=look>{…}</function>`, `<invoke name="look">` with parameters, and
`Action: look` with its input are read.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.json_text import Candidate, json_in, parse_json
from planloom.planner.syntax.tool_calls import called_name

WRITTEN_CALLS_MAX = 50
_NAMES = ("name", "tool", "tool_name", "function", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input")
_LISTS = ("tool_calls", "tool_uses", "calls")
_NAMED = re.compile(
    r"<function=([\w.-]{1,100})>|to=functions\.([\w-]{1,100})|"
    r"<[|｜]?tool[\w▁]{0,20}sep[|｜]?>([\w.-]{1,100})|"
    r"^[ \t>*_-]{0,8}Action[*_]{0,2}:[*_]{0,2}[ \t]{0,4}`?([\w.-]{1,100})`?[ \t]{0,4}$",
    re.MULTILINE | re.IGNORECASE,
)
_INVOKE = re.compile(r'<invoke name="([^"<>\n]{1,100})">')
_PARAMETER = re.compile(r'<parameter name="([^"<>\n]{1,100})"[^<>\n]{0,80}>')
_MARKS = re.compile(
    r"</?(?:tool_call|tool_calls|function_call|function_calls|tool_use|tool|function|invoke|"
    r"parameter|antml:\w+)[^<>\n]{0,120}>|\[/?TOOL_CALLS?\]|<[|｜][^<>\n]{0,60}[|｜]>|"
    r"```[\w-]{0,20}|\bfunctions?\b|\bcommentary\b|\bjson\b|"
    r"^[ \t>*_-]{0,8}(?:Action Input|Input)[*_]{0,2}:",
    re.MULTILINE | re.IGNORECASE,
)
_THOUGHT = re.compile(r"^[ \t>*_-]{0,8}Thought[*_]{0,2}:[^\n]*$", re.MULTILINE | re.IGNORECASE)
_GAP_MAX_CHARS = 80
"""Between a call's name and its arguments."""


@dataclass(frozen=True, slots=True)
class WrittenCall:
    name: str
    args: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class WrittenCalls:
    """The calls of a text. `is_whole`: it consists of nothing else."""

    calls: tuple[WrittenCall, ...]
    is_whole: bool


def written_calls(text: str, tools: Collection[str]) -> WrittenCalls | None:
    """The calls of known tools that a text holds; None when it holds none."""
    candidates = json_in(text)
    spans: list[tuple[int, int]] = []
    calls: list[WrittenCall] = []
    names = [(m, next(n for n in m.groups() if n)) for m in _NAMED.finditer(text)]
    for match, written in names[:WRITTEN_CALLS_MAX]:
        name = called_name(written, tools)
        behind = _next_object(candidates, match.end())
        if name is not None and behind is not None and isinstance(behind.value, dict):
            calls.append(WrittenCall(name, behind.value))
            spans += [match.span(), (behind.start, behind.end)]
            candidates.remove(behind)
    for candidate in candidates[:WRITTEN_CALLS_MAX]:
        if found := _calls_of(candidate.value, tools):
            calls += found
            spans.append((candidate.start, candidate.end))
    invoked, invoked_spans = _invoked(text, tools)
    calls += invoked
    spans += invoked_spans
    if not calls:
        return None
    return WrittenCalls(tuple(calls[:WRITTEN_CALLS_MAX]), not _has_words(text, spans))


def _next_object(candidates: list[Candidate], after: int) -> Candidate | None:
    near = (c for c in candidates if after <= c.start <= after + _GAP_MAX_CHARS)
    return next(near, None)


def _calls_of(value: Any, tools: Collection[str]) -> list[WrittenCall]:
    """The calls that a JSON value stands for; empty when it is anything else."""
    if isinstance(value, list):
        inner = [_calls_of(v, tools) for v in value[:WRITTEN_CALLS_MAX]]
        return [call for calls in inner for call in calls] if value and all(inner) else []
    if not isinstance(value, dict):
        return []
    if len(value) == 1 and (listed := next((value[k] for k in _LISTS if k in value), None)):
        return _calls_of(listed, tools)
    if isinstance(inner_call := value.get("function"), dict):
        value = inner_call
    written = next((value[k] for k in _NAMES if isinstance(value.get(k), str)), None)
    arguments = next((value[k] for k in _ARGUMENTS if k in value), None)
    name = called_name(written, tools) if written else None
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments)
        except ValueError:
            return []
    return [WrittenCall(name, arguments)] if name and isinstance(arguments, dict) else []


def _invoked(text: str, tools: Collection[str]) -> tuple[list[WrittenCall], list[tuple[int, int]]]:
    """`<invoke name="look"><parameter name="q">x</parameter></invoke>`, its closing tag or not."""
    begins = list(_INVOKE.finditer(text))[:WRITTEN_CALLS_MAX]
    calls: list[WrittenCall] = []
    spans: list[tuple[int, int]] = []
    for match, end in zip(begins, _ends(begins, len(text)), strict=True):
        name = called_name(match[1], tools)
        if name is None:
            continue
        closed = text.find("</invoke>", match.end(), end)
        end = end if closed < 0 else closed
        parameters = list(_PARAMETER.finditer(text, match.end(), end))
        args: dict[str, JsonValue] = {}
        for parameter, stop in zip(parameters, _ends(parameters, end), strict=True):
            args[parameter[1]] = text[parameter.end() : stop].split("</parameter>")[0].strip()
        calls.append(WrittenCall(name, args))
        spans.append((match.start(), end))
    return calls, spans


def _ends(begins: list[re.Match[str]], last: int) -> list[int]:
    """Where each part ends: where the next begins, and for the last of them at `last`."""
    return [*(begin.start() for begin in begins[1:]), last] if begins else []


def _has_words(text: str, spans: list[tuple[int, int]]) -> bool:
    """Whether anything that a person would read stands beside the calls."""
    pieces, at = [], 0
    for start, end in sorted(spans):
        pieces.append(text[at:start])
        at = max(at, end)
    rest = "\n".join([*pieces, text[at:]])
    return bool(re.search(r"\w", _THOUGHT.sub("", _MARKS.sub(" ", rest))))
