"""How much of a run's ready work goes out with one workflow task; the rest goes with the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.planner.language.plan import Body
from planloom.workflows.shell.outgoing import (
    UNIT_BYTES,
    Outgoing,
    bound_bytes,
    is_history_full,
    literal_bytes,
)

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class Sending:
    """Keeps a run below the server's limits of commands and of history."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._outgoing = Outgoing()
        self._later: asyncio.Task[None] | None = None

    def may_start(self) -> bool:
        """Whether this workflow task may start more; a full history ends the run."""
        info = workflow.info()
        event = info.get_current_history_length()
        if is_history_full(event, info.get_current_history_size()):
            self.engine.stopping.stop(f"the history is full: {event:,} events. Use sub-plans")
            return False
        if self._outgoing.has_room(event):
            return True
        if self._later is None:
            self._later = asyncio.create_task(self._go_on())
            self._later.add_done_callback(self.engine.keep_bug)
        return False

    def started(self, body: Body) -> None:
        self._outgoing.add(
            UNIT_BYTES + literal_bytes(body) + bound_bytes(body, self.engine.value_of)
        )

    async def _go_on(self) -> None:
        await workflow.sleep(0.001, summary="the rest goes in another workflow task")
        self._later = None
        self.engine.pump()
