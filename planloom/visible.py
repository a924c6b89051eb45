"""Text in which nothing acts on a terminal: for consoles and logs. Standard library only."""

from __future__ import annotations

_KEPT = "\n\t"
_SIGNS = {c: 0x2400 + c for c in range(32) if chr(c) not in _KEPT} | {127: 0x2421}
_SIGNS |= dict.fromkeys(range(128, 160), 0xFFFD)
"""The controls of C0 as their pictures in Unicode, those of C1 as the replacement character."""


def visible(text: str) -> str:
    """The text with every control character made visible; line ends and tabs stay."""
    return text.replace("\r\n", "\n").translate(_SIGNS)
