"""A chat call as values: the request, the reply, and how many tokens a conversation takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.activities.models.finish_reasons import end_of
from planloom.activities.models.tool_calls import ToolCall
from planloom.planner.language.values import JsonValue, Usage

CHARS_PER_TOKEN = 4
"""For endpoints that report no usage: a token is about four characters."""
HANDED_BACK = ("reasoning_content", "reasoning_details", "thinking_blocks", "extra_content")
"""Fields of an answer that its endpoint may want to see again in the conversation."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat call. `tools` are OpenAI tool definitions; `response_schema` is a JSON Schema."""

    model: str
    messages: Sequence[Message]
    max_tokens: int | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | None = None
    response_schema: Mapping[str, JsonValue] | None = None
    temperature: float | None = None
    stream: bool = False
    timeout_seconds: float = 600.0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A whole answer. `headers` are the rate-limit headers only; `seconds` the whole call's.

    `reasoning` is what the endpoint gave apart from the answer; `extra` the fields that it may want
    to see again (`HANDED_BACK`); `notes` what a person should know of the answer.
    """

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
    reasoning: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_stopped: bool = False
    """The reader had enough, and the rest was not waited for."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the model hit its length limit."""
        return end_of(self.finish_reason) == "cut"

    def as_message(self) -> Message:
        """The reply as a message of the conversation that goes on."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["content"] = self.text if self.text.strip() else None
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                    **call.extra,
                }
                for call in self.tool_calls
            ]
            message |= self.extra
        return message


def estimate_tokens(messages: Sequence[Message], chars_per_token: int = CHARS_PER_TOKEN) -> int:
    """Tokens of a conversation by its length: each message costs about four beside its text."""
    chars = sum(
        len(text_of(m.get("content"))) + len(str(m.get("tool_calls") or "")) for m in messages
    )
    return -(-chars // chars_per_token) + 4 * len(messages)


def cautious_tokens(messages: Sequence[Message], chars_per_token: int = 3) -> int:
    """The most that a conversation will likely take, where a limit must hold.

    JSON takes more tokens than English prose, and a Chinese character may take a whole one.
    """
    texts = [text_of(m.get("content")) + str(m.get("tool_calls") or "") for m in messages]
    wide = sum(0 if t.isascii() else sum(c > "\x7f" for c in t) for t in texts)
    plain = sum(len(t) for t in texts) - wide
    return -(-plain // chars_per_token) + wide + 4 * len(messages)


def least_tokens(messages: Sequence[Message]) -> int:
    """Fewer tokens than these a conversation cannot take: each word is one, two wide characters.

    An endpoint that counts fewer has not read all of it.
    """
    texts = [text_of(m.get("content")) for m in messages]
    wide = sum(0 if t.isascii() else sum(c > "\u2e7f" for c in t) for t in texts)
    return sum(len(t.split()) for t in texts) + wide // 2


def text_of(content: object) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content and "type" not in content and "text" not in content:
            return json.dumps(content, ensure_ascii=False)  # JSON that was not written as a text
        content = [content]
    if isinstance(content, int | float) and not isinstance(content, bool):
        return json.dumps(content)
    if isinstance(content, list):
        return "".join(
            p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str)
        )
    return ""
