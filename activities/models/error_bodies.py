"""What an endpoint's error says: its class, how long to wait, how much less to ask for. Pure.

Endpoints word the same error in many ways. `tests/activities/error_bodies.yaml` holds recorded
bodies with their right reading; a new one is added there first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from planloom.planner.contract.jobs import ErrorClass

TEXT_MAX_CHARS = 8_000
"""Of an error's words: the rest is not read."""
DEPTH_MAX = 6
AT_LEAST_MARGIN_TOKENS = 64
"""Where an endpoint says that a prompt has at least so many tokens."""

_TEXTS: tuple[tuple[ErrorClass, str], ...] = (
    # What waiting fixes is looked for first where its words are sure: "too many tokens, please
    # wait" is no long prompt.
    ("rate_limit", r"throttling(exception|error)?\b|too many (tokens|requests),? please wait"),
    (
        "context_length",
        r"context_length|string_above_max_length|contextwindowexceeded|context.?window.?exceeded|"
        r"context (length|window|size|limit)|(maximum|max|model'?s) context|"
        r"(prompt|input|request)\S* (is |was )?too (long|large)|request_too_large|"
        r"too many (input )?tokens|maximum (prompt|allowed input|input) length|"
        r"reduce the length of|input length should be|exceeded model token limit|"
        r"input token count|prompt token count|tokens? .{0,40}exceeds? the limit of \d|"
        r"longer than the (maximum )?model|max tokens of \d{1,9} exceeded|"
        r"max_seq_len|max_model_len|max_tokens must be at least 1, got -|"
        r"\btokens? limit exceeded: \d|"
        r"exceeds? (the )?max(imum)? [a-z ]{0,20}tokens|(prompt|input) exceeds? (the )?max|"
        r"n_keep.{0,30}n_ctx|context the overflows|"
        r"exceeds? (the )?(customer )?(model'?s? )?(maximum|available) "
        r"(number of tokens|context|input|sequence)",
    ),
    (
        "auth",
        r"insufficient[_ ](quota|balance|credits?|funds)|exceeded your current quota|billing|"
        r"credit balance|payment required|out of credits|arrearage|(account|organi[sz]ation|team)"
        r".{0,20}(suspended|deactivated|disabled|restricted|banned)|exceeded_current_quota|"
        r"余额不足|spending limit|available credits|included credits|past due|"
        r"invalid_api_key|(invalid|incorrect|wrong|missing|expired|revoked) api.?key|"
        r"api.?key.{0,20}(invalid|not valid|expired|revoked)|authenticat|unauthori[sz]ed|"
        r"permission|invalid_token|no api key|access denied|no_db_connection",
    ),
    (
        "schema_violation",
        r"tool_use_failed|failed to call a function|failed_generation|json_validate_failed|"
        r"failed to generate json|tool call validation failed|malformed_function_call|"
        r"failed to parse (the )?(model'?s )?(output|generation|input at pos)",
    ),
    (
        "refused",
        r"content_filter|content_policy|content policy|content management policy|"
        r"safety system|moderation|flagged|responsibleaipolicy|data_?inspection_?failed|"
        r"(input|output) (new_)?sensitive|unexpected endpoint or method|"
        r"model_not_found|deploymentnotfound|model .{0,80}(does not exist|not found)",
    ),
    (
        "rate_limit",
        r"rate.?limit|too many requests|\b429\b|tokens per (min|day)|requests per (min|day)|"
        r"resource.?exhausted|throttl|quota exceeded|exceeded.{0,30}quota|请求过于频繁|"
        r"concurrency limit|request limit reached|\b[rt]pm limit",
    ),
    (
        "capacity",
        r"overload|capacity|service.?unavailable|temporarily unavailable|\b503\b|\b529\b|"
        r"server (is )?busy|try again later|loading model|model.{0,60} (is )?(currently )?loading|"
        r"not ready yet|modelnotready|no (healthy|available) (upstream|instances?|worker)|"
        r"connection refused|upstream connect error|high demand|high traffic|exceeded concurrency|"
        r"负载已饱和|"
        r"model (has )?(been )?(crashed|unloaded)",  # LM Studio loads it again with the next call
    ),
    ("timeout", r"timed? ?out|deadline exceeded|timeout"),
)
_PATTERNS = tuple((error_class, re.compile(text, re.IGNORECASE)) for error_class, text in _TEXTS)

