"""What one workflow task may send, and what one history may hold. Pure.

Beyond 4 MiB of commands in one workflow task, 51,200 events or 50 MiB of history the server
terminates the run, with all that it knew.
"""

from __future__ import annotations

from collections.abc import Callable

from planloom.planner.compile.pipeline import values_of
from planloom.planner.language.plan import Body, Plan
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import Bindings, Stored
from planloom.workflows.machines.shared.commands import AskModel, Command, RunTool, StartChild
from planloom.workflows.machines.shared.sizes import text_bytes

COMMANDS_MAX_BYTES = 2_000_000
UNIT_BYTES = 1_500
"""What starting a unit sends beside its values: names, time-outs, an item."""
BINDINGS_MAX_BYTES = 13_000
"""Bindings that would be larger travel behind one reference."""
REFERENCE_BYTES = 400
HISTORY_MAX_EVENTS = 45_000
HISTORY_MAX_BYTES = 40_000_000


class Outgoing:
    """Bytes of the units started in this workflow task. It is another when history has grown."""

    def __init__(self) -> None:
        self._at_event = -1
        self._bytes = 0

    def has_room(self, event: int) -> bool:
        if event != self._at_event:
            self._at_event, self._bytes = event, 0
        return self._bytes < COMMANDS_MAX_BYTES

    def add(self, size: int) -> None:
        self._bytes += size


def size_of(command: Command) -> int:
    """Rough size of what carrying a command out sends, in bytes of JSON."""
    size = UNIT_BYTES
    match command:
        case RunTool() | AskModel():
            bound = command.job.bindings
            size += bindings_bytes(bound)
            if isinstance(command, RunTool):
                size += text_bytes(dict(command.job.args))
            else:
                size += text_bytes([command.job.prompt, command.job.context, command.job.system])
        case StartChild():
            size += bindings_bytes(command.bindings) + text_bytes(command.values)
            for part in command.fields.values():
                if isinstance(part, Plan):
                    size += sum(literal_bytes(t) + 200 for t in part.tasks)
        case _:
            pass
    return size


def bindings_bytes(bound: Bindings) -> int:
    """Rough size of bindings as they travel."""
    values = [*bound.inputs.values(), *([bound.item] if bound.item is not None else [])]
    size = sum(REFERENCE_BYTES + (text_bytes(s.value) if s.is_inline else 0) for s in values)
    return min(size, BINDINGS_MAX_BYTES)


def literal_bytes(body: Body) -> int:
    """Rough size of what a body says itself, in bytes of JSON."""
    size = text_bytes(body.args)
    if body.ask is not None:
        ask = body.ask_body()
        size += text_bytes([ask.prompt, ask.context, ask.system, ask.output_schema])
    for part in (body.plan, body.agent, body.team):
        if isinstance(part, Plan):
            size += sum(literal_bytes(t) + 200 for t in part.tasks)
        elif part is not None and not isinstance(part, str):
            size += text_bytes(part.model_dump(mode="json", exclude_unset=True))
    return size


def bound_bytes(body: Body, value_of: Callable[[str], Stored | None]) -> int:
    """Rough size of the values that a body's references stand for, as they travel."""
    size = 0
    for name in dict.fromkeys(r for _, value in values_of(body) for r in roots_of(value)):
        stored = value_of(name)
        is_inline = stored is not None and stored.is_inline
        size += REFERENCE_BYTES + (text_bytes(stored.value) if stored and is_inline else 0)
    return min(size, BINDINGS_MAX_BYTES)


def is_history_full(events: int, size_bytes: int) -> bool:
    return events > HISTORY_MAX_EVENTS or size_bytes > HISTORY_MAX_BYTES
