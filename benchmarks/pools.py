"""How close pools come to their rate, and how soon a cool-down is felt, by count of workers."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from temporalio.client import Client

from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer, Reply
from tests.support.nursery import Nursery

CALLS = 110
PER_SECOND = 10
CONFIG = f"[pools.default]\nrequests_per_minute = {60 * PER_SECOND}\n"


def busiest(times: Sequence[float], seconds: float) -> float:
    """The most requests a second in any window of that length."""
    ordered = sorted(times)
    most = first = 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most / seconds


async def main() -> None:
    with DevServer(in_memory=True, headless=True, port=None) as server, Nursery() as nursery:
        client = await Client.connect(server.address, data_converter=data_converter())
        for workers in (1, 2, 4):
            with ModelServer() as model, tempfile.TemporaryDirectory() as folder:
                model.script("question", Reply(text="answer", delay=0.2))
                seconds = await _run(client, server.address, model, nursery, Path(folder), workers)
                times = sorted(seen.at for seen in model.requests)
            rate = (CALLS - 1) / (times[-1] - times[0])
            print(
                f"{workers} workers, {PER_SECOND} calls a second allowed: {rate:.2f} a second, "
                f"busiest 5 s {busiest(times, 5):.2f}, {CALLS} calls in {seconds:.1f} s"
            )


async def _run(
    client: Client, address: str, model: ModelServer, nursery: Nursery, folder: Path, workers: int
) -> float:
    config = folder / "planloom.toml"
    config.write_text(CONFIG, encoding="utf-8")
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    env = {
        "TEMPORAL_ADDRESS": address,
        "PLANLOOM_CONFIG": str(config),
        "PLANLOOM_TASK_QUEUE": queue,
        "PLANLOOM_DATA_DIR": str(folder / "data"),
        "PLANLOOM_MODEL": "scripted",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "none",
    }
    items: list[Any] = [f"question {n}" for n in range(CALLS)]
    plan = {"tasks": [{"id": "all", "map": items, "ask": {"prompt": "${item}"}}]}
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            worker = nursery.worker(env, folder)
            await worker.start()
            stack.push_async_callback(worker.kill)
        began = time.perf_counter()
        handle = await client.start_workflow(
            "DagWorkflow",
            {"plan": plan, "budget": {"parallel": 1000}},
            id=f"pools-{uuid.uuid4().hex[:8]}",
            task_queue=queue,
        )
        await handle.result()
        return time.perf_counter() - began
