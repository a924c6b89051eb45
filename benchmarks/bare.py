"""The same activities in bare Temporal workflows, as an expert would write them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from planloom.planner.contract.jobs import TaskOutput, ToolJob


async def _call(queue: str, job: ToolJob) -> TaskOutput:
    output: TaskOutput = await workflow.execute_activity(
        "run_tool",
        job,
        result_type=TaskOutput,
        task_queue=queue,
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=timedelta(seconds=10),
    )
    return output


@workflow.defn
class BareChain:
    @workflow.run
    async def run(self, queue: str, length: int) -> int:
        value = 0
        for n in range(length):
            job = ToolJob(task=f"t{n}", tool="noop", args={"n": value + 1})
            value = int(str((await _call(queue, job)).output.value))
        return value


@workflow.defn
class BareFanOut:
    @workflow.run
    async def run(self, queue: str, width: int) -> int:
        jobs = [ToolJob(task=f"t{n}", tool="noop", args={"n": n}) for n in range(width)]
        return len(await asyncio.gather(*(_call(queue, job) for job in jobs)))


@workflow.defn
class BareDag:
    """A graph by asyncio tasks that await their inputs' tasks."""

    @workflow.run
    async def run(self, queue: str, graph: dict[str, tuple[float, list[str]]]) -> int:
        tasks: dict[str, asyncio.Task[TaskOutput]] = {}

        async def one(name: str, seconds: float, inputs: list[str]) -> TaskOutput:
            for needed in inputs:
                await tasks[needed]
            return await _call(queue, ToolJob(task=name, tool="nap", args={"seconds": seconds}))

        for name, (seconds, inputs) in graph.items():
            tasks[name] = asyncio.create_task(one(name, seconds, inputs))
        return len([await task for task in tasks.values()])