_STATUSES: dict[int, ErrorClass] = {
    401: "auth",
    402: "auth",
    403: "auth",
    407: "auth",
    408: "timeout",
    409: "unknown",
    424: "unknown",  # TGI: the generation failed
    425: "unknown",
    429: "rate_limit",
    498: "capacity",  # Groq: no room in this tier for now
    503: "capacity",
    504: "timeout",
    520: "capacity",
    521: "capacity",
    522: "capacity",
    523: "capacity",
    524: "timeout",
    529: "capacity",
    530: "capacity",
}
_FINAL = (400, 404, 405, 413, 422)
"""Statuses that are final, unless the words speak of what may pass."""
_GONE_QUOTA = re.compile(
    r"insufficient[_ ](quota|balance|credits?|funds)|billing_hard_limit|credit balance|"
    r"payment required|exceeded_current_quota|arrearage|out of credits|余额不足|\blimit: 0\b|"
    r"spending (limit|cap)|all available credits|included credits|/ month\b|"
    r"monthly.{0,30}\b(limit|quota|cap|allowance)|FreeTierOnly",
    re.IGNORECASE,
)
_PASSING_QUOTA = re.compile(r"resource_exhausted|per.?(minute|day|second)", re.IGNORECASE)


def classify_text(text: str) -> ErrorClass:
    """The class that an endpoint's own words speak of; `unknown` when they say nothing."""
    text = text[:TEXT_MAX_CHARS]
    return next((c for c, pattern in _PATTERNS if pattern.search(text)), "unknown")


def classify_status(status: int, text: str = "") -> ErrorClass:
    """The class of an HTTP answer with its error text (`code type message` of the body)."""
    text = text[:TEXT_MAX_CHARS]
    said = classify_text(text)
    if status in (400, 403, 413, 429, 500) and is_above_limit(text):
        return "context_length"
    if status == 429:
        return "auth" if _is_quota_gone(text, said) else "rate_limit"
    if status in _FINAL:
        return _final_class(status, said)
    if status in (401, 402, 403):
        return said if said in ("refused", "rate_limit") and status == 403 else "auth"
    if status >= 500 and _GONE_QUOTA.search(text):  # MiniMax, and gateways
        return "auth"
    if found := _STATUSES.get(status):
        return found
    if status >= 500:
        kept = ("rate_limit", "capacity", "timeout", "context_length", "schema_violation")
        return said if said in kept else "unknown"
    return "refused" if 400 <= status < 500 and said != "auth" else said


def _final_class(status: int, said: ErrorClass) -> ErrorClass:
    if status == 400:
        return "refused" if said == "unknown" else said
    if status == 413 and said == "unknown":  # of a gateway that counts bytes
        return "context_length"
    return "refused" if said in ("unknown", "timeout", "auth") else said


def _is_quota_gone(text: str, said: ErrorClass) -> bool:
    """Whether a 429 speaks of money, which no waiting brings, and not of a rate."""
    if _GONE_QUOTA.search(text):
        return True
    return said == "auth" and not _PASSING_QUOTA.search(text) and wait_in_text(text) is None


# How much is too much.

_NUMBER = r"`?(\d[\d,]*)`?"
_LIMIT = re.compile(rf"\blimit:? {_NUMBER}", re.IGNORECASE)
_REQUESTED = re.compile(rf"\brequested:? {_NUMBER}", re.IGNORECASE)
_TOO_LARGE = re.compile(r"request too large|request_too_large", re.IGNORECASE)


def is_above_limit(text: str) -> bool:
    """Whether one request asks for more than a limit will ever give: no waiting helps."""
    limit, requested = _LIMIT.search(text), _REQUESTED.search(text)
    if limit and requested:
        return _int(requested[1]) > _int(limit[1])
    return _TOO_LARGE.search(text) is not None


