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
| `unknown` | connection lost, 500, 502, nonsense for an answer, a bug | yes | yes |
| `unknown` | nothing listens at the address: the server may be restarting | yes | no, 5 times |

Numbers are in `planner/contract/retries.py`. The class is the `type` of the `ApplicationError`.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import get_args
from urllib.parse import urlsplit

import openai
import pydantic
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, CancelledError

from planloom.activities.http_dates import moment_of
from planloom.activities.models.error_bodies import (
    classify_status,
    classify_text,
    error_text,
    message_of,
    span_seconds,
    wait_in_body,
)
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.retries import RETRY_TABLE, RetryRule, RetryTable
from planloom.planner.language.clean_text import clean_text
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Usage

RETRY_WAIT_MAX_SECONDS = 300.0
"""A server that asks for more is asked again after this."""
RETRY_WAIT_MIN_SECONDS = 0.05
ERROR_BODY_MAX_BYTES = 200_000
"""Of an error's body: the rest is not read."""
MODEL_ERROR_MAX_CHARS = 500
UNREACHABLE_WAITS_MAX = 5
"""Pauses that cost no attempt while nothing listens at an address: about half a minute."""
_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)


class ModelError(Exception):
    """A model call that failed, with its class known. The message holds no prompt and no key."""

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        usage: Usage | None = None,
        retry_after: float | None = None,
        is_ours: bool = False,
        is_unreachable: bool = False,
        is_of_call: bool = False,
        cut_at: int = 0,
        body: object = None,
    ) -> None:
        super().__init__(message)
        self.error_class: ErrorClass = error_class
        self.usage = usage
        self.retry_after = retry_after
        self.is_ours = is_ours
        """The pool turned the call away: no endpoint was asked."""
        self.is_unreachable = is_unreachable
        """Nothing listens at the address."""
        self.is_of_call = is_of_call
        """The call itself failed, and its pool knows of it."""
        self.cut_at = cut_at
        """Tokens that were written when the answer's limit cut it off."""
        self.body = body
        """An error that came with status 200, as the endpoint wrote it."""


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
            return classify_status(exc.status_code, words_of(exc))
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
    # is known by its name, because tools do not belong to this module.
    if _is_timeout(exc):
        return "timeout"
    return "tool" if any(t.__name__ == "ToolError" for t in type(exc).__mro__) else "unknown"


def _is_timeout(exc: BaseException | None) -> bool:
    names = [t.__name__ for t in type(exc).__mro__]
    return "TimeoutException" in names or "TimeoutError" in names


def body_of(exc: openai.APIStatusError) -> object:
    """The whole body of an error's answer: the client library keeps a part of it only."""
    raw = exc.response.content[:ERROR_BODY_MAX_BYTES]
    try:
        body: object = json.loads(raw)
    except (ValueError, RecursionError):
        return _page_text(raw.decode("utf-8", errors="replace")) or exc.body
    return body


def words_of(exc: openai.APIStatusError) -> str:
    """`code type message` of an error's answer."""
    return error_text(body_of(exc))


def _page_text(text: str) -> str:
    """The words of a body that is not JSON; of a web page, without its tags."""
    if text.lstrip()[:1] == "<":
        text = _TAG.sub(" ", "".join(_outside_scripts(text)))
    return " ".join(text.split())


_SCRIPT = re.compile(r"<(/?)(script|style)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")


def _outside_scripts(text: str) -> Iterator[str]:
    """The parts of a page that are neither script nor style. Each sign of it is looked at once."""
    begins, inside = 0, ""
    for tag in _SCRIPT.finditer(text):
        is_end, name = bool(tag[1]), tag[2].lower()
        if not inside and not is_end:
            yield text[begins : tag.start()] + " "
            begins, inside = tag.start(), name
        elif is_end and name == inside:
            begins, inside = tag.start(), ""
    yield text[begins:]  # of a script without an end, what it holds may be the words


def is_unreachable(exc: BaseException | None) -> bool:
    """Whether nothing listens at the address: the server may be restarting."""
    seen = 0
    waiting = [exc]
    while waiting and seen < 50:
        each = waiting.pop()
        seen += 1
        if each is None:
            continue
        if isinstance(each, OSError) and each.errno in _UNREACHABLE:
            return True
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += list(each.exceptions)
    return isinstance(exc, ModelError) and exc.is_unreachable


# How long a server asks us to wait.


def retry_after_seconds(
    headers: Mapping[str, str], now: float, body: object = None
) -> float | None:
    """Seconds the server asks to wait, at most 300; None when it says nothing usable.

    `now` is in seconds since the epoch. `retry-after-ms` and `retry-after` (seconds, an HTTP date,
    or a span such as `6m0s`) win, then the words of the body; else the larger reset among the
    used-up rate-limit buckets.
    """
    asked = _explicit_wait(headers, now)
    if asked is None:
        asked = wait_in_body(body)
    return _bounded(_reset_wait(headers, now) if asked is None else asked)


