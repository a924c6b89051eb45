"""A scripted OpenAI-compatible server: real HTTP, real streaming, answers and faults by script.

In a test:

    with ModelServer() as model:
        model.script("population of France", "67 million")
        model.script("plan", Reply(text='a = search(query="x")\\njoin(a)', token_seconds=0.01))
        model.script("busy", Reply(status=429, headers={"retry-after": "1"}), "now it works")
        ...  # OPENAI_BASE_URL=model.url
        assert model.calls_paid("population of France") == 1

For a worker in another process: `python tests/model_server.py --port 8099 --script file.json`,
where the file holds a list of `{"match": …, "model": …, "replies": [text or object, …]}`; script
and statistics are also at `POST /control/script`, `GET /control/requests`, `GET /control/stats`,
`POST /control/reset`.

A rule matches when its text is a part of the conversation (or its function says yes); the first
rule that matches answers, one reply after the other, the last one for ever. What no rule matches
gets the default reply, or an HTTP 400 that says so. The product never imports this file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

try:
    from tests.model_http import Exchange
except ImportError:  # run as a program
    from model_http import Exchange  # type: ignore[no-redef]


@dataclass
class Reply:
    """One scripted answer. All times in seconds.

    `text` may be a list of texts and numbers: a number is a pause. `chunking`: "token" (about four
    characters), "char", "line", "whole", or a number of characters or lines ("3 lines").
    `fault`: "cut_stream" (the connection breaks after `cut_after` chunks), "silent_end" (the stream
    just ends, no finish reason, no [DONE]), "empty_choices", "error_body" (status 200 with an error
    object), "not_json", "bad_sse", "endless_line" (text that is never an event, until the client
    has gone), "ignore_stream" (JSON though a stream was asked), "hang" (no answer at all), "close"
    (connection closed without an answer).
    """

    text: str | list[str | float] = ""
    tool_calls: list[dict[str, Any]] | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay: float = 0.0
    token_seconds: float = 0.0
    chunking: str | int = "token"
    finish: str = "stop"
    refusal: str | None = None
    usage: dict[str, Any] | bool = True
    content_type: str | None = None
    """Instead of text/event-stream or application/json."""
    fault: str | None = None
    cut_after: int = 3
    obeys_limit: bool = True
    """Cut the text at the request's token limit, with finish reason "length", as models do."""
    rejects: list[str] = field(default_factory=list)
    """Parameters that the endpoint answers with a 400 naming them, as small servers do."""

    @property
    def whole(self) -> str:
        parts = self.text if isinstance(self.text, list) else [self.text]
        return "".join(p for p in parts if isinstance(p, str))


Answer = str | Reply | dict[str, Any] | Callable[["Seen"], "str | Reply"]


@dataclass
class Seen:
    """One request as it arrived. Times are `time.time()`."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    ended_at: float | None = None
    status: int | None = None
    paid_tokens: int = 0
    ended: str = "open"
    """open, whole, error, cut, aborted (the client went away)."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", []))

    @property
    def text(self) -> str:
        """The whole conversation as text."""
        return "\n".join(_content(m) for m in self.messages)

    @property
    def last(self) -> str:
        return _content(self.messages[-1]) if self.messages else ""

    @property
    def is_paid(self) -> bool:
        """Whether the model did work for it: a provider bills this, also when nobody reads on."""
        return self.status == 200 and self.paid_tokens > 0


Match = str | Callable[[Seen], bool]


@dataclass
class _Rule:
    match: Match
    replies: list[Answer]
    model: str = "*"
    used: int = 0

    def fits(self, seen: Seen) -> bool:
        if not fnmatchcase(seen.model, self.model):
            return False
        return self.match(seen) if callable(self.match) else self.match in seen.text

    def take(self, seen: Seen) -> Reply:
        answer = self.replies[min(self.used, len(self.replies) - 1)]
        self.used += 1
        return _reply(answer(seen) if callable(answer) else answer)


def _reply(answer: str | Reply | dict[str, Any]) -> Reply:
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, str):
        return Reply(text=answer)
    known = {f.name for f in fields(Reply)}
    if wrong := sorted(set(answer) - known):
        raise ValueError(f"no such reply field: {', '.join(wrong)}; fields: {sorted(known)}")
    return Reply(**answer)


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    calls = message.get("tool_calls")
    return f"{content}{json.dumps(calls) if calls else ''}"


def tokens_of(text: str) -> int:
    return (len(text) + 3) // 4


