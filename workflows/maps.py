"""Maps: one task whose items run as units of the frontier, and whose output is their list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporalio.exceptions import FailureError

from planloom.planner.contract.jobs import ResolveJob
from planloom.planner.language.plan import MAP_ITEMS_MAX, Task
from planloom.planner.language.values import Bindings, JsonValue, Outcome, Stored, TaskId, Usage
from planloom.workflows.dispatch import Piece, outputs_text
from planloom.workflows.machines.run.frontier import Unit
from planloom.workflows.machines.run.record import Record
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyFailed, failure_of

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine

MAP_INLINE_BYTES = 2_000


class Maps:
    """The maps of a run. `closing` are those whose output is being made: not to be cancelled."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.closing: dict[TaskId, asyncio.Task[None]] = {}

    async def expand(self, unit: Unit, task: Task) -> None:
        piece = Piece(task, task, f"{task.id}.items")
        source, count = await self.engine.dispatcher.resolve_list(piece, task.map)
        if count > MAP_ITEMS_MAX:
            message = f"tasks.{task.id}.map: has {count:,} items; at most {MAP_ITEMS_MAX:,}"
            raise BodyFailed(f"{message}. Split the list, or use sub-plans.", "tool")
        record = self.engine.records[task.id]
        self.engine.settle_budget(unit, Usage(), is_task=False)
        if count == 0:
            self.engine.finish(unit, Outcome.SUCCEEDED, Stored(value=[]))
            return
        record.items_source = source
        record.items = [None] * count
        record.item_outcomes = [None] * count
        self.engine.frontier.expand(task.id, count)

    async def _end_map(self, task: Task) -> None:
        """All items have ended: the list of their outputs, null where there is none."""
        record = self.engine.records[task.id]
        try:
            await self._make_list(task, record)
        finally:
            self.closing.pop(task.id, None)
        await self.engine.stopping.check()
        self.engine.pump()

    async def _make_list(self, task: Task, record: Record) -> None:
        ended = record.item_outcomes
        if Outcome.CANCELLED in ended or None in ended:
            self.finish(task, Outcome.CANCELLED, None)
            return
        if not any(o is not None and o.is_good for o in ended):
            skipped = task.on_error == "skip"
            self.finish(task, Outcome.SKIPPED if skipped else Outcome.FAILED, None)
            return
        if outputs_text(record.items) <= MAP_INLINE_BYTES:
            values: list[JsonValue] = [s.value if s else None for s in record.items]
            if all(s is None or s.is_inline for s in record.items):
                self.finish(task, Outcome.SUCCEEDED, Stored(value=values))
                return
        inputs = {f"i{n}": s or Stored() for n, s in enumerate(record.items)}
        job = ResolveJob(
            value=[f"${{{name}}}" for name in inputs], bindings=Bindings(inputs=inputs)
        )
        try:
            stored = (await doors.resolve_value(job)).stored
        except FailureError as error:
            failed = failure_of(error, 1)
            record.fail(str(failed), "unknown", may_pass=True)
            self.finish(task, Outcome.FAILED, None)
            return
        self.finish(task, Outcome.SUCCEEDED, stored)

    def finish(self, task: Task, outcome: Outcome, output: Stored | None) -> None:
        record = self.engine.records[task.id]
        record.outcome, record.output, record.ended = outcome, output, self.engine.now()
        record.items = []
        bad = sum(1 for o in record.item_outcomes if o is None or not o.is_good)
        if bad and outcome is Outcome.SUCCEEDED:
            record.reason = f"{bad} of {len(record.item_outcomes)} items have no value"
        self.engine.take_settled(self.engine.frontier.end(task.id, outcome, was_expanded=True))

    def close(self, task: Task) -> None:
        self.closing[task.id] = asyncio.create_task(self._end_map(task))
        self.closing[task.id].add_done_callback(self.engine.keep_bug)
