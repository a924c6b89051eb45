"""Connections to the endpoints of pools: addresses, keys, headers, and the models they serve."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import openai

from planloom.activities.models.answer_stream import limit_body
from planloom.activities.models.errors import (
    ModelError,
    cause_of,
    classify,
    host_of,
    is_unreachable,
    requested_wait_seconds,
)
from planloom.activities.models.keys import without_key
from planloom.planner.contract.settings import PoolSettings, Settings, key_problem
from planloom.planner.language.clean_text import clean_text

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_DEFAULT_MODEL = "gpt-4o-mini"
CONNECT_SECONDS = 15.0
OFFERED_SECONDS = 5.0
"""How long a person waits for the list of models."""
NO_KEY = "none"
"""Local servers want no key, the SDK wants some."""
NO_CHAT = re.compile(
    r"embed|rerank|whisper|\btts\b|dall-?e|moderation|stable-?diffusion|sdxl|\bflux|\basr\b|"
    r"colbert|\bbge-|\be5-|\bgte-|speech|transcri|text-to-image|imagen|\bclip\b",
    re.IGNORECASE,
)
"""Names of models that write no answers."""


class Connections:
    """One client for each pool, made when it is first used. One per worker process."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings, self._environment = settings, environment
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._default_models: dict[str, str] = {}

    def endpoint(self, pool: str) -> str:
        """The pool's base URL, for messages; OpenAI's own for a pool that is not known."""
        own = self._settings.pools.get(pool, PoolSettings())
        return own.base_url or self._environment.get("OPENAI_BASE_URL") or OPENAI_URL

    def is_openai(self, pool: str) -> bool:
        """Whether it is OpenAI's own, which takes newer names of some parameters."""
        return _is_openai(self.endpoint(pool))

    def pool(self, pool: str) -> PoolSettings:
        """The pool's settings.

        Raises:
            ModelError: this worker has no such pool.
        """
        settings = self._settings.pools.get(pool)
        if settings is None and pool == "default" and not self._settings.pools:
            return PoolSettings()
        if settings is None:
            names = ", ".join(self._settings.pools)
            raise ModelError("refused", f'no pool "{pool}". Pools of this worker: {names}')
        return settings

    def client(self, pool: str) -> openai.AsyncOpenAI:
        """The pool's client.

        Raises:
            ModelError: its key, or a header's value, is missing in the environment.
        """
        if pool not in self._clients:
            settings = self.pool(pool)
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
                api_key=key or NO_KEY,
                base_url=url,
                max_retries=0,
                default_headers=self._headers(pool),
                default_query=dict(settings.query) or None,
                http_client=openai.DefaultAsyncHttpxClient(
                    event_hooks={
                        "request": [_without_headers(url, list(settings.headers_env))],
                        "response": [_limit_body],
                    }
                ),
            )
        return self._clients[pool]

    async def offered(self, pool: str) -> list[str]:
        """The models that the endpoint lists, in its order.

        Raises:
            ModelError: it lists none, or does not answer.
        """
        try:
            listed = await self.client(pool).models.list(timeout=OFFERED_SECONDS)
            return [clean_text(str(m.id)) for m in listed.data]
        except (openai.OpenAIError, TypeError, AttributeError) as exc:
            is_known = isinstance(exc, openai.OpenAIError)
            text = self.without_secrets(pool, cause_of(exc)) if is_known else "no list of models"
            raise ModelError(classify(exc) if is_known else "unknown", text) from exc

    async def default_model(self, pool: str) -> str:
        """The model of a pool when nobody names one: its first listed name, else what it serves.

        Raises:
            ModelError: nothing is known and the endpoint lists no models.
        """
        named = [m for m in self.pool(pool).models if not re.search(r"[*?\[]", m)]
        if named:
            return named[0]
        if self.is_openai(pool):
            return OPENAI_DEFAULT_MODEL
        if pool not in self._default_models:
            try:
                listed = await self.client(pool).models.list(timeout=CONNECT_SECONDS)
                self._default_models[pool] = _first_for_chat(
                    [clean_text(m.id) for m in listed.data]
                )
            except (openai.OpenAIError, ModelError, LookupError, TypeError, AttributeError) as exc:
                is_known = isinstance(exc, openai.OpenAIError | ModelError)
                raise ModelError(
                    classify(exc) if is_known else "auth",
                    f"no model is named, and {host_of(self.endpoint(pool))} lists none "
                    f"({self.without_secrets(pool, cause_of(exc))}): set PLANLOOM_MODEL, or give "
                    "the request a model",
                    retry_after=requested_wait_seconds(exc, time.time()),
                    is_unreachable=is_unreachable(exc),
                ) from exc
        return self._default_models[pool]

    def without_secrets(self, pool: str, text: str) -> str:
        """Endpoints quote the key they refuse; messages land in history."""
        settings = self.pool(pool)
        for variable in (settings.api_key_env, *settings.headers_env.values()):
            text = without_key(text, self._environment.get(variable))
        return text

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _headers(self, pool: str) -> dict[str, str]:
        settings = self.pool(pool)
        # An answer that is packed could be far longer than what was received.
        headers = {"Accept-Encoding": "identity", **settings.headers}
        for header, variable in settings.headers_env.items():
            if not self._environment.get(variable):
                text = f'pool "{pool}" has no header {header}: set {variable}'
                raise ModelError("auth", f"{text} where the worker runs")
            headers[header] = self._environment[variable]
        return headers


def _without_headers(url: str, names: Sequence[str]) -> Callable[[Any], Awaitable[None]]:
    """Before each request, also one that a redirect leads to: secret headers are for the endpoint's
    own host. The HTTP library keeps back `Authorization` only."""
    own = urlsplit(url)
    allowed = {_origin(own.scheme, own.hostname, own.port), _origin("https", own.hostname, None)}

    async def check(request: Any) -> None:
        to = request.url
        if _origin(to.scheme, to.host, to.port) not in allowed:
            for name in names:
                request.headers.pop(name, None)

    return check


def _origin(scheme: str, host: str | None, port: int | None) -> tuple[str, str, int]:
    return scheme, host or "", port or {"http": 80}.get(scheme, 443)


async def _limit_body(response: Any) -> None:
    limit_body(response)


def _is_openai(url: str) -> bool:
    return host_of(url) == host_of(OPENAI_URL)


def _first_for_chat(ids: Sequence[str]) -> str:
    """The first model that writes answers, as far as names tell."""
    return next((i for i in ids if not NO_CHAT.search(i)), None) or ids[0]
