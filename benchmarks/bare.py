"""The reference: bare Temporal workflows as an expert would write them.

Their own no-op activities, on the workflow's own queue (so that the server dispatches eagerly),
without heartbeats and without the sandbox.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def bare_noop(n: int) -> int:
    return n


@activity.defn
async def bare_nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


LIMIT = timedelta(minutes=10)


async def _noop(n: int) -> int:
    return await workflow.execute_activity(bare_noop, n, start_to_close_timeout=LIMIT)


@workflow.defn
class BareChain:
    @workflow.run
    async def run(self, length: int) -> int:
        value = 0
        for _ in range(length):
            value = await _noop(value + 1)
        return value


@workflow.defn
class BareFanOut:
    @workflow.run
    async def run(self, width: int) -> int:
        return len(await asyncio.gather(*(_noop(n) for n in range(width))))


@workflow.defn
class BareDiamond:
    """One, then three, then one."""

    @workflow.run
    async def run(self) -> int:
        first = await _noop(1)
        return await _noop(sum(await asyncio.gather(*(_noop(first + n) for n in range(3)))))


@workflow.defn
class BareDag:
    """A graph by asyncio tasks that await their inputs' tasks."""

    @workflow.run
    async def run(self, graph: dict[str, tuple[float, list[str]]]) -> int:
        tasks: dict[str, asyncio.Task[float]] = {}

        async def one(seconds: float, inputs: list[str]) -> float:
            for needed in inputs:
                await tasks[needed]
            return await workflow.execute_activity(bare_nap, seconds, start_to_close_timeout=LIMIT)

        for name, (seconds, inputs) in graph.items():
            tasks[name] = asyncio.create_task(one(seconds, inputs))
        return len([await task for task in tasks.values()])


ACTIVITIES = [bare_noop, bare_nap]
WORKFLOWS = [BareChain, BareFanOut, BareDiamond, BareDag]