def _pieces(text: str, chunking: str | int) -> list[str]:
    if chunking == "whole":
        return [text] if text else []
    if chunking == "line" or (isinstance(chunking, str) and chunking.endswith(" lines")):
        lines = text.splitlines(keepends=True)
        n = 1 if chunking == "line" else int(str(chunking).split()[0])
        return ["".join(lines[i : i + n]) for i in range(0, len(lines), n)]
    size = {"token": 4, "char": 1}.get(str(chunking)) or int(chunking)
    return [text[i : i + size] for i in range(0, len(text), size)]


class ModelServer:
    """The server, on its own thread and event loop: it answers while a test's loop is busy."""

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1", default: Answer | None = None):
        self.host = host
        self.port = port
        self.default = default
        self.models = ["gpt-4o-mini", "test-model"]
        self.requests: list[Seen] = []
        self.max_concurrency = 0
        self._running = 0
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    # What tests use.

    @property
    def url(self) -> str:
        """Base URL for an OpenAI client."""
        return f"http://{self.host}:{self.port}/v1"

    def script(self, match: Match, *replies: Answer, model: str = "*") -> None:
        """Answer requests that match with `replies` in order, the last one for ever."""
        with self._lock:
            self._rules.append(_Rule(match, list(replies) or [""], model))

    def reset(self) -> None:
        """Forget scripts and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
            self.max_concurrency = 0

    def seen(self, match: Match = "") -> list[Seen]:
        """Requests that match, in order of arrival."""
        with self._lock:
            return [r for r in self.requests if (match(r) if callable(match) else match in r.text)]

    def calls(self, match: Match = "") -> int:
        return len(self.seen(match))

    def calls_paid(self, match: Match = "") -> int:
        return sum(r.is_paid for r in self.seen(match))

    def tokens_paid(self, match: Match = "") -> int:
        return sum(r.paid_tokens for r in self.seen(match) if r.is_paid)

    def per_second(self) -> list[int]:
        """Requests in each second since the first one."""
        with self._lock:
            if not self.requests:
                return []
            first = self.requests[0].at
            counts = Counter(int(r.at - first) for r in self.requests)
        return [counts[i] for i in range(max(counts) + 1)]

    def stats(self) -> dict[str, Any]:
        return {
            "requests": len(self.requests),
            "paid": self.calls_paid(),
            "tokens_paid": self.tokens_paid(),
            "max_concurrency": self.max_concurrency,
            "per_second": self.per_second(),
        }

    def start(self) -> ModelServer:
        ready = threading.Event()

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._listen())
            ready.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=work, name="model-server", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the model server did not start")
        return self

    def stop(self) -> None:
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._thread = None

    def __enter__(self) -> ModelServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # HTTP.

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one_request(Exchange(reader, writer)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one_request(self, http: Exchange) -> bool:
        """Answer one request; False when the connection is to be closed."""
        head = await http.read_request()
        if head is None:
            return False
        method, path, headers, raw = head
        path = path.split("?")[0]
        if path.endswith("/chat/completions") and method == "POST":
            return await self._chat(http, headers, raw)
        if path.endswith("/models") and method == "GET":
            data = [{"id": m, "object": "model", "owned_by": "tests"} for m in self.models]
            await http.send_json(200, {"object": "list", "data": data})
        elif path.startswith("/control/"):
            await http.send_json(200, self._control(method, path.removeprefix("/control/"), raw))
        else:
            error = {"message": f"no such path: {method} {path}", "type": "invalid_request_error"}
            await http.send_json(404, {"error": error})
        return True

    def _control(self, method: str, what: str, raw: bytes) -> Any:
        if what == "script" and method == "POST":
            self.load(json.loads(raw))
            return {"rules": len(self._rules)}
        if what == "reset":
            self.reset()
        if what == "requests":
            return [
                {"body": r.body, "at": r.at, "ended_at": r.ended_at, "status": r.status}
                | {"ended": r.ended, "paid_tokens": r.paid_tokens}
                for r in self.seen()
            ]
        return self.stats()

    def load(self, rules: Sequence[dict[str, Any]]) -> None:
        """Scripts as JSON: `[{"match": "…", "model": "*", "replies": ["…", {…}]}]`."""
        for rule in rules:
            replies = [_reply(r) for r in rule.get("replies", [])]  # check before it is asked for
            self.script(rule.get("match", ""), *replies, model=rule.get("model", "*"))

    # Chat.

    async def _chat(self, http: Exchange, headers: dict[str, str], raw: bytes) -> bool:
        kept = {k: v for k, v in headers.items() if k != "authorization"}
        kept["authorization"] = "present" if headers.get("authorization") else "absent"
        seen = Seen(body=json.loads(raw), headers=kept, at=time.time())
        with self._lock:
            self.requests.append(seen)
            self._running += 1
            self.max_concurrency = max(self.max_concurrency, self._running)
            rule = next((r for r in self._rules if r.fits(seen)), None)
            reply = rule.take(seen) if rule else self._default(seen)
        try:
            return await self._answer(http, seen, reply)
        except (ConnectionError, asyncio.CancelledError):
            seen.ended = "aborted"
            raise
        finally:
            seen.ended_at = time.time()
            with self._lock:
                self._running -= 1

    def _default(self, seen: Seen) -> Reply:
        if self.default is None:
            text = f"model_server: no script matches; last message: {seen.last[:200]!r}"
            return Reply(status=400, body={"error": {"message": text, "type": "no_script"}})
        return _reply(self.default(seen) if callable(self.default) else self.default)

    async def _answer(self, http: Exchange, seen: Seen, reply: Reply) -> bool:
        rejected = [p for p in reply.rejects if p in seen.body]
        await http.pause(3600.0 if reply.fault == "hang" else reply.delay)
        if reply.fault == "close":
            seen.ended = "cut"
            return False
        if rejected or reply.status != 200:
            seen.status, seen.ended = (400 if rejected else reply.status), "error"
            body = _rejection(rejected[0]) if rejected else _error_body(reply)
            await http.send_json(seen.status, body, reply.headers)
            return True
        seen.status = 200
        reply = _within_limit(reply, seen)
        if reply.fault in ("error_body", "not_json"):
            seen.ended = "error"
            return await self._send_wrong(http, reply)
        if seen.body.get("stream") and reply.fault != "ignore_stream":
            return await self._stream(http, seen, reply)
        return await self._send_whole(http, seen, reply)

    async def _send_wrong(self, http: Exchange, reply: Reply) -> bool:
        if reply.fault == "not_json":
            await http.send(200, b"<html>gateway</html>", "text/html", reply.headers)
        else:
            body = reply.body or {"error": {"message": "overloaded", "type": "server_error"}}
            await http.send_json(200, body, reply.headers)
        return True

    async def _send_whole(self, http: Exchange, seen: Seen, reply: Reply) -> bool:
        parts = reply.text if isinstance(reply.text, list) else [reply.text]
        await http.pause(sum(p for p in parts if not isinstance(p, str)))
        await http.pause(tokens_of(reply.whole) * reply.token_seconds)
        message: dict[str, Any] = {"role": "assistant", "content": reply.whole or None}
        if reply.tool_calls:
            message["tool_calls"] = [_tool_call(c, i) for i, c in enumerate(reply.tool_calls)]
        if reply.refusal:
            message["refusal"] = reply.refusal
        finish = "tool_calls" if reply.tool_calls and reply.finish == "stop" else reply.finish
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        choices = [] if reply.fault == "empty_choices" else [choice]
        body = _envelope(seen, "chat.completion") | {"choices": choices}
        if usage := _usage(seen, reply):
            body["usage"] = usage
        seen.paid_tokens = _paid(seen, reply)
        await http.send_json(200, body, reply.headers)
        seen.ended = "whole"
        return True

    async def _stream(self, http: Exchange, seen: Seen, reply: Reply) -> bool:
        await http.begin_stream(reply.headers, reply.content_type or "text/event-stream")
        envelope = _envelope(seen, "chat.completion.chunk")
        count = 0
        while reply.fault == "endless_line":
            await http.send_chunk(b"x" * 65_536)
        async for delta, seconds in _deltas(reply):
            await http.pause(seconds)
            if delta is None:
                continue
            if reply.fault == "cut_stream" and count >= reply.cut_after:
                seen.ended = "cut"
                return False
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            choices = [] if reply.fault == "empty_choices" else [choice]
            await http.send_event(envelope | {"choices": choices, "usage": None})
            count += 1
            seen.paid_tokens = tokens_of(seen.text) + count
            if reply.fault == "bad_sse" and count > reply.cut_after:
                await http.send_chunk(b'data: {"choices": [{"delta": \n\n')
        if reply.fault == "silent_end":
            seen.ended = "cut"
            await http.end_stream()
            return True
        finish = "tool_calls" if reply.tool_calls and reply.finish == "stop" else reply.finish
        if reply.fault != "empty_choices":
            last = {"index": 0, "delta": {}, "finish_reason": finish}
            await http.send_event(envelope | {"choices": [last], "usage": None})
        usage = _usage(seen, reply)
        if usage and (seen.body.get("stream_options") or {}).get("include_usage"):
            await http.send_event(envelope | {"choices": [], "usage": usage})
        seen.paid_tokens = _paid(seen, reply)
        await http.send_chunk(b"data: [DONE]\n\n")
        await http.end_stream()
        seen.ended = "whole"
        return True


async def _deltas(reply: Reply) -> AsyncIterator[tuple[dict[str, Any] | None, float]]:
    """Each delta with the pause before it; a pause alone comes with no delta."""
    yield {"role": "assistant", "content": ""}, 0.0
    for part in reply.text if isinstance(reply.text, list) else [reply.text]:
        if not isinstance(part, str):
            yield None, float(part)
            continue
        for piece in _pieces(part, reply.chunking):
            yield {"content": piece}, reply.token_seconds * tokens_of(piece)
    if reply.refusal:
        yield {"refusal": reply.refusal}, 0.0
    for i, call in enumerate(reply.tool_calls or []):
        whole = _tool_call(call, i)
        arguments = whole["function"]["arguments"]
        opening = whole | {"index": i, "function": whole["function"] | {"arguments": ""}}
        yield {"tool_calls": [opening]}, reply.token_seconds
        for piece in _pieces(arguments, reply.chunking):
            delta = {"index": i, "function": {"arguments": piece}}
            yield {"tool_calls": [delta]}, reply.token_seconds


def _within_limit(reply: Reply, seen: Seen) -> Reply:
    limit = seen.body.get("max_completion_tokens") or seen.body.get("max_tokens")
    if not limit or not reply.obeys_limit or tokens_of(reply.whole) <= limit:
        return reply
    left = 4 * int(limit)
    parts: list[str | float] = []
    for part in reply.text if isinstance(reply.text, list) else [reply.text]:
        if isinstance(part, str):
            part, left = part[:left], max(0, left - len(part))
        parts.append(part)
        if not left:
            break
    return replace(reply, text=parts, finish="length")


def _tool_call(call: dict[str, Any], index: int) -> dict[str, Any]:
    """`{"name": …, "arguments": {…} or text}` in the API's form."""
    arguments = call.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "id": call.get("id", f"call_{index}"),
        "type": "function",
        "function": {"name": call["name"], "arguments": text},
    }


