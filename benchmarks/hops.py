"""Where the time goes: what each hop of a step and of a streamed goal takes.

A step's hops are read from the history's own times, of ours and of the bare workflow, run in turns.
A goal's are read from the history and from the scripted endpoint, on one clock.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from temporalio.api.enums.v1 import EventType

from benchmarks.engine import chain_plan, wide
from benchmarks.goals import script
from benchmarks.harness import Bench, bench
from benchmarks.report import Figure, Size, figure, ratio
from benchmarks.workloads import Workload, workloads
from tests.model_server import ModelServer, Seen

Hops = dict[str, list[float]]
"""Milliseconds by the hop's name."""

STARTED = EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
COMPLETED = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
TURN_SCHEDULED = EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
TURN_STARTED = EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
TURN_COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
FIRST_STEP = 10
"""Event number from which on a chain only repeats."""

OF_A_STEP = {
    (TURN_SCHEDULED, TURN_STARTED): "workflow task: scheduled to started",
    (TURN_STARTED, TURN_COMPLETED): "workflow task: started to completed",
    (STARTED, COMPLETED): "activity: started to completed",
}


async def main(size: Size) -> list[Figure]:
    rounds, chain = size.pick(1, 15, 40), size.pick(4, 20, 20)
    works = workloads()[: size.pick(1, 4, 8)]
    with ModelServer() as model:
        for work in works:
            script(model, work)
        async with bench({"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}) as b:
            figures = await _of_chains(b, rounds, chain)
            hops: Hops = defaultdict(list)
            for n in range(size.pick(1, 3, 5) + 1):
                for work in works:
                    found = await _of_goal(b, model, work)
                    for name, values in found.items() if n else ():
                        hops[name] += values
    return figures + [figure(f"goal: {name}", values, "ms") for name, values in hops.items()]


async def _of_chains(b: Bench, rounds: int, length: int) -> list[Figure]:
    """The hops of a step; medians of a round, so that the spread is that of the rounds."""
    ours: Hops = defaultdict(list)
    bare: Hops = defaultdict(list)
    for n in range(rounds + 1):
        result, handle = await b.planloom(wide(chain_plan(length)))
        assert result["status"] == "completed", result["reason"]
        _, other = await b.bare("BareChain", length)
        if n:
            for hops, run in ((ours, handle), (bare, other)):
                for name, values in _steps((await run.fetch_history()).events).items():
                    hops[name].append(statistics.median(values))
    figures: list[Figure] = []
    for name in OF_A_STEP.values():
        figures += [
            figure(f"step: {name}", ours[name], "ms"),
            figure(f"step: {name}, bare", bare[name], "ms"),
        ]
    whole = [[sum(hops[n][i] for n in hops) for i in range(rounds)] for hops in (ours, bare)]
    return [*figures, ratio("step: all hops ÷ bare", *whole)]


def _steps(events: Sequence[Any]) -> Hops:
    hops: Hops = defaultdict(list)
    repeated = [e for e in events if e.event_id >= FIRST_STEP]
    for before, after in pairwise(repeated):
        name = OF_A_STEP.get((before.event_type, after.event_type))
        if name is not None:
            hops[name].append((_seconds(after) - _seconds(before)) * 1000)
    return hops


async def _of_goal(b: Bench, model: ModelServer, work: Workload) -> Hops:
    """From start to planner, from a line to its task, from the tasks to the end."""
    before = len(model.requests)
    result, handle = await b.planloom({"goal": work.question})
    assert result["status"] == "completed", result["reason"]
    planner, joiner = model.requests[before:]
    events = (await handle.fetch_history()).events
    starts, ends = _tool_times(events)
    written = work.written_seconds()
    first = [n for n, call in enumerate(work.calls) if not call.inputs]
    lines = [planner.at + written[n] for n in first]
    return {
        "run started to planner's request": [_ms(_seconds(events[0]), planner.at)],
        "line written to its task's start": [
            _ms(line, start) for line, start in zip(lines, sorted(starts), strict=False)
        ],
        "last task's end to joiner's request": [_ms(max(ends), joiner.at)],
        "joiner's answer to the run's end": [_ms(_ended(joiner), _seconds(events[-1]))],
    }


def _tool_times(events: Sequence[Any]) -> tuple[list[float], list[float]]:
    """When tools started, and when they ended, in seconds since 1970."""
    tools = {
        e.event_id
        for e in events
        if e.activity_task_scheduled_event_attributes.activity_type.name == "run_tool"
    }
    starts, ends = [], []
    for e in events:
        if e.activity_task_started_event_attributes.scheduled_event_id in tools:
            starts.append(_seconds(e))
        elif e.activity_task_completed_event_attributes.scheduled_event_id in tools:
            ends.append(_seconds(e))
    return starts, ends


def _seconds(event: Any) -> float:
    return float(event.event_time.ToNanoseconds()) / 1e9


def _ended(seen: Seen) -> float:
    assert seen.ended_at is not None
    return seen.ended_at


def _ms(start: float, end: float) -> float:
    return (end - start) * 1000
