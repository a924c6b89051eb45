"""Tasks come in, end, and are forgotten: records and frontier change together, here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from planloom.planner.compile.estimate import estimate_task
from planloom.planner.compile.passes.fuse import fused_seconds
from planloom.planner.compile.pipeline import inputs_of
from planloom.planner.language.plan import Task
from planloom.planner.language.values import NANO, PRIORITY_KEYS, Outcome, Stored, TaskId, Usage
from planloom.planner.walk.frontier import Settled, State, Unit
from planloom.planner.walk.nodes import node_of
from planloom.workflows.machines.run.groups import leave_group, settled_follower
from planloom.workflows.machines.run.record import Record
from planloom.workflows.machines.run.state import RunState, Stop, StopKind
from planloom.workflows.machines.run.timers import drop_timer
from planloom.workflows.machines.run.upwards import ask_no_more
from planloom.workflows.machines.shared.machine import Step

NAMES_MAX = 10


def add_tasks(
    run: RunState,
    tasks: Sequence[Task],
    ranks: Mapping[TaskId, float],
    now: float,
    inputs: Mapping[TaskId, tuple[TaskId, ...]] | None = None,
) -> None:
    """Take in tasks of the plan. What an earlier run finished is settled at once.

    `inputs` are those that the compiler found, where the plan is all that there is.
    """
    names = {t.id for t in tasks} | set(run.tasks)
    for task in tasks:
        if task.id not in run.tasks and any(b.plan is not None for b in task.bodies):
            run.sub_plans += 1
        run.tasks[task.id] = task
        found = inputs.get(task.id) if inputs is not None else None
        if found is None:
            found = tuple(i for i in inputs_of(task) if i in names)
        run.inputs[task.id] = found
        run.cancelled_why.pop(task.id, None)  # that was said of it as it was written before
        before = run.records.get(task.id)
        run.records[task.id] = Record(task.id, version=run.dropped.pop(task.id, 1))
        if before is not None:
            run.records[task.id].usage = before.usage
            run.records[task.id].version = before.version + 1
        run.records[task.id].is_decided_outside = run.is_decided_outside
    nodes = [
        node_of(
            task,
            run.inputs[task.id],
            rank=ranks.get(task.id, 0.0),
            priority=PRIORITY_KEYS[task.priority or run.request.priority],
            is_ahead=may_run_ahead(run, task),
            fuse_seconds=fused_seconds(task, run.catalog, run.request.fuse),
        )
        for task in tasks
    ]
    take_settled(run, run.frontier.add(nodes), now)
    for task in tasks:
        reused = run.request.reuse.get(task.id)
        if reused is not None and isinstance(run.frontier.state_of(task.id), State):
            _reuse(run, task.id, reused.output, now)
            run.records[task.id].is_tainted = reused.tainted
    run.is_stop_checked = False


def may_run_ahead(run: RunState, task: Task) -> bool:
    """`speculate` counts for tools without side effects, with a `when`, and without a map."""
    if not task.speculate or task.when is None or task.map is not None:
        return False
    spec = run.catalog.tool(task.tool) if task.tool else None
    return spec is not None and not spec.side_effects and task.fallback_body is None


def _reuse(run: RunState, task: TaskId, output: Stored, now: float) -> None:
    record = run.records[task]
    record.output, record.outcome = output, Outcome.CACHED
    record.reason = f"reused from {run.request.forked_from or 'an earlier run'}"
    record.ready = record.started = record.ended = run.seconds(now)
    hit = Usage(cache_hits=1)
    record.usage += hit
    run.account.ledger.count(hit)
    take_settled(run, run.frontier.settle(task, Outcome.CACHED), now)


def take_settled(run: RunState, settled: Iterable[Settled], now: float) -> None:
    """Record tasks that ended because of their inputs."""
    for entry in settled:
        record, task = run.records[entry.task], run.tasks[entry.task]
        settled_follower(run, entry.task)
        record.outcome, record.ended = entry.outcome, run.seconds(now)
        names = ", ".join(f"{i} {_ended_as(run, i)}" for i in entry.because[:NAMES_MAX])
        more = len(entry.because) - NAMES_MAX
        names += f" and {more} more" if more > 0 else ""
        record.reason = f"input {names}" if names else "its inputs cannot be met"
        if entry.outcome is Outcome.FALLBACK:
            record.output = Stored(value=task.fallback)
        elif entry.outcome is Outcome.FAILED:
            record.fail(record.reason, "input")


def _ended_as(run: RunState, task: TaskId) -> str:
    outcome = run.frontier.outcome_of(task)
    return outcome.value if outcome else "unfinished"


def end_task(
    run: RunState, unit: Unit, outcome: Outcome, output: Stored | None, now: float
) -> None:
    """A running task has ended; with `on_failure: fail` its failure stops the run."""
    record = run.records[unit.task]
    record.outcome, record.output, record.ended = outcome, output, run.seconds(now)
    run.is_stop_checked = False
    if outcome is Outcome.FAILED and run.request.on_failure == "fail" and run.stop is None:
        run.stop = Stop(StopKind.TASK_FAILED, f"task {unit.task} failed: {record.error}")
    take_settled(run, run.frontier.end(unit.task, outcome), now)


def cancel_waiting_task(run: RunState, step: Step, task: TaskId, reason: str | None) -> None:
    """A task that has not started will not: it ends as cancelled."""
    hold_no_more(run, step, task)
    leave_group(run, step, Unit(task))
    record = run.records[task]
    record.outcome, record.ended, record.reason = Outcome.CANCELLED, run.seconds(step.now), reason
    run.is_stop_checked = False
    take_settled(run, run.frontier.settle(task, Outcome.CANCELLED), step.now)


def hold_no_more(run: RunState, step: Step, task: TaskId) -> None:
    """A task that may wait for a person's yes needs none any more."""
    if run.held.pop(task, None) is not None:
        drop_timer(run, step, f"approve:{task}")
        ask_no_more(run, step, task)


def drop_task(run: RunState, step: Step, task: TaskId) -> None:
    """Forget a task that has not started: a new revision left it out."""
    hold_no_more(run, step, task)
    leave_group(run, step, Unit(task))
    run.frontier.drop([task])
    record = run.records[task]
    run.outside += record.usage  # of an earlier try, in other words
    if record.version > 1:
        run.dropped[task] = record.version
    for known in (run.tasks, run.inputs, run.records):
        known.pop(task, None)


def spare(run: RunState, task: TaskId, now: float) -> None:
    """A task is called off: what it would likely still have cost is saved.

    Of one that runs that is the share of its likely time that is left, in tenths.
    """
    estimate = estimate_task(run.tasks[task], run.catalog, run.model_for("worker"))
    started = run.records[task].started
    likely = estimate.seconds[1]
    left = 1.0
    if started is not None:
        share = 1 - (run.seconds(now) - started) / likely if likely > 0 else 0.0
        left = max(0.0, math.ceil(share * 10) / 10)
    run.saved.tasks += 1
    run.saved.tokens += estimate.tokens[1] * left
    run.saved.seconds += likely * left
    if estimate.usd_nano is not None:
        run.saved.usd += estimate.usd_nano[1] * left / NANO
