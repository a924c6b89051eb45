"""The model client: one chat call on an OpenAI-compatible endpoint, of any base URL.

No retries here: Temporal's policies retry, once (DESIGN §5). What an endpoint does not know
(`stream_options`, JSON mode, `max_completion_tokens`) is left out when it says so, and remembered.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import openai
from temporalio import activity

from planloom.activities.models.chat import (
    ChatReply,
    ChatRequest,
    ReplyBuilder,
    SseDecoder,
    ToolCall,
    estimate_tokens,
)
from planloom.activities.models.context_window import within
from planloom.activities.models.errors import (
    ModelError,
    cause_of,
    classify,
    host_of,
    requested_wait_seconds,
)
from planloom.activities.models.keys import without_key
from planloom.activities.models.pool_limiter import ADMIT_WAIT_MAX_SECONDS, PoolLimiter
from planloom.activities.models.prices import Prices
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings, Settings, key_problem
from planloom.planner.language.values import Usage

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_DEFAULT_MODEL = "gpt-4o-mini"
CONNECT_SECONDS = 15.0
DROPS_MAX = 5
"""How many parameters one call may leave out before the endpoint's refusal is final."""
NO_KEY = "none"
"""Local servers want no key, the SDK wants some."""

OnText = Callable[[str], Awaitable[None]]


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

    @property
    def tokens(self) -> int:
        paid = self.reply.usage if self.reply is not None else self.usage
        return paid.tokens if paid is not None else 0


Observer = Callable[[ModelCall], AbstractContextManager[None]]
FindLimiter = Callable[[str], PoolLimiter | None]
LIKELY_ANSWER_TOKENS = 256
"""Taken for an answer whose length nobody limits, until the real one is known."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """What an endpoint was found not to accept, by model."""

    dropped: frozenset[str] = frozenset()
    response_format: str = "json_schema"
    """json_schema, then json_object, then none."""
    is_limit_swapped: bool = False

    def without(self, name: str) -> Quirks | None:
        """The next thing to try when `name` is refused; None when nothing is left to try."""
        if name in ("max_tokens", "max_completion_tokens"):
            # The limit itself is never left out: the budget was reserved for it.
            return None if self.is_limit_swapped else replace(self, is_limit_swapped=True)
        if name == "response_format":
            following = {"json_schema": "json_object", "json_object": "none"}
            return replace(self, response_format=following.get(self.response_format, "none"))
        return replace(self, dropped=self.dropped | {name})


class _CallbackError(Exception):
    """Keeps an error of the caller's own `on_text` apart from errors of the endpoint."""


