"""The run's machine: `step` routes an event to its rule, then moves the run as far as it can go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planloom.planner.compile.expand import parallel_of
from planloom.planner.contract.jobs import PlannerPrefix
from planloom.planner.contract.names import INVALID_REQUEST, STALE
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import RunResult
from planloom.planner.language.values import Problem, Stored, TaskId
from planloom.planner.walk.frontier import Frontier
from planloom.workflows.machines.run import (
    approving,
    batches,
    controls,
    course,
    edits,
    fusing,
    joining,
    maps,
    people,
    planning,
    timers,
    timing,
    units,
)
from planloom.workflows.machines.run.revising import settle_changing
from planloom.workflows.machines.run.starting import pump, settle_speculations
from planloom.workflows.machines.run.state import (
    Ending,
    Goal,
    Pending,
    Rule,
    RunState,
    Stage,
    Stop,
    StopKind,
    Wait,
)
from planloom.workflows.machines.run.stopping import (
    is_look_due,
    settle_stop,
    stop_run,
    take_stop_when,
)
from planloom.workflows.machines.run.view import details, is_asleep, published
from planloom.workflows.machines.shared import account, permit
from planloom.workflows.machines.shared.account import Over, open_account
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import (
    Answer,
    Cancel,
    Command,
    LookAtChild,
    PlanPrepared,
    Refuse,
    SetTimer,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    CancelRequested,
    Continued,
    ControlTaken,
    DeadlineMoved,
    Event,
    Failure,
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

__all__ = ["begin", "check", "children", "details", "ended", "may_continue", "published", "step"]

ROUNDS_MAX = 10_000
"""Bound of the moves after one event; a run that passes it has a bug in Planloom."""
CHILD_LOOK_SECONDS = 60.0
"""How often a child that was adopted is looked at: one that was terminated does not report."""


def begin(request: RunRequest, identity: Identity, now: float) -> RunState:
    """The state of a run that is about to start."""
    is_planned = request.goal is not None and not request.agents and not request.teams
    lineage = identity.lineage
    return RunState(
        request,
        identity,
        open_account(request, identity, now),
        Frontier(parallel_of(request)),
        goal=Goal() if is_planned or request.joiner else None,
        # A planner reads what the run was given.
        is_decided_outside=lineage.tainted_plan or (is_planned and lineage.tainted_inputs),
    )


def ended(run: RunState) -> RunResult | Failed | None:
    """The result, or how the run failed; None while it goes on."""
    return run.result or run.failed


def check(run: RunState, name: str, payload: Any, now: float) -> Refusal | None:
    """Why a control cannot be taken now, or None."""
    return controls.check(run, name, payload, now)


def may_continue(run: RunState) -> bool:
    """Whether nothing is in flight that a continue-as-new would lose."""
    children = {child.key for child in run.children.values()}
    return not run.edits and all(key in children for key in run.pending)


def children(run: RunState) -> dict[str, str]:
    """Child runs at work: their workflow ids by the keys of the commands that started them."""
    return {child.key: id for id, child in run.children.items()}


def step(run: RunState, event: Event, now: float) -> list[Command]:
    """Apply one event, and then all that follows from it."""
    step = Step(now)
    run.metering.meter_at(now)
    if run.asleep_since is not None:
        run.asleep_seconds += now - run.asleep_since
    if run.stage is Stage.OVER:
        _after_the_end(run, step, event)
    else:
        _apply(run, step, event)
        _settle(run, step)
    run.asleep_since = now if is_asleep(run) else None
    return step.commands


def _settle(run: RunState, step: Step) -> None:
    """What follows from any event: stops, parked calls, starts, the next stage."""
    for _ in range(ROUNDS_MAX):
        if run.stage is Stage.OVER:
            edits.refuse_all(run, step)
            return
        settle_stop(run, step)
        _retry_calls(run, step)
        moved = settle_changing(run, step)
        pump(run, step)
        if run.stop is not None and not run.frontier.is_stopped:
            continue
        if course.advance(run, step) or moved:
            continue
        # A task that ended as it began may have decided more.
        if not settle_speculations(run, step) and not is_look_due(run):
            if not run.is_long:
                step.do(*account.ask_for_parked(run.account))
            return
    raise AssertionError(f"run: no rest in stage {run.stage}")


# -- events ---------------------------------------------------------------------------------


def _apply(run: RunState, step: Step, event: Event) -> None:
    match event:
        case Begun():
            course.begin(run, step)
        case Continued():
            _continue(run, step)
        case Returned() | Broke():
            _take_end(run, step, event)
        case TimeReached():
            _take_time(run, step, event.key)
        case ControlTaken():
            _take_control(run, step, event)
        case SignalIgnored():
            run.note(f"signal ignored: {event.reason}")
        case GrantAsked():
            account.take_wanted(run.account, batches.wanted_by(run, event.wanted))
        case QuestionOfChild():
            people.take_child_question(run, step, event.asks)
        case DeadlineMoved():
            run.account.deadline = event.deadline
            timing.time_moved(run, step)
        case PlanWritten():
            planning.take_batch(run, event.batch, step.now)
        case PlannerRetried():
            _take_attempt(run, step, event)
        case CancelRequested():
            _cancel(run, step)
        case HistoryLong():
            run.is_long = True


def _after_the_end(run: RunState, step: Step, event: Event) -> None:
    """A late event: only whoever waits for an answer gets one."""
    if isinstance(event, ControlTaken | PlannerRetried) and event.token is not None:
        status = run.result.status if run.result is not None else "failed"
        step.do(Refuse(event.token, f"the run has ended: {status}", STALE))


def _take_control(run: RunState, step: Step, event: ControlTaken) -> None:
    refusal = controls.check(run, event.name, event.payload, step.now)
    if refusal is None:
        controls.take(run, step, event.payload, event.token)
    elif event.token is not None:
        details = [p.model_dump() for p in refusal.problems]
        step.do(Refuse(event.token, refusal.message, refusal.type, details))
    else:
        run.note(f"signal ignored: {refusal.message}")
        people.ask_again(run, step, event.payload)


def _take_attempt(run: RunState, step: Step, event: PlannerRetried) -> None:
    if run.goal is not None and run.planning is not None:
        prefix = run.goal.book.take_attempt(event.attempt)
        if prefix is not None:
            written = [*prefix.accepted, *run.goal.deferred]
            step.do(Answer(event.token, PlannerPrefix(accepted=written)))
            return
    attempt = event.attempt
    message = f"planner call {attempt.call}, attempt {attempt.attempt} was replaced"
    step.do(Refuse(event.token, message, STALE))


def _take_time(run: RunState, step: Step, key: str) -> None:
    if key == account.TIMER:
        run.account.timer_at = None
        timing.time_is_over(run, step.now)
        return
    run.timers.pop(key, None)
    kind, _, subject = key.partition(":")
    match kind:
        case approving.TIMER:
            approving.nobody_decided(run, step)
        case permit.KEY if run.permit is not None:
            holder = run.identity.workflow_id
            for command in permit.renew(run.permit, holder, step.now):
                if isinstance(command, SetTimer):
                    timers.set_timer(run, step, command.key, command.at, command.summary)
                else:
                    step.do(command)
        case "answer" if subject in run.questions:
            units.nobody_answered(run, step, subject)
        case "approve" if TaskId(subject) in run.held:
            people.nobody_approved(run, step, TaskId(subject))
        case "child" if subject in run.works:
            units.child_is_late(run, step, subject)
        case "children":
            _look_at_children(run, step)


def _cancel(run: RunState, step: Step) -> None:
    """Stop everything, and then say what was finished."""
    if run.is_cancelled:
        return
    run.is_cancelled = True
    reason = "the run was cancelled"
    run.ending, run.stage = Ending("cancelled", reason), Stage.STOPPING
    approving.close_approval(run, step, None)
    for key in list(run.waits):
        if run.waits[key] is not Wait.FALLBACK:
            del run.waits[key]
            run.account.parked.pop(key, None)
    run.stop = None
    stop_run(run, step, Stop(StopKind.CANCELLED, reason))
    children = {child.key for child in run.children.values()}
    works = {work.command for work in run.works.values()}
    for key, pending in list(run.pending.items()):
        if pending.rule in (Rule.JOIN, Rule.SUMMARY, Rule.PERMIT, Rule.PREPARED):
            step.do(Cancel(key))
        elif key not in children and key not in works and pending.rule is Rule.ANSWER:
            del run.pending[key]
    if run.planning is not None and run.planning.key not in run.pending:
        run.planning = None
    if run.joining is not None and run.joining.key not in run.pending:
        run.joining = None


# -- ends of commands -----------------------------------------------------------------------


def _take_end(run: RunState, step: Step, event: Returned | Broke) -> None:
    pending = run.pending.pop(event.key, None)
    if pending is None:
        return  # nobody waits for it any more
    found = event.value if isinstance(event, Returned) else event.failure
    if pending.rule in (Rule.PLAN, Rule.JOIN, Rule.SUMMARY) and run.is_cancelled:
        _after_cancel(run, pending.rule, found)
        return
    _RULES[pending.rule](run, step, pending.subject, found)


def _after_cancel(run: RunState, rule: Rule, found: Any) -> None:
    """A call of planner or joiner ends after the run was cancelled: only its cost counts."""
    if rule is Rule.PLAN and isinstance(found, Failure):
        planning.take_failure(run, found)
    else:
        key = run.planning.key if rule is Rule.PLAN and run.planning else ""
        key = key or (run.joining.key if run.joining else "")
        planning.settle_outside(run, key, found.usage)
    run.planning = run.joining = None


def _stored(found: Any) -> Stored | Failure:
    return found if isinstance(found, Failure) else found.stored


def _truth(found: Any) -> bool | Failure:
    return found if isinstance(found, Failure) else bool(found.stored.value)


def _take_site(run: RunState, step: Step, _: str, found: Any) -> None:
    if isinstance(found, PlanPrepared):
        course.take_prepared(run, step, found)
    elif not isinstance(found, Failure):
        course.take_site(run, step, found)
    elif found.is_cancelled:
        pass
    elif run.request.plan_blob is not None:
        problem = Problem(path="plan_blob", code="unreadable", message=found.message)
        course.fail_run(run, step, INVALID_REQUEST, [problem])
    else:
        raise AssertionError(f"the worker could not be asked: {found.message}")


def _take_permit(run: RunState, step: Step, _: str, found: Any) -> None:
    failed = found if isinstance(found, Failure) else None
    if run.is_cancelled:
        run.permit = None if failed is not None else run.permit
    else:
        course.take_permit(run, step, failed)


def _take_items(run: RunState, step: Step, key: str, found: Any) -> None:
    run.works[key].command = ""
    if isinstance(found, Failure):
        units.unit_failed(run, step, key, found)
    else:
        units.take_items(run, step, key, found)


def _take_plan(run: RunState, step: Step, _: str, found: Any) -> None:
    if isinstance(found, Failure):
        course.take_draft(run, step, planning.take_failure(run, found))
    else:
        course.take_draft(run, step, planning.take_reply(run, step, found))


def _take_join(run: RunState, step: Step, _: str, found: Any) -> None:
    if isinstance(found, Failure):
        course.join_failed(run, step, found)
    else:
        course.take_join(run, step, joining.take_reply(run, step, found))


def _take_summary(run: RunState, step: Step, task: str, found: Any) -> None:
    course.take_over(run, step, joining.take_summary(run, step, task, found))


def _take_answer(run: RunState, step: Step, _: str, found: Any) -> None:
    course.take_answer(run, step, _stored(found))


def _take_child_look(run: RunState, step: Step, id: str, found: Any) -> None:
    child = run.children.get(id)
    if child is None or isinstance(found, Failure) or found == "RUNNING":
        return
    if child.key in run.pending:
        message = f"the child run ended as {found} without a result"
        _take_end(run, step, Broke(child.key, Failure(message, "unknown")))


_Take = Callable[[RunState, Step, str, Any], None]
_RULES: dict[Rule, _Take] = {
    Rule.PREPARED: _take_site,
    Rule.PERMIT: _take_permit,
    Rule.CONDITION: lambda r, s, k, f: units.take_condition(r, s, _idle(r, k), _truth(f)),
    Rule.AHEAD: lambda r, s, k, f: units.ahead_known(r, s, k, _truth(f)),
    Rule.ITEMS: _take_items,
    Rule.BODY: units.body_ended,
    Rule.GROUP: fusing.take_group,
    Rule.QUESTION: lambda r, s, k, f: units.take_question(r, s, _idle(r, k), _stored(f)),
    Rule.ANSWER_STORED: lambda r, s, k, f: units.answer_stored(r, s, _idle(r, k), _stored(f)),
    Rule.LIST: lambda r, s, k, f: maps.take_list(r, s, TaskId(k), f),
    Rule.STOP_WHEN: lambda r, s, k, f: take_stop_when(r, s, k, _truth(f)),
    Rule.PLAN: _take_plan,
    Rule.JOIN: _take_join,
    Rule.SUMMARY: _take_summary,
    Rule.UNMET: lambda r, s, k, f: course.take_unmet(r, s, k, _truth(f)),
    Rule.ANSWER: _take_answer,
    Rule.PATCHED: edits.take_patched,
    Rule.LEARNED: edits.take_learned,
    Rule.CHILD_LOOK: _take_child_look,
}


def _idle(run: RunState, key: str) -> str:
    """The unit's command has ended: it has none in flight."""
    run.works[key].command = ""
    return key


