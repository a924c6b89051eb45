"""The engine's own cost: hop, chains and fan-outs (queued and fused), makespan, bytes a task."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, bench, interleaved, ratio
from benchmarks.shapes import ideal_seconds, plan_of, random_graph

ROUNDS = 5
CHAIN, CHAIN_LONG = 20, 30
WIDTHS = (300, 1_000)
WIDTH = WIDTHS[0]
QUEUED, FUSED = "noop", "cheap"
"""Tools: one that runs in an activity for each task, one that is fused."""


def chain_plan(length: int, tool: str = QUEUED) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = [{"id": "t0", "tool": tool, "args": {"n": 1}}]
    tasks += [
        {"id": f"t{n}", "tool": tool, "args": {"n": f"${{t{n - 1}}}"}} for n in range(1, length)
    ]
    return {"tasks": tasks, "answer": f"${{t{length - 1}}}"}


def fan_plan(width: int, tool: str = QUEUED) -> dict[str, Any]:
    tasks = [{"id": f"t{n}", "tool": tool, "args": {"n": n}} for n in range(width)]
    return {"tasks": tasks, "answer": "${t0}"}


def keep_all(plan: dict[str, Any]) -> dict[str, Any]:
    """Without an answer no task is pruned."""
    return {k: v for k, v in plan.items() if k != "answer"}


async def _planloom(b: Bench, request: dict[str, Any]) -> float:
    began = time.perf_counter()
    result, _ = await b.planloom(request)
    assert result["status"] == "completed", result["reason"]
    return time.perf_counter() - began


async def _bare(b: Bench, kind: str, *args: Any) -> float:
    began = time.perf_counter()
    await b.bare(kind, *args)
    return time.perf_counter() - began


async def main() -> None:
    async with bench() as b:
        await _hop(b)
        for name, count, kind, plan in (
            (f"chain of {CHAIN}", CHAIN, "BareChain", chain_plan),
            *((f"fan-out of {w:,}", w, "BareFanOut", fan_plan) for w in WIDTHS),
        ):
            await _against_bare(b, name, count, kind, plan)
        await _makespan(b)


async def _hop(b: Bench) -> None:
    """What a step costs: a chain, without what one task costs anyway."""
    ours, theirs, ours_1, theirs_1 = await interleaved(
        ROUNDS,
        lambda: _planloom(b, {"plan": chain_plan(CHAIN_LONG)}),
        lambda: _bare(b, "BareChain", CHAIN_LONG),
        lambda: _planloom(b, {"plan": chain_plan(1)}),
        lambda: _bare(b, "BareChain", 1),
    )
    steps = CHAIN_LONG - 1
    hops = [(a - c) / steps for a, c in zip(ours, ours_1, strict=True)]
    bare_hops = [(a - c) / steps for a, c in zip(theirs, theirs_1, strict=True)]
    print(f"hop ÷ bare                     {ratio(hops, bare_hops)}")
    print(
        f"  hop {statistics.median(hops) * 1000:.1f} ms, bare "
        f"{statistics.median(bare_hops) * 1000:.1f} ms"
    )
    print(f"one task ÷ bare                {ratio(ours_1, theirs_1)}")


async def _against_bare(
    b: Bench, name: str, count: int, kind: str, plan: Callable[..., dict[str, Any]]
) -> None:
    """Queued and fused, in turns with the bare workflow."""
    room = {"budget": {"parallel": min(count, 1_000)}}
    queued, fused, bare = await interleaved(
        ROUNDS,
        lambda: _planloom(b, {"plan": keep_all(plan(count)), **room}),
        lambda: _planloom(b, {"plan": keep_all(plan(count, FUSED))}),
        lambda: _bare(b, kind, count),
    )
    print(f"{name} ÷ bare, queued".ljust(30), ratio(queued, bare))
    print(f"{name} ÷ bare, fused".ljust(30), ratio(fused, bare))
    milliseconds = [f"{statistics.median(s) * 1000:,.0f}" for s in (queued, fused, bare)]
    print("  {} ms queued, {} fused, {} bare".format(*milliseconds))


async def _makespan(b: Bench) -> None:
    graph = random_graph(7, 20, 0.2, 1.0)
    ideal = ideal_seconds(graph)
    ours, theirs = await interleaved(
        3, lambda: _planloom(b, {"plan": plan_of(graph)}), lambda: _bare(b, "BareDag", graph)
    )
    print(
        f"makespan ÷ ideal          {statistics.median(ours) / ideal:.3f} "
        f"(bare {statistics.median(theirs) / ideal:.3f}; 20 tasks of 0.2 to 1 s)"
    )


async def history() -> None:
    async with bench() as b:
        for name, plan, count in (
            (f"chain of {CHAIN}", chain_plan(CHAIN), CHAIN),
            (f"fan-out of {WIDTH}", keep_all(fan_plan(WIDTH)), WIDTH),
            (f"fan-out of {WIDTH}, fused", keep_all(fan_plan(WIDTH, FUSED)), WIDTH),
        ):
            _, handle = await b.planloom({"plan": plan, "budget": {"parallel": WIDTH}})
            _, bare = await b.bare("BareChain" if "chain" in name else "BareFanOut", count)
            events, size = await _size(handle)
            bare_events, bare_size = await _size(bare)
            print(
                f"{name}: {events / count:.2f} events and {size / count:,.0f} bytes a task; "
                f"bare {bare_events / count:.2f} and {bare_size / count:,.0f}"
            )


async def _size(handle: Any) -> tuple[int, int]:
    events = (await handle.fetch_history()).events
    return len(events), sum(e.ByteSize() for e in events)
