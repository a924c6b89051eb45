"""Makespan over ideal on shapes and random graphs of tasks with set durations."""

from __future__ import annotations

import statistics
import time

from benchmarks.harness import Bench, bench, ideal_seconds, plan_of, random_graph

Graph = dict[str, tuple[float, list[str]]]


def fan_out(width: int = 20, seconds: float = 1.0) -> Graph:
    graph: Graph = {f"t{n}": (seconds, []) for n in range(width)}
    return graph | {"end": (seconds, list(graph))}


def chain(length: int = 8, seconds: float = 0.5) -> Graph:
    return {f"t{n}": (seconds, [f"t{n - 1}"] if n else []) for n in range(length)}


def ladder(rungs: int = 6, seconds: float = 0.3) -> Graph:
    """Two rails with rungs: each step reads both of the step before."""
    graph: Graph = {}
    for n in range(rungs):
        inputs = [f"l{n - 1}", f"r{n - 1}"] if n else []
        graph[f"l{n}"] = (seconds, inputs)
        graph[f"r{n}"] = (seconds * (1 + n % 2), inputs[:1])
    return graph


def diamonds(depth: int = 3, seconds: float = 0.3) -> Graph:
    """Diamonds of diamonds, one after another."""
    graph: Graph = {"s0": (seconds, [])}
    for n in range(depth):
        sides = []
        for side in "ab":
            graph[f"{side}{n}"] = (seconds, [f"s{n}"])
            graph[f"{side}{n}x"] = (seconds * 2, [f"{side}{n}"])
            graph[f"{side}{n}y"] = (seconds, [f"{side}{n}"])
            sides += [f"{side}{n}x", f"{side}{n}y"]
        graph[f"s{n + 1}"] = (seconds, sides)
    return graph


SHAPES: dict[str, Graph] = {
    "fan-out": fan_out(),
    "chain": chain(),
    "ladder": ladder(),
    "diamonds": diamonds(),
}


async def _over_ideal(b: Bench, graph: Graph) -> float:
    began = time.perf_counter()
    result, _ = await b.planloom({"plan": plan_of(graph)})
    assert result["status"] == "completed", result["reason"]
    return (time.perf_counter() - began) / ideal_seconds(graph)


async def main() -> None:
    async with bench() as b:
        await _over_ideal(b, chain(2))
        for name, graph in SHAPES.items():
            print(f"makespan ÷ ideal, {name:<10} {await _over_ideal(b, graph):.3f}", flush=True)
        graphs = [random_graph(seed, 10, 0.2, 2.0) for seed in range(20)]
        found = [await _over_ideal(b, graph) for graph in graphs]
        print(
            f"makespan ÷ ideal, 20 random graphs: median {statistics.median(found):.3f}, "
            f"worst {max(found):.3f}"
        )
