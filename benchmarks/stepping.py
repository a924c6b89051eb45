"""What one event costs the run's machine, in a plan of a thousand tasks and of a hundred thousand.

Without Temporal: events in, commands out. Processor time, so that a busy machine disturbs little.
"""

from __future__ import annotations

import gc
import time
from collections import deque

from planloom.planner.compile.pipeline import Compiled, graph_of
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import Stored
from planloom.workflows.machines.run import course, machine
from planloom.workflows.machines.run.revising import adopt, enter_tasks
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.commands import RunTool
from planloom.workflows.machines.shared.events import Returned, SignalIgnored
from planloom.workflows.machines.shared.machine import Identity

SIZES = (1_000, 100_000)
EVENTS = 900
"""Measured of each run, so that both sizes have the same number of tasks at work."""
TRIES = 5
CHAIN = 10
CATALOG = Catalog(tools=[ToolSpec(name="noop", idempotent=False)], tool_names=["noop"])


def _plan(tasks: int) -> Plan:
    """Chains of ten, and one task that reads the ends of all."""
    rows: list[dict[str, object]] = [
        {"id": f"t{n}", "tool": "noop", "depends_on": [f"t{n - 1}"] if n % CHAIN else []}
        for n in range(tasks - 1)
    ]
    ends = [f"t{n}" for n in range(CHAIN - 1, tasks - 1, CHAIN)]
    rows.append({"id": "all", "tool": "noop", "depends_on": ends})
    return Plan.model_validate({"tasks": rows, "answer": "${all}"})


def _run_of(plan: Plan) -> RunState:
    """A run whose tasks are in, past its limits and its compiler."""
    request = RunRequest.model_validate({"template": "large"})
    run = machine.begin(request, Identity("run", "run/first"), 0.0)
    run.catalog, run.values["params"] = CATALOG, Stored()
    adopt(run, Compiled(plan, inputs=graph_of(plan)), why="given")
    enter_tasks(run, plan.tasks, 0.0)
    course.go_on(run)
    return run


def microseconds_an_event(run: RunState, events: int) -> float:
    """Tasks end one after another; what each of these events costs, publishing included."""
    started = machine.step(run, SignalIgnored("begin"), 0.0)
    queue = deque(c.key for c in started if isinstance(c, RunTool))
    output = TaskOutput(output=Stored(value=1))
    began = time.process_time()
    for n in range(1, events + 1):
        commands = machine.step(run, Returned(queue.popleft(), output), n / 1000)
        machine.MACHINE.published(run)
        queue.extend(c.key for c in commands if isinstance(c, RunTool))
    return (time.process_time() - began) / events * 1e6


def main() -> None:
    best: dict[int, float] = dict.fromkeys(SIZES, float("inf"))
    plans = {size: _plan(size) for size in SIZES}
    for _ in range(TRIES):
        for size, plan in plans.items():
            run = _run_of(plan)
            gc.collect()
            gc.freeze()  # as the worker does: a large heap is not to be looked through again
            best[size] = min(best[size], microseconds_an_event(run, EVENTS))
            gc.unfreeze()
    small, large = (best[s] for s in SIZES)
    print(
        f"step, {SIZES[1]:,} ÷ {SIZES[0]:,} tasks".ljust(30),
        f"{large / small:.2f} ({large:.0f} and {small:.0f} µs an event)",
        flush=True,
    )
