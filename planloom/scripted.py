"""A model endpoint that answers from a script: OpenAI's protocol on a port of this machine.

    with ScriptedModel() as model:
        model.script("capital of France", "Paris")
        ...  # a worker with OPENAI_BASE_URL=model.url
        assert len(model.calls_of("capital of France")) == 1

No model is asked. It is for tests of your own tools and plans, and for `planloom dev --scripted`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CHUNK_CHARS = 16
"""Of a streamed answer: short, so that tasks start while the plan is still being written."""


@dataclass(frozen=True)
class Call:
    """One request to the model."""

    body: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def messages(self) -> list[dict[str, Any]]:
        found = self.body.get("messages")
        return found if isinstance(found, list) else []

    @property
    def system(self) -> str:
        return "\n".join(_text(m) for m in self.messages if m.get("role") == "system")

    @property
    def last(self) -> str:
        """The newest message."""
        return _text(self.messages[-1]) if self.messages else ""

    @property
    def text(self) -> str:
        """The whole conversation."""
        return "\n".join(_text(m) for m in self.messages)


@dataclass(frozen=True)
class Reply:
    """One answer: text, tool calls (`{"name": …, "arguments": {…}}`), or an error `status`.

    `delay` is in seconds, `retry_after` as well: the header that comes with a 429.
    """

    text: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    delay: float = 0.0
    retry_after: float | None = None


Answer = str | Reply
Match = str | Callable[[Call], bool]
Replies = Answer | Callable[[Call], Answer]


@dataclass
class _Rule:
    match: Match
    replies: list[Replies]
    used: int = 0

    def fits(self, call: Call) -> bool:
        return self.match in call.text if isinstance(self.match, str) else self.match(call)

    def next(self, call: Call) -> Reply:
        reply = self.replies[min(self.used, len(self.replies) - 1)]
        self.used += 1
        answer = reply(call) if callable(reply) else reply
        return Reply(answer) if isinstance(answer, str) else answer


class ScriptedModel:
    """Answers by the first rule that fits; what no rule fits is refused, with a message.

    `port` 0 takes a free one; it is known after `start`.
    """

    def __init__(self, *, name: str = "scripted", port: int = 0) -> None:
        self.name = name
        self.calls: list[Call] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    def script(self, match: Match, *replies: Replies) -> None:
        """Answer what holds the text `match` (or what the function says yes to) with `replies`, one
        after the other; the last one answers from then on."""
        if not replies:
            raise TypeError("script needs at least one reply")
        if not (isinstance(match, str) or callable(match)):
            raise TypeError(f"match is a text, or a function of the call; found {match!r:.100}")
        for reply in replies:
            if not (isinstance(reply, str | Reply) or callable(reply)):
                raise TypeError(
                    f"a reply is a text, a Reply or a function of the call; found {reply!r:.100}"
                )
        self._rules.append(_Rule(match, list(replies)))

    def calls_of(self, match: Match) -> list[Call]:
        """The calls that a rule with this `match` would answer."""
        rule = _Rule(match, [""])
        return [call for call in self.calls if rule.fits(call)]

    @property
    def url(self) -> str:
        """The base URL, for OPENAI_BASE_URL.

        Raises:
            RuntimeError: it does not run.
        """
        if self._server is None:
            raise RuntimeError("the scripted model does not run: use `with`, or call start()")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def start(self) -> Self:
        handler = type("Handler", (_Handler,), {"scripted": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="scripted-model", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def answer(self, call: Call) -> Reply:
        """What this call is answered with."""
        with self._lock:
            self.calls.append(call)
            rule = next((r for r in self._rules if r.fits(call)), None)
            if rule is not None:
                return rule.next(call)
        last = " ".join(call.last.split())[:200]
        return Reply(f"the scripted model has no answer to this: {last}", status=400)


class _Handler(BaseHTTPRequestHandler):
    scripted: ScriptedModel
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            listed = [{"id": self.scripted.name, "object": "model"}]
            self._send(200, {"object": "list", "data": listed})
        else:
            self._send(404, _error(f"nothing is at {self.path}"))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.rstrip("/").endswith("/chat/completions"):
            self._send(404, _error(f"nothing is at {self.path}"))
            return
        call = Call(json.loads(content))
        reply = self.scripted.answer(call)
        time.sleep(reply.delay)
        if reply.status != 200:
            wait = {} if reply.retry_after is None else {"retry-after": f"{reply.retry_after:g}"}
            self._send(reply.status, _error(reply.text or "refused by script"), wait)
        elif call.body.get("stream"):
            self._stream(call, reply)
        else:
            message = {"role": "assistant", "content": reply.text or None}
            if calls := _tool_calls(reply):
                message["tool_calls"] = calls  # type: ignore[assignment]
            choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
            self._send(200, _body(call, "chat.completion", [choice], _usage(call, reply)))

    def _stream(self, call: Call, reply: Reply) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for delta, finish in _deltas(reply):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                self._chunk(json.dumps(_body(call, "chat.completion.chunk", [choice])))
            self._chunk(json.dumps(_body(call, "chat.completion.chunk", [], _usage(call, reply))))
            self._chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):  # it has heard enough
            self.close_connection = True

    def _chunk(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the calls are in `ScriptedModel.calls`."""


def _deltas(reply: Reply) -> Iterator[tuple[dict[str, Any], str | None]]:
    for start in range(0, len(reply.text), CHUNK_CHARS):
        yield {"role": "assistant", "content": reply.text[start : start + CHUNK_CHARS]}, None
    for index, call in enumerate(_tool_calls(reply)):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, _finish(reply)


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{n}",
            "type": "function",
            "function": {"name": c["name"], "arguments": json.dumps(c.get("arguments", {}))},
        }
        for n, c in enumerate(reply.tool_calls)
    ]


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls else "stop"


def _body(
    call: Call, kind: str, choices: list[Any], usage: dict[str, int] | None = None
) -> dict[str, Any]:
    body = {"id": "scripted", "object": kind, "created": 0, "model": call.model, "choices": choices}
    return body if usage is None else {**body, "usage": usage}


def _usage(call: Call, reply: Reply) -> dict[str, int]:
    """About four characters a token, as most tokenizers have it."""
    read = 1 + len(call.text) // 4
    written = 1 + len(reply.text + json.dumps(reply.tool_calls)) // 4
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted"}}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return "" if content is None else str(content)
