"""Makespan over the ideal of given plans: random graphs of tasks of 0.2 to 2 s, one at a time."""

from __future__ import annotations

import statistics

from benchmarks.harness import Bench, bench, interleaved
from benchmarks.report import Figure, Size, figure, single
from benchmarks.shapes import (
    Graph,
    chain,
    diamonds,
    fan_out,
    ideal_seconds,
    ladder,
    plan_of,
    random_graph,
)

TASKS = 10


async def main(size: Size) -> list[Figure]:
    count, rounds = size.pick((1, 1), (8, 1), (20, 3))
    graphs = {seed: random_graph(seed, TASKS, 0.2, 2.0) for seed in range(count)}
    async with bench() as b:
        await b.timed({"plan": plan_of(random_graph(99, 3, 0.1, 0.2))})  # warm
        await b.bare_timed("BareDag", random_graph(99, 3, 0.1, 0.2))
        ours, theirs = list[float](), list[float]()
        for graph in graphs.values():
            over = await _over(b, graph, rounds)
            ours.append(over[0])
            theirs.append(over[1])
        figures = _of_graphs(f"makespan ÷ ideal, {count} random graphs", ours, theirs)
        if size is Size.FULL:
            for name, shape in _shapes().items():
                over = await _over(b, shape, rounds)
                figures.append(figure(f"makespan ÷ ideal, {name}", [over[0]]))
    return figures


def _shapes() -> dict[str, Graph]:
    return {
        "fan-out": fan_out(),
        "chain": chain(),
        "ladder": ladder(),
        "diamonds": diamonds(),
    }


async def _over(b: Bench, graph: Graph, rounds: int) -> tuple[float, float]:
    """Ours and bare Temporal's: the median of the rounds over the longest path."""
    ours, theirs = await interleaved(
        rounds,
        lambda: b.timed({"plan": plan_of(graph)}),
        lambda: b.bare_timed("BareDag", graph),
        is_warm=True,
    )
    ideal = ideal_seconds(graph)
    return statistics.median(ours) / ideal, statistics.median(theirs) / ideal


def _of_graphs(name: str, ours: list[float], theirs: list[float]) -> list[Figure]:
    return [
        Figure(f"{name}: mean", statistics.mean(ours), min(ours), max(ours), at_most=1.02),
        single(f"{name}: worst", max(ours), at_most=1.05),
        Figure(f"{name}: mean of bare Temporal", statistics.mean(theirs), min(theirs), max(theirs)),
    ]
