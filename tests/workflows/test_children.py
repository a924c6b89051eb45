"""A child counts as at work from the moment its start was decided."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio import workflow

from planloom.planner.contract.requests import Lineage
from planloom.planner.language.values import Bindings, Stored
from planloom.workflows.machines.shared.commands import StartChild, Urgency
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.shell import child_inputs
from planloom.workflows.shell.children import REPORT, Children
from planloom.workflows.shell.ends import CommandFailed
from planloom.workflows.shell.signals import Signals

START = StartChild(
    key="t",
    kind="AgentWorkflow",
    id="run/t",
    task="t",
    values={"task": "${large}"},
    bindings=Bindings(),
    fields={"agent": "helper"},
    lineage=Lineage(),
    summary="",
    urgency=Urgency(),
)


class World:
    """Arguments that are resolved when the test says so, and a child that never ends."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.resolved: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self.started: list[str] = []
        self.signals: list[tuple[str, str]] = []
        patch.setattr(Children, "_resolved", lambda *_: self.resolved)
        patch.setattr(child_inputs, "inputs_of", lambda *_: [{}])
        patch.setattr(workflow, "start_child_workflow", self._start)
        patch.setattr(Signals, "send", self._send)

    async def _start(self, _: str, *, id: str, **__: Any) -> Any:
        self.started.append(id)
        return asyncio.get_running_loop().create_future()

    async def _send(self, run: str, signal: str) -> bool:
        assert run in self.started
        self.signals.append((run, signal))
        return True


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_child_whose_arguments_are_still_being_made_is_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chaos run 200026: the run continued as new, and waited a minute for a child that was never
    started."""
    world, at_work = World(monkeypatch), Children()
    job = asyncio.create_task(at_work.run(START))
    await settle()
    assert at_work.has_unasked()
    handing_over = asyncio.create_task(at_work.hand_over(Signals()))
    await settle()
    assert not handing_over.done()
    world.resolved.set_result(Stored(value="large"))
    await handing_over
    assert world.signals == [("run/t", REPORT)]
    assert not at_work.has_unasked()
    job.cancel()


async def test_a_child_that_cannot_be_started_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, at_work = World(monkeypatch), Children()
    job = asyncio.create_task(at_work.run(START))
    await settle()
    handing_over = asyncio.create_task(at_work.hand_over(Signals()))
    await settle()
    world.resolved.set_exception(CommandFailed(Failure("no such path", "tool")))
    await handing_over
    assert world.signals == []
    assert not at_work.has_unasked()
    with pytest.raises(CommandFailed):
        await job
