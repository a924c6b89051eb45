"""What people send to a run: each control with one check, asked by signal and update, and one rule.

A check says why a control cannot be taken now. What came early is kept: see `people` and
`approving`.
"""

from __future__ import annotations

from typing import assert_never

from planloom.planner.contract.controls import (
    WORDS_MAX_CHARS,
    ApprovePlan,
    ApproveTask,
    CancelTask,
    CompleteTask,
    EditPlan,
    Pause,
    RaiseBudget,
    RejectPlan,
    Reply,
    RequestReplan,
    Resume,
)
from planloom.planner.contract.names import INVALID_REQUEST, PLAN_REJECTED, STALE
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.prompts.text import clip_text
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.run import approving, edits, people, units
from planloom.workflows.machines.run.batches import is_batch
from planloom.workflows.machines.run.joining import rounds_left
from planloom.workflows.machines.run.state import Doing, RunState, Stage
from planloom.workflows.machines.run.stopping import cancel_task, problem_with_cancel
from planloom.workflows.machines.run.timing import hold_or_go, time_moved
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.commands import Answer, Tell
from planloom.workflows.machines.shared.machine import Refusal, Step
from planloom.workflows.machines.shared.questions import NO_DECISION, decision_of

Payload = (
    ApprovePlan
    | RejectPlan
    | EditPlan
    | RequestReplan
    | RaiseBudget
    | Pause
    | Resume
    | CancelTask
    | CompleteTask
    | ApproveTask
)


def check(run: RunState, name: str, payload: Payload, now: float) -> Refusal | None:
    """Why the control cannot be taken, or None."""
    if run.result is not None:
        return Refusal(f"{name}: the run has ended: {run.result.status}")
    match payload:
        case ApprovePlan() | RejectPlan():
            return _check_decision(run, name, payload)
        case EditPlan():
            problem = edits.problem_with(run, payload)
        case RequestReplan():
            return _check_replan(run)
        case RaiseBudget():
            return account.refusal_of_raise(run.account, payload, now)
        case CancelTask():
            problem = problem_with_cancel(run, TaskId(payload.id))
        case CompleteTask():
            return _check_answer(run, payload)
        case ApproveTask():
            return _check_task(run, payload)
        case Pause() | Resume():
            problem = None
        case _:
            assert_never(payload)
    return Refusal(problem) if problem else None


def _with_short_words(payload: Payload) -> Payload:
    """The control with what is said beside it cut, as a result and a call can bear it."""
    said = {name: getattr(payload, name, None) for name in WORDS_MAX_CHARS}
    long = {
        name: clip_text(text, WORDS_MAX_CHARS[name])
        for name, text in said.items()
        if isinstance(text, str) and len(text) > WORDS_MAX_CHARS[name]
    }
    return payload.model_copy(update=long) if long else payload


def take(run: RunState, step: Step, payload: Payload, token: int | None) -> None:
    """Do what a control asks for; it was checked. An update is answered."""
    payload = _with_short_words(payload)
    match payload:
        case ApprovePlan() | RejectPlan():
            reply = _take_decision(run, step, payload)
        case EditPlan():
            edits.begin(run, step, payload, token)
            return  # it answers when the edited plan is compiled
        case RequestReplan():
            goal = run.goal
            assert goal is not None
            goal.asked = (payload.feedback, payload.by or "")
            reply = Reply(accepted=True, message="a replan is asked for", revision=run.revision)
        case RaiseBudget():
            reply = _take_raise(run, step, payload)
        case Pause() | Resume():
            reply = _take_pause(run, step, isinstance(payload, Pause))
        case CancelTask():
            by = f' by "{payload.by}"' if payload.by else " by a person"
            cancel_task(run, step, TaskId(payload.id), f"cancelled{by}")
            reply = Reply(accepted=True, message=f"task {payload.id} is being cancelled")
        case CompleteTask():
            reply = _take_answer(run, step, payload)
        case ApproveTask():
            reply = _take_task(run, step, payload)
        case _:
            assert_never(payload)
    if token is not None:
        step.do(Answer(token, reply))


# -- decisions about a revision -------------------------------------------------------------


def _check_decision(run: RunState, name: str, payload: ApprovePlan | RejectPlan) -> Refusal | None:
    if _is_early_plan(run, payload.revision):
        return None
    problem = run.approval.problem_with(payload.revision, name)
    verdict = run.approval.verdict_on(payload.revision)
    if problem is None:
        return None
    if isinstance(payload, ApprovePlan) and verdict and verdict.decision == "rejected":
        return Refusal(problem, PLAN_REJECTED)
    tasks = _waiting_for_approval(run)
    return Refusal(f"{problem} For approve_task wait: {', '.join(tasks)}." if tasks else problem)


def _is_early_plan(run: RunState, revision: int) -> bool:
    """Whether this revision is being written, or about to be: a decision about it is kept."""
    is_written = run.stage in (Stage.PREPARING, Stage.ROOM, Stage.PLANNING)
    asks = run.request.approval.mode != "never"
    return asks and is_written and revision == run.revision + 1


def _take_decision(run: RunState, step: Step, payload: ApprovePlan | RejectPlan) -> Reply:
    number = payload.revision
    if run.approval.is_open and number == run.approval.revision:
        approving.decide(run, step, approving.decision_of(payload))
        verb = "approved" if isinstance(payload, ApprovePlan) else "rejected"
        return Reply(accepted=True, message=f"revision {number} {verb}", revision=number)
    run.early_plans[number] = approving.decision_of(payload)
    run.note(f"revision {number}: an early decision is kept until it is written")
    message = f"kept: revision {number} is not written yet; the decision counts when it is"
    return Reply(accepted=True, message=message, revision=run.revision)


