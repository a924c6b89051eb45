"""How a model key is kept out of messages, which land in history."""

from __future__ import annotations

import re

SURE_CHARS = 8
"""So long a key stands in a message for no other reason."""
TELLING_CHARS = 12
"""A shorter beginning of a key tells little, and may be a word that others use."""
SHORT_CHARS = 4
"""A shorter one is no secret, and taking it out would spoil the words that contain it."""


def without_key(message: str, key: str | None) -> str:
    """The message with the key replaced: endpoints quote the key they refuse.

    A key of four to seven characters is replaced only where it stands as its own word. Messages are
    cut at their longest: the beginning of a key that was cut goes too.
    """
    if not key or len(key) < SHORT_CHARS:
        return message
    if len(key) >= SURE_CHARS:
        return _without_beginnings(message, key)
    return re.sub(rf"(?<![\w-]){re.escape(key)}(?![\w-])", "[key]", message)


def _without_beginnings(message: str, key: str) -> str:
    beginning = key[:TELLING_CHARS]
    kept, at = [], 0
    while (start := message.find(beginning, at)) >= 0:
        end = start + len(beginning)
        while end < len(message) and end - start < len(key) and message[end] == key[end - start]:
            end += 1
        kept += [message[at:start], "[key]"]
        at = end
    return "".join([*kept, message[at:]])
