"""How an answer ended: whole, cut at a limit, filtered, or broken off. One table. Pure.

What stands in none of the lists is no end: an answer with it is not taken for a whole one.
"""

from __future__ import annotations

import re
from typing import Literal

from planloom.planner.contract.jobs import ErrorClass

End = Literal["whole", "cut", "filtered", "broken"]

_WHOLE = (
    "stop",
    "tool_calls",
    "tool_call",
    "tool_use",
    "function_call",
    "end_turn",
    "end",
    "eos",
    "eos_token",
    "eos_found",
    "stop_sequence",
    "stop_token",
    "stop_str",
    "complete",
    "completed",
    "finish",
    "finished",
    "done",
    "final",
    "normal",
    "stopped",
    "unload",
    "load",
)
_CUT = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "max_completion_tokens",
    "max_new_tokens",
    "max_length",
    "model_length",
    "limit",
    "token_limit_reached",
    "max_tokens_reached",
    "max_output_tokens_reached",
    "output_limit",
    "token_limit",
    "truncated",
    "incomplete",
    "context_length",
    "context_window_exceeded",
    "model_context_window_exceeded",
)
_FILTERED = (
    "content_filter",
    "content_filtered",
    "contentfilter",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "image_safety",
    "refusal",
    "refused",
    "guardrail_intervened",
    "guardrails",
    "sensitive",
    "moderation",
    "blocked",
    "error_toxic",
)


def _normal(reason: str) -> str:
    # Gemini's own names come in capitals, some with their type before them; others join words.
    word = reason.strip().lower().rsplit(".", 1)[-1]
    return re.sub(r"[-_ ]", "", word).removeprefix("finishreason")


_ENDS: dict[str, End] = {
    **{_normal(r): "whole" for r in _WHOLE},
    **{_normal(r): "cut" for r in _CUT},
    **{_normal(r): "filtered" for r in _FILTERED},
}
_BROKEN_CLASSES: dict[str, ErrorClass] = {
    "insufficient_system_resource": "capacity",  # DeepSeek
    "overloaded": "capacity",
    "server_overloaded": "capacity",
    "network_error": "capacity",  # Zhipu
    "timeout": "timeout",
    "malformed_function_call": "schema_violation",  # Gemini
    "unexpected_tool_call": "schema_violation",
    "malformed_tool_call": "schema_violation",
    "error_limit": "context_length",  # Cohere
}
_BROKEN = {_normal(reason): error_class for reason, error_class in _BROKEN_CLASSES.items()}


def end_of(reason: str | None) -> End:
    """What a finish reason says; no reason at all is a whole answer, for many servers give none."""
    return "whole" if reason is None else _ENDS.get(_normal(reason), "broken")


def is_said(reason: object) -> bool:
    """Whether this is a reason at all: gateways also write none as a word."""
    return isinstance(reason, str) and _normal(reason) not in ("", "none", "null")


def is_known_bad(reason: str) -> bool:
    """Whether this reason is known to say that the answer is cut, filtered or broken."""
    plain = _normal(reason)
    return plain in _BROKEN or _ENDS.get(plain, "whole") != "whole"


def class_of_broken(reason: str) -> ErrorClass:
    """The error class of an answer that ended with such a reason."""
    return _BROKEN.get(_normal(reason), "unknown")
