"""One process with a real server, Planloom's workers, and bare Temporal workflows beside them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks import bare
from benchmarks.tools import TOOLS
from planloom import worker
from planloom.activities.models.client import ModelClient
from planloom.activities.models.prices import Prices
from planloom.activities.storage.backends import open_backend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.times import ToolTimes
from planloom.console.devserver import DevServer
from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from planloom.planner.contract.settings import settings_from
from planloom.workflows.shell.converter import data_converter


@dataclass(slots=True)
class Bench:
    """A connected client, the queue of Planloom's workflows and that of the bare ones."""

    client: Client
    queue: str
    bare_queue: str

    async def planloom(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Run a request to its end; the result and a handle to its history."""
        handle = await self.client.start_workflow(
            "DagWorkflow", dict(request), id=f"bench-{uuid.uuid4().hex[:8]}", task_queue=self.queue
        )
        return await handle.result(), handle

    async def timed(self, request: Mapping[str, Any]) -> float:
        """Seconds of a run that completes."""
        began = time.perf_counter()
        result, _ = await self.planloom(request)
        seconds = time.perf_counter() - began
        assert result["status"] == "completed", result["reason"]
        return seconds

    async def bare_timed(self, workflow: str, *args: Any) -> float:
        """Seconds of a bare workflow."""
        began = time.perf_counter()
        await self.bare(workflow, *args)
        return time.perf_counter() - began

    async def team(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a team to its end."""
        handle = await self.client.start_workflow(
            "TeamWorkflow", dict(request), id=f"team-{uuid.uuid4().hex[:8]}", task_queue=self.queue
        )
        return dict(await handle.result())

    async def bare(self, workflow: str, *args: Any) -> tuple[Any, Any]:
        handle = await self.client.start_workflow(
            workflow,
            args=args,
            id=f"bare-{uuid.uuid4().hex[:8]}",
            task_queue=self.bare_queue,
        )
        return await handle.result(), handle


@contextlib.asynccontextmanager
async def bench(
    environment: Mapping[str, str] | None = None, *, in_memory: bool = True
) -> AsyncIterator[Bench]:
    """Server and workers for the time of a benchmark; the server of `planloom dev`."""
    queue = f"bench-{uuid.uuid4().hex[:6]}"
    with (
        tempfile.TemporaryDirectory() as folder,
        DevServer(data_dir=folder, in_memory=in_memory, headless=True, port=None) as server,
    ):
        given = {**os.environ, **(environment or {}), "PLANLOOM_TASK_QUEUE": queue}
        settings = settings_from(
            given, flags={"data_dir": folder, "workspace": folder, "max_activities": 600}
        )
        client = await Client.connect(server.address, data_converter=data_converter())
        parts = worker.Parts(
            settings,
            ToolRegistry(TOOLS),
            BlobStore(open_backend(Path(folder) / "blobs")),
            ModelClient(settings, given, Prices(settings)),
            ToolTimes(),
            list(SEARCH_ATTRIBUTES),
        )
        reference = Worker(
            client,
            task_queue=f"{queue}-bare",
            workflows=bare.WORKFLOWS,
            activities=bare.ACTIVITIES,
            max_concurrent_activities=600,
            max_concurrent_activity_task_polls=10,
            workflow_runner=worker.RUNNER,
        )
        async with contextlib.AsyncExitStack() as stack:
            for each in [*worker.build_workers(client, parts), reference]:
                await stack.enter_async_context(each)
            assert parts.limiters is not None
            await parts.limiters.start()
            stack.push_async_callback(parts.limiters.close)  # before the workers that answer it
            worker.collect_garbage_rarely()
            yield Bench(client, queue, f"{queue}-bare")
        await parts.models.close()


async def interleaved(
    rounds: int, *ways: Callable[[], Awaitable[float]], is_warm: bool = False
) -> list[list[float]]:
    """Each way once a round, in turns, after one round to warm up; seconds a way."""
    found: list[list[float]] = [[] for _ in ways]
    for n in range(is_warm, rounds + 1):
        for way, times in zip(ways, found, strict=True):
            seconds = await way()
            if n:
                times.append(seconds)
    return found
