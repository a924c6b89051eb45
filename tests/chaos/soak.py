"""Load without faults: `python -m tests.chaos.soak --waves 10 --runs 200`.

A wave is so many runs that start at once, with one worker and an endpoint that is slow and takes
few calls. Printed are the worker's memory after each wave and its slope, how far the slowest run
was behind the middle one, and how many calls the endpoint had at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError

from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer, Reply
from tests.support.nursery import NursedWorker, Nursery

PARALLEL = 16
"""Calls that the endpoint takes at a time."""
ANSWER_SECONDS = 0.05
WARM_WAVES = 3
"""Caches and pools are filled by then."""
QUEUE = "soak"


@dataclass(slots=True)
class Soak:
    """What was seen so far."""

    started: int = 0
    completed: int = 0
    megabytes: list[float] = field(default_factory=list)
    """Of the worker, after each wave."""
    behind: list[float] = field(default_factory=list)
    """Of each wave: the slowest run's seconds over those of the middle one."""
    most_calls: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def slope(self) -> float:
        """Megabytes more for each thousand runs, once the worker is warm."""
        warm = self.megabytes[WARM_WAVES:]
        if len(warm) < 2:
            return 0.0
        runs = self.started / len(self.megabytes)
        per_wave = statistics.linear_regression(range(len(warm)), warm).slope
        return per_wave / runs * 1000


def request(n: int) -> dict[str, Any]:
    """Five tasks: a large value, a map that reads it, a model call, and a sum."""
    return {
        "plan": {
            "tasks": [
                {"id": "page", "tool": "read_file", "args": {"path": "page.txt"}},
                {
                    "id": "m",
                    "map": [1, 2, 3],
                    "tool": "calculate",
                    "args": {"expression": "${item} * 1"},
                },
                {"id": "said", "ask": {"prompt": f"question {n}", "context": "${m}"}},
                {"id": "n", "tool": "calculate", "args": {"expression": "${m[0]} + ${m[2]}"}},
            ],
            "answer": {"n": "${n}", "said": "${said}", "page": "${page | length(@)}"},
        },
        "tenant": f"tenant {n % 4}",
    }


async def soak(waves: int, runs: int, folder: Path, *, talk: bool = False) -> Soak:
    """Wave after wave; `runs` in each."""
    seen = Soak()
    (folder / "page.txt").write_text("x" * 20_000, encoding="utf-8")
    (folder / "planloom.toml").write_text(f"[pools.default]\nparallel = {PARALLEL}\n")
    with (
        DevServer(data_dir=folder / "server", headless=True, port=None) as server,
        ModelServer() as model,
        Nursery() as nursery,
    ):
        model.script("question", Reply(text="answer", delay=ANSWER_SECONDS))
        client = await Client.connect(server.address, data_converter=data_converter())
        worker = nursery.worker(_env(server.address, model.url, folder), folder)
        await worker.start()
        try:
            for wave in range(waves):
                await _wave(client, wave, runs, seen)
                model.requests.clear()  # the endpoint's own memory is not looked at
                seen.megabytes.append(megabytes_of(worker))
                seen.most_calls = model.max_concurrency
                if talk:
                    print(
                        f"wave {wave:3}: {seen.completed} of {seen.started} runs completed, "
                        f"{seen.megabytes[-1]:.0f} MB, slowest "
                        f"{seen.behind[-1]:.2f} times the middle",
                        flush=True,
                    )
        finally:
            await worker.kill()
    return seen


def _env(address: str, model: str, folder: Path) -> dict[str, str]:
    return {
        "TEMPORAL_ADDRESS": address,
        "PLANLOOM_CONFIG": str(folder / "planloom.toml"),
        "PLANLOOM_TASK_QUEUE": QUEUE,
        "PLANLOOM_DATA_DIR": str(folder / "data"),
        "PLANLOOM_WORKSPACE": str(folder),
        "PLANLOOM_MODEL": "scripted",
        "OPENAI_BASE_URL": model,
        "OPENAI_API_KEY": "none",
    }


async def _wave(client: Client, wave: int, runs: int, seen: Soak) -> None:
    began = time.perf_counter()
    seconds: list[float] = []

    async def one(n: int) -> None:
        handle = await client.start_workflow(
            "DagWorkflow", request(n), id=f"soak-{wave}-{n}", task_queue=QUEUE
        )
        seen.started += 1
        try:
            result = await handle.result()
        except WorkflowFailureError as failed:
            seen.wrong.append(f"{handle.id}: {failed.cause}")
            return
        seconds.append(time.perf_counter() - began)
        if result["answer"] == {"n": 4, "said": "answer", "page": 20_000}:
            seen.completed += 1
        else:
            seen.wrong.append(f"{handle.id}: {result['status']} {result['answer']}")

    await asyncio.gather(*(one(n) for n in range(runs)))
    if seconds:
        seen.behind.append(max(seconds) / statistics.median(seconds))


def megabytes_of(worker: NursedWorker) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def lines_of(seen: Soak) -> Sequence[str]:
    return (
        f"{seen.completed} of {seen.started} runs completed",
        f"memory slope once warm: {seen.slope:+.1f} MB for each thousand runs",
        f"slowest run of a wave: at most {max(seen.behind, default=0):.2f} times the middle one",
        f"calls at a time: at most {seen.most_calls} of {PARALLEL} allowed",
    )


async def main(waves: int, runs: int) -> int:
    with tempfile.TemporaryDirectory(prefix="planloom-soak-") as folder:
        seen = await soak(waves, runs, Path(folder), talk=True)
    print(*lines_of(seen), *seen.wrong, sep="\n")
    return len(seen.wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waves", type=int, default=12)
    parser.add_argument("--runs", type=int, default=200, help="in each wave")
    given = parser.parse_args()
    sys.exit(bool(asyncio.run(main(given.waves, given.runs))))
