"""Error classes, decided in one place: what a failure is, how long to wait, what to say.

| class | what it is | retried | costs an attempt |
|---|---|---|---|
| `rate_limit` | 429, or a body that says so | after the server's wish | no |
| `capacity` | 503, 529, "overloaded" | after the server's wish | no, 10 times |
| `timeout` | our time limit, 408, 504 | yes | yes |
| `schema_violation` | output that does not parse or fit, after its repair round | once | yes |
| `auth` | no or wrong key, 401, 402, 403, quota or credit used up: waiting does not help | no | |
| `refused` | content filter, refusal, unknown model (404), bad request (400, 413, 422) | no | |
| `context_length` | prompt too long for the model, or answer cut off before it was usable | no | |
| `cancelled` | the run or task was cancelled | no | |
| `tool` | a tool's own `ToolError` | as the tool says | yes |
| `unknown` | connection lost or refused, 500, 502, nonsense for an answer, a bug | yes | yes |

Numbers are in `planner/contract/retries.py`. The class is the `type` of the `ApplicationError`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import get_args
from urllib.parse import urlsplit

import openai
import pydantic
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, CancelledError

from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.retries import RETRY_TABLE, RetryRule, RetryTable
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Usage

RETRY_WAIT_MAX_SECONDS = 300.0
"""A server that asks for more is asked again after this."""
RETRY_WAIT_MIN_SECONDS = 0.05
MODEL_ERROR_MAX_CHARS = 500


class ModelError(Exception):
    """A model call that failed, with its class known. The message holds no prompt and no key."""

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        usage: Usage | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class: ErrorClass = error_class
        self.usage = usage
        self.retry_after = retry_after


_TEXTS: tuple[tuple[ErrorClass, str], ...] = (
    (
        "context_length",
        r"context_length|string_above_max_length|context (length|window|size)|maximum context|"
        r"(prompt|input|request)\S* is too (long|large)|too many (input )?tokens|"
        r"exceeds? the (model'?s )?(maximum|available) (number of tokens|context)",
    ),
    (
        "auth",
        r"insufficient_quota|exceeded your current quota|billing|credit balance|payment required|"
        r"invalid_api_key|invalid api key|incorrect api key|authenticat|unauthori[sz]ed|"
        r"permission|invalid_token|no api key",
    ),
    (
        "refused",
        r"content_filter|content_policy|content policy|content management policy|"
        r"safety system|model_not_found|model .{0,80}(does not exist|not found)",
    ),
    (
        "rate_limit",
        r"rate.?limit|too many requests|\b429\b|tokens per (min|day)|requests per (min|day)|"
        r"resource.?exhausted|throttl",
    ),
    (
        "capacity",
        r"overload|capacity|service.?unavailable|temporarily unavailable|\b503\b|\b529\b|"
        r"server (is )?busy|try again later",
    ),
    ("timeout", r"timed? ?out|deadline exceeded|timeout"),
)
_PATTERNS = tuple((error_class, re.compile(text, re.IGNORECASE)) for error_class, text in _TEXTS)

_STATUSES: dict[int, ErrorClass] = {
    401: "auth",
    402: "auth",
    403: "auth",
    408: "timeout",
    409: "unknown",
    425: "unknown",
    429: "rate_limit",
    503: "capacity",
    504: "timeout",
    524: "timeout",
    529: "capacity",
}


def classify_text(text: str) -> ErrorClass:
    """The class that an endpoint's own words speak of; `unknown` when they say nothing."""
    return next((c for c, pattern in _PATTERNS if pattern.search(text)), "unknown")


def classify_status(status: int, text: str = "") -> ErrorClass:
    """The class of an HTTP answer with its error text (`code type message` of the body)."""
    by_text = classify_text(text)
    if status == 429:
        return "auth" if by_text == "auth" else "rate_limit"
    if status in (400, 404, 413, 422):
        # These are final, unless the body speaks of what may pass.
        return (
            "refused"
            if by_text in ("unknown", "timeout", "auth") and status != 400
            else ("refused" if by_text == "unknown" else by_text)
        )
    if status in (401, 402, 403):
        return "refused" if by_text == "refused" else "auth"
    if by_status := _STATUSES.get(status):
        return by_status
    if status >= 500:
        return (
            by_text
            if by_text in ("rate_limit", "capacity", "timeout", "context_length")
            else "unknown"
        )
    return "refused" if 400 <= status < 500 else by_text


