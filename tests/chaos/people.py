"""A person who sees what a run waits for and says it once: what is lost leaves the run waiting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from planloom.planner.contract.results import Progress
from tests.chaos.cases import Case
from tests.support.harness import Handle

ANSWER = {"n": 1, "value": 6, "ok": True}
"""Fits every question that the random plans ask."""
LOOK_SECONDS = 0.3
QUERY_SECONDS = 10.0


@dataclass(slots=True)
class Person:
    """Of one run. It knows only what the query `progress` shows."""

    client: Client
    case: Case
    handle: Handle
    random: Random
    events: Callable[[], int]
    """How much has happened: what a person does unasked is timed by it."""
    said: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    """What went wrong in the kit itself."""
    caps: dict[str, float] = field(default_factory=dict)
    """The highest total of each budget that was given."""

    async def attend(self) -> None:
        """Until cancelled."""
        unasked = [asyncio.create_task(c) for c in self._unasked()]
        try:
            while True:
                await self._answer()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in unasked:
                task.cancel()
            for end in await asyncio.gather(*unasked, return_exceptions=True):
                if isinstance(end, Exception):
                    self.faults.append(repr(end))

    def _unasked(self) -> list[Any]:
        acts: list[Any] = [self._early(task) for task in self.case.early]
        if self.case.pauses:
            acts.append(self._pauses())
        if self.case.is_cancelled:
            acts.append(self._cancels())
        return acts

    async def _after(self, events: int) -> None:
        until = self.events() + events
        while self.events() < until:  # noqa: ASYNC110 - tools and models count, in other processes
            await asyncio.sleep(0.05)

    async def _early(self, task: str) -> None:
        await asyncio.sleep(self.random.random())
        await self._say(self.handle.id, "complete_task", {"id": task, "output": ANSWER})

    async def _pauses(self) -> None:
        for n in range(self.case.pauses):
            await self._after(self.random.randint(0, 6))
            await self._say(self.handle.id, "pause", {"by": f"person {n}"})
            await asyncio.sleep(self.random.random())
            await self._say(self.handle.id, "resume", {"by": f"person {n}"})

    async def _cancels(self) -> None:
        await self._after(self.random.randint(1, 12))
        await _until_heard(self.handle, self.handle.cancel)

    async def _answer(self) -> None:
        """Look at the run and at its children, as their questions are not all shown above."""
        with contextlib.suppress(RPCError, TimeoutError, WorkflowQueryFailedError):
            await self._answer_in(self.handle)
            query = f'WorkflowId STARTS_WITH "{self.handle.id}/" AND ExecutionStatus = "Running"'
            async for child in self.client.list_workflows(query):
                await self._answer_in(self.client.get_workflow_handle(child.id))

    async def _answer_in(self, handle: Handle) -> None:
        shown = await asyncio.wait_for(handle.query("progress"), QUERY_SECONDS)
        for wait in Progress.model_validate(shown).waits:
            words = shlex.split(wait.command)
            if wait.kind == "capacity" or "signal" not in words:
                continue
            given = dict(zip(words[3::2], words[4::2], strict=False))
            payload = json.loads(given["--input"])
            if given["--name"] == "complete_task":
                payload["output"] = ANSWER
            await self._say(given["--workflow-id"], given["--name"], payload)

    async def _say(self, run: str, name: str, payload: Any) -> None:
        words = f"{run} {name} {json.dumps(payload)}"
        if words in self.said:
            return
        self.said.add(words)
        if name == "raise_budget":
            for cap, total in payload.items():
                self.caps[cap] = max(self.caps.get(cap, 0), total)
        handle = self.client.get_workflow_handle(run)
        if self.random.random() < 0.7:
            await _until_heard(handle, lambda: handle.signal(name, payload))
        else:
            await _until_heard(
                handle, lambda: handle.execute_update(name, payload, id=_id_of(words))
            )


def _id_of(words: str) -> str:
    # The same words have the same id: asked again, the update is the same one.
    return f"chaos-{abs(hash(words)):x}"


async def _until_heard(handle: Handle, say: Callable[[], Any]) -> None:
    """Say it until the server has heard it; what has ended need not hear."""

    async def is_running() -> bool:
        try:
            return (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        except RPCError as error:
            return error.status is not RPCStatusCode.NOT_FOUND

    while True:
        with contextlib.suppress(TimeoutError):
            try:
                await asyncio.wait_for(say(), QUERY_SECONDS)
            except WorkflowUpdateFailedError:
                return  # refused: it came too late
            except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
                is_unknown = isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND
                # The run has ended; or a killed server has forgotten an update that no worker had
                # accepted yet, and it must be sent again.
                if is_unknown and not await is_running():
                    return
            else:
                return
        await asyncio.sleep(0.2)
