"""Streamed planning against plan-then-run on the same work; and what an early end saves.

The model is the scripted server of the tests, with set times between its lines.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.harness import Bench, bench
from benchmarks.report import Figure, Size, figure, ratio
from benchmarks.shapes import paced, random_graph, streamed_ideal
from tests.model_server import ModelServer

PLANNER = "Write the plan that reaches the goal"


async def _run(b: Bench, **request: Any) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    result, _ = await b.planloom(request)
    assert result["status"] == "completed", result["reason"]
    return time.perf_counter() - began, result


async def main(size: Size) -> list[Figure]:
    with ModelServer() as model:
        async with bench({"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}) as b:
            streamed = await _streaming(b, model, size.pick(1, 2, 4), size.pick(1, 1, 3))
            return streamed + await _early_end(b, size.pick((0,), (0, 4, 8), range(0, 10, 2)))


async def _streaming(b: Bench, model: ModelServer, graphs: int, rounds: int) -> list[Figure]:
    over, streams, plans = list[float](), list[float](), list[float]()
    first, overlap = list[float](), list[float]()
    for seed in range(graphs):
        graph = random_graph(seed, 10, 0.2, 1.0)
        model.reset()
        model.script(PLANNER, paced(graph))
        if not seed:
            await _run(b, goal="warm")
        for n in range(rounds):
            streamed, result = await _run(b, goal=f"g{seed}.{n}")
            whole, _ = await _run(b, goal=f"g{seed}.{n}", approval=_asks_and_is_approved())
            streams.append(streamed)
            plans.append(whole)
            over.append(streamed / streamed_ideal(graph))
            first.append(result["planning"]["first_task_seconds"])
            overlap.append(result["planning"]["overlap_seconds"])
    return [
        figure("makespan ÷ ideal, plan streamed", over),
        ratio("time, plan streamed ÷ plan written first", streams, plans),
        figure("first task after the goal", first, "s"),
        figure("planning and running overlap", overlap, "s"),
    ]


def _asks_and_is_approved() -> dict[str, Any]:
    """The way to hold tasks back until the whole plan is there: an approval that gives itself."""
    return {"mode": "plan", "timeout": 0.001, "on_timeout": "approve"}


async def _early_end(b: Bench, knowing: Any) -> list[Figure]:
    """Ten sources asked in turn of likelihood, two at once; the first that knows suffices."""
    saved = []
    for knows in knowing:
        tasks: list[dict[str, Any]] = [
            {
                "id": f"s{n}",
                "tool": "nap",
                "args": {"seconds": 0.2 if n != knows else 0.21},
                "depends_on": [f"s{n - 2}"] if n >= 2 else [],
                "estimate": {"tokens": 1_000, "usd": 0.01, "seconds": 0.2},
            }
            for n in range(10)
        ]
        stop = f"s{knows}.output == `0.21`"
        _, result = await _run(b, plan={"tasks": tasks, "stop_when": stop})
        saved.append(result["usage"]["saved"]["tokens"] / 10_000)
    mean = statistics.mean(saved)
    name = "early end of ten sources: share of the tokens saved, mean over who knows"
    return [Figure(name, mean, min(saved), max(saved))]