def error_text(body: object) -> str:
    """`code type message` of an error body, in the shapes endpoints use; `""` for none."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return " ".join(error_text(part) for part in body)
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error")
    if isinstance(inner, Mapping | list | str) and inner:
        return error_text(inner)
    parts = [body.get(k) for k in ("code", "type", "status", "message", "detail")]
    return " ".join(str(p) for p in parts if isinstance(p, str | int) and not isinstance(p, bool))


def classify(exc: BaseException) -> ErrorClass:
    """The error class of any exception; the table is in the module's docstring."""
    match exc:
        case ModelError():
            return exc.error_class
        case asyncio.CancelledError() | CancelledError():
            return "cancelled"
        case ApplicationError() if exc.type in get_args(ErrorClass):
            return exc.type  # type: ignore[return-value]
        case openai.APITimeoutError() | TimeoutError():
            return "timeout"
        case openai.APIConnectionError():
            return "timeout" if _is_timeout(exc.__cause__) else "unknown"
        case openai.APIStatusError():
            return classify_status(exc.status_code, f"{error_text(exc.body)} {exc.message}")
        case openai.ContentFilterFinishReasonError():
            return "refused"
        case openai.LengthFinishReasonError():
            return "context_length"
        case openai.APIError():
            return classify_text(f"{error_text(exc.body)} {exc.message}")
        case pydantic.ValidationError() | json.JSONDecodeError():
            return "schema_violation"
        case _:
            return _classify_by_name(exc)


def _classify_by_name(exc: BaseException) -> ErrorClass:
    # Two HTTP libraries are in use below `openai`, depending on its version; and a tool's error
    # is known by its name, because tools are no part of this module.
    if _is_timeout(exc):
        return "timeout"
    return "tool" if any(t.__name__ == "ToolError" for t in type(exc).__mro__) else "unknown"


def _is_timeout(exc: BaseException | None) -> bool:
    names = [t.__name__ for t in type(exc).__mro__]
    return "TimeoutException" in names or "TimeoutError" in names


