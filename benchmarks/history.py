"""What a task leaves in the history of its run: events and bytes."""

from __future__ import annotations

from typing import Any

from temporalio.api.enums.v1 import EventType

from benchmarks.engine import FUSED, QUEUED, chain_plan, fan_plan, wide
from benchmarks.harness import Bench, bench
from benchmarks.report import Figure, Size, single

MEGABYTE = 1_000_000
OF_A_TASK = (
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
)


async def main(size: Size) -> list[Figure]:
    width, chain, large = size.pick((10, 3, 3), (300, 20, 50), (300, 20, 50))
    figures: list[Figure] = []
    async with bench() as b:
        for tool, way, most in ((QUEUED, "queued", 3.2), (FUSED, "fused", 0.1)):
            events, octets = await _of_run(b, fan_plan(width, tool), width)
            name = f"fan-out of {width}, {way}"
            figures += [
                single(f"{name}: events a task", events, at_most=most),
                single(f"{name}: history a task", octets, "bytes"),
            ]
        events, octets = await _of_run(b, chain_plan(chain), chain)
        figures += [
            single(f"chain of {chain}, queued: events a task", events),
            single(f"chain of {chain}, queued: history a task", octets, "bytes"),
        ]
        _, handle = await b.bare("BareFanOut", width)
        events, octets = await _of(handle, width)
        figures += [
            single(f"fan-out of {width}, bare: events a task", events),
            single(f"fan-out of {width}, bare: history a task", octets, "bytes"),
        ]
        figures += await _large(b, large)
    return figures


async def _large(b: Bench, count: int) -> list[Figure]:
    """Tasks with a result of 1 MB."""
    tasks = [{"id": f"t{n}", "tool": "large", "args": {"size": MEGABYTE + n}} for n in range(count)]
    lengths = [f"${{length(t{n})}}" for n in range(count)]
    result, handle = await b.planloom(wide({"tasks": tasks, "answer": lengths}))
    assert result["status"] == "completed", result["reason"]
    events = (await handle.fetch_history()).events
    own = sum(e.ByteSize() for e in events if e.event_type in OF_A_TASK)
    return [
        single(
            "task with a result of 1 MB: its events",
            own / count,
            "bytes",
            at_most=1_024,
            note="scheduled, started and completed, with the reference to the result",
        ),
        single(
            "the same, of the whole history",
            sum(e.ByteSize() for e in events) / count,
            "bytes",
            note=f"with workflow tasks and the run's result, shared out among {count} tasks",
        ),
    ]


async def _of_run(b: Bench, plan: dict[str, Any], count: int) -> tuple[float, float]:
    result, handle = await b.planloom(wide(plan))
    assert result["status"] == "completed", result["reason"]
    assert result["usage"]["tool_calls"] == count, result["usage"]
    return await _of(handle, count)


async def _of(handle: Any, count: int) -> tuple[float, float]:
    """Events and bytes a task."""
    events = (await handle.fetch_history()).events
    return len(events) / count, sum(e.ByteSize() for e in events) / count