_WINDOWS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # total, then prompt
        rf"maximum context length is {_NUMBER} tokens.{{0,200}}?(?:has|least|with) {_NUMBER} input",
        rf"maximum context length is {_NUMBER}.{{0,120}}?\({_NUMBER} (?:in the messages|of text)",
        rf"`inputs` tokens \+ `max_new_tokens` must be <= {_NUMBER}\. Given: {_NUMBER}",
        rf"maximum context length of {_NUMBER} tokens.{{0,120}}?prompt (?:has|of) {_NUMBER}",
        rf"maximum context length of {_NUMBER} tokens.{{0,120}}?: {_NUMBER} tokens from the input",
    )
)
_SUM = re.compile(rf"context (?:limit|length):? {_NUMBER} \+ {_NUMBER} > {_NUMBER}", re.IGNORECASE)
_ABOUT_ANSWER = re.compile(
    r"max_?(new_|completion_|output_)?tokens|maximum tokens you requested|"
    r"(completion|output) tokens|max_?token",
    re.IGNORECASE,
)
_CAPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"at most {_NUMBER} (?:completion|output)? ?tokens",
        rf"tokens`?'?:? {_NUMBER} > {_NUMBER}",
        rf"tokens`? ?(?:value)?,?.{{0,40}}\[\d+, ?{_NUMBER}\]",
        rf"expected a value <= {_NUMBER}",
        rf"less than or equal to {_NUMBER}",
        rf"maximum (?:number of )?output tokens \(?{_NUMBER}",
        rf"can only afford {_NUMBER}",
        rf"tokens you requested exceeds the model limit of {_NUMBER}",
        rf"tokens.{{0,60}}?(?:must be(?: at most| below| less than)?|(?:can|should) ?not exceed"
        rf"|maximum (?:value )?(?:is|of)|up to|<=|maximum:?) {_NUMBER}",
    )
)


def answer_allowed(text: str, sent: int | None) -> int | None:
    """The `max_tokens` that a refusal leaves room for; None when it speaks of something else.

    `sent` is the limit that was refused. What is returned is smaller than that.
    """
    text = text[:TEXT_MAX_CHARS]
    found = _from_window(text, sent)
    if found is None and _ABOUT_ANSWER.search(text):
        caps = (match for pattern in _CAPS if (match := pattern.search(text)))
        found = next((_int(match[match.lastindex or 1]) for match in caps), None)
    if found is None or found < 1 or (sent is not None and found >= sent):
        return None
    return found


def window_in(text: str) -> int | None:
    """The context window that a refusal names, prompt and answer together."""
    found = (m for pattern in _WINDOWS if (m := pattern.search(text[:TEXT_MAX_CHARS])))
    return next((_int(m[1]) for m in found), None)


def is_cap(text: str) -> bool:
    """Whether a refusal speaks of the longest answer of all, and not of this prompt's length."""
    text = text[:TEXT_MAX_CHARS]
    return _from_window(text, 10**9) is None and "afford" not in text


def _from_window(text: str, sent: int | None) -> int | None:
    for pattern in _WINDOWS:
        if match := pattern.search(text):
            margin = AT_LEAST_MARGIN_TOKENS if "at least" in match[0] else 0
            return _int(match[1]) - _int(match[2]) - margin
    if match := _SUM.search(text):
        return _int(match[3]) - _int(match[1])
    limit, requested = _LIMIT.search(text), _REQUESTED.search(text)
    if sent is not None and limit and requested:
        return _int(limit[1]) - (_int(requested[1]) - sent)
    return None


def _int(digits: str) -> int:
    return int(digits.replace(",", "")[:15])


# How long to wait, in words.

