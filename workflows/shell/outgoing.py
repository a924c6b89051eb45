"""What one workflow task may send. Pure.

Beyond 4 MiB of commands in one workflow task the server terminates the run, with all that it knew.
"""

from __future__ import annotations

from collections.abc import Iterable

from planloom.planner.language.plan import Body, Plan
from planloom.planner.language.values import Bindings, Stored
from planloom.workflows.machines.shared.commands import (
    AskModel,
    Command,
    RunGroup,
    RunTool,
    StartChild,
    TakeTurn,
)
from planloom.workflows.machines.shared.sizes import text_bytes

COMMANDS_MAX_BYTES = 2_000_000
UNIT_BYTES = 1_500
"""What starting a unit sends beside its values: names, timeouts, an item."""
BINDINGS_MAX_BYTES = 13_000
"""Bindings that would be larger travel behind one reference."""
REFERENCE_BYTES = 400


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
        case RunGroup():
            group = command.job
            sources = [items.source for items in group.items.values()]
            size += stored_bytes([*group.values.inputs.values(), *sources])
            size += sum(literal_bytes(t) + 200 for t in group.tasks)
        case TakeTurn():
            job = command.job
            outputs = [r.output for r in job.results if r.output is not None]
            words = [job.spec, job.task, job.context, job.others_answers]
            size += stored_bytes([*words, *job.inputs.values(), *outputs])
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
    return min(stored_bytes([*bound.inputs.values(), bound.item]), BINDINGS_MAX_BYTES)


def stored_bytes(values: Iterable[Stored | None]) -> int:
    """Rough size of values as they travel: inline, or behind a reference."""
    given = [s for s in values if s is not None]
    return sum(REFERENCE_BYTES + (text_bytes(s.value) if s.is_inline else 0) for s in given)


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
