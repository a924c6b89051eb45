"""Time limits and pauses: each limit has its timer, and child runs hear of what changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planloom.workflows.machines.run.state import RunState, Stage
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.account import TIMER, Account, ends_at
from planloom.workflows.machines.shared.commands import Command, StartChild, Tell
from tests.simulation.violation import demand

if TYPE_CHECKING:
    from tests.simulation.process import Process

CLOSE = 1e-6
"""Sums of the same seconds in another order."""


@dataclass(slots=True)
class Heard:
    """What a child run was told last by the run that it is part of."""

    deadline: float | None
    is_paused: bool = False


def check_clock(process: Process, account: Account, timers: dict[str, float]) -> None:
    """Timers of the state are those that run, and the time's own fires at its end."""
    expected = dict(timers)
    if account.timer_at is not None:
        expected[TIMER] = account.timer_at
        demand(account.timer_at == ends_at(account), "the timer of the time is at its end", account)
    running = {key: timer.at for key, timer in process.timers.items()}
    is_same = set(expected) == set(running)
    is_same = is_same and all(abs(expected[k] - running[k]) < CLOSE for k in running)
    demand(is_same, "timers of the state are those that run", expected, running)


def check_end_of_time(account: Account, now: float) -> None:
    """As long as there is time, a timer is on its way to tell that it is over."""
    end = ends_at(account)
    is_watched = end is None or end <= now or account.timer_at is not None
    demand(is_watched, "the end of the time is watched", end)


def check_limits(run: RunState, process: Process) -> None:
    """What must end by a time has a timer for it."""
    wanted: dict[str, float] = {}
    for key, work in run.works.items():
        flight = process.flights.get(work.command)
        command = flight.command if flight is not None else None
        is_running = isinstance(command, StartChild) and not work.is_late
        if is_running and command.timeout is not None:  # type: ignore[union-attr]
            wanted[f"child:{key}"] = flight.since + command.timeout  # type: ignore[union-attr]
    for key, question in run.questions.items():
        timeout = run.tasks[run.works[key].unit.task].timeout
        if timeout is not None:
            wanted[f"answer:{key}"] = question.since + timeout
    policy = run.request.approval
    if policy.timeout is not None and policy.on_timeout != "park":
        wanted |= {f"approve:{task}": since + policy.timeout for task, since in run.held.items()}
        if run.approval.is_open:
            wanted["approval"] = run.approval_since + policy.timeout
    for key, at in wanted.items():
        known = run.timers.get(key, (None, ""))[0]
        demand(known is not None and abs(known - at) < CLOSE, "a limit has its timer", key, at)
    has_adopted = any(child.is_adopted for child in run.children.values())
    demand(not has_adopted or "children" in run.timers, "adopted children are looked at")
    has_room = run.permit is not None and run.room_wait is None
    has_room = has_room and run.stage not in (Stage.ROOM, Stage.OVER)
    demand(not has_room or permit.KEY in run.timers, "a permit is renewed")


def hear(heard: dict[str, Heard], commands: Sequence[Command]) -> None:
    """Remember what child runs are told by these commands."""
    for command in commands:
        match command:
            case StartChild(id=id, lineage=lineage):
                heard[id] = Heard(lineage.deadline)
            case Tell(run=id, signal="deadline_moved", payload=payload) if id in heard:
                heard[id].deadline = payload["at"]
            case Tell(run=id, signal=("pause" | "resume") as signal) if id in heard:
                heard[id].is_paused = signal == "pause"


def check_heard(
    heard: dict[str, Heard], process: Process, account: Account, *, is_paused: bool
) -> None:
    """Every child run at work was told of the pause and of the time that there is now."""
    end = ends_at(account)
    for flight in process.flights.values():
        command = flight.command
        if isinstance(command, StartChild) and not flight.is_cancelled and command.id in heard:
            told = heard[command.id]
            demand(told.is_paused == is_paused, "a child is paused like its run", command.id)
            demand(told.deadline == end, "a child has its run's time", command.id, told, end)
