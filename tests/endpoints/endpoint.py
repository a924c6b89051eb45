"""An HTTP endpoint that answers with recorded replies, each exchange by its model's name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.endpoints.entry import Exchange as Recorded
from tests.endpoints.entry import Reply, differences
from tests.endpoints.replies import Answer, answer_of
from tests.endpoints.server_rules import refusal
from tests.model_http import Exchange


@dataclass(slots=True)
class Request:
    """A request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    at: float
    status: int = 0
    ended: str = "open"
    """whole, aborted (the client stopped reading), or the fault's name."""
    delivered: int = 0
    """Bytes of the body that went out."""
    counted: int | None = 0

    @property
    def text(self) -> str:
        return json.dumps(self.body.get("messages", []), ensure_ascii=False)

    def view(self) -> dict[str, Any]:
        """What `sent` expressions are evaluated over: the body, and `http`."""
        http = {"path": self.path, "headers": self.headers, "delivered": self.delivered}
        return self.body | {"http": http}


@dataclass(slots=True)
class Played:
    """The state of one exchange."""

    recorded: Recorded
    requests: list[Request] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    """How far each group of replies is."""
    began: float | None = None
    others: list[str] = field(default_factory=list)
    """Requests to other paths than chat completions."""

    def next(self, request: Request) -> Reply:
        """The next reply of the first group that fits; its last one repeats."""
        self.requests.append(request)
        if self.began is None:
            self.began = request.at
        if (found := refusal(request.body, self.recorded.server)) is not None:
            return found
        for when, replies in self._groups():
            if _fits(when, request):
                return self._next_of(json.dumps(when), replies, request.at - self.began)
        text = f"no reply of this exchange fits: {request.text[-300:]}"
        return Reply(status=400, body={"error": {"message": text, "type": "no_reply"}})

    def _groups(self) -> list[tuple[str | dict[str, Any] | None, list[Reply]]]:
        """Replies with the same `when`, in order; those without one come last."""
        groups: dict[str, tuple[Any, list[Reply]]] = {}
        for reply in self.recorded.replies:
            groups.setdefault(json.dumps(reply.when), (reply.when, []))[1].append(reply)
        return sorted(groups.values(), key=lambda g: g[0] is None)

    def _next_of(self, group: str, replies: list[Reply], seconds: float) -> Reply:
        place = self.places.get(group, 0)
        while place < len(replies) - 1:
            until = replies[place].for_seconds
            if until is not None and seconds < until:
                break
            place += 1
            if until is None:
                self.places[group] = place
                return replies[place - 1]
        self.places[group] = place
        return replies[place]


def _fits(when: str | dict[str, Any] | None, request: Request) -> bool:
    if isinstance(when, str):
        return when in request.text
    return when is None or not differences(request.view(), when)


class Endpoint:
    """The server, on its own thread and event loop. `play` adds an exchange."""

    def __init__(self) -> None:
        self.port = 0
        self._played: dict[str, Played] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()

    def __enter__(self) -> Endpoint:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the endpoint did not start")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def address(self, port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}"

    def play(self, recorded: Recorded) -> Played:
        return self._played.setdefault(recorded.slug, Played(recorded))

    async def listen_later(self, port: int, seconds: float) -> None:
        """Listen at `port` too, after a while: until then connections are refused."""
        await asyncio.sleep(seconds)
        future = asyncio.run_coroutine_threadsafe(self._listen(port), self._loop)
        await asyncio.wrap_future(future)

    # -- inside -----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.port = self._loop.run_until_complete(self._listen(0))
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self, port: int) -> int:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(Exchange(reader, writer)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, http: Exchange) -> bool:
        head = await http.read_request()
        if head is None:
            return False
        method, path, headers, raw = head
        place = path.split("?")[0]
        slug = place.split("/")[1]
        if method == "POST" and place.endswith("/v1/chat/completions"):
            return await self._chat(http, path, headers, json.loads(raw))
        played = self._played.get(slug)
        if played is not None:
            played.others.append(f"{method} {path}")
        if method == "GET" and place.endswith("/v1/models") and played is not None:
            models = played.recorded.models or [slug]
            data = [{"id": m, "object": "model", "owned_by": "tests"} for m in models]
            await http.send_json(200, {"object": "list", "data": data})
        elif place.endswith("/login"):
            await http.send(200, b"<html><title>Log in</title><form></form></html>", "text/html")
        else:
            await http.send(404, b"404 page not found", "text/plain")
        return True

    async def _chat(
        self, http: Exchange, path: str, headers: dict[str, str], body: dict[str, Any]
    ) -> bool:
        kept = {k: v for k, v in headers.items() if k != "authorization"}
        request = Request(body, kept, path, time.time())
        slug = path.split("/")[1]
        played = self._played.get(slug) or self._played.get(str(body.get("model")))
        if played is None:
            await http.send_json(404, {"error": {"message": f"no exchange {path} {slug}"}})
            return True
        reply = played.next(request)
        request.status = reply.status
        try:
            return await self._answer(http, request, reply)
        except (ConnectionError, asyncio.CancelledError):
            request.ended = "aborted"
            raise

    async def _answer(self, http: Exchange, request: Request, reply: Reply) -> bool:
        await http.pause(3600.0 if reply.fault == "hang" else reply.delay)
        if reply.fault is not None:
            request.ended = reply.fault
            if reply.fault == "reset":
                http.writer.transport.abort()
            return False
        answer = answer_of(reply, request.body)
        request.counted = answer.counted
        await self._send(http, request, answer, reply.gap)
        request.ended = "whole"
        return True

    async def _send(self, http: Exchange, request: Request, answer: Answer, gap: float) -> None:
        if answer.chunks is None:
            assert answer.body is not None
            request.delivered = len(answer.body)
            await http.send(answer.status, answer.body, answer.type, answer.headers)
            return
        await http.begin_stream(answer.headers, answer.type, answer.status)
        for n, chunk in enumerate(answer.chunks):
            if n and gap:
                await http.pause(gap)
            await http.send_chunk(chunk)
            request.delivered += len(chunk)
        with contextlib.suppress(ConnectionError):
            await http.end_stream()
