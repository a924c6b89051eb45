"""The team machine: members in parallel, rounds in which they hear each other, a judge at the end.

A team on a graph has its subtasks run as a plan first. `step` routes an event to its rule, then
moves the team as far as it can go.
"""

from __future__ import annotations

from typing import Any, assert_never

from planloom.planner.contract.controls import RaiseBudget
from planloom.planner.contract.names import STALE
from planloom.planner.contract.requests import PARALLEL_DEFAULT, TeamRequest
from planloom.planner.contract.results import RunResult, RunStatus, TeamResult
from planloom.workflows.machines.agent import controls, host, talk
from planloom.workflows.machines.agent.calling import granted_calls, take_end
from planloom.workflows.machines.agent.state import Rule
from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.account import TIMER, open_account
from planloom.workflows.machines.shared.commands import Answer, Command, Refuse
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    CancelRequested,
    Continued,
    ControlTaken,
    DeadlineMoved,
    Event,
    GrantAsked,
    HistoryLong,
    PlannerRetried,
    PlanWritten,
    QuestionOfChild,
    Returned,
    SignalIgnored,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Failed, Identity, Refusal, Step
from planloom.workflows.machines.team import forming, judging, plan, speaking
from planloom.workflows.machines.team.state import EarlyControl, Stage, TeamState
from planloom.workflows.machines.team.view import (
    details,
    progress,
    published,
    result_of,
    usage,
)

__all__ = [
    "begin",
    "check",
    "children",
    "details",
    "ended",
    "may_continue",
    "progress",
    "published",
    "step",
    "usage",
]

CANCELLED = "the run was cancelled"
EARLY_MAX = 20
"""Controls of a plan that are kept until there is one."""
MOVES_MAX = 10_000
"""Bound of the moves after one event; a team that passes it has a bug in Planloom."""


def begin(request: TeamRequest, identity: Identity, now: float) -> TeamState:
    """The state of a team that has not begun; controls may come before it does."""
    return TeamState(
        request,
        identity,
        open_account(request, identity, now),
        parallel=request.budget.parallel or PARALLEL_DEFAULT,
        strategy=request.strategy,
    )


def ended(team: TeamState) -> TeamResult | Failed | None:
    """The team's result, or how its request was refused; None while it goes on."""
    return team.failed or team.result


def may_continue(team: TeamState) -> bool:
    """Whether nothing is in flight that a continue-as-new would lose."""
    if team.pending:
        return False
    # A plan that has ended waits for nothing, whatever it had still in flight.
    return team.plan is None or not plan.is_running(team) or run_machine.may_continue(team.plan)


def children(team: TeamState) -> dict[str, str]:
    """Child runs at work: those of the plan of subtasks."""
    return run_machine.children(team.plan) if team.plan is not None else {}


def check(team: TeamState, name: str, payload: Any, now: float) -> Refusal | None:
    """Why the control `name` cannot be taken now, or None."""
    if ended(team) is not None:
        return Refusal(f"{name}: {_how_it_ended(team)}")
    if team.plan is not None and plan.is_running(team):
        return run_machine.check(team.plan, name, payload, now)
    if name in controls.CONTROLS:
        askers = list(team.members) if team.members else None
        return controls.check(team, name, payload, askers, now)
    may_plan = team.stage is Stage.PREPARING and (team.is_planned or not team.members)
    if name in plan.PLAN_CONTROLS and may_plan and len(team.early) < EARLY_MAX:
        return None
    return Refusal(f"{name}: {plan.NO_PLAN}")


def step(team: TeamState, event: Event, now: float) -> list[Command]:
    """Apply one event; the only function that changes the state."""
    made = Step(now)
    if ended(team) is None:
        _apply(team, event, made)
        _go_on(team, made)
        if ended(team) is not None:
            plan.refuse_early(team, made)
    else:
        controls.refuse_late(event, _how_it_ended(team), made)
    return made.commands


# -- events ---------------------------------------------------------------------------------


def _apply(team: TeamState, event: Event, step: Step) -> None:
    match event:
        case Begun():
            if not team.is_cancelled:
                forming.load(team, step)
        case Continued():
            host.continue_as_new(team, step)
            _forward(team, event, step)
        case Returned() | Broke():
            _take_end(team, event, step)
        case TimeReached():
            _take_time(team, event, step)
        case ControlTaken():
            _take_control(team, event, step)
        case SignalIgnored():
            team.note(f"signal ignored: {event.reason}")
        case DeadlineMoved():
            team.account.deadline = event.deadline
            _forward(team, event, step)
        case GrantAsked() | QuestionOfChild() | PlanWritten() | PlannerRetried():
            if not _forward(team, event, step):
                _refuse_for_plan(team, event, step)
        case CancelRequested():
            _cancel(team, event, step)
        case HistoryLong():
            team.is_long = True
            _forward(team, event, step)
        case _:
            assert_never(event)


def _forward(team: TeamState, event: Event, step: Step) -> bool:
    """Hand an event to the plan of subtasks; False when none runs."""
    if not plan.is_running(team):
        return False
    plan.forward(team, event, step)
    return True


def _refuse_for_plan(
    team: TeamState,
    event: GrantAsked | QuestionOfChild | PlanWritten | PlannerRetried,
    step: Step,
) -> None:
    """What children and planner of a plan say, of which none runs."""
    if isinstance(event, PlannerRetried):
        step.do(Refuse(event.token, "this team has no plan of subtasks", STALE))
    else:
        team.note("signal ignored: this team has no plan of subtasks that runs")


def _how_it_ended(team: TeamState) -> str:
    return f"the team has ended: {team.result.status if team.result else 'failed'}"


