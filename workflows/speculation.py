"""Speculation: a `when` branch starts before its condition is known; the losers are cancelled.

Only for tools without side effects, and at most `SPECULATIONS_MAX` at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporalio import workflow

from planner.conditions import roots_of_condition
from planner.plan import Task
from planner.values import Outcome, TaskId
from workflows.budget import Amount
from workflows.frontier import State, Unit

if TYPE_CHECKING:
    from workflows.engine import Engine

SPECULATIONS_MAX = 8
"""Branches that may run ahead of their conditions at once: the speculation budget."""


class Speculation:
    """Branches that run ahead of their conditions; how many were right, and how many in vain."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.running = 0
        self.won = 0
        self.lost = 0

    def may(self, task: Task) -> bool:
        """`speculate` counts for tools without side effects, with a `when`, and without a map."""
        if not task.speculate or task.when is None or task.map is not None:
            return False
        spec = self.engine.site.tool(task.tool) if task.tool else None
        return spec is not None and not spec.side_effects and task.fallback_body is None

    def waits_of(self, task: Task) -> list[TaskId]:
        roots = roots_of_condition(task.when or "", self.engine.tasks)
        return [
            TaskId(r) for r in roots if isinstance(self.engine.frontier.state_of(TaskId(r)), State)
        ]

    def is_ahead(self, task: Task) -> bool:
        return self.may(task) and bool(self.waits_of(task))

    @property
    def is_full(self) -> bool:
        """The speculation budget is used up, by branches just started as well."""
        tasks, jobs = self.engine.tasks, self.engine.jobs
        ahead = sum(1 for u in jobs if u.index is None and self.may(tasks[u.task]))
        return ahead >= SPECULATIONS_MAX

    def hold(self, task: Task) -> None:
        """Beyond the budget a branch waits for its condition like any other, and holds no slot."""
        job = asyncio.create_task(self._release_in_time(task))
        job.add_done_callback(self.engine.keep_bug)

    async def _release_in_time(self, task: Task) -> None:
        frontier = self.engine.frontier
        await workflow.wait_condition(
            lambda: not self.waits_of(task) or not isinstance(frontier.state_of(task.id), State)
        )
        if frontier.is_held(task.id):
            frontier.release(task.id)
            self.engine.pump()

    async def run(self, unit: Unit, task: Task, granted: Amount) -> None:
        """Run the branch before its condition is known; cancel it when the condition says no."""
        if self.running >= SPECULATIONS_MAX:
            # Only in runs from before there was a `hold`.
            await workflow.wait_condition(lambda: not self.waits_of(task))
            if not await self.engine.conditions.is_wanted(task):
                self.engine.end(unit, Outcome.SKIPPED, None, reason=f"when: {task.when}")
                return
            await self.engine.carry_out(unit, task, granted)
            return
        self.running += 1
        body = asyncio.create_task(
            self.engine.dispatcher.carry_out(self.engine.piece_of(unit, task, granted))
        )
        try:
            await workflow.wait_condition(lambda: not self.waits_of(task) or body.done())
            if self.waits_of(task) and workflow.patched("who-waits-holds-no-slot"):
                self.engine.frontier.lend_slot(task.id)
                self.engine.pump()
            await workflow.wait_condition(lambda: not self.waits_of(task))
            if await self.engine.conditions.is_wanted(task):
                output = await body
                self.won += 1
                self.engine.end(unit, output.outcome, output)
                return
            self.lost += 1
            reason = f"when: {task.when}; was started ahead and cancelled"
            spent = body.result().usage if body.done() and not body.exception() else None
            self.engine.end(unit, Outcome.SKIPPED, None, reason=reason, usage=spent)
        finally:
            self.running -= 1
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
