"""A wide map against a small one: time an item, and the worker's memory. Fused and queued.

Each round has a worker process of its own, so that its memory peak is that of this round's maps.
"""

from __future__ import annotations

from typing import Any

from benchmarks.engine import FUSED, QUEUED
from benchmarks.processes import Crew, Site, peak_megabytes, site
from benchmarks.report import Figure, Size, figure, ratio, tell

WARM = 20
TASKS_MAX = 1_000_000


def request(items: int, tool: str) -> dict[str, Any]:
    """A map over numbers that another task gives, as a plan's author would have it."""
    return {
        "plan": {
            "tasks": [
                {"id": "all", "tool": "numbers", "args": {"count": items}},
                {"id": "m", "map": "${all}", "tool": tool, "args": {"n": "${item}"}},
            ],
            "answer": "${length(m)}",
        },
        "budget": {"tasks": TASKS_MAX, "parallel": 500},
    }


async def main(size: Size) -> list[Figure]:
    small = size.pick(10, 1_000, 1_000)
    figures: list[Figure] = []
    async with site(in_memory=False) as place:
        for tool, way, most, large, rounds in (
            (FUSED, "fused", 1.0, size.pick(20, 20_000, 100_000), size.pick(1, 2, 3)),
            (QUEUED, "queued", 8.0, size.pick(20, 4_000, 100_000), 1),
        ):
            figures += await _maps(place, way, tool, small, large, rounds, most)
    return figures


async def _maps(
    place: Site, way: str, tool: str, small: int, large: int, rounds: int, milliseconds_max: float
) -> list[Figure]:
    few, many = list[float](), list[float]()
    before, after = list[float](), list[float]()
    for _ in range(rounds):
        async with place.crew(1) as crew:
            await _milliseconds(crew, WARM, tool)
            few.append(await _milliseconds(crew, small, tool))
            low = peak_megabytes(crew.workers[0])
            many.append(await _milliseconds(crew, large, tool))
            high = peak_megabytes(crew.workers[0])
            if low is not None and high is not None:
                before.append(low)
                after.append(high)
        tell(f"{way}: {few[-1]:.2f} ms an item of {small:,}, {many[-1]:.2f} of {large:,}")
    name = f"map of {large:,} items, {way}"
    figures = [
        ratio(f"{name}: time an item ÷ of {small:,}", many, few, at_most=1.2),
        figure(f"{name}: time an item", many, "ms", at_most=milliseconds_max),
        figure(f"map of {small:,} items, {way}: time an item", few, "ms"),
    ]
    if after:
        figures += [
            ratio(f"{name}: worker's memory peak ÷ of {small:,}", after, before, at_most=2),
            figure(f"{name}: worker's memory peak", after, "MB"),
        ]
    return figures


async def _milliseconds(crew: Crew, items: int, tool: str) -> float:
    seconds, result = await crew.run(request(items, tool))
    assert result["answer"] == items, result["answer"]
    return seconds / items * 1000
