"""What a child run is started with: its request, and what its parent says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from planloom.planner.contract.requests import Common, Lineage
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.machines.run.children import INLINE_MAX, inputs_of
from planloom.workflows.machines.shared.commands import StartChild
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.shell.ends import CommandFailed


async def inputs_for(
    command: StartChild, resolve: Callable[[JsonValue, Bindings, int | None], Awaitable[Stored]]
) -> tuple[Common, Lineage]:
    """What a child is started with; `resolve` makes its values, within a limit in bytes.

    Raises:
        CommandFailed: its arguments cannot be made.
    """
    values = {
        name: await resolve(value, command.bindings, INLINE_MAX.get(name))
        for name, value in command.values.items()
    }
    inputs = inputs_of(command, values)
    if isinstance(inputs, Failure):
        raise CommandFailed(inputs)
    return inputs
