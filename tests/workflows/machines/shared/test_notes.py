"""Notes are part of a result, so their number and length are bounded."""

from __future__ import annotations

from planloom.workflows.machines.shared.notes import NOTE_MAX_CHARS, NOTES_MAX, add_note


def test_notes_beyond_the_bound_are_dropped_and_long_ones_cut() -> None:
    notes: list[str] = []
    add_note(notes, "x" * 10_000)
    for n in range(NOTES_MAX + 50):
        add_note(notes, str(n))
    assert len(notes) == NOTES_MAX
    assert len(notes[0]) == NOTE_MAX_CHARS
    assert notes[-1] == str(NOTES_MAX - 2)
