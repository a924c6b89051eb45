"""What servers refuse, as rules that a recorded exchange names under `server:`.

A rule is given the request's body and its parameter, and returns why the server refuses it: a
`Reply`, or None. Each names the server it was seen on.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from tests.endpoints.entry import Reply

Rule = Callable[[dict[str, Any], Any], Reply | None]
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _refusal(status: int, message: str, **more: Any) -> Reply:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Reply(status=status, body={"error": {"message": message, "type": kind, **more}})


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    return list(message.get("tool_calls") or [])


def arguments_parse(body: dict[str, Any], _: Any) -> Reply | None:
    """llama.cpp parses the arguments in the history (ggml-org/llama.cpp#22948)."""
    for message in body["messages"]:
        for call in _calls(message):
            try:
                json.loads(call["function"]["arguments"])
            except ValueError:
                text = "Failed to parse tool call arguments as JSON: [json.exception.parse_error]"
                return _refusal(500, text, code=500)
    return None


def reasoning_is_handed_back(body: dict[str, Any], _: Any) -> Reply | None:
    """DeepSeek in thinking mode (earendil-works/pi#3636)."""
    for message in body["messages"]:
        if _calls(message) and not message.get("reasoning_content"):
            text = "The `reasoning_content` in the thinking mode must be passed back to the API."
            return _refusal(400, text)
    return None


def calls_are_answered(body: dict[str, Any], _: Any) -> Reply | None:
    """OpenAI: every tool call has its tool message, at once after it; no tool message else."""
    messages, open_ids = body["messages"], set[str]()
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                text = "messages with role 'tool' must be a response to a preceding message with"
                return _refusal(400, f"{text} 'tool_calls'.", param="messages")
            open_ids.discard(message["tool_call_id"])
            continue
        if open_ids:
            return _unanswered(open_ids)
        ids = [c.get("id") for c in _calls(message)]
        if len(set(ids)) < len(ids):
            return _refusal(400, "Duplicate tool_call ids in one message", param="messages")
        open_ids = {str(i) for i in ids}
    return _unanswered(open_ids) if open_ids else None


def _unanswered(ids: set[str]) -> Reply:
    text = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to "
        "each 'tool_call_id'. The following tool_call_ids did not have response messages: "
    )
    return _refusal(400, text + ", ".join(sorted(ids)), param="messages")


def no_user_after_tool(body: dict[str, Any], _: Any) -> Reply | None:
    """Mistral."""
    roles = [m["role"] for m in body["messages"]]
    if any(a == "tool" and b == "user" for a, b in itertools.pairwise(roles)):
        code = "invalid_request_message_order"
        return _refusal(400, "Unexpected role 'user' after role 'tool'", code=code)
    return None


def tools_stay(body: dict[str, Any], _: Any) -> Reply | None:
    """Bedrock behind LiteLLM: a conversation with tool calls needs `tools=`."""
    if not body.get("tools") and any(m["role"] == "tool" or _calls(m) for m in body["messages"]):
        text = (
            "litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` "
            "param specified. Pass `tools=` param OR set `litellm.modify_params = True`"
        )
        return _refusal(400, text)
    return None


def tool_names(body: dict[str, Any], _: Any) -> Reply | None:
    """OpenAI: names of tools in the history."""
    for n, message in enumerate(body["messages"]):
        for call in _calls(message):
            if not _NAME.fullmatch(call["function"]["name"]):
                param = f"messages[{n}].tool_calls[0].function.name"
                pattern = "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
                text = f"Invalid '{param}': string does not match pattern. {pattern}"
                return _refusal(400, text, param=param, code="invalid_value")
    return None


def thought_signature(body: dict[str, Any], sign: Any) -> Reply | None:
    """Gemini: the signature that came with a function call is in the history."""
    if any(_calls(m) for m in body["messages"]) and str(sign) not in json.dumps(body["messages"]):
        text = "Function call is missing a thought_signature in functionCall parts."
        error = {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}
        return Reply(status=400, body=[{"error": error}])
    return None


def no_empty_content(body: dict[str, Any], _: Any) -> Reply | None:
    """Anthropic and Bedrock behind gateways: `content: ""` beside tool calls."""
    for message in body["messages"]:
        if message.get("content") == "":
            text = "messages: text content blocks must be non-empty"
            return _refusal(400, text)
    return None


def no_blank_content(body: dict[str, Any], _: Any) -> Reply | None:
    """Mistral and Anthropic: a message says something, or calls tools."""
    for message in body["messages"]:
        content = message.get("content")
        if content is None and _calls(message):
            continue
        if not isinstance(content, str) or not content.strip():
            return _refusal(400, "Assistant message must have either content or tool_calls.")
    return None


def last_is_user_or_tool(body: dict[str, Any], _: Any) -> Reply | None:
    """Perplexity and Mistral."""
    if body["messages"][-1]["role"] not in ("user", "tool"):
        return _refusal(400, "Last message must have role `user` or `tool`.")
    return None


def roles_alternate(body: dict[str, Any], _: Any) -> Reply | None:
    """Chat templates of Gemma and Mistral: user and assistant take turns."""
    roles = [m["role"] for m in body["messages"] if m["role"] in ("user", "assistant")]
    if any(a == b == "user" for a, b in itertools.pairwise(roles)):
        text = "Conversation roles must alternate user/assistant/user/assistant/..."
        return _refusal(400, text)
    return None


def window(body: dict[str, Any], size: Any) -> Reply | None:
    """vLLM: prompt and `max_tokens` together within the window (vllm-project/vllm#42474)."""
    prompt, total = int(size["prompt"]), int(size["total"])
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    if prompt + asked <= total:
        return None
    text = (
        f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum "
        f"context length is {total} tokens and your request has {prompt} input tokens "
        f"({asked} > {total} - {prompt}). None"
    )
    return Reply(status=400, body={"object": "error", "message": text, "code": 400})


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        arguments_parse,
        reasoning_is_handed_back,
        calls_are_answered,
        no_user_after_tool,
        tools_stay,
        tool_names,
        thought_signature,
        no_empty_content,
        no_blank_content,
        last_is_user_or_tool,
        roles_alternate,
        window,
    )
}


def refusal(body: dict[str, Any], rules: list[str | dict[str, Any]]) -> Reply | None:
    """The answer of the first rule that the request breaks."""
    for each in rules:
        name, parameter = next(iter(each.items())) if isinstance(each, dict) else (each, None)
        if (found := RULES[name](body, parameter)) is not None:
            return found
    return None