# -- replans and budget ---------------------------------------------------------------------


def _check_replan(run: RunState) -> Refusal | None:
    if run.goal is None:
        message = "this run has no planner: it was started from a plan. Change it with edit_plan."
        return Refusal(f"request_replan: {message}", INVALID_REQUEST)
    if rounds_left(run) <= 0:
        return Refusal(f"request_replan: max_rounds {run.request.replan.max_rounds} is used up")
    if run.plan is None:
        return Refusal("request_replan: there is no plan yet")
    if run.stage is Stage.STOPPING:
        return Refusal("request_replan: the run is being stopped")
    return None


def _take_raise(run: RunState, step: Step, payload: RaiseBudget) -> Reply:
    before = run.account.ledger.caps
    account.raise_caps(run.account, payload)
    for id, child in run.children.items():
        key = run.pending[child.key].subject
        own_tasks = 0 if is_batch(run, run.works[key].unit) else 1
        step.do(*account.cap_child(run.account, before, key, id, own_tasks))
    if payload.seconds is not None:
        time_moved(run, step)
    if payload.parallel is not None:
        run.frontier.parallel = payload.parallel
    caps, who = account.told_of_raise(payload)
    run.note(f"budget raised{who}: {caps}")
    return Reply(accepted=True, message=f"caps: {caps}")


def _take_pause(run: RunState, step: Step, on: bool) -> Reply:
    run.is_paused = on
    hold_or_go(run)
    # Agents, teams and sub-plans at work start no further turn or task either.
    for id in run.children:
        step.do(Tell(id, "pause" if on else "resume"))
    return Reply(accepted=True, message="paused" if on else "running")


# -- answers and approvals of tasks ---------------------------------------------------------


def _check_answer(run: RunState, payload: CompleteTask) -> Refusal | None:
    key = payload.id
    asks = run.asked.get(key)
    if asks is not None:
        if asks.control != "complete_task":
            message = f'complete_task: "{key}" waits for approve_task'
            return Refusal(message, INVALID_REQUEST)
        if asks.is_decision and decision_of(payload.output) is None:
            return Refusal(NO_DECISION.format(key), INVALID_REQUEST)
    if asks is not None or key in run.questions:
        misfit = people.schema_problem(run, key, payload)
        return Refusal(misfit, INVALID_REQUEST) if misfit else None
    work = run.works.get(key)
    if work is not None and work.doing is Doing.STORING:
        return Refusal(f'complete_task: "{key}" is answered already')
    if people.is_known(run, key):
        return None
    waiting = f" Waiting: {', '.join(list(people.questions_of(run))[:10]) or 'none'}"
    state = run.frontier.state_of(TaskId(key))
    if state is None:
        return Refusal(f'complete_task: no task "{key}".{waiting}', INVALID_REQUEST)
    message = f'complete_task: task "{key}" does not wait for a person; it is {state}.{waiting}'
    return Refusal(message)


def _take_answer(run: RunState, step: Step, payload: CompleteTask) -> Reply:
    if payload.id in run.asked:
        people.hand_down(run, step, payload)
    elif payload.id in run.questions:
        units.take_answer(run, step, payload.id, payload.output, payload.by)
    else:
        people.keep_early_answer(run, payload)
        message = f"kept: task {payload.id} has not asked yet; the answer counts when it does"
        return Reply(accepted=True, message=message)
    return Reply(accepted=True, message=f"task {payload.id} is answered")


def _check_task(run: RunState, payload: ApproveTask) -> Refusal | None:
    task = TaskId(payload.id)
    asks = run.asked.get(task)
    if task in run.held or _is_early_task(run, task):
        return None
    if asks is not None and asks.control == "approve_task":
        return None
    waiting = ", ".join(_waiting_for_approval(run)) or "none"
    message = f'approve_task: task "{task}" does not wait for approval. Waiting: {waiting}'
    is_late = task in run.allowed or isinstance(run.frontier.state_of(task), Outcome)
    return Refusal(message, STALE if is_late else INVALID_REQUEST)


def _waiting_for_approval(run: RunState) -> list[str]:
    """Tasks that wait to be approved, those of children too."""
    below = [key for key, each in run.asked.items() if each.control == "approve_task"]
    return [*run.held, *below]


def _is_early_task(run: RunState, task: TaskId) -> bool:
    """Whether the task asks for approval and has not come to it."""
    if task in run.allowed:
        return False
    known = run.tasks.get(task)
    if known is not None:
        state = run.frontier.state_of(task)
        return known.approval and state in (State.WAITING, State.READY)
    plan = run.plan or run.request.plan
    planned = plan.task(task) if plan is not None and not run.entered else None
    return planned is not None and planned.approval


def _take_task(run: RunState, step: Step, payload: ApproveTask) -> Reply:
    if TaskId(payload.id) in run.held:
        people.decide_task(run, step, payload)
        word = "may run" if payload.approve else "dropped"
        return Reply(accepted=True, message=f"task {payload.id} {word}")
    if payload.id in run.asked:
        people.hand_down(run, step, payload)
        return Reply(accepted=True, message=f"task {payload.id} is decided")
    run.early_tasks[TaskId(payload.id)] = payload
    run.note(f"{payload.id}: an early decision is kept")
    message = f"kept: task {payload.id} does not wait yet; the decision counts when it does"
    return Reply(accepted=True, message=message)
