"""The end of a run before all has run: by `stop_when`, an early join, a failure, a person.

`settle_stop` runs after every event: it looks whether enough is known, and cancels what runs once
the run is stopped.
"""

from __future__ import annotations

import re

from planloom.planner.compile.passes.prune import is_kept_for_itself
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.frontier import State
from planloom.planner.walk.names import unit_name
from planloom.workflows.machines.run.maps import close_map, end_map
from planloom.workflows.machines.run.state import Rule, RunState, Stop, StopKind
from planloom.workflows.machines.run.tasks import cancel_waiting_task, spare
from planloom.workflows.machines.run.units import cancel_unit, works_of
from planloom.workflows.machines.run.values import condition_or_ask
from planloom.workflows.machines.shared.commands import Cancel
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step

_ITEM = re.compile(r"(.+)\[(\d{1,9})\]")


def problem_with_cancel(run: RunState, task: TaskId) -> str | None:
    """Why one task cannot be cancelled, or None."""
    state = run.frontier.state_of(task)
    if state is None and (item := _item_of(run, task)) is not None:
        return _problem_with_item(run, *item)
    if state is None:
        known = ", ".join(run.tasks)[:200] or "none yet"
        return f'cancel_task: no task "{task}". Tasks: {known}'
    if isinstance(state, Outcome):
        return f'cancel_task: task "{task}" has ended: {state}'
    return None


def cancel_task(run: RunState, step: Step, task: TaskId, reason: str) -> None:
    """Cancel one task that has not ended."""
    run.cancelled_why[task] = reason
    if task not in run.tasks and (item := _item_of(run, task)) is not None:
        _cancel_item(run, step, *item)
        return
    if run.frontier.state_of(task) is not State.RUNNING:
        cancel_waiting_task(run, step, task, reason)
        return
    if run.records[task].item_outcomes and task not in run.lists:
        run.frontier.abandon_units(task)
    works = works_of(run, task)
    for key in works:
        cancel_unit(run, step, key)
    is_running = run.frontier.state_of(task) is State.RUNNING
    if not works and is_running and task not in run.lists:
        end_map(run, step, task, Outcome.CANCELLED, None)


def _item_of(run: RunState, name: str) -> tuple[TaskId, int] | None:
    """The map and the index of `rows[3]`; None when it is no item of a task of the run."""
    found = _ITEM.fullmatch(name)
    return (TaskId(found[1]), int(found[2])) if found and found[1] in run.tasks else None


def _problem_with_item(run: RunState, task: TaskId, index: int) -> str | None:
    record, state = run.records[task], run.frontier.state_of(task)
    if run.tasks[task].map is None:
        return f'cancel_task: task "{task}" has no items: cancel it by its own id'
    if isinstance(state, Outcome):
        return f'cancel_task: task "{task}" has ended: {state}'
    if task in run.cancelled_why:
        return f'cancel_task: all of "{task}" is being cancelled'
    if not record.item_outcomes:
        return f'cancel_task: the items of "{task}" are not known yet'
    if record.batches is not None:
        return f'cancel_task: the items of "{task}" run in batches: cancel the whole task'
    if index >= len(record.item_outcomes):
        return f'cancel_task: "{task}" has {len(record.item_outcomes)} items, the first is [0]'
    if (outcome := record.item_outcomes[index]) is not None:
        return f'cancel_task: item [{index}] of "{task}" has ended: {outcome}'
    return None


def _cancel_item(run: RunState, step: Step, task: TaskId, index: int) -> None:
    key = unit_name(task, index)
    if key in run.works:
        cancel_unit(run, step, key)
        return
    run.records[task].item_outcomes[index] = Outcome.CANCELLED
    if run.frontier.skip_unit(task, index):
        close_map(run, step, task)


def call_off(run: RunState, step: Step, task: TaskId, reason: str) -> None:
    """A new revision does without a running task: its cancellation is no failure of the run."""
    run.records[task].is_excused = True
    spare(run, task, step.now)
    cancel_task(run, step, task, reason)


