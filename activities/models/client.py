"""The model client: one chat call on an OpenAI-compatible endpoint, of any base URL.

No retries here: Temporal's policies retry, once (DESIGN §5). What an endpoint does not take
(`stream_options`, JSON mode, `max_completion_tokens`) is left out when it says so, and remembered
once the call has worked without.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
from temporalio import activity

from planloom.activities.models.answer_stream import CallbackError, OnText, read_answer
from planloom.activities.models.chat import (
    ChatReply,
    ChatRequest,
    estimate_tokens,
    least_tokens,
)
from planloom.activities.models.connections import CONNECT_SECONDS, Connections
from planloom.activities.models.context_window import within
from planloom.activities.models.error_bodies import error_text
from planloom.activities.models.errors import (
    ModelError,
    body_of,
    cause_of,
    classify,
    host_of,
    is_unreachable,
    requested_wait_seconds,
    words_of,
)
from planloom.activities.models.next_try import Refused, Try, next_try
from planloom.activities.models.pool_limiter import ADMIT_WAIT_MAX_SECONDS, PoolLimiter
from planloom.activities.models.prices import Prices
from planloom.activities.models.quirks import QuirkBook
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.models.request_params import params_of, unwrapped
from planloom.activities.models.tool_calls import ToolCall
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings, Settings
from planloom.planner.language.values import Usage

TRIES_MAX = 7
"""Requests of one call, each with less than the one before, until a refusal is final."""
CUT_PROMPT_MIN_TOKENS = 256
"""Of a shorter prompt nobody can say from its length that a part of it was not read."""


@dataclass(slots=True)
class ModelCall:
    """One call as an observer (telemetry, capacity) sees it; filled in before its block ends."""

    pool: str
    endpoint: str
    request: ChatRequest
    reply: ChatReply | None = None
    error_class: ErrorClass | None = None
    error: str = ""
    usage: Usage | None = None
    """What a failed call has paid, as far as known."""
    retry_after: float | None = None

    is_unreachable: bool = False
    """Nothing listened at the address."""

    @property
    def tokens(self) -> int:
        paid = self.reply.usage if self.reply is not None else self.usage
        return paid.tokens if paid is not None else 0


Observer = Callable[[ModelCall], AbstractContextManager[None]]
FindLimiter = Callable[[str], PoolLimiter | None]
LIKELY_ANSWER_TOKENS = 256
"""Taken for an answer whose length nobody limits, until the real one is known."""


class ModelClient:
    """Chat calls by pool. One per worker process; built where settings are known."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        prices: Prices | None = None,
        observers: Sequence[Observer] = (),
        quirks_file: Path | None = None,
    ) -> None:
        self.settings = settings
        self._prices = prices or Prices(settings)
        self._observers = list(observers)
        self.find_limiter: FindLimiter = lambda pool: None
        """The pool's limiter, where the worker has one."""
        self.quirks = QuirkBook(settings, quirks_file)
        self.connections = Connections(settings, environment)

    @property
    def prices(self) -> Prices:
        return self._prices

    def add_observer(self, observer: Observer) -> None:
        self._observers.append(observer)

    def endpoint(self, pool: str) -> str:
        """The pool's base URL, for messages."""
        return self.connections.endpoint(pool)

    def timeout_seconds(self, pool: str) -> float:
        """The longest that one call on this pool may take."""
        return self.settings.pools.get(pool, PoolSettings()).timeout_seconds

    def has_fallback(self, pool: str) -> bool:
        """Whether another pool takes what this one cannot serve."""
        return self.settings.pools.get(pool, PoolSettings()).fallback is not None

    async def chat(
        self, pool: str, request: ChatRequest, on_text: OnText | None = None
    ) -> ChatReply:
        """One call. With `on_text` each piece of text is passed on as it arrives; when that gives
        back true, it has enough, and the rest of the answer is not paid for.

        Raises:
            ModelError: with its class, the usage already paid, and the wait the server asked for.
        """
        request = within(request, self.settings.context_window(request.model))
        limiter = self.find_limiter(pool)
        if limiter is None:
            return await self._observed(ModelCall(pool, self.endpoint(pool), request), on_text)
        queue = activity.info().task_queue if activity.in_activity() else ""
        estimate = estimate_tokens(request.messages) + (request.max_tokens or LIKELY_ANSWER_TOKENS)
        began = time.monotonic()
        admitted = await limiter.admit(
            request.model,
            estimate,
            is_queued=queue == limiter.task_queue,
            # The rest of the time belongs to the call itself.
            wait_max_seconds=min(ADMIT_WAIT_MAX_SECONDS, request.timeout_seconds / 2),
        )
        waited = time.monotonic() - began
        request = replace(request, timeout_seconds=request.timeout_seconds - waited)
        call = ModelCall(pool, self.endpoint(pool), request)
        try:
            return await self._observed(call, on_text)
        finally:
            limiter.end(
                admitted,
                error_class=None if call.reply is not None else call.error_class or "unknown",
                cause=call.error,
                retry_after=call.retry_after,
                tokens=call.tokens,
            )

    async def _observed(self, call: ModelCall, on_text: OnText | None) -> ChatReply:
        pool, request = call.pool, call.request
        builder = ReplyBuilder()
        with ExitStack() as observed:
            for observer in self._observers:
                observed.enter_context(observer(call))
            try:
                async with asyncio.timeout(request.timeout_seconds):
                    reply = await self._call(pool, request, on_text, builder)
            except CallbackError as failed:
                call.error_class = "unknown"
                raise failed.__cause__ or failed from None
            except Exception as exc:
                error = self._model_error(exc, pool, request, builder)
                call.error_class, call.retry_after = error.error_class, error.retry_after
                call.error, call.usage = str(error), error.usage
                call.is_unreachable = error.is_unreachable
                raise error from exc
            except asyncio.CancelledError:
                call.error_class = "cancelled"
                raise
            call.reply = replace(
                reply,
                usage=self._priced(pool, request, reply),
                notes=(*reply.notes, *_notes_on(request, reply)),
            )
            return call.reply

    def report_schema_violation(self, pool: str) -> None:
        """An answer of this pool's does not fit its schema, after its repair."""
        limiter = self.find_limiter(pool)
        if limiter is not None:
            limiter.report_schema_violation()

    async def default_model(self, pool: str) -> str:
        """The model of a pool when nobody names one; see `Connections.default_model`."""
        return await self.connections.default_model(pool)

    async def close(self) -> None:
        await self.connections.close()

    # Inside.

    async def _call(
        self, pool: str, request: ChatRequest, on_text: OnText | None, builder: ReplyBuilder
    ) -> ChatReply:
        client = self.connections.client(pool)
        is_openai = self.connections.is_openai(pool)
        known = self.quirks.of(pool, request.model, is_openai=is_openai)
        tried = Try(request, known)
        extra = self.connections.pool(pool).extra_for(request.model)
        for n in range(TRIES_MAX):
            params = params_of(tried.request, tried.quirks, is_openai=is_openai)
            try:
                reply = await self._send(client, params | _extra(extra), tried, on_text, builder)
            except (openai.APIStatusError, ModelError) as exc:
                refused = _refused(exc) if builder.total_chars == 0 else None
                following = None if refused is None else next_try(tried, refused)
                if following is None or n == TRIES_MAX - 1:
                    raise
                tried = following
                continue
            if tried.quirks != known:
                self.quirks.learn(pool, request.model, tried.quirks)
            return reply
        raise AssertionError("unreachable: the last try raises")

    async def _send(
        self,
        client: openai.AsyncOpenAI,
        params: dict[str, Any],
        tried: Try,
        on_text: OnText | None,
        builder: ReplyBuilder,
    ) -> ChatReply:
        request = tried.request
        started = time.monotonic()
        first: float | None = None

        async def passed_on(text: str) -> bool | None:
            nonlocal first
            first = time.monotonic() - started if first is None else first
            return None if on_text is None else await on_text(text)

        create: Any = client.chat.completions.with_streaming_response.create
        limit = openai.Timeout(request.timeout_seconds, connect=CONNECT_SECONDS)
        async with create(**params, timeout=limit) as response:
            is_stopped = await read_answer(response, builder, passed_on)
            headers = {k.lower(): v for k, v in response.headers.items()}
        reply = builder.reply(request, is_stopped=is_stopped)
        text = reply.text
        if request.response_schema is not None and "response_format" in params:
            text = unwrapped(text, request.response_schema)
        return replace(
            reply,
            text=text,
            seconds=time.monotonic() - started,
            first_chunk_seconds=first,
            headers={k: v for k, v in headers.items() if "ratelimit" in k or "retry-after" in k},
        )

    def _priced(self, pool: str, request: ChatRequest, reply: ChatReply) -> Any:
        priced = self._prices.charge(request.model, pool, reply.usage)
        # A gateway's own alias has no price; what it answered with may have one.
        return priced if priced.is_priced else self._prices.charge(reply.model, pool, reply.usage)

    def _model_error(
        self, exc: Exception, pool: str, request: ChatRequest, builder: ReplyBuilder
    ) -> ModelError:
        """Any failure as a `ModelError`, with what was paid for it as far as known."""
        usage = getattr(exc, "usage", None)
        if usage is None and builder.is_paid:
            usage = builder.usage(request)[0]
        if usage is not None:
            usage = self._prices.charge(request.model, pool, usage)
        error_class = classify(exc)
        message = cause_of(exc)
        if error_class == "timeout" and isinstance(exc, TimeoutError):
            message = f"no whole answer in {request.timeout_seconds:g} s"
        if error_class == "auth" and not isinstance(exc, ModelError):
            message += f" (the key is read from {self.connections.pool(pool).api_key_env})"
        message += _hint(exc, self.endpoint(pool))
        return ModelError(
            error_class,
            self.connections.without_secrets(pool, message),
            usage=usage,
            retry_after=requested_wait_seconds(exc, time.time()),
            is_unreachable=is_unreachable(exc),
            is_of_call=True,
        )


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {"extra_body": dict(extra)} if extra else {}


