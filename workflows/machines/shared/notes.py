"""What a person should know of a workflow: a bounded list, as it is part of the result."""

from __future__ import annotations

NOTES_MAX = 200
NOTE_MAX_CHARS = 500
"""A note may quote what a person or a model sent, which may be long."""


def add_note(notes: list[str], text: str) -> None:
    """Add a note; a long one is cut, and those after the first `NOTES_MAX` are dropped."""
    if len(notes) < NOTES_MAX:
        long = len(text) > NOTE_MAX_CHARS
        notes.append(text[: NOTE_MAX_CHARS - 1] + "…" if long else text)
