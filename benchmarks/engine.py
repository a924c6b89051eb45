"""The engine's own cost against bare Temporal: chains and fan-outs, queued and fused, and a hop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, bench, interleaved
from benchmarks.report import Figure, Size, figure, ratio

QUEUED, FUSED = "noop", "cheap"
"""Tools: one that runs in an activity for each task, one that is fused."""


def chain_plan(length: int, tool: str = QUEUED) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = [{"id": "t0", "tool": tool, "args": {"n": 1}}]
    tasks += [
        {"id": f"t{n}", "tool": tool, "args": {"n": f"${{t{n - 1}}}"}} for n in range(1, length)
    ]
    return {"tasks": tasks, "answer": f"${{t{length - 1}}}"}


def fan_plan(width: int, tool: str = QUEUED) -> dict[str, Any]:
    """Without an answer, so that no task is left out."""
    return {"tasks": [{"id": f"t{n}", "tool": tool, "args": {"n": n}} for n in range(width)]}


def wide(plan: dict[str, Any]) -> dict[str, Any]:
    """A request of this plan in which all tasks may run at once."""
    return {"plan": plan, "budget": {"parallel": min(len(plan["tasks"]), 1_000)}}


async def main(size: Size) -> list[Figure]:
    rounds = size.pick(1, 3, 7)
    chain = size.pick(3, 20, 20)
    widths = size.pick((10,), (300, 1_000), (300, 1_000))
    async with bench() as b:
        figures = await _against_bare(b, rounds, f"chain of {chain}", chain, chain_plan, 0.2)
        for width in widths:
            name = f"fan-out of {width:,}"
            figures += await _against_bare(b, rounds, name, width, fan_plan, 0.33)
        return figures + await _hop(b, rounds, size.pick(3, 30, 30))


async def _against_bare(
    b: Bench,
    rounds: int,
    name: str,
    count: int,
    plan: Callable[..., dict[str, Any]],
    fused_max: float,
) -> list[Figure]:
    """Queued and fused, in turns with the bare workflow."""
    kind = "BareChain" if plan is chain_plan else "BareFanOut"
    queued, fused, bare = await interleaved(
        rounds,
        lambda: b.timed(wide(plan(count))),
        lambda: b.timed({"plan": plan(count, FUSED)}),
        lambda: b.bare_timed(kind, count),
    )
    return [
        ratio(f"{name}, queued ÷ bare", queued, bare, at_most=1.05),
        ratio(f"{name}, fused ÷ bare", fused, bare, at_most=fused_max),
        *(
            figure(f"{name}, {way}", [s * 1000 for s in seconds], "ms")
            for way, seconds in (("queued", queued), ("fused", fused), ("bare", bare))
        ),
    ]


async def _hop(b: Bench, rounds: int, length: int) -> list[Figure]:
    """What a step costs: a chain, without what one task costs anyway."""
    ours, theirs, ours_1, theirs_1 = await interleaved(
        rounds,
        lambda: b.timed({"plan": chain_plan(length)}),
        lambda: b.bare_timed("BareChain", length),
        lambda: b.timed({"plan": chain_plan(1)}),
        lambda: b.bare_timed("BareChain", 1),
    )
    steps = length - 1
    hops = [(a - c) / steps * 1000 for a, c in zip(ours, ours_1, strict=True)]
    bare_hops = [(a - c) / steps * 1000 for a, c in zip(theirs, theirs_1, strict=True)]
    return [
        ratio("hop ÷ bare", hops, bare_hops),
        figure("hop", hops, "ms"),
        figure("hop, bare", bare_hops, "ms"),
        ratio("run of one task ÷ bare", ours_1, theirs_1),
    ]
