"""An event takes as much work in a run of thousands of tasks as in one of a few hundred.

Bytecodes are counted, and no time is taken. A rule that looks at every task (or at every question,
or child) after each event makes a run of 10,000 tasks a hundred times as slow as one of 1,000.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from planloom.planner.contract.controls import CONTROLS
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import AgentResult
from planloom.planner.language.values import Stored
from planloom.workflows.machines.run import machine
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    ControlTaken,
    Event,
    Failure,
    Returned,
)
from planloom.workflows.machines.shared.machine import Identity
from tests.support.run_driver import CATALOG, work

FEW, MANY = 200, 1_600
"""More than may run at once, so that each end starts the next."""
GROWS_AT_MOST = 1.6
"""Heaps grow with the logarithm; what looks at all takes up to eight times as much."""


def begun(tasks: list[dict[str, Any]], **request: Any) -> Any:
    made = RunRequest.model_validate(
        {"plan": {"tasks": tasks, **request.pop("more", {})}, **request}
    )
    run = machine.begin(made, Identity("run", "run/first"), 1_000.0)
    machine.step(run, Begun(), 1_000.0)
    machine.step(run, Returned("prepared", CATALOG), 1_001.0)
    return run


def work_of(run: Any, event: Event) -> int:
    """How many bytecodes of Python one event takes."""
    count = 0

    def traced(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += kind == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        machine.step(run, event, 1_002.0)
        machine.published(run)
    finally:
        sys.settrace(before)
    return count


def output() -> TaskOutput:
    return TaskOutput(output=Stored(value=1))


def answered(n: int) -> Event:
    return ControlTaken("complete_task", CONTROLS["complete_task"](id=f"t{n}", output=1))


def approved(n: int) -> Event:
    return ControlTaken("approve_task", CONTROLS["approve_task"](id=f"t{n}"))


def ended(n: int) -> Event:
    return Returned(f"t{n}#body", output())


def failed(n: int) -> Event:
    return Broke(f"t{n}#body", Failure("it failed", "tool"))


def agent_ended(n: int) -> Event:
    return Returned(f"t{n}#body", AgentResult(status="completed", output=1))


def tasks(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"t{n}", **fields} for n in range(count)]


def plain(count: int) -> Any:
    return begun([work(f"t{n}") for n in range(count)], fuse=False)


def joined(count: int) -> Any:
    join = {"join": [f"t{n}" for n in range(count)]}
    return begun([work(f"t{n}") for n in range(count)], more=join, joiner=True, fuse=False)


def fallen_back(count: int) -> Any:
    other = {"tool": "work", "args": {"key": "other"}}
    return begun([work(f"t{n}", fallback=other) for n in range(count)], fuse=False)


def asked(count: int) -> Any:
    return begun(tasks(count, human={"question": "is it?"}))


def held(count: int) -> Any:
    return begun([work(f"t{n}", approval=True) for n in range(count)], fuse=False)


def with_agents(count: int) -> Any:
    agent = {"agent": "helper", "args": {"task": "x"}}
    return begun(tasks(count, **agent), budget={"parallel": count // 2}, fuse=False)


@pytest.mark.parametrize(
    ("begin", "event"),
    [
        (plain, ended),
        (joined, ended),
        (fallen_back, failed),
        (asked, answered),
        (held, approved),
        (with_agents, agent_ended),
    ],
    ids=["plain", "joined", "fallbacks", "questions", "approvals", "agents"],
)
def test_an_event_takes_no_more_work_in_a_larger_run(
    begin: Callable[[int], Any], event: Callable[[int], Event]
) -> None:
    counts = []
    for number in (FEW, MANY):
        run = begin(number)
        counts.append(sum(work_of(run, event(n)) for n in range(10)))
    assert counts[1] <= counts[0] * GROWS_AT_MOST, counts
