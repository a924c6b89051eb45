"""A conversation as every server accepts it. Pure.

Servers differ in what they refuse. Strict ones want roles to take turns, no user message right
behind tool results (Mistral), a result for each tool call (all), arguments that are a JSON object
(llama.cpp), names of letters, digits, `_` and `-` (OpenAI), and no empty content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from planloom.planner.language.clean_text import clean_value
from planloom.planner.syntax.json_text import no_number
from planloom.planner.syntax.tool_calls import object_text, wire_name

ID_KEPT_CHARS = 4
"""With the five digits of its number behind it an id has the nine signs that Mistral takes."""
NOT_RUN = "error: this call was not run"
NO_OUTPUT = "(no output)"
NO_WORDS = "(nothing)"
TURN_ENDED = "(The turn ended without an answer.)"

Message = dict[str, Any]


def accepted_history(messages: Sequence[Message]) -> list[Message]:
    """The same conversation, with what some server would refuse put right."""
    fixed: list[Message] = []
    waiting: dict[str, str] = {}
    """Calls of the last assistant message that have no result yet: ids as given, and as sent."""
    seen: set[str] = set()
    for message in messages:
        message = _clean(message)
        role = message.get("role")
        if role == "tool":
            id = waiting.pop(str(message.get("tool_call_id")), None)
            if id is not None:
                fixed.append({**message, "tool_call_id": id})
            continue  # a result that no call asked for
        fixed += [_not_run(id) for id in waiting.values()]
        waiting = {}
        if calls := message.get("tool_calls"):
            message["tool_calls"], waiting = _with_own_ids(calls, seen)
        _append(fixed, message)
    return fixed + [_not_run(id) for id in waiting.values()]


def with_note(messages: Sequence[Message], note: str) -> list[Message]:
    """The conversation with a word to the model behind it.

    Behind tool results it is part of the last one: a user message there is refused by some servers.
    """
    last = messages[-1] if messages else None
    if last is None or last.get("role") != "tool":
        return [*messages, {"role": "user", "content": note}]
    return [*messages[:-1], {**last, "content": f"{last.get('content') or ''}\n\n{note}"}]


def _append(fixed: list[Message], message: Message) -> None:
    last = fixed[-1] if fixed else {}
    role, before = message.get("role"), last.get("role")
    if role == "user" and before == "tool":
        fixed.append({"role": "assistant", "content": TURN_ENDED})
    elif role == before and role in ("user", "assistant") and not last.get("tool_calls"):
        joined = f"{last.get('content') or ''}\n\n{message.get('content') or ''}".strip()
        fixed[-1] = {**last, **message, "content": joined or None}
        return
    elif role == before == "assistant":
        fixed.append({"role": "user", "content": NO_WORDS})
    fixed.append(message)


def _not_run(id: str) -> Message:
    return {"role": "tool", "tool_call_id": id, "content": NOT_RUN}


def _clean(message: Message) -> Message:
    cleaned: Any = clean_value(message)
    message = dict(cleaned)
    calls = [c for c in message.get("tool_calls") or () if isinstance(c, dict)]
    content = message.get("content")
    if calls:
        message["tool_calls"] = _clean_calls(calls)
        is_blank = isinstance(content, str) and not content.strip()
        message["content"] = None if is_blank else content or None
        return message
    message.pop("tool_calls", None)
    if not content or (isinstance(content, str) and not content.strip()):
        message["content"] = NO_OUTPUT if message.get("role") == "tool" else NO_WORDS
    return message


def _clean_calls(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each call with an id, a name that is one, and arguments that are an object."""
    fixed: list[dict[str, Any]] = []
    for number, call in enumerate(calls):
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        fixed.append(
            {
                **call,
                "id": str(call.get("id") or f"call{number:05d}"),
                "type": "function",
                "function": {
                    **function,
                    "name": wire_name(str(function.get("name") or "")),
                    "arguments": _arguments_of(function.get("arguments")),
                },
            }
        )
    return fixed


def _with_own_ids(
    calls: Sequence[dict[str, Any]], seen: set[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Each call with an id that no other has: some models begin with `call_0` in each turn."""
    fixed: list[dict[str, Any]] = []
    sent: dict[str, str] = {}
    for call in calls:
        id = given = call["id"]
        number = 1
        while id in seen:
            number += 1
            id = f"{given[:ID_KEPT_CHARS]}{number:05d}"
        seen.add(id)
        sent[given if given not in sent else id] = id
        fixed.append({**call, "id": id})
    return fixed, sent


def _arguments_of(arguments: Any) -> str:
    """The text as it is when it is a JSON object, else the object that was meant, or `{}`."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    try:
        is_object = isinstance(json.loads(text, parse_constant=no_number), dict)
    except (ValueError, RecursionError):
        is_object = False
    return text if is_object else object_text(text)