# How long a server asks us to wait.

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|h|m|s)", re.IGNORECASE)
_SPANS = re.compile(r"^\s*(?:\d+(?:\.\d+)?\s*(?:ms|h|m|s)\s*)+$", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to wait, at most 300; None when it says nothing usable.

    `now` is in seconds since the epoch. `retry-after-ms` and `retry-after` (seconds, an HTTP date,
    or a span such as `6m0s`) win; else the larger reset among the used-up rate-limit buckets.
    """
    lower = {k.lower(): v for k, v in headers.items()}
    asked = _seconds(lower.get("retry-after-ms"), now, scale=0.001)
    if asked is None:
        asked = _seconds(lower.get("retry-after"), now)
    if asked is None:
        resets = [
            seconds
            for bucket in ("requests", "tokens")
            if not _is_positive(lower.get(f"x-ratelimit-remaining-{bucket}"))
            and (seconds := _seconds(lower.get(f"x-ratelimit-reset-{bucket}"), now))
        ]
        asked = max(resets, default=None)
    return None if asked is None else min(asked, RETRY_WAIT_MAX_SECONDS)


def _is_positive(text: str | None) -> bool:
    try:
        return text is not None and float(text) > 0
    except ValueError:
        return False


def _seconds(text: str | None, now: float, scale: float = 1.0) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        seconds = float(text) * scale
    except ValueError:
        seconds = _span_seconds(text, now)
    if seconds > 1e12:  # some endpoints send the moment itself, in milliseconds
        seconds = seconds / 1000 - now
    elif seconds > 1e9:
        seconds = seconds - now
    return seconds if 0 <= seconds < float("inf") else None


def _span_seconds(text: str, now: float) -> float:
    if _SPANS.match(text):
        return sum(float(n) * _UNITS[unit.lower()] for n, unit in _SPAN.findall(text))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return -1.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


def requested_wait_seconds(exc: BaseException, now: float) -> float | None:
    """Seconds that the answer behind `exc` asks to wait, or None."""
    if isinstance(exc, ModelError):
        return exc.retry_after
    if isinstance(exc, openai.APIStatusError):
        return retry_after_seconds(dict(exc.response.headers), now)
    return None


# What the workflow is told.


def host_of(url: str | None) -> str:
    """Host and port of an endpoint: no path, no user, no key."""
    parts = urlsplit(url or "")
    if not parts.hostname:
        return "api.openai.com"
    return parts.hostname + (f":{parts.port}" if parts.port else "")


_SECRET = re.compile(r"\b((?:sk|pk|gsk|key)-|Bearer )[A-Za-z0-9_\-*.]{6,}")


def cause_of(exc: BaseException) -> str:
    """One short line about the cause, without anything that looks like a key."""
    if isinstance(exc, openai.APIStatusError):
        message = _message_of(exc.body) or exc.message
        text = f"HTTP {exc.status_code}: {message}"
    elif isinstance(exc, openai.APITimeoutError | TimeoutError):
        text = "no answer in time"
    elif isinstance(exc, openai.APIConnectionError):
        text = f"no connection ({_root_of(exc)})"
    elif isinstance(exc, openai.APIError):
        text = _message_of(exc.body) or exc.message
    elif isinstance(exc, ModelError | ApplicationError):
        text = str(exc)
    elif isinstance(exc, pydantic.ValidationError):
        # Its own text repeats the input, which may be a prompt or an answer.
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
    else:
        text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    text = " ".join(_SECRET.sub(r"\1…", text).split())
    return text if len(text) <= MODEL_ERROR_MAX_CHARS else text[: MODEL_ERROR_MAX_CHARS - 1] + "…"


def _message_of(body: object) -> str:
    if isinstance(body, Mapping):
        inner = body.get("error")
        if isinstance(inner, Mapping | str):
            return _message_of(inner)
        return str(body.get("message") or body.get("detail") or "")
    return body[:300] if isinstance(body, str) else ""


def _root_of(exc: BaseException) -> str:
    root: BaseException = exc
    while root.__cause__ is not None or root.__context__ is not None:
        root = root.__cause__ or root.__context__ or root
    return f"{type(root).__name__}: {root}"


def as_application_error(
    exc: BaseException,
    *,
    endpoint: str | None,
    model: str | None,
    counted_attempt: int,
    max_attempts: int,
    waits: int = 0,
    retry_after: float | None = None,
    retry: Retry | None = None,
    usage: Usage | None = None,
    table: RetryTable = RETRY_TABLE,
) -> ApplicationError:
    """The failure as Temporal sees it: type = error class, the message names endpoint and cause.

    `counted_attempt` counts real failures, this one included (from 1), `waits` the pauses that an
    endpoint has asked for. The delay to the next attempt is always ours, since the server's
    would grow with waits too. Details: one object of class, endpoint, model, counts and `usage`
    (what the failed attempt paid; without it, what `exc` itself knows).
    """
    error_class = classify(exc)
    rule = table[error_class]
    is_wait = is_free_wait(error_class, waits, table)
    is_last = not rule.retryable or (
        not is_wait and counted_attempt >= min(max_attempts, rule.attempts_max)
    )
    message = f"model {model or '(none)'} at {host_of(endpoint)}: {cause_of(exc)}"
    if is_last and rule.retryable and counted_attempt > 1:
        message += f" ({counted_attempt} attempts)"
    paid = usage or getattr(exc, "usage", None)
    return ApplicationError(
        message,
        {
            "error_class": error_class,
            "endpoint": host_of(endpoint),
            "model": model,
            "attempts": counted_attempt,
            "waits": waits,
            "usage": paid.model_dump() if isinstance(paid, Usage) else None,
        },
        type=error_class,
        # The run's result says it; a traceback in the worker's log for each would drown the rest.
        category=ApplicationErrorCategory.BENIGN,
        non_retryable=is_last,
        next_retry_delay=timedelta(
            seconds=_next_delay(rule, counted_attempt, waits, is_wait, retry_after, retry)
        ),
    )


def is_free_wait(error_class: ErrorClass, waits: int, table: RetryTable = RETRY_TABLE) -> bool:
    """Whether this failure is a pause that the endpoint asked for, and costs no attempt."""
    return waits < table[error_class].waits_max


def _next_delay(
    rule: RetryRule,
    counted_attempt: int,
    waits: int,
    is_wait: bool,
    asked: float | None,
    retry: Retry | None,
) -> float:
    if asked is not None:
        return max(asked, RETRY_WAIT_MIN_SECONDS)
    if is_wait:
        return rule.delay_seconds(waits + 1)
    if retry is not None:
        grown = retry.initial_seconds * retry.backoff ** min(counted_attempt - 1, 60)
        return min(grown, max(retry.max_seconds, retry.initial_seconds))
    return rule.delay_seconds(counted_attempt)
