"""What may start now, starts: as far as time, budget, slots and speculation allow, best first."""

from __future__ import annotations

from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Task
from planloom.planner.language.values import TaskId
from planloom.planner.walk.frontier import State, Unit
from planloom.workflows.machines.run import people
from planloom.workflows.machines.run.bodies import amounts_of, key_of
from planloom.workflows.machines.run.fusing import start_group
from planloom.workflows.machines.run.state import (
    Rule,
    RunState,
    Stage,
    Stop,
    StopKind,
    Wait,
)
from planloom.workflows.machines.run.tasks import may_run_ahead, take_settled
from planloom.workflows.machines.run.timing import time_is_over
from planloom.workflows.machines.run.units import (
    decide_ahead,
    fallback_granted,
    fallback_refused,
    start_unit,
)
from planloom.workflows.machines.run.values import condition_or_ask
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.machine import Step

SPECULATIONS_MAX = 8
"""Branches that may run ahead of their conditions at once: the speculation budget."""
NOT_LIVE = (Stage.PREPARING, Stage.ROOM, Stage.OVER)


def pump(run: RunState, step: Step) -> None:
    """Start all that may start now."""
    settle_speculations(run, step)
    if run.stage in NOT_LIVE or run.is_long:
        return
    if run.stage is Stage.APPROVING and not run.approval.is_open:
        return  # another revision is entered in this step: what it leaves out is not to start
    if account.time_lack(run.account, step.now) is not None:
        time_is_over(run, step.now)  # a replan that was asked for may have lifted the stop
        return
    run.lack = None
    step.do(*account.grant_more(run.account))
    _park_with_children(run, step)
    _retry_fallbacks(run, step)
    _release_held_ahead(run, step.now)
    while (unit := run.frontier.next_ready()) is not None:
        task = run.tasks[unit.task]
        is_ahead = unit.index is None and unit.mode == "body" and is_guess(run, task)
        if _needs_approval(run, task, unit):
            run.frontier.start(unit)
            run.frontier.hold(unit.task)
            people.hold_task(run, step, task)
        elif is_ahead and len(run.ahead) >= SPECULATIONS_MAX:
            run.frontier.start(unit)
            run.frontier.hold(unit.task)
            run.held_ahead.append(unit.task)
        elif not start_group(run, step, unit):
            granted = _reserve(run, step, unit, task)
            if granted is None:
                return
            run.frontier.start(unit)
            start_unit(run, step, unit, granted, is_ahead=is_ahead)


def _needs_approval(run: RunState, task: Task, unit: Unit) -> bool:
    if unit.index is not None or task.id in run.allowed:
        return False
    return task.approval or bool(people.reasons_to_ask(run, task))


def _reserve(run: RunState, step: Step, unit: Unit, task: Task) -> Amount | None:
    """Set the unit's worst case aside; None parks the run, or waits for others to settle."""
    want, least = amounts_of(run, unit, task)
    ledger, key = run.account.ledger, key_of(unit)
    granted = ledger.reserve(key, want, least)
    if granted is None and set(ledger.reserved) <= set(run.account.wanting):
        _park(run, step, f'Task "{key}" {ledger.shortfall(least)}', least)
    ledger.check()
    return granted


def _park(run: RunState, step: Step, lack: str, least: Amount) -> None:
    """Nothing that runs can give any budget back: ask the parent, a person, or end."""
    run.lack, run.lack_least = lack, least
    own = run.account
    if account.may_be_given(own, least):
        step.do(*account.ask_parent(own, least))
    elif (own.parent is not None or own.ends_early) and run.stop is None:
        run.stop = Stop(StopKind.BUDGET, f"budget: {lack}")


def _park_with_children(run: RunState, step: Step) -> None:
    """Children wait for more, and nothing else runs that could give any back."""
    own = run.account
    if own.wanting and set(own.ledger.reserved) <= set(own.wanting):
        key, wanted = next(iter(own.wanting.items()))
        least = Amount(wanted.tokens, wanted.usd_nano, wanted.tasks)
        _park(run, step, f'Task "{key}" {own.ledger.shortfall(least)}', least)


def _retry_fallbacks(run: RunState, step: Step) -> None:
    """Fallbacks that wait for budget: those that have it now, and those that never will."""
    for key in [k for k, wait in run.waits.items() if wait is Wait.FALLBACK]:
        call = run.account.parked[key]
        answer = account.reserve(run.account, key, call.want, call.least, step.now)
        if isinstance(answer, Amount):
            del run.waits[key]
            fallback_granted(run, step, key, answer)
        elif isinstance(answer, Over):
            fallback_refused(run, step, key, answer.lack)


# -- speculation ----------------------------------------------------------------------------


def _open_conditions(run: RunState, task: Task) -> bool:
    """Whether something that the task's `when` reads has not ended."""
    roots = roots_of_condition(task.when or "", run.tasks)
    return any(isinstance(run.frontier.state_of(TaskId(r)), State) for r in roots)


def is_guess(run: RunState, task: Task) -> bool:
    """Whether the task would start before its condition is known."""
    return may_run_ahead(run, task) and _open_conditions(run, task)


def _release_held_ahead(run: RunState, now: float) -> None:
    """Held branches may start once their condition is known, or a guess has ended."""
    room = SPECULATIONS_MAX - len(run.ahead)
    for task in list(run.held_ahead):
        if not run.frontier.is_held(task):
            run.held_ahead.remove(task)  # cancelled, or dropped from the plan
        elif room > 0 or not _open_conditions(run, run.tasks[task]):
            run.held_ahead.remove(task)
            take_settled(run, run.frontier.release(task), now)
            room -= 1


def settle_speculations(run: RunState, step: Step) -> bool:
    """Branches that run ahead and whose condition is known now: won, or lost; whether any was."""
    has_settled = False
    for key in list(run.ahead):
        work = run.works[key]
        task = run.tasks[work.unit.task]
        pending = f"{key}#ahead"
        if pending in run.pending or _open_conditions(run, task) or run.stop is not None:
            continue
        assert task.when is not None
        found = condition_or_ask(run, step, Rule.AHEAD, task.when, key=pending, subject=key)
        if found is not None:
            decide_ahead(run, step, key, found)
            has_settled = True
    return has_settled
