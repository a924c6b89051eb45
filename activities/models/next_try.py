"""A request that was refused, and what to try instead: less, by another name, or without. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from planloom.activities.models.chat import HANDED_BACK, ChatRequest
from planloom.activities.models.context_window import ANSWER_MIN_TOKENS
from planloom.activities.models.error_bodies import answer_allowed, is_cap, window_in
from planloom.activities.models.quirks import FORMATS, Format, Quirks
from planloom.activities.models.request_params import STREAM, SYSTEM, format_of, params_of
from planloom.planner.contract.jobs import ErrorClass

_DROPPABLE = (
    "stream_options",
    "response_format",
    "temperature",
    "stop",
    "tool_choice",
    "parallel_tool_calls",
)
_LIMITS = ("max_completion_tokens", "max_tokens")
_REFUSING = (400, 404, 422, 500, 501)
_UNKNOWN_NAME = re.compile(
    r"unsupported|not supported|unrecognized|unrecognised|unknown|unexpected|not permitted|"
    r"not allowed|forbidden|instead|no such|does not support|invalid argument",
    re.IGNORECASE,
)
_FORMAT = re.compile(
    r"response.?format|json_(schema|object|mode)|json mode|structured[- _]outputs?|guided|"
    r"grammar|outlines|\bschemas?\b|additionalproperties|regex",
    re.IGNORECASE,
)
_OF_SYSTEM = re.compile(
    r"system.{0,20}(role|message|prompt|instruction)s?.{0,30}(not|un)[ -]?(supported|allowed|"
    r"enabled)|roles?.{0,20}\bsystem\b.{0,40}not (supported|allowed)|only user and assistant roles",
    re.IGNORECASE,
)
_OF_TOOLS = re.compile(
    r"schema for function|tools?[.\[]|function\.parameters|tool schema|tool_choice|tool_calls",
    re.IGNORECASE,
)
_ONLY_STREAMS = re.compile(
    r"only supports? (the )?stream|(must|should) (have|be|set|use) stream|non-?stream|"
    r"stream ?= ?`?\W?(true is required|false)|(enable|set) (the )?stream|"
    r"stream(ing)? (is |mode )?(strongly )?(required|only)|非流式|仅支持流式",
    re.IGNORECASE,
)
_NO_STREAMS = re.compile(
    r"(?<!non-)\bstream(ing)?'? (mode )?(is |does )?(not support|unsupported)|"
    r"(cannot use|not support).{0,20} (with )?stream(ing)?\b(?!_)",
    re.IGNORECASE,
)
_OF_FEATURE = re.compile(
    r"response.?format.{0,60}(unavailable|unsupported|not (supported|available|allowed)|must be|"
    r"unknown|unrecognized)|"
    r"(does not|doesn't|not) support.{0,40}(json|structured|response.?format)|"
    r"(unsupported|unknown|unrecognized|unexpected|extra)\W.{0,30}response.?format|"
    r"(json_schema|structured[- ]outputs?|response.?format).{0,60}(is|are)? ?not (supported|"
    r"available|enabled)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Try:
    """One request to send, and what would be known if it works."""

    request: ChatRequest
    quirks: Quirks
    is_narrowed: bool = False
    """Its answer was given less room, as the endpoint asked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An endpoint's answer that refuses a request."""

    status: int
    error_class: ErrorClass
    words: str
    body: object = None
    parameter: str | None = None


def next_try(tried: Try, refused: Refused) -> Try | None:
    """What to send instead; None when the refusal stands."""
    if (narrowed := _narrowed(tried, refused)) is not None:
        return narrowed
    if refused.status not in _REFUSING or refused.error_class not in ("refused", "unknown"):
        return None
    if _ONLY_STREAMS.search(refused.words) and STREAM not in _sent(tried):
        return replace(tried, quirks=replace(tried.quirks, must_stream=True))
    if _NO_STREAMS.search(refused.words) and STREAM in _sent(tried):
        return replace(tried, quirks=replace(tried.quirks, dropped=tried.quirks.dropped | {STREAM}))
    if refused.status >= 500 and not _UNKNOWN_NAME.search(refused.words):
        return _without_format(tried, refused)
    name = _refused_parameter(tried, refused)
    if name == "response_format":
        return _without_format(tried, refused)
    quirks = None if name is None else tried.quirks.without(name)
    if quirks is None:
        return _without_format(tried, refused)
    return replace(tried, quirks=quirks)


def _narrowed(tried: Try, refused: Refused) -> Try | None:
    sent = tried.request.max_tokens
    allowed = answer_allowed(refused.words, sent)
    if tried.is_narrowed or allowed is None or allowed < ANSWER_MIN_TOKENS:
        return None
    quirks = tried.quirks
    if is_cap(refused.words):
        quirks = replace(quirks, max_tokens=allowed)
    elif (window := window_in(refused.words)) is not None:
        quirks = replace(quirks, window=window)
    return Try(replace(tried.request, max_tokens=allowed), quirks, is_narrowed=True)


def _sent(tried: Try) -> Collection[str]:
    return params_of(tried.request, tried.quirks, is_openai=False)


def _refused_parameter(tried: Try, refused: Refused) -> str | None:
    """The parameter that is refused, if it is one that was sent and can be done without."""
    names = [n for n in _DROPPABLE if n in _sent(tried)]
    text = f"{refused.words} {_short_json(refused.body)}"
    if refused.parameter in names:
        return refused.parameter
    is_unknown = _UNKNOWN_NAME.search(text) is not None
    limits = [n for n in _LIMITS if tried.request.max_tokens is not None and is_unknown]
    if refused.parameter in limits:
        return refused.parameter
    if _OF_SYSTEM.search(text) and any(m.get("role") == SYSTEM for m in tried.request.messages):
        return f"messages.{SYSTEM}"
    if _is_about_format(text) and "response_format" in names:
        return "response_format"
    fields = [f"messages.{n}" for n in HANDED_BACK if is_unknown]
    found = next((f for f in fields if re.search(rf"\b{f[9:]}\b", text)), None)
    # "Unsupported 'max_tokens'. Use 'max_completion_tokens'" names both; only one was sent.
    return found or next((n for n in (*names, *limits) if re.search(rf"\b{n}\b", text)), None)


def _is_about_format(text: str) -> bool:
    return _FORMAT.search(text) is not None and _OF_TOOLS.search(text) is None


def _without_format(tried: Try, refused: Refused) -> Try | None:
    """The same with an answer that is less constrained."""
    schema = tried.request.response_schema
    text = f"{refused.words} {_short_json(refused.body)}"
    if schema is None or not _is_about_format(text):
        return None
    now = format_of(tried.request, tried.quirks)
    if now == "none":
        return None
    following: Format = FORMATS[FORMATS.index(now) + 1]
    if _OF_FEATURE.search(refused.words):
        return replace(tried, quirks=replace(tried.quirks, response_format=following))
    # Other schemas may pass: this one only is remembered.
    return replace(tried, quirks=tried.quirks.with_schema(schema, following))


def _short_json(body: object) -> str:
    return body[:4_000] if isinstance(body, str) else json.dumps(body, default=str)[:4_000]