# -- parked calls ---------------------------------------------------------------------------


def _retry_calls(run: RunState, step: Step) -> None:
    """Planner and joiner calls that wait for budget: go on with those that have it now."""
    for key, wait in list(run.waits.items()):
        if wait is Wait.FALLBACK or key not in run.account.parked:
            continue
        call = run.account.parked[key]
        answer = account.reserve(run.account, key, call.want, call.least, step.now)
        if isinstance(answer, Amount):
            del run.waits[key]
            _SENDERS[wait](run, step, answer)
        elif isinstance(answer, Over):
            del run.waits[key]
            if wait is Wait.PLANNER:
                none = planning.NoPlan(f"budget: {answer.lack}", is_over_budget=True)
                course.take_draft(run, step, none)
            else:
                run.joining = None
                course.take_over(run, step, answer)


_SENDERS: dict[Wait, Callable[[RunState, Step, Amount], None]] = {
    Wait.PLANNER: planning.send_planner,
    Wait.JOINER: joining.send_joiner,
    Wait.SUMMARY: joining.send_summary,
}


# -- continue-as-new ------------------------------------------------------------------------


def _continue(run: RunState, step: Step) -> None:
    """Another workflow run goes on with this state: timers start again, children are adopted."""
    run.is_long = False
    for key, (at, summary) in run.timers.items():
        step.do(SetTimer(key, at, summary))
    run.account.timer_at = None
    timing.watch_time(run, step)
    for child in run.children.values():
        child.is_adopted = True
    if run.children:
        timers.set_timer(
            run, step, "children", step.now + CHILD_LOOK_SECONDS, "look at adopted children"
        )


def _look_at_children(run: RunState, step: Step) -> None:
    adopted = [id for id, child in run.children.items() if child.is_adopted]
    for id in adopted:
        key = f"look.{id}"
        if key not in run.pending:
            run.pending[key] = Pending(Rule.CHILD_LOOK, id)
            step.do(LookAtChild(key, id))
    if adopted:
        at = step.now + CHILD_LOOK_SECONDS
        timers.set_timer(run, step, "children", at, "look at adopted children")
