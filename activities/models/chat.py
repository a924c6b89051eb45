"""A chat call as values: the request, the reply, and the pure parts of reading an answer.

Endpoints differ in what they send; whatever is missing or odd gets a defined reading here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.activities.models.errors import ModelError, classify_status, classify_text, error_text
from planloom.planner.language.values import JsonValue, Usage

CHARS_PER_TOKEN = 4
"""For endpoints that report no usage: a token is about four characters."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat call. `tools` are OpenAI tool definitions; `response_schema` is a JSON Schema."""

    model: str
    messages: Sequence[Message]
    max_tokens: int | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    response_schema: Mapping[str, JsonValue] | None = None
    temperature: float | None = None
    stream: bool = False
    timeout_seconds: float = 600.0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A whole answer. `headers` are the rate-limit headers only; `seconds` the whole call's."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    is_usage_estimated: bool = False
    model: str = ""
    response_id: str = ""
    seconds: float = 0.0
    first_chunk_seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cut_off(self) -> bool:
        """Whether the model hit its length limit."""
        return self.finish_reason == "length"

    def as_message(self) -> Message:
        """The reply as a message of the conversation that goes on."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        return message


class SseDecoder:
    """Server-sent events from bytes, however they are cut: each event's data, when complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        # Lines end at \n only: str.splitlines would also cut inside JSON strings, at U+2028.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for raw in lines:
            line = raw.decode("utf-8", errors="replace").rstrip("\r")
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def close(self) -> list[str]:
        """What a stream without a last blank line still holds."""
        return self.feed(b"\n\n")


class ThoughtFilter:
    """Drops a leading `<think>…</think>` that local reasoning models put before their answer."""

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._is_thinking = False
        self._is_open = False
        self._is_trimming = False

    def feed(self, text: str) -> str:
        """The part of `text` that is answer; what may still become a tag is held back."""
        if self._is_open:
            text, self._is_trimming = self._trimmed(text)
            return text
        self._held += text
        if not self._is_thinking:
            start = self._held.lstrip()
            if start.startswith(self._OPEN):
                self._is_thinking = True
            elif not self._OPEN.startswith(start):
                return self._open(self._held)
        if self._is_thinking and self._CLOSE in self._held:
            self._is_trimming = True
            rest, self._is_trimming = self._trimmed(self._held.partition(self._CLOSE)[2])
            return self._open(rest)
        return ""

    def close(self) -> str:
        """What is left when the answer ends: nothing of a thought that was never closed."""
        return "" if self._is_open or self._is_thinking else self._open(self._held)

    def _trimmed(self, text: str) -> tuple[str, bool]:
        """Without the white space between thought and answer, which may come in pieces."""
        text = text.lstrip() if self._is_trimming else text
        return text, self._is_trimming and not text

    def _open(self, text: str) -> str:
        self._is_open, self._held = True, ""
        return text


