"""The handle of a local run: what a run on a server offers, without the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from temporalio.exceptions import ApplicationError

from planloom.controls import Controls, Payload
from planloom.errors import Refused, RunFailed
from planloom.local.parts import LocalParts
from planloom.local.process import KINDS, Process, World
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.results import Progress
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Stored, TaskId
from planloom.requests import check_seconds, not_ended
from planloom.stream import RunEvent, changes, in_short
from planloom.workflows.machines.run import view as run_view
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.events import CancelRequested
from planloom.workflows.machines.shared.machine import Failed


class LocalRun(Controls):
    """A run in this process: it has begun, and it ends with this process at the latest.

    It has the methods of `planloom.Run`. `close` when you are done with it: it stops what is still
    at work, and closes the connections to models.
    """

    def __init__(self, document: dict[str, Any], parts: LocalParts, id: str) -> None:
        self.id = id
        self._is_closed = False
        self._world = World(parts)
        kind = next((k for k in ("agent", "team") if k in document), "dag")
        kind = f"{kind.capitalize()}Workflow"
        request = KINDS[kind].read(document)
        if isinstance(request, Failed):
            raise _failed(request)
        self._process: Process = self._world.begin(kind, request, id)

    def __repr__(self) -> str:
        seen = in_short(self._progress())
        return f"<LocalRun {self.id!r}, not durable: {seen}>"

    @property
    def is_over(self) -> bool:
        return self._process.over.is_set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress, and nothing will be until somebody decides something."""
        return not self.is_over and self._world.is_idle

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end: `RunResult`, `AgentResult` or `TeamResult`, a large answer whole in it.

        Raises:
            RunFailed: the request, or a plan in it, cannot be used; with all problems.
            Refused: it was closed before its end.
            TimeoutError: it has not ended within `timeout` seconds.
        """
        check_seconds(timeout)
        try:
            await asyncio.wait_for(self._process.over.wait(), timeout)
        except TimeoutError:
            raise not_ended(self.id, timeout) from None
        if self._process.bug is not None:
            raise self._process.bug
        if self._is_closed:
            raise Refused(f'run "{self.id}" was closed before its end', "Stale")
        ended = self._process.machine.ended(self._process.state)
        if isinstance(ended, Failed):
            raise _failed(ended)
        return await self._whole(ended)

    async def output(self, task: str) -> JsonValue:
        """The whole output of a task that has one, also a large one.

        Raises:
            KeyError: there is none, with the tasks that have one.
        """
        state = self._process.state
        record = state.records.get(TaskId(task)) if isinstance(state, RunState) else None
        if record is None or record.output is None:
            records = state.records if isinstance(state, RunState) else {}
            have = ", ".join(id for id, each in records.items() if each.output is not None)
            raise KeyError(f'no output of a task "{task}". Tasks with one: {have or "none yet"}')
        return await self._world.parts.blobs.load(record.output)

    async def progress(self) -> Progress:
        return self._progress()

    async def plan(self) -> Plan:
        """The plan of the newest revision.

        Raises:
            Refused: there is none yet, or none at all.
        """
        state = self._process.state
        document = run_view.plan_document(state) if isinstance(state, RunState) else None
        if document is None:
            raise Refused(f'run "{self.id}" has no plan now', "Stale")
        return Plan.model_validate(document)

    async def update(self, name: str, payload: Payload | None = None) -> Reply:
        """A decision, by its name in the contract.

        Raises:
            Refused: with the reason.
        """
        self._refuse_after_the_end()
        try:
            return Reply.model_validate(await self._process.ask(name, payload))
        except ApplicationError as error:
            raise Refused(error.message, error.type or "") from None

    async def cancel(self) -> None:
        """Cancel the run; what has finished is kept in its result. Refused if it has ended."""
        self._refuse_after_the_end()
        self._process.apply(CancelRequested())

    def _refuse_after_the_end(self) -> None:
        if self.is_over:
            how = "was closed before its end" if self._is_closed else "has ended"
            raise Refused(f'run "{self.id}" {how}', "Stale")

    async def stream(self) -> AsyncIterator[RunEvent]:
        """What happens, as it happens; the last event is `end`, with the result.

        Raises:
            RunFailed: the request, or a plan in it, cannot be used; with all problems.
        """
        before: Progress | None = None
        while True:
            self._world.changed.clear()
            if self._process.bug is not None:
                raise self._process.bug
            # Asked with the look, not after it: who reads the events may end the run meanwhile.
            now, is_over = self._progress(), self.is_over
            for event in changes(before, now):
                yield event
            before = now
            if is_over:
                break
            await self._world.changed.wait()
            await asyncio.sleep(0)  # what ends in the same turn of the loop comes together
        result = await self.result()
        yield RunEvent("end", result.seconds, state=result.status, result=result)

    async def close(self) -> None:
        """Stop what is still at work, and close the connections to models."""
        await self._world.close()
        if not self.is_over:
            self._is_closed = True
            self._process.over.set()  # nobody may wait for an end that does not come
            self._world.changed.set()

    def _progress(self) -> Progress:
        return Progress.model_validate(self._process.progress())

    async def _whole(self, ended: Any) -> Any:
        """The result with its answer in full: nobody else could open its blob."""
        name = "output" if hasattr(ended, "output_ref") else "answer"
        ref: Stored | None = getattr(ended, f"{name}_ref")
        if ref is None:
            return ended
        value = await self._world.parts.blobs.load(ref)
        return ended.model_copy(update={name: value})


def _failed(failed: Failed) -> RunFailed:
    lines = "\n".join(p.line() for p in failed.problems)
    return RunFailed(lines, failed.type, list(failed.problems))
