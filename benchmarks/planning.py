"""Streamed planning against plan-then-run on the same work; and what an early end saves.

The model is the scripted server of the tests, with set times between its lines.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.harness import Bench, Graph, bench, random_graph, ratio
from benchmarks.scheduler import SHAPES
from tests.model_server import ModelServer, Reply

LINE_SECONDS = 0.15
ROUNDS = 2
PLANNER = "Write the plan that reaches the goal"


def lines_of(graph: Graph) -> list[str]:
    """The graph as a planner writes it; the last task's output is the answer."""
    lines = []
    for name, (seconds, inputs) in graph.items():
        after = f", _after=[{', '.join(inputs)}]" if inputs else ""
        lines.append(f"{name} = nap(seconds={seconds}{after})\n")
    everything = ", ".join(f'"${{{t}}}"' for t in graph)
    return [*lines, f"join(answer=[{everything}])\n"]


def paced(graph: Graph) -> Reply:
    text: list[str | float] = []
    for line in lines_of(graph):
        text += [line, LINE_SECONDS]
    return Reply(text=text[:-1], chunking="line")


def streamed_ideal(graph: Graph) -> float:
    """The earliest end when task n is known after n lines and starts with its last input."""
    ends: dict[str, float] = {}
    for n, (name, (seconds, inputs)) in enumerate(graph.items()):
        known = n * LINE_SECONDS
        ends[name] = max([known, *(ends[i] for i in inputs)]) + seconds
    return max([*ends.values(), len(graph) * LINE_SECONDS])


async def _run(b: Bench, **request: Any) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    result, _ = await b.planloom(request)
    assert result["status"] == "completed", result["reason"]
    return time.perf_counter() - began, result


async def main() -> None:
    with ModelServer() as model:
        async with bench({"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}) as b:
            await _streaming(b, model)
            await _shapes(b, model)
            await _early_end(b)


async def _streaming(b: Bench, model: ModelServer) -> None:
    over, streams, plans = [], list[float](), list[float]()
    for seed in range(3):
        graph = random_graph(seed, 10, 0.2, 1.0)
        model.reset()
        model.script(PLANNER, paced(graph))
        await _run(b, goal=f"warm {seed}")
        for n in range(ROUNDS):
            streamed, result = await _run(b, goal=f"g{seed}.{n}")
            whole, _ = await _run(b, goal=f"g{seed}.{n}", approval=_asks_and_is_approved())
            streams.append(streamed)
            plans.append(whole)
            over.append(streamed / streamed_ideal(graph))
    then_run = [len(lines_of(random_graph(s, 10, 0.2, 1.0))) * LINE_SECONDS for s in range(4)]
    print(f"streamed makespan ÷ ideal      {statistics.median(over):.3f}, worst {max(over):.3f}")
    print(f"streamed ÷ plan-then-run       {ratio(streams, plans)}")
    how = result["planning"]
    print(
        f"  first task after {how['first_task_seconds']:.2f} s, overlap "
        f"{how['overlap_seconds']:.2f} s of {statistics.mean(then_run):.2f} s of planning"
    )


async def _shapes(b: Bench, model: ModelServer) -> None:
    """The scheduler's graphs again, each planned by a model that writes a line at a time."""
    for name, graph in SHAPES.items():
        print(f"streamed ÷ ideal, {name:<10} {await _over_ideal(b, model, graph):.3f}", flush=True)
    graphs = [random_graph(seed, 10, 0.2, 2.0) for seed in range(20)]
    found = [await _over_ideal(b, model, graph) for graph in graphs]
    print(
        f"streamed ÷ ideal, 20 random graphs: median {statistics.median(found):.3f}, "
        f"worst {max(found):.3f}"
    )


async def _over_ideal(b: Bench, model: ModelServer, graph: Graph) -> float:
    model.reset()
    model.script(PLANNER, paced(graph))
    seconds, _ = await _run(b, goal="x")
    return seconds / streamed_ideal(graph)


def _asks_and_is_approved() -> dict[str, Any]:
    """The way to hold tasks back until the whole plan is there: an approval that gives itself."""
    return {"mode": "plan", "timeout": 0.001, "on_timeout": "approve"}


async def _early_end(b: Bench) -> None:
    """Ten sources asked in turn of likelihood, two at once; the first that knows suffices."""
    saved = []
    for knows in range(0, 10, 2):
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
        saved.append(result["usage"]["saved"])
    tokens = [s["tokens"] / 10_000 for s in saved]
    each = ", ".join(f"{t:.0%}" for t in tokens)
    money = statistics.mean(s["usd"] for s in saved)
    print(f"early end of ten, by who knows: {each} of the tokens saved")
    print(f"  mean {statistics.mean(tokens):.0%}, ${money:.3f} a run")
