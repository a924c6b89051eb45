"""Makespan over ideal on shapes and random graphs of tasks of 0.2 to 2 s, given and streamed.

Before that what one event costs the machine (`stepping`), which runs without a server.

The shapes run alone. Of the random graphs five run at once, to keep the whole under a minute: they
only sleep.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks import stepping
from benchmarks.harness import Bench, bench
from benchmarks.shapes import (
    Graph,
    chain,
    diamonds,
    fan_out,
    ideal_seconds,
    ladder,
    paced,
    plan_of,
    random_graph,
    streamed_ideal,
)
from tests.model_server import ModelServer, Seen

PLANNER = "Write the plan that reaches the goal"
AT_ONCE = 5


async def _given(b: Bench, name: str, graph: Graph) -> float:
    began = time.perf_counter()
    result, _ = await b.planloom({"plan": plan_of(graph)})
    assert result["status"] == "completed", result["reason"]
    return (time.perf_counter() - began) / ideal_seconds(graph)


async def _streamed(b: Bench, name: str, graph: Graph) -> float:
    began = time.perf_counter()
    result, _ = await b.planloom({"goal": f"Run {name}."})
    assert result["status"] == "completed", result["reason"]
    return (time.perf_counter() - began) / streamed_ideal(graph)


async def _all(
    b: Bench, graphs: dict[str, Graph], way: Callable[[Bench, str, Graph], Awaitable[float]]
) -> dict[str, float]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, graph: Graph) -> tuple[str, float]:
        async with room:
            return name, await way(b, name, graph)

    return dict(await asyncio.gather(*(one(n, g) for n, g in graphs.items())))


async def main() -> None:
    stepping.main()
    shapes = {
        "fan-out": fan_out(),
        "chain": chain(),
        "ladder": ladder(),
        "diamonds": diamonds(),
    }
    randoms = {f"graph {seed}": random_graph(seed, 10, 0.2, 2.0) for seed in range(20)}
    graphs = shapes | randoms
    with ModelServer() as model:
        for name, graph in graphs.items():

            def is_asked(seen: Seen, name: str = name) -> bool:
                return PLANNER in seen.text and f"Run {name}." in seen.text

            model.script(is_asked, paced(graph))
        async with bench({"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}) as b:
            for way in (_given, _streamed):
                await way(b, "graph 0", graphs["graph 0"])  # warm
                alone = {name: await way(b, name, graph) for name, graph in shapes.items()}
                together = await _all(b, randoms, way)
                _tell(way.__name__.removeprefix("_"), alone, list(together.values()))


def _tell(way: str, shapes: dict[str, float], rest: list[float]) -> None:
    told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in shapes.items())
    print(f"makespan ÷ ideal, {way:<8} {told}", flush=True)
    print(
        f"  20 random graphs: median {statistics.median(rest):.3f}, worst {max(rest):.3f}",
        flush=True,
    )
