"""Many small runs that start at once through the Python client, against bare workflows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.engine import FUSED, QUEUED
from benchmarks.harness import Bench, bench, interleaved
from benchmarks.report import Figure, Size, figure, ratio
from planloom.client import Client


def diamond(tool: str) -> dict[str, Any]:
    """Five tasks: one, then three, then one."""
    middle = [
        {"id": f"m{n}", "tool": tool, "args": {"n": n}, "depends_on": ["first"]} for n in range(3)
    ]
    return {
        "tasks": [
            {"id": "first", "tool": tool, "args": {"n": 1}},
            *middle,
            {"id": "last", "tool": tool, "depends_on": ["m0", "m1", "m2"]},
        ]
    }


async def main(size: Size) -> list[Figure]:
    runs, rounds = size.pick((4, 1), (200, 2), (200, 5))
    async with bench() as b:
        client = Client(b.client, b.queue)
        queued, fused, bare = await interleaved(
            rounds,
            lambda: _planloom(client, runs, QUEUED),
            lambda: _planloom(client, runs, FUSED),
            lambda: _bare(b, runs),
        )
    name = f"{runs} runs of 5 tasks at once, last end"
    return [
        ratio(f"{name}, queued ÷ bare", queued, bare, at_most=1.15),
        ratio(f"{name}, fused ÷ bare", fused, bare),
        *(
            figure(f"{name}, {way}", seconds, "s")
            for way, seconds in (("queued", queued), ("fused", fused), ("bare", bare))
        ),
    ]


async def _planloom(client: Client, runs: int, tool: str) -> float:
    plan = diamond(tool)
    began = time.perf_counter()
    results = await asyncio.gather(*(client.run(plan=plan) for _ in range(runs)))
    seconds = time.perf_counter() - began
    assert {r.status for r in results} == {"completed"}
    return seconds


async def _bare(b: Bench, runs: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(b.bare("BareDiamond") for _ in range(runs)))
    return time.perf_counter() - began