class ModelClient:
    """Chat calls by pool. One per worker process; built where settings are known."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        prices: Prices | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.settings = settings
        self._environment = environment
        self._prices = prices or Prices(settings)
        self._observers = list(observers)
        self.find_limiter: FindLimiter = lambda pool: None
        """The pool's limiter, where the worker has one."""
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._quirks: dict[tuple[str, str], Quirks] = {}
        self._default_models: dict[str, str] = {}

    @property
    def prices(self) -> Prices:
        return self._prices

    def add_observer(self, observer: Observer) -> None:
        self._observers.append(observer)

    def endpoint(self, pool: str) -> str:
        """The pool's base URL, for messages; OpenAI's own for a pool that is not known."""
        settings = self.settings.pools.get(pool, PoolSettings())
        return settings.base_url or self._environment.get("OPENAI_BASE_URL") or OPENAI_URL

    def timeout_seconds(self, pool: str) -> float:
        """The longest that one call on this pool may take."""
        return self.settings.pools.get(pool, PoolSettings()).timeout_seconds

    async def chat(
        self, pool: str, request: ChatRequest, on_text: OnText | None = None
    ) -> ChatReply:
        """One call. With `on_text` each piece of text is handed over as it arrives.

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
            except _CallbackError as failed:
                call.error_class = "unknown"
                raise failed.__cause__ or failed from None
            except Exception as exc:
                error = self._model_error(exc, pool, request, builder)
                call.error_class, call.retry_after = error.error_class, error.retry_after
                call.error, call.usage = str(error), error.usage
                raise error from exc
            except asyncio.CancelledError:
                call.error_class = "cancelled"
                raise
            call.reply = replace(reply, usage=self._priced(pool, request, reply))
            return call.reply

    def report_schema_violation(self, pool: str) -> None:
        """An answer of this pool's does not fit its schema, after its repair."""
        limiter = self.find_limiter(pool)
        if limiter is not None:
            limiter.report_schema_violation()

    async def default_model(self, pool: str) -> str:
        """The model of a pool when nobody names one: its first listed name, else what it serves.

        Raises:
            ModelError: nothing is known and the endpoint lists no models.
        """
        named = [m for m in self._pool(pool).models if not re.search(r"[*?\[]", m)]
        if named:
            return named[0]
        if _is_openai(self.endpoint(pool)):
            return OPENAI_DEFAULT_MODEL
        if pool not in self._default_models:
            try:
                listed = await self._client(pool).models.list(timeout=CONNECT_SECONDS)
                self._default_models[pool] = listed.data[0].id
            except (openai.OpenAIError, IndexError, TypeError, AttributeError) as exc:
                raise ModelError(
                    classify(exc) if isinstance(exc, openai.OpenAIError) else "auth",
                    f"no model is named, and {host_of(self.endpoint(pool))} lists none "
                    f"({cause_of(exc)}): set PLANLOOM_MODEL, or give the request a model",
                ) from exc
        return self._default_models[pool]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    # Inside.

    def _pool(self, pool: str) -> PoolSettings:
        settings = self.settings.pools.get(pool)
        if settings is None and pool == "default" and not self.settings.pools:
            return PoolSettings()
        if settings is None:
            names = ", ".join(self.settings.pools)
            raise ModelError("refused", f'no pool "{pool}". Pools of this worker: {names}')
        return settings

    def _client(self, pool: str) -> openai.AsyncOpenAI:
        if pool not in self._clients:
            settings = self._pool(pool)
            if problem := key_problem(pool, settings, self._environment):
                raise ModelError("auth", problem.line())
            key = self._environment.get(settings.api_key_env)
            url = self.endpoint(pool)
            if not key and (_is_openai(url) or "api_key_env" in settings.model_fields_set):
                other = "" if settings.base_url else " or OPENAI_BASE_URL"
                raise ModelError(
                    "auth",
                    f'pool "{pool}" has no key: '
                    f"set {settings.api_key_env}{other} where the worker runs",
                )
            self._clients[pool] = openai.AsyncOpenAI(
                api_key=key or NO_KEY, base_url=url, max_retries=0
            )
        return self._clients[pool]

    async def _call(
        self, pool: str, request: ChatRequest, on_text: OnText | None, builder: ReplyBuilder
    ) -> ChatReply:
        client = self._client(pool)
        place = (pool, request.model)
        quirks = self._quirks.get(place, Quirks())
        for drops in range(DROPS_MAX + 1):
            params = params_of(request, quirks, is_openai=_is_openai(self.endpoint(pool)))
            try:
                return await self._send(client, params, request, on_text, builder)
            except openai.APIStatusError as exc:
                name = refused_parameter(exc, params)
                following = quirks.without(name) if name else None
                if following is None or drops == DROPS_MAX:
                    raise
                quirks = following
                if "invalid schema" not in str(exc).lower():  # that is about this schema only
                    self._quirks[place] = quirks
        raise AssertionError("unreachable: the last drop raises")

    async def _send(
        self,
        client: openai.AsyncOpenAI,
        params: dict[str, Any],
        request: ChatRequest,
        on_text: OnText | None,
        builder: ReplyBuilder,
    ) -> ChatReply:
        started = time.monotonic()
        first: float | None = None
        create: Any = client.chat.completions.with_streaming_response.create
        limit = openai.Timeout(request.timeout_seconds, connect=CONNECT_SECONDS)
        async with create(**params, timeout=limit) as response:
            async for text in _texts(response, builder):
                if first is None and (text or builder.has_choices):
                    first = time.monotonic() - started
                if text and on_text is not None:
                    await _hand_over(on_text, text)
            headers = {k.lower(): v for k, v in response.headers.items()}
        if (rest := builder.end_text()) and on_text is not None:
            await _hand_over(on_text, rest)
        return replace(
            builder.reply(request),
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
        if usage is None and (builder.has_choices or builder.received_chars):
            usage = builder.usage(request)[0]
        if usage is not None:
            usage = self._prices.charge(request.model, pool, usage)
        error_class = classify(exc)
        message = cause_of(exc)
        if error_class == "timeout" and isinstance(exc, TimeoutError):
            message = f"no whole answer in {request.timeout_seconds:g} s"
        if error_class == "auth" and not isinstance(exc, ModelError):
            message += f" (the key is read from {self._pool(pool).api_key_env})"
        message = without_key(message, self._environment.get(self._pool(pool).api_key_env))
        return ModelError(
            error_class, message, usage=usage, retry_after=requested_wait_seconds(exc, time.time())
        )


def _is_openai(url: str) -> bool:
    return host_of(url) == host_of(OPENAI_URL)


async def _hand_over(on_text: OnText, text: str) -> None:
    try:
        await on_text(text)
    except Exception as exc:
        raise _CallbackError from exc


async def _texts(response: Any, builder: ReplyBuilder) -> AsyncIterator[str]:
    """Pieces of text as they come, from a stream or from a whole JSON body."""
    if "event-stream" not in response.headers.get("content-type", ""):
        # Asked for a stream or not: this endpoint answers at once, or mislabels its events.
        body = await response.read()
        if not body.lstrip().startswith(b"data:"):
            yield builder.add_whole(body.decode("utf-8", errors="replace"))
            return
        whole = SseDecoder()
        for data in [*whole.feed(body), *whole.close()]:
            yield builder.add_event(data)
        return
    decoder = SseDecoder()
    async for chunk in response.iter_bytes():
        for data in decoder.feed(chunk):
            yield builder.add_event(data)
    for data in decoder.close():
        yield builder.add_event(data)


def params_of(request: ChatRequest, quirks: Quirks, *, is_openai: bool) -> dict[str, Any]:
    """The call's parameters, without those that the endpoint is known to refuse."""
    params: dict[str, Any] = {"model": request.model, "messages": list(request.messages)}
    if request.max_tokens is not None:
        # OpenAI's newer models know only the one name, most other servers only the other.
        is_new_name = is_openai != quirks.is_limit_swapped
        name = "max_completion_tokens" if is_new_name else "max_tokens"
        params[name] = request.max_tokens
    if request.tools:
        params["tools"] = list(request.tools)
    if request.response_schema is not None:
        format_ = _response_format(request.response_schema, quirks.response_format)
        if format_ is not None:
            params["response_format"] = format_
    if request.temperature is not None:
        params["temperature"] = request.temperature
    if request.stop:
        params["stop"] = list(request.stop)
    if request.stream:
        params["stream"] = True
        params["stream_options"] = {"include_usage": True}
    return {k: v for k, v in params.items() if k not in quirks.dropped}


def _response_format(schema: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    if kind == "none" or schema.get("type") != "object":
        return None  # endpoints take objects only; the prompt asks for the schema in any case
    if kind == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": dict(schema), "strict": False},
    }


_DROPPABLE = ("stream_options", "response_format", "temperature", "stop")
_LIMITS = ("max_completion_tokens", "max_tokens")


def refused_parameter(exc: openai.APIStatusError, params: Mapping[str, Any]) -> str | None:
    """The parameter that this answer refuses, if it is one that we sent and can do without."""
    if exc.status_code not in (400, 422) or classify(exc) != "refused":
        return None
    sent = [name for name in (*_DROPPABLE, *_LIMITS) if name in params]
    if exc.param in sent:
        return exc.param
    text = f"{exc.message} {exc.body}"
    if re.search(r"json_(schema|object|mode)|structured output", text) and (
        "response_format" in sent
    ):
        return "response_format"
    # "Unsupported 'max_tokens'. Use 'max_completion_tokens'" names both; only one was sent.
    return next((n for n in sent if re.search(rf"\b{n}\b", text)), None)


__all__ = [
    "ChatReply",
    "ChatRequest",
    "ModelCall",
    "ModelClient",
    "ModelError",
    "Observer",
    "ToolCall",
]
