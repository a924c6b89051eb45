"""An answer's bytes as they come, in a stream or at once, bounded; left when one has enough."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from planloom.activities.models.errors import ModelError
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.models.sse import TELLING_BYTES, SseDecoder, is_event_stream

BODY_MAX_BYTES = 16 * 1024 * 1024
"""Of one answer. What is longer is not read on: no model's answer is."""
REST_SECONDS = 1.5
"""After the reader has enough, so long is waited for the end that brings the usage."""
_LOGIN = re.compile(r"log.?in|sign.?in|sso|oauth|auth|account", re.IGNORECASE)

OnText = Callable[[str], Awaitable[bool | None]]
"""Given each piece of text; true means that it needs no more."""


class CallbackError(Exception):
    """Keeps an error of the caller's own `on_text` apart from errors of the endpoint."""


async def read_answer(response: Any, builder: ReplyBuilder, on_text: OnText | None) -> bool:
    """Read the answer into `builder`; true when its reader had enough before the end.

    Raises:
        ModelError: it is too long, a web page, not an answer, or an error.
        CallbackError: `on_text` failed.
    """
    loop = asyncio.get_running_loop()
    has_enough = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as patience:
            async for text in _texts(response, builder):
                if has_enough and text.strip():
                    return True
                if text and on_text is not None and not has_enough:
                    has_enough = await _hand_over(on_text, text)
                    if has_enough:
                        patience.reschedule(loop.time() + REST_SECONDS)
            rest = builder.end_text()
            if rest and on_text is not None and not has_enough:
                await _hand_over(on_text, rest)
            return False
    return True


async def _hand_over(on_text: OnText, text: str) -> bool:
    try:
        return bool(await on_text(text))
    except Exception as exc:
        raise CallbackError from exc


async def _texts(response: Any, builder: ReplyBuilder) -> AsyncIterator[str]:
    """Pieces of text as they come, from a stream or from a whole body, whatever its label says."""
    kind = response.headers.get("content-type", "")
    chunks = _bounded(response)
    first: list[bytes] = []
    size = 0
    is_stream = "event-stream" in kind
    async for chunk in chunks:
        first.append(chunk)
        is_telling = size < TELLING_BYTES and b"\n" in chunk
        if is_stream or (is_telling and is_event_stream(b"".join(first))):
            async for text in _event_texts(b"".join(first), chunks, builder):
                yield text
            return
        size += len(chunk)
    if first or not is_stream:
        _check_page(response, kind)
        yield builder.add_whole(b"".join(first), is_page="text/html" in kind)


async def _event_texts(
    first: bytes, chunks: AsyncIterator[bytes], builder: ReplyBuilder
) -> AsyncIterator[str]:
    decoder = SseDecoder()
    for data in decoder.feed(first):
        yield builder.add_event(data)
    async for chunk in chunks:
        for data in decoder.feed(chunk):
            yield builder.add_event(data)
        if builder.is_done:
            return
    for data in decoder.close():
        yield builder.add_event(data)


async def _bounded(response: Any) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in response.iter_bytes():
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            raise too_long()
        yield chunk


def too_long() -> ModelError:
    return ModelError("refused", f"answered with more than {BODY_MAX_BYTES >> 20} MB")


def _check_page(response: Any, kind: str) -> None:
    """A web page after a redirect is a login page, or another site altogether."""
    http: Any = getattr(response, "http_response", None)
    if not getattr(http, "history", None) or "html" not in kind:
        return
    place = urlsplit(str(http.url))
    where = f"{place.hostname}{place.path}"[:200]
    text = f"was sent on to a web page ({where}): the base URL or the key is wrong"
    raise ModelError("auth" if _LOGIN.search(where) else "unknown", text)


def limit_body(response: Any) -> None:
    """Let no answer be read beyond the bound, an error's neither, which others read whole."""
    stream = response.stream
    base = next(t for t in type(stream).__mro__ if t.__name__ == "AsyncByteStream")
    response.stream = _limited_stream(base)(stream)


def _limited_stream(base: type) -> Callable[[Any], Any]:
    class Limited(base):  # type: ignore[misc]
        """A byte stream that ends in an error when it is too long. Two HTTP libraries are in use
        below the client library, and each wants its own kind."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > BODY_MAX_BYTES:
                    raise too_long()
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Limited
