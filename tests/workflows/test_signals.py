"""Signals to one run arrive in the order in which they were sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from planloom.workflows.shell.signals import Signals


async def settle() -> None:
    """Everybody does what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


class Server:
    """Delivers what is on its way in any order: the last that was sent comes first."""

    def __init__(self, gone: str = "") -> None:
        self.delivered: list[tuple[str, str]] = []
        self._gone = gone
        self._on_the_way: list[tuple[tuple[str, str], asyncio.Future[None]]] = []

    def handle(self, run: str) -> Any:
        server = self

        class Handle:
            async def signal(self, signal: str, *, args: list[Any]) -> None:
                arrival = asyncio.get_running_loop().create_future()
                server._on_the_way.append(((run, signal), arrival))
                await arrival

        return Handle()

    async def deliver(self) -> None:
        while self._on_the_way:
            word, arrival = self._on_the_way.pop()
            if word[0] == self._gone:
                arrival.set_exception(ApplicationError("there is no such run"))
            else:
                self.delivered.append(word)
                arrival.set_result(None)
            await settle()


async def sent(server: Server, words: list[tuple[str, str]], patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(workflow, "get_external_workflow_handle", server.handle)
    signals = Signals()
    sending = [asyncio.create_task(signals.send(run, signal)) for run, signal in words]
    await settle()
    await server.deliver()
    return await asyncio.gather(*sending)


async def test_a_child_that_is_paused_and_resumed_at_once_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chaos run 200029: the child heard `resume` before `pause`, and the run hung."""
    server = Server()
    words = [("child", w) for w in ("pause", "resume", "pause", "resume")]
    assert await sent(server, words, monkeypatch) == [True] * 4
    assert server.delivered == words


async def test_one_run_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    words = [("a", "one"), ("b", "one"), ("a", "two"), ("b", "two")]
    await sent(server, words, monkeypatch)
    assert server.delivered[0] == ("b", "one")
    for run in "ab":
        assert [w for r, w in server.delivered if r == run] == ["one", "two"]


async def test_a_run_that_is_gone_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(gone="child")
    words = [("child", "pause"), ("child", "resume"), ("other", "pause")]
    assert await sent(server, words, monkeypatch) == [False, False, True]