def stop_run(run: RunState, step: Step, stop: Stop) -> None:
    """Start nothing more and cancel what runs: the end of the run is decided."""
    if run.stop is None:
        run.stop = stop
    run.frontier.is_stopped = True
    run.lack = None
    _cancel_waiting(run, step, is_saving=run.stop.kind is StopKind.ENOUGH)
    if run.stop.kind is StopKind.ENOUGH:
        for task in dict.fromkeys(w.unit.task for w in run.works.values()):
            spare(run, task, step.now)
    for key in list(run.works):
        cancel_unit(run, step, key)
    if run.planning is not None and run.planning.key in run.pending:
        step.do(Cancel(run.planning.key))


def _cancel_waiting(run: RunState, step: Step, *, is_saving: bool) -> None:
    # Readers before what they read, so that each is cancelled and none skipped for the other.
    for task in reversed(run.frontier.unfinished()):
        if run.frontier.state_of(task) in (State.WAITING, State.READY):
            if is_saving:
                spare(run, task, step.now)
            reason = run.stop.reason if run.stop is not None else None
            cancel_waiting_task(run, step, task, reason)


def sweep(run: RunState, step: Step) -> None:
    """After a stop, when nothing runs: maps whose items did not all start end too."""
    _cancel_waiting(run, step, is_saving=False)
    for task in run.frontier.unfinished():
        run.frontier.abandon_units(task)
        run.records[task].reason = run.stop.reason if run.stop is not None else None
        end_map(run, step, task, Outcome.CANCELLED, None)


def settle_stop(run: RunState, step: Step) -> None:
    """Stop a run that is to be stopped; else look whether enough is known."""
    if run.stop is not None:
        if not run.frontier.is_stopped:
            stop_run(run, step, run.stop)
        return
    if not is_look_due(run):
        return
    run.is_stop_checked = True
    condition = stop_condition(run)
    if condition is None:
        _join_early(run, step)
        return
    found = condition_or_ask(run, step, Rule.STOP_WHEN, condition)
    if found is not None:
        take_stop_when(run, step, condition, found)


def is_look_due(run: RunState) -> bool:
    """Whether a task has ended since `stop_when` (or the early join) was looked at."""
    if run.stop is not None or run.is_stop_checked or Rule.STOP_WHEN.value in run.pending:
        return False
    return _may_look(run)


def take_stop_when(run: RunState, step: Step, condition: str, found: bool | Failure) -> None:
    """Whether `stop_when` is true now; what cannot be evaluated is taken as not true."""
    if isinstance(found, Failure):
        _note_unreadable(run, condition, found)
    elif found and run.stop is None:
        stop_run(run, step, Stop(StopKind.ENOUGH, f"stop_when: {condition}"))
        return
    if run.stop is None:
        _join_early(run, step)


def _note_unreadable(run: RunState, condition: str, failed: Failure) -> None:
    """Noted once nothing can make it readable any more."""
    text = f"stop_when: {failed.message}; taken as not true"
    roots = roots_of_condition(condition, run.tasks)
    if all(run.frontier.outcome_of(TaskId(r)) for r in roots) and text not in run.notes:
        run.note(text)


def stop_condition(run: RunState) -> str | None:
    """The `stop_when` of the plan whose tasks run, else the request's."""
    plan = run.entered_plan
    return (plan.stop_when if plan is not None else None) or run.request.stop_when


def _may_look(run: RunState) -> bool:
    """While the plan is being written, only once all that the condition reads is in it."""
    if run.entered:
        return True
    condition = run.request.stop_when
    if condition is None:
        return False
    return all(run.has_name(r) for r in roots_of_condition(condition))


def _join_early(run: RunState, step: Step) -> None:
    """End when all that the joiner is shown is there, and what still runs acts on nothing."""
    plan = run.entered_plan
    wanted = plan.join if plan is not None else None
    if not wanted or not run.frontier.is_closed or _lacks(run, run.join_missing):
        return
    # The last, which mostly ends last: else each end would look at all that have ended.
    run.join_missing = next((t for t in reversed(wanted) if _lacks(run, t)), None)
    left = run.frontier.unfinished()
    if run.join_missing is not None or not left:
        return
    if not any(is_kept_for_itself(run.tasks[t], run.catalog) for t in left):
        stop_run(run, step, Stop(StopKind.ENOUGH, "early join: " + ", ".join(wanted)))


def _lacks(run: RunState, task: TaskId | None) -> bool:
    if task is None:
        return False
    outcome = run.frontier.outcome_of(task)
    return outcome is None or not outcome.is_good