def _refused(exc: openai.APIStatusError | ModelError) -> Refused | None:
    """A refusal, whether it came with its status or with 200."""
    if isinstance(exc, ModelError):
        if exc.body is None:
            return None
        return Refused(400, exc.error_class, error_text(exc.body), exc.body)
    return Refused(exc.status_code, classify(exc), words_of(exc), body_of(exc), exc.param)


def _hint(exc: Exception, url: str) -> str:
    """What to do about an address that leads nowhere."""
    is_nowhere = "unexpected endpoint" in str(exc).lower()  # LM Studio says so with status 200
    if isinstance(exc, openai.APIStatusError) and exc.status_code in (404, 405):
        is_nowhere = "model" not in words_of(exc).lower()
    if not is_nowhere or re.search(r"/v\d", urlsplit(url).path):
        return ""
    return f" (the base URL has no /v1: is it {urlsplit(url).scheme}://{host_of(url)}/v1?)"


def _notes_on(request: ChatRequest, reply: ChatReply) -> list[str]:
    """What a person should know of this answer: that not all of its prompt was read."""
    least, counted = least_tokens(request.messages), reply.usage.input_tokens
    if reply.is_usage_estimated or least < CUT_PROMPT_MIN_TOKENS or counted >= 0.9 * least:
        return []
    return [
        f"the endpoint counted {counted:,} tokens of a prompt of at least {least:,}: it has cut it "
        "(a larger context window is set on the server; with Ollama by num_ctx)"
    ]


__all__ = [
    "ChatReply",
    "ChatRequest",
    "ModelCall",
    "ModelClient",
    "ModelError",
    "Observer",
    "ToolCall",
]