class ReplyBuilder:
    """Builds a reply from stream chunks or from a whole body, both as decoded JSON."""

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.has_choices = False
        self.is_done = False
        self.received_chars = 0
        self._refusal = ""
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Mapping[str, Any] | None = None
        self._model = ""
        self._id = ""
        self._thoughts = ThoughtFilter()

    def add_event(self, data: str) -> str:
        """One event of a stream; returns the text it adds.

        Raises:
            ModelError: the event is no JSON, or an error of the endpoint.
        """
        if data.strip() == "[DONE]":
            self.is_done = True
            return ""
        return self._add(_decoded(data), "delta")

    def add_whole(self, body: str) -> str:
        """A whole body, also for a stream that the endpoint did not stream."""
        text = self._add(_decoded(body), "message")
        self.is_done = True
        return text

    def _add(self, body: Mapping[str, Any], key: str) -> str:
        if body.get("error"):
            raise _endpoint_error(body)
        self._model = str(body.get("model") or self._model)
        self._id = str(body.get("id") or self._id)
        if isinstance(usage := body.get("usage"), Mapping):
            self._usage = usage
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return ""
        self.has_choices = True
        self.finish_reason = choices[0].get("finish_reason") or self.finish_reason
        part = choices[0].get(key)
        return self._add_part(part) if isinstance(part, Mapping) else ""

    def _add_part(self, part: Mapping[str, Any]) -> str:
        self._refusal += str(part.get("refusal") or "")
        raw = _text_of(part.get("content"))
        self.received_chars += len(raw) + len(str(part.get("reasoning_content") or ""))
        for position, call in enumerate(part.get("tool_calls") or []):
            self._add_call(call, position)
        text = self._thoughts.feed(raw)
        self.text += text
        return text

    def _add_call(self, call: Mapping[str, Any], position: int) -> None:
        index = call.get("index")
        entry = self._calls.setdefault(
            index if isinstance(index, int) else position, {"id": "", "name": "", "arguments": ""}
        )
        function = call.get("function") or {}
        entry["id"] = str(call.get("id") or entry["id"])
        entry["name"] = str(function.get("name") or entry["name"])
        arguments = function.get("arguments")
        if arguments is not None:
            # Some servers send arguments as an object.
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            entry["arguments"] += text
            self.received_chars += len(text)

    def end_text(self) -> str:
        """The last of the text: what the thought filter still held."""
        text = self._thoughts.close()
        self.text += text
        return text

    def usage(self, request: ChatRequest) -> tuple[Usage, bool]:
        """Usage as reported, or estimated from the lengths; True when it is estimated."""
        if self._usage is not None:
            return usage_from(self._usage), False
        return Usage(
            input_tokens=estimate_tokens(request.messages),
            output_tokens=-(-self.received_chars // CHARS_PER_TOKEN),
            model_calls=1,
        ), True

    def reply(self, request: ChatRequest) -> ChatReply:
        """The whole reply.

        Raises:
            ModelError: no choices, a broken stream, a refusal or a content filter.
        """
        usage, is_estimated = self.usage(request)
        if not self.has_choices:
            raise ModelError("unknown", "answered without any choice", usage=usage)
        if self.finish_reason is None and not self.is_done:
            raise ModelError("unknown", "the answer's stream ended in the middle", usage=usage)
        if self.finish_reason == "content_filter":
            raise ModelError("refused", "answer stopped by the content filter", usage=usage)
        if self._refusal and not self.text:
            raise ModelError("refused", f"model refused: {self._refusal[:200]}", usage=usage)
        return ChatReply(
            text=self.text,
            tool_calls=tuple(
                ToolCall(c["id"] or f"call_{i}", c["name"], c["arguments"])
                for i, c in sorted(self._calls.items())
            ),
            finish_reason=self.finish_reason,
            usage=usage,
            is_usage_estimated=is_estimated,
            model=self._model or request.model,
            response_id=self._id,
        )


def usage_from(body: Mapping[str, Any]) -> Usage:
    """Usage from an answer, in the names of Chat Completions or of Responses."""
    details = body.get("prompt_tokens_details") or body.get("input_tokens_details") or {}
    return Usage(
        input_tokens=_count(body.get("prompt_tokens") or body.get("input_tokens")),
        output_tokens=_count(body.get("completion_tokens") or body.get("output_tokens")),
        cached_tokens=_count(details.get("cached_tokens") if isinstance(details, Mapping) else 0),
        model_calls=1,
    )


def estimate_tokens(messages: Sequence[Message], chars_per_token: int = CHARS_PER_TOKEN) -> int:
    """Tokens of a conversation by its length: each message costs about four beside its text."""
    chars = sum(
        len(_text_of(m.get("content"))) + len(str(m.get("tool_calls") or "")) for m in messages
    )
    return -(-chars // chars_per_token) + 4 * len(messages)


def cautious_tokens(messages: Sequence[Message], chars_per_token: int = 3) -> int:
    """The most that a conversation will likely take, where a limit must hold.

    JSON takes more tokens than English prose, and a Chinese character may take one of its own.
    """
    texts = [_text_of(m.get("content")) + str(m.get("tool_calls") or "") for m in messages]
    wide = sum(0 if t.isascii() else sum(c > "\x7f" for c in t) for t in texts)
    plain = sum(len(t) for t in texts) - wide
    return -(-plain // chars_per_token) + wide + 4 * len(messages)


def _count(value: object) -> int:
    return max(0, int(value)) if isinstance(value, int | float) else 0


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(p.get("text") or "") for p in content if isinstance(p, Mapping))
    return ""


def _decoded(data: str) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        raise ModelError("unknown", "answered with something that is no JSON") from None
    if not isinstance(body, Mapping):
        raise ModelError("unknown", "answered with JSON that is no chat completion")
    return body


def _endpoint_error(body: Mapping[str, Any]) -> ModelError:
    """An error that came with status 200, or in the middle of a stream."""
    text = error_text(body)
    inner = body["error"]
    code = inner.get("code") if isinstance(inner, Mapping) else None
    is_status = str(code).isdigit() and 400 <= int(str(code)) < 600
    error_class = classify_status(int(str(code)), text) if is_status else classify_text(text)
    message = inner.get("message") if isinstance(inner, Mapping) else inner
    return ModelError(error_class, f"error in the answer: {str(message or text)[:300]}")