def _envelope(seen: Seen, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{int(seen.at * 1000):x}",
        "object": kind,
        "created": int(seen.at),
        "model": seen.model,
    }


def _usage(seen: Seen, reply: Reply) -> dict[str, Any] | None:
    if isinstance(reply.usage, dict):
        return reply.usage
    if not reply.usage:
        return None
    calls = json.dumps(reply.tool_calls) if reply.tool_calls else ""
    given, made = tokens_of(seen.text), tokens_of(reply.whole + calls)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _paid(seen: Seen, reply: Reply) -> int:
    usage = _usage(seen, reply)
    if usage is None:
        return tokens_of(seen.text) + tokens_of(reply.whole)
    return int(usage.get("prompt_tokens", 0)) + int(usage.get("completion_tokens", 0))


def _rejection(parameter: str) -> dict[str, Any]:
    return {
        "error": {
            "message": f"Unsupported parameter: '{parameter}' is not supported with this model.",
            "type": "invalid_request_error",
            "param": parameter,
            "code": "unsupported_parameter",
        }
    }


def _error_body(reply: Reply) -> Any:
    if reply.body is not None:
        return reply.body
    codes = {
        401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
        404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
        429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
        503: ("The engine is currently overloaded.", "server_error", None),
    }
    message, kind, code = codes.get(
        reply.status, (f"scripted error {reply.status}", "server_error", None)
    )
    return {"error": {"message": reply.whole or message, "type": kind, "code": code}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--script", help="JSON file with rules")
    parser.add_argument("--default", help="answer to what no rule matches")
    options = parser.parse_args()
    server = ModelServer(port=options.port, default=options.default)
    if options.script:
        with open(options.script, encoding="utf-8") as file:
            server.load(json.load(file))
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"model server at {server.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
