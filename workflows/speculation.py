"""Speculation: a `when` branch starts before its condition is known; the losers are cancelled.

Only for tools without side effects, and at most `SPECULATIONS_MAX` at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporalio import workflow

from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Outcome, TaskId
from planloom.workflows.machines.run.frontier import State, Unit
from planloom.workflows.machines.shared.budget import Amount

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine

SPECULATIONS_MAX = 8
"""Branches that may run ahead of their conditions at once: the speculation budget."""


class Speculation:
    """Branches that run ahead of their conditions; how many were right, and how many in vain."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: list[TaskId] = []
        self.won = 0
        self.lost = 0

    def may(self, task: Task) -> bool:
        """`speculate` counts for tools without side effects, with a `when`, and without a map."""
        if not task.speculate or task.when is None or task.map is not None:
            return False
        spec = self.engine.catalog.tool(task.tool) if task.tool else None
        return spec is not None and not spec.side_effects and task.fallback_body is None

    def waits_of(self, task: Task) -> list[TaskId]:
        roots = roots_of_condition(task.when or "", self.engine.tasks)
        return [
            TaskId(r) for r in roots if isinstance(self.engine.frontier.state_of(TaskId(r)), State)
        ]

    def is_ahead(self, task: Task) -> bool:
        return self.may(task) and bool(self.waits_of(task))

    @property
    def room(self) -> int:
        """How many more branches may run ahead now."""
        tasks = (self.engine.tasks[u.task] for u in self.engine.jobs if u.index is None)
        return SPECULATIONS_MAX - sum(1 for task in tasks if self.is_ahead(task))

    def must_wait(self, unit: Unit, task: Task) -> bool:
        """It would guess, and there is no room to."""
        return unit.index is None and self.is_ahead(task) and self.room <= 0

    def hold(self, unit: Unit) -> None:
        """No room to guess: it waits, without a slot, for room or for its condition."""
        frontier = self.engine.frontier
        frontier.start(unit)
        frontier.hold(unit.task)
        self.held.append(unit.task)

    def release(self) -> None:
        """Held branches may start once their condition is known, or a guess has ended."""
        room = self.room if self.held else 0
        for task in list(self.held):
            if not self.engine.frontier.is_held(task):
                self.held.remove(task)  # cancelled, or dropped from the plan
            elif room > 0 or not self.waits_of(self.engine.tasks[task]):
                self.held.remove(task)
                self.engine.frontier.release(task)
                room -= 1

    async def run(self, unit: Unit, task: Task, granted: Amount) -> None:
        """Run the branch before its condition is known; cancel it when the condition says no."""
        body = asyncio.create_task(
            self.engine.dispatcher.carry_out(self.engine.piece_of(unit, task, granted))
        )
        try:
            await workflow.wait_condition(lambda: body.done() or not self.waits_of(task))
            if self.waits_of(task):
                # Whoever decides the condition may need the slot.
                self.engine.frontier.idle(task.id)
                self.engine.pump()
            await workflow.wait_condition(lambda: not self.waits_of(task))
            if await self.engine.conditions.wants(task):
                output = await body
                self.won += 1
                self.engine.end(unit, output.outcome, output)
                return
            self.lost += 1
            reason = f"when: {task.when}; was started ahead and cancelled"
            spent = body.result().usage if body.done() and not body.exception() else None
            self.engine.end(unit, Outcome.SKIPPED, None, reason=reason, usage=spent)
        finally:
            if not body.done():
                body.cancel()
            body.add_done_callback(_seen)

    def report(self) -> dict[str, int]:
        """Branches that ran ahead and were right, or in vain; empty when there were none."""
        return {"won": self.won, "lost": self.lost} if self.won or self.lost else {}


def _seen(job: asyncio.Task[Any]) -> None:
    # The outcome of a lost speculation is of no use; it must only not be reported as unseen.
    if not job.cancelled():
        job.exception()