_SPAN = (
    r"(?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|"
    r"days?|d)(?![a-z])[\s,]*(?:and )?)+"
)
_WAIT = re.compile(
    rf"(?:try again|retry|wait|available|resets?)\w*[^.\n\d]{{0,40}}?\s*({_SPAN})",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_WAIT_KEYS = {
    "retrydelay": 1.0,
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryaftersecs": 1.0,
    "retryaftersec": 1.0,
    "retryafterms": 0.001,
    "retryaftermilliseconds": 0.001,
    "resetsinseconds": 1.0,
    "estimatedtime": 1.0,
}
"""Names of fields, without the signs between their words."""


def wait_in_text(text: str) -> float | None:
    """Seconds that an error's words ask to wait ("Please try again in 7.66s"), or None."""
    match = _WAIT.search(text[:TEXT_MAX_CHARS])
    return None if match is None else span_seconds(match[1])


def span_seconds(text: str) -> float | None:
    """Seconds of `6m0s`, `250ms` or `1 hour 5 minutes`; None for anything else."""
    total, seen = 0.0, False
    for number, unit in _PART.findall(text):
        size = _unit(unit.lower())
        if size is None:
            return None
        total, seen = total + float(number) * size, True
    return total if seen else None


def _unit(unit: str) -> float | None:
    if unit in ("ms", "millisecond", "milliseconds"):
        return 0.001
    return {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}.get(unit[0])


def wait_in_body(body: object) -> float | None:
    """Seconds that an error's body asks to wait: a field such as `retryDelay`, else its words."""
    for key, value in _fields(body):
        scale = _WAIT_KEYS.get(re.sub(r"[-_ ]", "", key).lower())
        if scale is None or isinstance(value, bool):
            continue
        if isinstance(value, int | float) and 0 <= value < 1e6:
            return float(value) * scale
        if isinstance(value, str) and (found := _wait_of(value, scale)) is not None:
            return found
    return wait_in_text(error_text(body))


def _wait_of(text: str, scale: float) -> float | None:
    try:
        seconds = float(text) * scale
    except ValueError:
        return span_seconds(text)
    return seconds if seconds >= 0 else None  # neither less than nothing, nor `nan`


def _fields(value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    if depth > DEPTH_MAX:
        return
    if isinstance(value, Mapping):
        for key, inner in list(value.items())[:100]:
            yield str(key), inner
            yield from _fields(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value[:20]:
            yield from _fields(inner, depth + 1)


# The words of a body.


def error_text(body: object, depth: int = 0) -> str:
    """`code type status message` of an error body, in the shapes endpoints use; "" for none."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", errors="replace")
    if isinstance(body, str):
        return body[:TEXT_MAX_CHARS]
    if depth > DEPTH_MAX:
        return ""
    if isinstance(body, list):
        return " ".join(t for part in body[:20] if (t := error_text(part, depth + 1)))
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error") or body.get("errors")
    if isinstance(inner, Mapping | list | str):
        own = error_text({k: v for k, v in body.items() if k not in ("error", "errors")}, depth + 1)
        return f"{error_text(inner, depth + 1)} {own}".strip()
    return " ".join(_words(body, depth))[:TEXT_MAX_CHARS]


_MESSAGE_KEYS = ("message", "detail", "msg", "error_msg", "status_msg", "title", "reason", "code")
_WORD_KEYS = ("code", "type", "status", *_MESSAGE_KEYS[:-1])


def _words(body: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key in _WORD_KEYS:
        value = body.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value)
        elif isinstance(value, Mapping | list) and value:
            yield error_text(value, depth + 1)
    metadata = body.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("raw"):  # a gateway quotes its provider
        yield error_text(_unquoted(metadata["raw"]), depth + 1)


def _unquoted(raw: object) -> object:
    if isinstance(raw, str) and raw.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(raw[:TEXT_MAX_CHARS])
        except ValueError:
            return raw
    return raw


def message_of(body: object, depth: int = 0) -> str:
    """The sentence for people in an error body, without codes; "" when there is none."""
    if isinstance(body, str):
        return body[:TEXT_MAX_CHARS]
    if depth > DEPTH_MAX:
        return ""
    if isinstance(body, list):
        return "; ".join(t for part in body[:5] if (t := message_of(part, depth + 1)))
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error") or body.get("errors")
    if isinstance(inner, Mapping | list | str) and inner:
        return message_of(inner, depth + 1)
    for key in _MESSAGE_KEYS:
        if found := message_of(body.get(key), depth + 1):
            raw = body.get("metadata")
            more = message_of(_unquoted(raw.get("raw")), 1) if isinstance(raw, Mapping) else ""
            return f"{found}: {more}" if more else found
    return ""