def _explicit_wait(headers: Mapping[str, str], now: float) -> float | None:
    lower = {k.lower(): v for k, v in headers.items()}
    for name, scale in (
        ("retry-after-ms", 0.001),
        ("x-ms-retry-after-ms", 0.001),
        ("retry-after", 1.0),
        ("x-retry-after", 1.0),
    ):
        if (asked := _seconds(lower.get(name), now, scale)) is not None:
            return asked
    return None


def _reset_wait(headers: Mapping[str, str], now: float) -> float | None:
    lower = {k.lower(): v for k, v in headers.items()}
    resets = [
        seconds
        for remaining, reset in (
            ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
            ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
            ("x-ratelimit-remaining", "x-ratelimit-reset"),
            ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
            ("ratelimit-remaining", "ratelimit-reset"),
        )
        if not _is_positive(lower.get(remaining)) and (seconds := _seconds(lower.get(reset), now))
    ]
    if not resets and (structured := _RATELIMIT.search(lower.get("ratelimit", "")[:1000])):
        return float(structured[1][:9])
    return max(resets, default=None)


_RATELIMIT = re.compile(r"\b(?:remaining|r)=0\b[^,]{0,40}[,;]\s*(?:reset|t)=(\d+)")
"""The header `RateLimit` of the IETF's drafts, older and newer."""


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(seconds, RETRY_WAIT_MAX_SECONDS)


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
        seconds = _span_or_moment(text.strip(), now)
    if seconds > 1e12:  # some endpoints send the moment itself, in milliseconds
        seconds = seconds / 1000 - now
    elif seconds > 1e9:
        seconds = seconds - now
    return seconds if 0 <= seconds < float("inf") else None


def _span_or_moment(text: str, now: float) -> float:
    if re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[a-z]+\s*)+", text, re.IGNORECASE):
        seconds = span_seconds(text)
        return -1.0 if seconds is None else seconds
    moment = moment_of(text)
    return -1.0 if moment is None else moment - now


def requested_wait_seconds(exc: BaseException, now: float) -> float | None:
    """Seconds that the answer behind `exc` asks to wait, or None."""
    if isinstance(exc, ModelError):
        return _bounded(exc.retry_after)
    if not isinstance(exc, openai.APIStatusError):
        return None
    return retry_after_seconds(exc.response.headers, now, body_of(exc))


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
        text = f"HTTP {exc.status_code}: {message_of(body_of(exc)) or exc.message}"
    elif isinstance(exc, openai.APITimeoutError | TimeoutError):
        text = "no answer in time"
    elif isinstance(exc, openai.APIConnectionError):
        text = f"no connection ({_root_of(exc)})"
    elif isinstance(exc, openai.APIError):
        text = message_of(exc.body) or exc.message
    elif isinstance(exc, ModelError | ApplicationError):
        text = str(exc)
    elif isinstance(exc, pydantic.ValidationError):
        # Its own text repeats the input, which may be a prompt or an answer.
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
    else:
        text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    text = " ".join(_SECRET.sub(r"\1…", clean_text(text)).split())
    return text if len(text) <= MODEL_ERROR_MAX_CHARS else text[: MODEL_ERROR_MAX_CHARS - 1] + "…"


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
    has_fallback: bool = False,
) -> ApplicationError:
    """The failure as Temporal sees it: type = error class, the message names endpoint and cause.

    `counted_attempt` counts real failures, this one included (from 1), `waits` the pauses that an
    endpoint has asked for. The delay to the next attempt is always Planloom's, since the server's
    would grow with waits too. Details: one object of class, endpoint, model, counts and `usage`
    (what the failed attempt paid; without it, what `exc` itself knows).
    """
    error_class = classify(exc)
    rule = table[error_class]
    is_wait = is_free_wait(exc, waits, table, has_fallback=has_fallback)
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
            **({"cut_at": cut_at} if (cut_at := getattr(exc, "cut_at", 0)) else {}),
        },
        type=error_class,
        # The run's result says it; a traceback in the worker's log for each would drown the rest.
        category=ApplicationErrorCategory.BENIGN,
        non_retryable=is_last,
        next_retry_delay=timedelta(
            seconds=_next_delay(rule, counted_attempt, waits, is_wait, retry_after, retry)
        ),
    )


def is_turn_wait(exc: BaseException) -> bool:
    """Whether the pool itself had no room: no endpoint was asked, and nothing is counted."""
    return isinstance(exc, ModelError) and exc.is_ours


def is_free_wait(
    exc: BaseException,
    waits: int,
    table: RetryTable = RETRY_TABLE,
    *,
    has_fallback: bool = False,
) -> bool:
    """Whether this failure is a pause that costs no attempt: the endpoint asked for it, or nothing
    listens there for the moment. Where another pool takes over, nothing is waited for that may
    never come.
    """
    most = table[classify(exc)].waits_max
    if is_unreachable(exc):
        most = 0 if has_fallback else max(most, UNREACHABLE_WAITS_MAX)
    return is_turn_wait(exc) or waits < most


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
