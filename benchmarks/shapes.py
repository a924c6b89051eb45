"""Graphs of naps with set durations, their ideal makespan, and how a planner writes them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tests.model_server import Reply

Graph = dict[str, tuple[float, list[str]]]
"""Each task's seconds and inputs, inputs first."""

LINE_SECONDS = 0.15
"""What a model takes to write one line of a plan: some 30 tokens at 200 a second."""


def random_graph(seed: int, tasks: int, low: float, high: float) -> Graph:
    chance = random.Random(seed)
    graph: Graph = {}
    for n in range(tasks):
        names = list(graph)
        inputs = chance.sample(names, min(len(names), chance.choice((0, 1, 1, 2, 3))))
        graph[f"t{n}"] = (round(chance.uniform(low, high), 3), inputs)
    return graph


def fan_out(width: int = 20) -> Graph:
    names = [f"t{n}" for n in range(width)]
    return _timed({name: [] for name in names} | {"end": names}, 1)


def chain(length: int = 6) -> Graph:
    return _timed({f"t{n}": [f"t{n - 1}"] if n else [] for n in range(length)}, 2)


def ladder(rungs: int = 5) -> Graph:
    """Two rails with rungs: the left side of each step reads both of the step before."""
    inputs: dict[str, list[str]] = {}
    for n in range(rungs):
        before = [f"l{n - 1}", f"r{n - 1}"] if n else []
        inputs |= {f"l{n}": before, f"r{n}": before[:1]}
    return _timed(inputs, 3)


def diamonds(depth: int = 2) -> Graph:
    """Diamonds of diamonds, one after another."""
    inputs: dict[str, list[str]] = {"s0": []}
    for n in range(depth):
        sides = []
        for side in "ab":
            inputs[f"{side}{n}"] = [f"s{n}"]
            inputs[f"{side}{n}x"] = inputs[f"{side}{n}y"] = [f"{side}{n}"]
            sides += [f"{side}{n}x", f"{side}{n}y"]
        inputs[f"s{n + 1}"] = sides
    return _timed(inputs, 4)


def _timed(inputs: Mapping[str, list[str]], seed: int) -> Graph:
    """Tasks of 0.2 to 2 s."""
    chance = random.Random(seed)
    return {task: (round(chance.uniform(0.2, 2.0), 3), ins) for task, ins in inputs.items()}


def ideal_seconds(graph: Graph) -> float:
    """The longest path: no schedule can be shorter."""
    ends: dict[str, float] = {}
    for name, (seconds, inputs) in graph.items():
        ends[name] = seconds + max((ends[i] for i in inputs), default=0.0)
    return max(ends.values())


def streamed_ideal(graph: Graph) -> float:
    """The earliest end when task n is known after n lines and starts with its last input."""
    ends: dict[str, float] = {}
    for n, (name, (seconds, inputs)) in enumerate(graph.items()):
        known = n * LINE_SECONDS
        ends[name] = max([known, *(ends[i] for i in inputs)]) + seconds
    return max([*ends.values(), len(graph) * LINE_SECONDS])


def plan_of(graph: Graph) -> dict[str, Any]:
    return {
        "tasks": [
            {"id": name, "tool": "nap", "args": {"seconds": seconds}, "depends_on": inputs}
            for name, (seconds, inputs) in graph.items()
        ]
    }


def lines_of(graph: Graph) -> list[str]:
    """The graph as a planner writes it; all outputs are the answer, so that no joiner is asked."""
    lines = []
    for name, (seconds, inputs) in graph.items():
        after = f", _after=[{', '.join(inputs)}]" if inputs else ""
        lines.append(f"{name} = nap(seconds={seconds}{after})\n")
    everything = ", ".join(f'"${{{t}}}"' for t in graph)
    return [*lines, f"join(answer=[{everything}])\n"]


def paced(graph: Graph) -> Reply:
    """The planner's answer, a line every `LINE_SECONDS`."""
    text: list[str | float] = []
    for line in lines_of(graph):
        text += [line, LINE_SECONDS]
    return Reply(text=text[:-1], chunking="line")
