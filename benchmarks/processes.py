"""A server and worker processes, started and ended for each measurement."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from planloom.console.devserver import DevConfig, DevServer
from planloom.workflows.shell.converter import data_converter
from tests.support.nursery import NursedWorker, Nursery


@dataclass(slots=True)
class Crew:
    """Worker processes on one queue."""

    client: Client
    queue: str
    workers: list[NursedWorker]

    async def run(self, request: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds of a run that completes, and its result."""
        began = time.perf_counter()
        handle = await self.client.start_workflow(
            "DagWorkflow", dict(request), id=f"bench-{uuid.uuid4().hex[:8]}", task_queue=self.queue
        )
        result = await handle.result()
        seconds = time.perf_counter() - began
        assert result["status"] == "completed", result["reason"]
        return seconds, result


@dataclass(slots=True)
class Site:
    """A server, and the process that its workers are forked from."""

    client: Client
    address: str
    nursery: Nursery
    folder: Path

    @contextlib.asynccontextmanager
    async def crew(self, count: int, config: str = "", **env: str) -> AsyncIterator[Crew]:
        """So many new worker processes on a queue of their own; `config` is a `planloom.toml`."""
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        home = self.folder / queue
        home.mkdir()
        (home / "planloom.toml").write_text(config, encoding="utf-8")
        given = {
            "TEMPORAL_ADDRESS": self.address,
            "PLANLOOM_CONFIG": str(home / "planloom.toml"),
            "PLANLOOM_TASK_QUEUE": queue,
            "PLANLOOM_DATA_DIR": str(home / "data"),
            "PLANLOOM_TOOLS": "benchmarks.tools",
            "PLANLOOM_MODEL": "scripted",
            "OPENAI_API_KEY": "none",
            **env,
        }
        async with AsyncExitStack() as stack:
            workers = [self.nursery.worker(given, home) for _ in range(count)]
            for worker in workers:
                await worker.start()
                stack.push_async_callback(worker.kill)
            yield Crew(self.client, queue, workers)


@contextlib.asynccontextmanager
async def site(*, in_memory: bool = True, is_stock: bool = False) -> AsyncIterator[Site]:
    """A server; `is_stock`: with Temporal's own settings in place of those of `planloom dev`."""
    config = DevConfig.read()
    if is_stock:
        config = config.model_copy(update={"dynamic_config": {}})
    with (
        tempfile.TemporaryDirectory(prefix="planloom-bench-") as folder,
        DevServer(config, data_dir=folder, in_memory=in_memory, headless=True, port=None) as server,
        Nursery() as nursery,
    ):
        client = await Client.connect(server.address, data_converter=data_converter())
        yield Site(client, server.address, nursery, Path(folder))


def peak_megabytes(worker: NursedWorker) -> float | None:
    """The most memory that a worker has had so far; None where the system does not tell."""
    status = Path(f"/proc/{worker.pid}/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
