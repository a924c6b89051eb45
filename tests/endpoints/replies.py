"""The bytes of a recorded reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jmespath

from tests.endpoints.entry import Reply

USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
_HOLE = re.compile(r"%\{([^}]+)\}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes over the wire: all at once, or piece by piece."""

    status: int
    headers: dict[str, str]
    type: str
    body: bytes | None = None
    chunks: Iterator[bytes] | None = None
    counted: int | None = None
    """Tokens that the server counted; None when nobody knows."""


def answer_of(reply: Reply, body: dict[str, Any]) -> Answer:
    """The answer to a request with this body."""
    filled = Reply.model_validate(_filled(reply.model_dump(exclude_unset=True), body))
    if filled.chunks is not None:
        encoded = _pieces(filled)
        kind = filled.type or "application/json"
        return Answer(filled.status, filled.headers, kind, None, encoded, _counted(filled, None))
    if filled.stream is not None or filled.events is not None:
        events = _events(filled)
        lines = [_line(e) for e in events] + (["data: [DONE]\n\n"] if filled.is_done else [])
        kind = filled.type or "text/event-stream"
        raw_lines = (line.encode(filled.encoding) for line in lines)
        reported = [e["usage"] for e in events if isinstance(e, dict) and e.get("usage")]
        counted = _counted(filled, reported[-1] if reported else None)
        return Answer(filled.status, filled.headers, kind, None, raw_lines, counted)
    document = _whole(filled) if filled.body is None else filled.body
    usage = document.get("usage") if isinstance(document, dict) else None
    raw = document if isinstance(document, bytes) else _text(document).encode(filled.encoding)
    counted = _counted(filled, usage)
    return Answer(
        filled.status, filled.headers, filled.type or "application/json", raw, None, counted
    )


def _pieces(reply: Reply) -> Iterator[bytes]:
    """Each piece of a body; without pauses the many small ones go out in large ones."""
    for chunk in reply.chunks or []:
        raw = chunk.data if isinstance(chunk.data, bytes) else chunk.data.encode(reply.encoding)
        together = 1 if reply.gap else max(1, 65_536 // max(1, len(raw)))
        full, rest = divmod(chunk.times, together)
        for _ in range(full):
            yield raw * together
        if rest:
            yield raw * rest


def _text(document: Any) -> str:
    # JSON escapes half an emoji, so that it can be sent.
    return document if isinstance(document, str) else json.dumps(document)


def _filled(value: Any, body: dict[str, Any]) -> Any:
    """`%{max_tokens}` and the like, as the request had them."""
    if isinstance(value, dict):
        return {k: _filled(v, body) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, body) for v in value]
    if not isinstance(value, str) or "%{" not in value:
        return value
    if whole := _HOLE.fullmatch(value):
        return jmespath.search(whole[1], body)
    return _HOLE.sub(lambda m: str(jmespath.search(m[1], body)), value)


def _usage(reply: Reply) -> dict[str, Any] | None:
    if isinstance(reply.usage, dict):
        return reply.usage
    return dict(USAGE) if reply.usage else None


def _counted(reply: Reply, usage: Any) -> int | None:
    if reply.counted is not None:
        return reply.counted
    if reply.status != 200:
        return 0
    if not isinstance(usage, dict):
        return None
    parts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens", "total_tokens")]
    given, made, total = (p if isinstance(p, int) else 0 for p in parts)
    return max(total, given + made) or None  # zeros are no count


def calls_of(calls: list[Any]) -> list[Any]:
    """Tool calls in the API's form: `{name, args, id, …}`; what has another form is left alone."""
    found = []
    for n, call in enumerate(calls):
        if not isinstance(call, dict) or "name" not in call:
            found.append(call)
            continue
        rest = {k: v for k, v in call.items() if k not in ("name", "args", "id")}
        args = call.get("args", {})
        text = args if isinstance(args, str) else json.dumps(args)
        function = {"name": call["name"], "arguments": text}
        found.append({"id": call.get("id", f"c{n}"), "type": "function", "function": function})
        found[-1] |= rest
    return found


def _whole(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.calls is not None:
        message["tool_calls"] = calls_of(reply.calls)
    message |= reply.message or {}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": reply.finish or ("tool_calls" if reply.calls else "stop"),
    }
    body = {"id": "x", "object": "chat.completion", "choices": [choice | reply.choice]}
    usage = _usage(reply)
    return body if usage is None else body | {"usage": usage}


def _events(reply: Reply) -> list[Any]:
    """Each a JSON body, or text that goes out as it is."""
    if reply.events is not None:
        return [_event(e) for e in reply.events]
    parts = [{"delta": {"content": part}} for part in reply.stream or []]
    events = [_event(e) for e in ({"delta": {"role": "assistant", "content": ""}}, *parts)]
    events.append(_event({"delta": {}, "finish": reply.finish or "stop"}))
    if usage := _usage(reply):
        events.append(_chunk([]) | {"usage": usage})
    return events


def _event(event: Any) -> Any:
    """`{delta, finish, …}` in the API's form; what has another form is left alone."""
    if not isinstance(event, dict) or "delta" not in event:
        return event
    delta = dict(event["delta"])
    if isinstance(delta.get("tool_calls"), list):
        delta["tool_calls"] = calls_of(delta["tool_calls"])
    choice = {"index": 0, "delta": delta, "finish_reason": event.get("finish")}
    return _chunk([choice]) | {k: v for k, v in event.items() if k not in ("delta", "finish")}


def _chunk(choices: list[Any]) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "choices": choices}


def _line(event: Any) -> str:
    return event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