def _take_time(team: TeamState, event: TimeReached, step: Step) -> None:
    if event.key == permit.KEY:
        host.renew_permit(team, step)
    elif not _forward(team, event, step) and event.key == TIMER:
        team.account.timer_at = None


def _take_control(team: TeamState, taken: ControlTaken, step: Step) -> None:
    name, payload, token = taken.name, taken.payload, taken.token
    refusal = check(team, name, payload, step.now)
    if refusal is not None:
        if token is None:
            team.note(f"signal ignored: {refusal.message}")
        else:
            details = [p.model_dump() for p in refusal.problems]
            step.do(Refuse(token, refusal.message, refusal.type, details))
        return
    if plan.is_running(team):
        if isinstance(payload, RaiseBudget):
            team.parallel = payload.parallel or team.parallel
        plan.forward(team, taken, step)
    elif name in controls.CONTROLS:
        reply = controls.take(team, name, payload, step)
        if token is not None:
            step.do(Answer(token, reply))
    else:
        document = payload.model_dump(mode="json", exclude_unset=True)
        team.early.append(EarlyControl(name, document, token))


def _take_end(team: TeamState, end: Returned | Broke, step: Step) -> None:
    if end.key not in team.pending:
        _forward(team, end, step)
        return
    what = take_end(team, end)
    assert what is not None
    if what.talk:
        talk.take_end(team, team.talks[what.talk], what, end, step)
    elif not team.is_cancelled:
        _take_course(team, what.rule, what.part, end, step)


def _take_course(team: TeamState, rule: Rule, part: str, end: Returned | Broke, step: Step) -> None:
    match rule:
        case Rule.LOADED | Rule.PREPARED | Rule.PERMIT | Rule.STORED:
            why = forming.take_end(team, rule, end, step)
            if why is not None:
                _end(team, "failed", why, step)
        case Rule.JUDGE:
            if judging.take_judge(team, end, step):
                _answer(team, step)
        case Rule.JUDGED:
            if judging.take_part(team, part, end):
                _answer(team, step)
        case Rule.COMPOSED:
            judging.take_answer(team, end)
            _end(team, *judging.status_of(team), step)
        case _:
            raise AssertionError(f"{rule} is no rule of a team's course")


def _cancel(team: TeamState, event: CancelRequested, step: Step) -> None:
    """Stop everything, and then say what was finished."""
    host.cancel(team, step)
    _forward(team, event, step)


# -- moving on ------------------------------------------------------------------------------


def _go_on(team: TeamState, step: Step) -> None:
    """After every event: make the calls that have their budget, and move on as far as it goes."""
    for _ in range(MOVES_MAX):
        if ended(team) is not None:
            return
        if team.is_cancelled:
            _end_if_stopped(team, step)
            break
        has_moved = _advance(team, step)
        if not _make_calls(team, step) and not has_moved:
            break
    else:
        raise AssertionError(f"team: no rest in stage {team.stage}")
    if ended(team) is None and not plan.is_running(team):
        host.keep_account(team, step)  # a plan that runs watches its time and budget itself


def _make_calls(team: TeamState, step: Step) -> bool:
    if plan.is_running(team):
        return False  # what is parked is the plan's
    granted = granted_calls(team, step.now)
    for key, what, answer in granted:
        if what.rule is not Rule.JUDGE:
            talk.take_grant(team, team.talks[what.talk], key, what, answer, step)
        elif not judging.take_grant(team, key, what, answer, step):
            _answer(team, step)
    return bool(granted)


def _advance(team: TeamState, step: Step) -> bool:
    """Move to the next stage, if this one is over; whether it did."""
    match team.stage:
        case Stage.PLAN:
            return _leave_plan(team, step)
        case Stage.INITIAL:
            if not speaking.take_turns(team, step):
                return False
            return speaking.begin_communication(team, 1) or _retry_or_judge(team, 1, step)
        case Stage.COMMUNICATION:
            if not speaking.take_turns(team, step):
                return False
            number = team.number + 1
            return speaking.begin_communication(team, number) or _retry_or_judge(team, 1, step)
        case Stage.RETRY:
            if not speaking.take_turns(team, step):
                return False
            speaking.end_retry(team)
            return _retry_or_judge(team, team.number + 1, step)
        case _:
            return False


def _retry_or_judge(team: TeamState, number: int, step: Step) -> bool:
    if not speaking.begin_retry(team, number) and not judging.begin_judging(team):
        _answer(team, step)
    return True


def _leave_plan(team: TeamState, step: Step) -> bool:
    over = plan.end_of(team)
    if over is None:
        return False
    if isinstance(over, Failed):
        team.failed, team.stage = over, Stage.OVER
        host.leave(team, step)
        return True
    plan.take_over(team, over)
    if over.status in ("rejected", "cancelled"):
        _end(team, over.status, over.reason, step)
    elif not speaking.begin_communication(team, 1):
        _retry_or_judge(team, 1, step)
    return True


def _answer(team: TeamState, step: Step) -> None:
    if judging.begin_answer(team, step):
        _end(team, *judging.status_of(team), step)


def _end_if_stopped(team: TeamState, step: Step) -> None:
    """The team was cancelled: it ends once all that ran has stopped. What was said is kept."""
    if team.pending:
        return
    speaking.stop_speaking(team)
    if plan.is_running(team):
        over = plan.end_of(team)
        if over is None:
            return
        if isinstance(over, RunResult):
            plan.take_over(team, over)
    _end(team, "cancelled", CANCELLED, step)


def _end(team: TeamState, status: RunStatus, reason: str | None, step: Step) -> None:
    team.stage = Stage.OVER
    team.result = result_of(team, status, reason, step.now)
    host.leave(team, step)
