"""One worker and one endpoint on which all recorded exchanges are played, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from planloom import worker  # the composition root is imported by tests of the whole only
from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from planloom.planner.contract.settings import PoolSettings, settings_from
from tests.endpoints.endpoint import Endpoint, Played
from tests.endpoints.entry import Exchange, Run, difference, differences

AT_ONCE = 12
"""Exchanges that are played side by side."""
POLL_SECONDS = 0.05
KEY = "sk-recorded-key-123456"


@dataclass(slots=True)
class Outcome:
    """What an exchange came to."""

    results: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    problem: str | None = None
    """It could not be played to its end."""
    histories: list[str] = field(default_factory=list)


class House:
    """Plays exchanges; `outcome` waits for one."""

    def __init__(self, client: Client, endpoint: Endpoint, folder: Path) -> None:
        self._client, self._endpoint, self._folder = client, endpoint, folder
        self._queue = f"planloom-{uuid.uuid4().hex[:12]}"
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._ports: dict[str, int] = {}
        self._broken: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def open(self, exchanges: list[Exchange]) -> AsyncIterator[House]:
        """A worker with the pools of all these exchanges."""
        pools: dict[str, Any] = {}
        for each in (e for e in exchanges if e.has_own_pool and e.settings is None):
            try:
                PoolSettings.model_validate(self._pool(each))
            except ValidationError as error:
                self._broken[each.slug] = f"its pool's settings are refused: {error}"
            else:
                pools[each.slug] = self._pool(each)
        shared = f"{self._endpoint.address()}/shared/v1"
        # Exchanges side by side must not slow each other.
        pools["default"] = {"base_url": shared, "penalty": "off"}
        async with self._worker(self._queue, {"pools": pools}):
            yield self
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _pool(self, exchange: Exchange) -> dict[str, Any]:
        port = None
        if exchange.starts_after is not None:
            port = self._ports.setdefault(exchange.slug, _free_port())
        url = f"{self._endpoint.address(port)}/{exchange.slug}"
        own = {"base_url": f"{url}/v1", "models": [exchange.slug], **(exchange.pool or {})}
        return own | {"base_url": own["base_url"].replace("ENDPOINT", url)}

    @contextlib.asynccontextmanager
    async def _worker(self, queue: str, document: dict[str, Any]) -> AsyncIterator[None]:
        folder = self._folder / queue
        workspace = folder / "workspace"
        workspace.mkdir(parents=True)
        environment = {
            "PLANLOOM_TASK_QUEUE": queue,
            "PLANLOOM_DATA_DIR": str(folder / "data"),
            "PLANLOOM_WORKSPACE": str(workspace),
            "PLANLOOM_TOOLS": "tests.endpoints.tools",
            "OPENAI_API_KEY": KEY,
        }
        settings = settings_from(environment, document)
        data = Path(settings.data_dir)
        parts = worker.Parts(
            settings,
            worker.tools_from(settings),
            worker.open_blobs(settings, None),
            worker.ModelClient(settings, environment, worker.Prices(settings)),
            worker.ToolTimes(data / "tool_times.json"),
            list(SEARCH_ATTRIBUTES),
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(parts.models.close)
            for each in worker.build_workers(self._client, parts):
                await stack.enter_async_context(each)
            assert parts.limiters is not None
            stack.push_async_callback(parts.limiters.close)
            yield

    # -- playing ----------------------------------------------------------------------------

    def begin(self, exchanges: list[Exchange]) -> None:
        """Play these, as many at once as there is room for."""
        for each in exchanges:
            if each.slug not in self._tasks:
                self._tasks[each.slug] = asyncio.create_task(self._play(each))

    async def outcome(self, exchange: Exchange) -> Outcome:
        self.begin([exchange])
        return await self._tasks[exchange.slug]

    def played(self, exchange: Exchange) -> Played:
        return self._endpoint.play(exchange)

    async def _play(self, exchange: Exchange) -> Outcome:
        async with self._room:
            if problem := self._broken.get(exchange.slug):
                return Outcome(problem=problem)
            self._endpoint.play(exchange)
            if exchange.settings is None:
                return await self._run_all(exchange, self._queue)
            queue = f"planloom-{uuid.uuid4().hex[:12]}"
            pools = {"pools": {"default": self._pool(exchange)}}
            async with self._worker(queue, pools | exchange.settings):
                return await self._run_all(exchange, queue)

    async def _run_all(self, exchange: Exchange, queue: str) -> Outcome:
        outcome, began = Outcome(), time.monotonic()
        beside = None
        later = None
        if exchange.starts_after is not None:
            port = self._ports[exchange.slug]
            waits = self._endpoint.listen_later(port, exchange.starts_after)
            later = asyncio.create_task(waits)
        try:
            async with asyncio.timeout(exchange.limit):
                if exchange.beside is not None:
                    beside = await self._start(exchange, exchange.beside, queue)
                for run in exchange.all_runs:
                    await self._one(exchange, run, queue, outcome)
        except TimeoutError:
            outcome.problem = f"it has not ended after {exchange.limit:g} s"
        finally:
            if beside is not None:
                with contextlib.suppress(RPCError):  # it has ended by itself
                    await beside.terminate("the exchange is over")
            if later is not None:
                await later
        outcome.seconds = time.monotonic() - began
        return outcome

    async def _start(
        self, exchange: Exchange, run: Run, queue: str
    ) -> WorkflowHandle[Any, dict[str, Any]]:
        request = {"model": exchange.slug, **run.request}
        options: dict[str, Any] = {}
        if run.start_signal is not None:
            options["start_signal"] = run.start_signal.name
            options["start_signal_args"] = [run.start_signal.input]
        id = f"{exchange.slug}-{uuid.uuid4().hex[:8]}"
        return await self._client.start_workflow(
            run.workflow, request, id=id, task_queue=queue, **options
        )

    async def _one(self, exchange: Exchange, run: Run, queue: str, outcome: Outcome) -> None:
        handle = await self._start(exchange, run, queue)
        try:
            for signal in run.signals:
                while differences(await handle.query("progress"), signal.when):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)
                await handle.signal(signal.name, signal.input)
            outcome.results.append(dict(await handle.result()))
        except WorkflowFailureError as error:
            outcome.results.append({"failure": str(error.cause)})
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                outcome.results.append({"progress": await handle.query("progress")})
                await handle.terminate("the exchange took too long")
            raise
        history = await handle.fetch_history()
        outcome.histories.append(history.to_json())


def asked_for(session: pytest.Session) -> list[Exchange]:
    """The exchanges of the tests that this session was asked to run."""
    found: dict[str, Exchange] = {}
    for item in session.items:
        exchange = item.callspec.params.get("exchange") if hasattr(item, "callspec") else None
        if isinstance(exchange, Exchange):
            found[exchange.slug] = exchange
    return list(found.values())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def problems_of(exchange: Exchange, played: Played, outcome: Outcome) -> list[str]:
    """Everything in which an exchange came to something else than it should."""
    lines = [outcome.problem] if outcome.problem else []
    for n, (run, result) in enumerate(
        zip(exchange.all_runs, outcome.results, strict=False), start=1
    ):
        lines += [f"run {n}: {d}" for d in differences(result, run.expect)]
    then, requests = exchange.then, played.requests
    if then.requests is not None and (d := difference(len(requests), then.requests)):
        lines.append(f"requests {d}")
    for number, wanted in then.sent.items():
        for place in range(1, len(requests) + 1) if number == "each" else [int(number)]:
            request = _at(requests, place)
            found = ["never came"] if request is None else differences(request.view(), wanted)
            lines += [f"request {place}: {d}" for d in found]
    for number, end in then.ended.items():
        request = _at(requests, number)
        if request is None or (d := difference(request.ended, end)):
            lines.append(f"request {number}: ended {'never came' if request is None else d}")
    if then.seconds is not None and (d := difference(round(outcome.seconds, 1), then.seconds)):
        lines.append(f"seconds {d}")
    if any(KEY in text for text in outcome.histories):
        lines.append("the key is in the history")
    return lines + _miscounted(exchange, played, outcome)


def _at(requests: list[Any], number: int) -> Any:
    place = number - 1 if number > 0 else number
    return requests[place] if -len(requests) <= place < len(requests) else None


def _miscounted(exchange: Exchange, played: Played, outcome: Outcome) -> list[str]:
    """Usage must be what the endpoint counted, wherever it says what that was."""
    counts = [r.counted for r in played.requests if r.ended == "whole"]
    if not exchange.counts or outcome.problem or exchange.beside or None in counts:
        return []
    known = [r["usage"]["tokens"] for r in outcome.results if "usage" in r]
    if len(known) < len(exchange.all_runs) or len(counts) < len(played.requests):
        return []
    counted, charged = sum(c or 0 for c in counts), sum(known)
    return [] if counted == charged else [f"usage is {charged}; the endpoint counted {counted}"]


def story_of(played: Played, outcome: Outcome) -> str:
    """What happened, for who has to find out why."""
    lines = [f"{outcome.seconds:.1f} s"]
    for n, r in enumerate(played.requests, start=1):
        body = {k: v for k, v in r.body.items() if k not in ("messages", "tools")}
        last = json.dumps(r.body["messages"][-1], ensure_ascii=True)[:300]
        lines.append(f"request {n}: {json.dumps(body)[:500]} last message {last}")
        lines.append(f"  answered {r.status}, {r.ended}, counted {r.counted}")
    lines += [json.dumps(result, indent=1)[:3000] for result in outcome.results]
    return "\n".join(lines)
