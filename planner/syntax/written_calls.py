"""Tool calls that a model wrote as text, in the many forms of its training. Pure, linear.

Such a text is not an answer. `{"name": "look", "arguments": {…}}`, the same in `<tool_call>` tags,
`[TOOL_CALLS]`, `<function=look>{…}</function>`, `<invoke name="look">` and other tags with
parameters, `look(q="x")` and `Action: look` with its input are read. What only bears the marks of
a call is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.function_calls import function_calls
from planloom.planner.syntax.json_text import Candidate, json_in, parse_json
from planloom.planner.syntax.tool_calls import called_name

WRITTEN_CALLS_MAX = 50
_NAMES = ("name", "tool", "tool_name", "function", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input")
_LISTS = ("tool_calls", "tool_uses", "calls")
_NAMED = re.compile(
    r"<function=([\w.-]{1,100})>|to=functions\.([\w-]{1,100})|"
    r"<[|｜]?tool[\w▁]{0,20}sep[|｜]?>([\w.-]{1,100})|"
    r"<[|｜]tool▁call▁begin[|｜]>([\w.-]{1,100})(?=<[|｜]tool▁sep[|｜]>[ \t\n]{0,4}\{)|"
    r"\[TOOL_CALLS?\][ \t]{0,4}([\w.-]{1,100})|^>>>[ \t]{0,4}([\w.-]{1,100})[ \t]{0,4}$|"
    r"<\|tool_call_begin\|>[ \t]{0,4}([\w.:-]{1,100})(?=[ \t]{0,4}<\|)|"
    r"^[ \t>*_-]{0,8}(?:Action|Tool|Function)[*_]{0,2}:[*_]{0,2}[ \t]{0,4}`?([\w.-]{1,100})`?"
    r"[ \t]{0,4}$",
    re.MULTILINE | re.IGNORECASE,
)
_INVOKE = re.compile(
    r'<(?:invoke|function|tool)[ \t]name="([^"<>\n]{1,100})"[ \t]?>|<function=([\w.-]{1,100})>|'
    r"<tool_call>[ \t\n]{0,4}([\w.-]{1,100})(?=[ \t\n]{0,4}(?:<arg_key>|</tool_call>))"
)
_PARAMETER = re.compile(
    r'<parameter name="([^"<>\n]{1,100})"[^<>\n]{0,80}>|<parameter=([\w.-]{1,100})>|'
    r"<arg_key>([^<>\n]{1,100})</arg_key>[ \t\n]{0,8}<arg_value>"
)
_VALUE_END = re.compile(r"</parameter>|</arg_value>")
_INVOKE_END = re.compile(r"</(?:invoke|function|tool|tool_call)>")
_SPACE = re.compile(
    r"(</?)(?:[|｜]\w{1,20}[|｜]|\w{1,20}:)(?=(?:invoke|parameter|function_calls?)\b)"
)
"""The name that a model family puts before its tags: `<invoke`, `<｜DSML｜invoke`."""
_ELEMENT = re.compile(r"<([\w.-]{1,100})>(.*)</\1>", re.DOTALL)
_MARKS = re.compile(
    r"</?(?:[\w-]{1,40}:)?(?:tool_call|tool_calls|function_call|function_calls|tool_use|tool|function|"
    r"invoke|parameter)[^<>\n]{0,120}>|\[/?(?:TOOL_CALLS?|ARGS)\]|<[|｜][^<>\n]{0,60}[|｜]>|"
    r"```[\w-]{0,20}|\bfunctions?\b|\bcommentary\b|\bjson\b|"
    r"^[ \t>*_-]{0,8}(?:Action Input|Input|Arguments|Args|Parameters)[*_]{0,2}:",
    re.MULTILINE | re.IGNORECASE,
)
_BEARS_MARKS = re.compile(
    r"^[ \t]{0,8}(?:<(?:[\w-]{1,40}:)?(?:tool_calls?|function_calls?|function=[\w.-]{1,100}|"
    r"invoke[ \t]name=[^<>\n]{1,100})>|\[TOOL_CALLS?\]|<\|(?:python_tag|tool_calls?[\w]{0,30})\|>|"
    r"<[|｜]tool[▁_]calls?[▁_]begin[|｜]>|```tool_(?:code|call)\b)",
    re.MULTILINE | re.IGNORECASE,
)
_FENCED = re.compile(r"^```(?!tool_)[^\n]{0,40}\n.*?^```", re.DOTALL | re.MULTILINE)
_THOUGHT = re.compile(r"^[ \t>*_-]{0,8}Thought[*_]{0,2}:[^\n]*$", re.MULTILINE | re.IGNORECASE)
_GAP_MAX_CHARS = 80
"""Between a call's name and its arguments."""


@dataclass(frozen=True, slots=True)
class WrittenCall:
    name: str
    args: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class WrittenCalls:
    """The calls of a text; none where it only bears their marks. `is_whole`: it is nothing else."""

    calls: tuple[WrittenCall, ...]
    is_whole: bool


def written_calls(text: str, tools: Collection[str]) -> WrittenCalls | None:
    """The calls of known tools that a text holds; None when it is an answer."""
    text = _SPACE.sub(r"\1", text)
    if (whole := _whole_text(text, tools)) is not None:
        return WrittenCalls(tuple(whole[:WRITTEN_CALLS_MAX]), is_whole=bool(whole))
    candidates = json_in(text)
    spans: list[tuple[int, int]] = []
    calls: list[WrittenCall] = []
    names = [(m, _first(m)) for m in _NAMED.finditer(text)]
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
        bears_marks = _BEARS_MARKS.search(_FENCED.sub("", text)) is not None
        return WrittenCalls((), is_whole=False) if bears_marks else None
    return WrittenCalls(tuple(calls[:WRITTEN_CALLS_MAX]), not _has_words(text, spans))


def _whole_text(text: str, tools: Collection[str]) -> list[WrittenCall] | None:
    """Forms that are calls only where the text is nothing else; empty for those not readable."""
    bare = text.strip()
    if element := _ELEMENT.fullmatch(bare):  # <look><q>x</q></look>
        name, inner = called_name(element[1], tools), element[2].strip()
        if name is not None:
            fields = re.findall(r"<([\w.-]{1,100})>(.*?)</\1>", inner, re.DOTALL)
            return [WrittenCall(name, {key: value.strip() for key, value in fields})]
    if (functions := function_calls(bare, tools)) is not None:
        return [WrittenCall(name, args) for name, args in functions]
    if not (bare.startswith("{") and bare.endswith("}")):
        return None
    try:
        value = parse_json(bare)
    except ValueError:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        return None
    name, given = next(iter(value.items()))
    is_call = name in tools and isinstance(given, dict)  # {"look": {"q": "x"}}
    return [WrittenCall(name, given)] if is_call else None


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
        name = called_name(_first(match), tools)
        if name is None:
            continue
        closed = _INVOKE_END.search(text, match.end(), end)
        end = end if closed is None else closed.start()
        parameters = list(_PARAMETER.finditer(text, match.end(), end))
        if match[2] and not parameters and "{" in text[match.end() : end]:
            continue  # <function=look>{…}
        args: dict[str, JsonValue] = {}
        for parameter, stop in zip(parameters, _ends(parameters, end), strict=True):
            args[_first(parameter)] = _VALUE_END.split(text[parameter.end() : stop])[0].strip()
        calls.append(WrittenCall(name, args))
        spans.append((match.start(), end))
    return calls, spans


def _first(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)


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
