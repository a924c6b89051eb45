"""What fits a model: messages cut with visible marks, or an error that says by how much not.

Tokens are counted by `estimate_tokens`: four characters each, as where an endpoint reports none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planloom.activities.models.chat import CHARS_PER_TOKEN, ChatRequest, Message, estimate_tokens
from planloom.activities.models.errors import ModelError

ANSWER_MIN_TOKENS = 64
KEPT_MIN_CHARS = 400
"""Of a message that is cut, so that its beginning still says what it was."""


def within(request: ChatRequest, window: int | None) -> ChatRequest:
    """The request with room for its answer: what does not fit is never sent.

    Raises:
        ModelError: `context_length`, with both counts.
    """
    if window is None:
        return request
    prompt = estimate_tokens(request.messages)
    room = window - prompt
    if room < ANSWER_MIN_TOKENS:
        raise ModelError(
            "context_length",
            f"the prompt has about {prompt:,} tokens; {request.model} reads {window:,}, its answer "
            "included: give less context, or a model with a larger window",
        )
    if request.max_tokens is not None and request.max_tokens > room:
        return replace(request, max_tokens=room)
    return request


def cut_to_fit(messages: Sequence[Message], window: int | None, answer: int) -> list[Message]:
    """The conversation with its largest results and inputs cut, the oldest first, until it fits.

    System prompt and the model's own words stay whole. What still does not fit is left to `within`.
    """
    kept = [dict(m) for m in messages]
    if window is None:
        return kept
    for n in [n for r in ("tool", "user") for n, m in enumerate(kept) if m.get("role") == r]:
        over = estimate_tokens(kept) + answer - window
        text = kept[n].get("content")
        if over <= 0:
            break
        if not isinstance(text, str) or len(text) <= KEPT_MIN_CHARS:
            continue
        keep = max(KEPT_MIN_CHARS, len(text) - over * CHARS_PER_TOKEN - 120)
        if keep < len(text):
            mark = f"\n… (cut to fit the model: {keep:,} of {len(text):,} characters)"
            kept[n]["content"] = text[:keep] + mark
    return kept
