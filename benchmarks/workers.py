"""Throughput of model calls with 1, 2 and 4 worker processes on one queue, with one pool.

A call takes the endpoint half a second; a worker makes at most `AT_ONCE` of them at a time, so that
their number is the limit, and not the endpoint or this machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.processes import Site, site
from benchmarks.report import Figure, Size, figure, ratio, tell
from tests.model_server import ModelServer, Reply

SECONDS = 0.5
AT_ONCE = 8
CONFIG = "[pools.default]\nparallel = 1000\n"
WORKERS = (1, 2, 4)


async def main(size: Size) -> list[Figure]:
    runs, calls, rounds = size.pick((2, 4, 1), (16, 40, 1), (16, 40, 3))
    found: dict[int, list[float]] = {count: [] for count in WORKERS}
    with ModelServer() as model:
        model.script("question", Reply(text="answer", delay=SECONDS))
        async with site() as place:
            for _ in range(rounds):
                for count, rates in found.items():
                    rates.append(await _rate(place, model, count, runs, calls))
                    tell(f"{count} workers: {rates[-1]:.1f} calls a second")
                    assert model.max_concurrency <= AT_ONCE * count, model.max_concurrency
                    model.requests.clear()
                    model.max_concurrency = 0
    return [
        ratio("4 workers ÷ 1, calls a second", found[4], found[1], at_least=3.8),
        ratio("2 workers ÷ 1, calls a second", found[2], found[1]),
        *(
            figure(f"{count} workers of {AT_ONCE} calls at once", rates, "calls a second")
            for count, rates in found.items()
        ),
    ]


async def _rate(place: Site, model: ModelServer, workers: int, runs: int, calls: int) -> float:
    """Calls a second, from the start of all runs to the end of the last."""
    env = {"OPENAI_BASE_URL": model.url, "PLANLOOM_MAX_ACTIVITIES": str(AT_ONCE)}
    async with place.crew(workers, CONFIG, **env) as crew:
        # Long enough for the pool, which does not know the endpoint yet, to give all its room.
        await crew.run(_request("warm", 4 * AT_ONCE * workers))
        model.max_concurrency = 0
        began = time.perf_counter()
        await asyncio.gather(*(crew.run(_request(f"run {n}", calls)) for n in range(runs)))
        return runs * calls / (time.perf_counter() - began)


def _request(name: str, calls: int) -> dict[str, Any]:
    items = [f"question {n} of {name}" for n in range(calls)]
    return {
        "plan": {"tasks": [{"id": "all", "map": items, "ask": {"prompt": "${item}"}}]},
        "budget": {"parallel": 1_000},
    }
