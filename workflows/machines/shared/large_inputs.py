"""Large outputs in the context of an agent or team: each goes to the child under its own name.

Resolved into the context they would make one long text, of which the child could open only the
whole. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from planloom.planner.language.references import Reference, whole_reference, with_words
from planloom.planner.language.values import JsonValue, Stored

SHOWN_MAX_BYTES = 12_000
"""Of one value in a prompt; a larger one is cut, summed up, and opened with `read_output`."""
_TAKEN = ("task", "context")
"""Names that a child's inputs have already."""


def split_context(
    context: JsonValue, value_of: Callable[[str], Stored | None]
) -> tuple[JsonValue, dict[str, Stored]]:
    """The context with each reference to a large output replaced by its name, and those outputs.

    A context that is nothing but one reference stays: it becomes the input `context`.
    """
    if not isinstance(context, str) or whole_reference(context) is not None:
        return context, {}
    inputs: dict[str, Stored] = {}

    def name_of(reference: Reference) -> str | None:
        stored = None if reference.path else value_of(reference.root)
        if stored is None or stored.is_inline or stored.size_bytes <= SHOWN_MAX_BYTES:
            return None
        taken = reference.root in _TAKEN
        name = f"{reference.root}-output" if taken else reference.root
        inputs[name] = stored
        return f"(see input {name})"

    return with_words(context, name_of), inputs
