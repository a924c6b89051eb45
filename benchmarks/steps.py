"""What one event costs the machine of a run, by the size of its plan. No server: only `step`."""

from __future__ import annotations

import time
from collections import deque
from unittest import mock

from benchmarks.report import Figure, Size, figure, ratio, single
from planloom import worker
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.values import Stored
from planloom.planner.syntax import documents
from planloom.workflows.machines.run import machine
from planloom.workflows.machines.shared.commands import RunTool
from planloom.workflows.machines.shared.events import Begun, Returned
from planloom.workflows.machines.shared.machine import Identity

PARALLEL = 100
LEVEL = 10
"""Each task reads the one so many before it."""
CATALOG = Catalog(tools=[ToolSpec(name="work", parameters={"type": "object"})], tool_names=["work"])


async def main(size: Size) -> list[Figure]:
    small, large = size.pick((20, 40), (1_000, 10_000), (1_000, 100_000))
    rounds, events = size.pick((1, 10), (3, 1_000), (3, 1_000))
    found: dict[int, list[tuple[float, float]]] = {small: [], large: []}
    worker.collect_garbage_rarely()  # as in a worker process, where a large state is not frozen
    # The language bounds a plan, for the sake of those who read and check it; the machine does not.
    with mock.patch.multiple(documents, TASKS_MAX=10**9, PLAN_MAX_BYTES=10**9):
        _microseconds(small, events)  # warm
        for _ in range(rounds):
            for tasks, times in found.items():
                times.append(_microseconds(tasks, events))
    few, many = ([step for _, step in found[n]] for n in (small, large))
    compiled = [begin for begin, _ in found[large]]
    return [
        ratio(f"`step`, {large:,} tasks ÷ {small:,}", many, few, at_most=1.5),
        figure(f"`step`, {small:,} tasks", few, "µs an event"),
        figure(f"`step`, {large:,} tasks", many, "µs an event"),
        single(f"reading and compiling, {large:,} tasks", min(compiled), "µs a task"),
    ]


def _microseconds(tasks: int, events: int) -> tuple[float, float]:
    """Processor time, which a busy machine disturbs little: to read and compile, a task; of `step`
    and of what it publishes, an event: the first so many ends of tasks."""
    document = [
        {"id": f"t{n}", "tool": "work", "args": {"key": n}}
        | ({"depends_on": [f"t{n - LEVEL}"]} if n >= LEVEL else {})
        for n in range(tasks)
    ]
    output = TaskOutput(output=Stored(value=1))
    began = time.process_time()
    request = RunRequest.model_validate(
        {"plan": {"tasks": document}, "budget": {"parallel": PARALLEL}}
    )
    run = machine.begin(request, Identity("run", "first"), 0.0)
    machine.step(run, Begun(), 0.0)
    commands = deque(machine.step(run, Returned("prepared", CATALOG), 0.0))
    ready = time.process_time()
    for n in range(events):
        command = commands.popleft()
        assert isinstance(command, RunTool), command
        commands.extend(machine.step(run, Returned(command.key, output), n / 1000))
        machine.published(run)
    ended = time.process_time()
    return (ready - began) / tasks * 1e6, (ended - ready) / events * 1e6
