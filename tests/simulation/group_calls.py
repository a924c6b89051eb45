"""How the activity of a group goes: the real walk, over the same attempts as single calls make."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from planloom.planner.contract.groups import GroupReply, UnitEnd, UnitFailed
from planloom.planner.contract.jobs import ResolveJob, TaskOutput
from planloom.planner.language.conditions import evaluate
from planloom.planner.language.values import TaskId
from planloom.planner.walk.frontier import Unit
from planloom.planner.walk.group import GroupWalk, begin_walk
from planloom.workflows.machines.run.bodies import activity_id
from planloom.workflows.machines.shared.commands import RunGroup
from planloom.workflows.machines.shared.events import Broke, Event, Failure, Returned

if TYPE_CHECKING:
    from tests.simulation.process import Process

PATIENCE_SECONDS = 3.0


def run_group(process: Process, command: RunGroup, random: Random) -> tuple[float, Event]:
    """The whole activity. Now and then its worker dies twice, or once: then it starts over."""
    walk = begin_walk(command.job)
    how = random.random()
    if how < process.world.case.fails * 0.2:
        lost = Failure("timed out (heartbeat)", "timeout")
        return 10.0, Broke(command.key, lost)
    now = _walk(process, command, walk, until=PATIENCE_SECONDS * random.random())
    if how > 0.5:  # its worker dies, and another goes on from the last heartbeat
        before = GroupReply(ends=[_without_times(e) for e in walk.ends])
        walk = begin_walk(command.job, before)
    now += _walk(process, command, walk, until=PATIENCE_SECONDS)
    for name in [n for n in walk.members if walk.is_running(n)]:
        walk.end(_end(walk, name, {"alone_in": 0.0}, now, now))
    return now, Returned(command.key, GroupReply(ends=walk.ends, seconds=now))


def _without_times(end: UnitEnd) -> UnitEnd:
    return end.model_copy(update={"began": 0.0, "ended": 0.0})


def _walk(process: Process, command: RunGroup, walk: GroupWalk, until: float) -> float:
    """Let the group go on for some seconds; how long it took."""
    now = 0.0
    running: list[tuple[float, TaskId, float, dict[str, Any]]] = []
    while True:
        while (name := walk.next_start()) is not None:
            took, found = _outcome_of(process, command, walk, name)
            heappush(running, (now + took, name, now, found))
        if not running:
            return now
        if running[0][0] > until:
            return until
        now, name, began, found = heappop(running)
        walk.end(_end(walk, name, found, began, now))


def _end(
    walk: GroupWalk, name: TaskId, found: dict[str, Any], began: float, ended: float
) -> UnitEnd:
    member = walk.members[name]
    return UnitEnd(task=member.task.id, index=member.index, **found, began=began, ended=ended)


def _outcome_of(
    process: Process, command: RunGroup, walk: GroupWalk, name: TaskId
) -> tuple[float, dict[str, Any]]:
    from tests.simulation.effects import attempt_of, is_retryable
    from tests.simulation.kinds import run_in

    condition = walk.condition_of(name)
    if condition is not None:
        try:
            if not _holds(process, condition):
                return 0.0, {}
        except ValueError as error:
            message = f"when: {error}"
            failed = UnitFailed(message=message, error_class="tool", has_begun=False)
            return 0.0, {"failed": failed}
    job, task = walk.job_of(name), walk.members[name].task
    unit = Unit(task.id, walk.members[name].index)
    run = run_in(process.state)
    assert run is not None
    process.oracle.tool_called(unit, job)
    activity = f"{activity_id(run, unit)} 1"
    took, found = attempt_of(process, activity, job, task.timeout, 1)
    if isinstance(found, TaskOutput):
        return took, {"output": found}
    failed = UnitFailed(message=found.message, error_class=found.error_class)
    if is_retryable(found) and walk.may_retry(name):
        return took, {"failed": failed, "alone_in": walk.pause_of(name)}
    return took, {"failed": failed}


def _holds(process: Process, job: ResolveJob) -> bool:
    from tests.simulation.effects import load

    outputs = {n: load(process, s) for n, s in job.bindings.inputs.items()}
    return evaluate(str(job.value), job.outcomes, outputs)
