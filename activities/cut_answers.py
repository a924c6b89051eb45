"""What is done about an answer that its limit cut off: one more try, with more room. Pure."""

from __future__ import annotations

WIDER = 4
WIDER_MIN_TOKENS = 1_024


def wider_limit(limit: int | None, written_tokens: int) -> int:
    """The limit of the second try: four times what the first had, or wrote before it was cut.

    An endpoint may have a lower limit than was asked for, so that what was written counts too.
    """
    return max(WIDER_MIN_TOKENS, WIDER * max(limit or 0, written_tokens))


def has_more_room(room: int | None, written_tokens: int) -> bool:
    """Whether a second try could write more than the first; `room` None is no limit at all."""
    return room is None or room > written_tokens
