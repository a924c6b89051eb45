"""How a model key is kept out of messages, which land in history."""

from __future__ import annotations

import re

SURE_CHARS = 8
"""So long a key stands in a message for no other reason."""
SHORT_CHARS = 4
"""A shorter one is no secret, and taking it out would spoil the words that contain it."""


def without_key(message: str, key: str | None) -> str:
    """The message with the key replaced: endpoints quote the key they refuse.

    A key of four to seven characters is replaced only where it stands as its own word.
    """
    if not key or len(key) < SHORT_CHARS:
        return message
    if len(key) >= SURE_CHARS:
        return message.replace(key, "[key]")
    return re.sub(rf"(?<![\w-]){re.escape(key)}(?![\w-])", "[key]", message)
