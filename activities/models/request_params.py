"""What is sent: the parameters of one call, as its endpoint is known to take them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from planloom.activities.models.chat import ChatRequest, Message, cautious_tokens
from planloom.activities.models.context_window import ANSWER_MIN_TOKENS
from planloom.activities.models.quirks import Format, Quirks
from planloom.planner.syntax.strict_schema import strict_form

WRAPPED = "value"
"""Endpoints constrain objects only: another value is asked for as this field of one."""


STREAM = "stream"
SYSTEM = "system"
"""As a field of the conversation that is left out: the system message, which goes to the user's."""


def params_of(request: ChatRequest, quirks: Quirks, *, is_openai: bool) -> dict[str, Any]:
    """The call's parameters, without those that the endpoint is known to refuse."""
    messages = _without_fields(request.messages, quirks.dropped)
    params: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.max_tokens is not None:
        # OpenAI's newer models know only the one name, most other servers only the other.
        is_new_name = is_openai != quirks.is_limit_swapped
        name = "max_completion_tokens" if is_new_name else "max_tokens"
        params[name] = _limit(request.max_tokens, request.messages, quirks)
    if request.tools:
        params["tools"] = list(request.tools)
        if request.tool_choice is not None:
            params["tool_choice"] = request.tool_choice
    if request.response_schema is not None:
        format = format_of(request, quirks)
        if format != "none":
            params["response_format"] = _response_format(
                request.response_schema, format, is_openai=is_openai
            )
    if request.temperature is not None:
        params["temperature"] = request.temperature
    if request.stop:
        params["stop"] = list(request.stop)
    if (request.stream or quirks.must_stream) and STREAM not in quirks.dropped:
        params["stream"] = True
        params["stream_options"] = {"include_usage": True}
    return {k: v for k, v in params.items() if k not in quirks.dropped}


def _limit(wanted: int, messages: Sequence[Message], quirks: Quirks) -> int:
    """The limit of an answer, within what the endpoint is known to have room for."""
    limits = [wanted]
    if quirks.max_tokens is not None:
        limits.append(quirks.max_tokens)
    if quirks.window is not None:  # the endpoint counts the prompt; it is guessed here
        limits.append(max(ANSWER_MIN_TOKENS, quirks.window - cautious_tokens(messages)))
    return min(limits)


def format_of(request: ChatRequest, quirks: Quirks) -> Format:
    """How the request's answer is constrained."""
    schema = request.response_schema
    if schema is None or "response_format" in quirks.dropped:
        return "none"
    format = quirks.format_of(schema)
    if is_object(schema) or (format == "json_schema" and _may_be_wrapped(schema)):
        return format
    return "none"  # the prompt asks for the schema in any case


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether an answer of this schema is an object."""
    return schema.get("type") == "object"


def _response_format(
    schema: Mapping[str, Any], format: Format, *, is_openai: bool
) -> dict[str, Any]:
    if format == "json_object":
        return {"type": "json_object"}
    sent = dict(schema) if is_object(schema) else _wrapped(schema)
    # OpenAI holds an answer to its schema only in its strict subset; others to any that they take.
    strict = strict_form(sent) if is_openai else None
    return {
        "type": "json_schema",
        "json_schema": {
            "name": "output",
            "schema": strict or sent,
            "strict": strict is not None,
        },
    }


def _may_be_wrapped(schema: Mapping[str, Any]) -> bool:
    """Whether its references still hold one level deeper: those to its definitions do."""
    text = json.dumps(schema, default=str)
    return text.count('"$ref"') == text.count('"#/$defs/') + text.count('"#/definitions/')


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    shared = {k: v for k, v in schema.items() if k in ("$defs", "definitions", "$schema")}
    return {
        **shared,
        "type": "object",
        "properties": {WRAPPED: {k: v for k, v in schema.items() if k not in shared}},
        "required": [WRAPPED],
        "additionalProperties": False,
    }


def unwrapped(text: str, schema: Mapping[str, Any]) -> str:
    """The answer out of the object that it was asked for as, if it came so."""
    if is_object(schema):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict) or list(value) != [WRAPPED]:
        return text
    return json.dumps(value[WRAPPED], ensure_ascii=False)


def _without_fields(messages: Sequence[Message], dropped: frozenset[str]) -> list[Message]:
    fields = {d.removeprefix("messages.") for d in dropped if d.startswith("messages.")}
    if not fields:
        return list(messages)
    if SYSTEM in fields:
        messages = _without_system(messages)
    return [{k: v for k, v in m.items() if k not in fields} for m in messages]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """What the system messages say stands before the user's first words (Gemma's templates)."""
    said = [str(m.get("content") or "") for m in messages if m.get("role") == "system"]
    others = [m for m in messages if m.get("role") != "system"]
    if not said:
        return others
    if others and others[0].get("role") == "user" and isinstance(others[0].get("content"), str):
        first = {**others[0], "content": "\n\n".join([*said, others[0]["content"]])}
        return [first, *others[1:]]
    return [{"role": "user", "content": "\n\n".join(said)}, *others]
