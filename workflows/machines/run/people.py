"""What waits for a person: questions, tasks that need a yes, and decisions that came early."""

from __future__ import annotations

from planloom.planner.compile.schema_check import check_value
from planloom.planner.contract.controls import ApproveTask, ChildAsks, CompleteTask
from planloom.planner.language.plan import Task
from planloom.planner.language.values import JsonValue, TaskId
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.run.state import EARLY_MAX, Question, RunState
from planloom.workflows.machines.run.tasks import (
    cancel_waiting_task,
    hold_no_more,
    take_settled,
)
from planloom.workflows.machines.run.timers import drop_timer, set_timer
from planloom.workflows.machines.run.upwards import ask_no_more, ask_upwards, tell_parent
from planloom.workflows.machines.shared import taint
from planloom.workflows.machines.shared.commands import Tell
from planloom.workflows.machines.shared.machine import Step

# -- questions of the run's own tasks -------------------------------------------------------


def open_question(
    run: RunState,
    step: Step,
    key: str,
    text: str,
    schema: dict[str, JsonValue] | None,
    timeout: float | None,
) -> None:
    """A human task asks; `timeout` is in seconds."""
    run.questions[key] = Question(text, schema, step.now)
    ask_upwards(run, step, key, text, schema=schema)
    if timeout is not None:
        set_timer(run, step, f"answer:{key}", step.now + timeout, f"{key}: answer")


def close_question(run: RunState, step: Step, key: str) -> None:
    """The question is answered, or nobody waits for its answer any more."""
    if run.questions.pop(key, None) is not None:
        ask_no_more(run, step, key)
    drop_timer(run, step, f"answer:{key}")


def early_answer(run: RunState, key: str) -> CompleteTask | None:
    """The first early answer that fits the question that has just opened."""
    for answer in run.early_answers.pop(key, []):
        problem = schema_problem(run, key, answer)
        if problem is None:
            run.note(f"{key}: answered early{_who(answer.by)}")
            return answer
        run.note(f"early answer ignored: {problem}")
    return None


def schema_problem(run: RunState, key: str, answer: CompleteTask) -> str | None:
    """What about an answer does not fit its question's schema, or None."""
    asks = run.asked.get(key)
    schema = asks.answer_schema if asks is not None else run.questions[key].schema
    problems = check_value(answer.output, schema) if schema else []
    if problems:
        return "complete_task: " + "; ".join(p.line() for p in problems)
    return None


def keep_early_answer(run: RunState, answer: CompleteTask) -> None:
    """An answer for a task that has not asked yet: it counts when the question opens."""
    run.early_answers.setdefault(answer.id, []).append(answer)
    run.note(f"{answer.id}: an early answer{_who(answer.by)} is kept")


def may_keep_early(run: RunState) -> bool:
    """Whether there is room for another answer that comes early."""
    return sum(map(len, run.early_answers.values())) < EARLY_MAX


def is_known(run: RunState, key: str) -> bool:
    """Whether a task of this id (or an item of it) may still ask a person."""
    name, bracket, _ = key.partition("[")
    # Before the run has heard of its worker, the plan is only in the request.
    plan = (run.plan or run.request.plan) if not run.entered else None
    # An agent of a child run asks under its task's id, or under its own below that.
    for known in (TaskId(name), TaskId(name.partition(".")[0])):
        task = run.tasks.get(known) or (plan.task(known) if plan is not None else None)
        if task is None:
            continue
        state = run.frontier.state_of(known)
        is_open = state is None or isinstance(state, State)
        return is_open and _may_ask(task) and bool(bracket) == (task.map is not None)
    return False


def _may_ask(task: Task) -> bool:
    return any(b.kind in ("human", "agent", "team", "plan") for b in task.bodies)


def drop_early(run: RunState, task: TaskId) -> None:
    """A task has ended: early decisions about it are of no use any more."""
    # Of its items, and of what asks below it, the key begins with its id.
    mine = [k for k in run.early_answers if k == task or _is_below_task(run, k, task)]
    for key in mine:
        del run.early_answers[key]
        run.note(f"{key}: ended without asking; its early answer was not used")
    if run.early_tasks.pop(task, None):
        run.note(f"{task}: ended without asking; its early approval was not used")


def _is_below_task(run: RunState, key: str, task: TaskId) -> bool:
    name = TaskId(key.partition("[")[0])
    is_another = name != task and name in run.tasks  # ids may hold dots
    return key.startswith((f"{task}.", f"{task}[")) and not is_another


# -- questions of child runs ----------------------------------------------------------------


def take_child_question(run: RunState, step: Step, asks: ChildAsks) -> None:
    """Something in a child run asks, or has its answer; our own parent is told as well."""
    if asks.question is None:
        run.asked.pop(asks.key, None)
        run.asked_since.pop(asks.key, None)
    elif _is_below(run, asks.child):
        run.asked[asks.key] = asks
        run.asked_since[asks.key] = step.now
        takes_early = asks.control == "complete_task" and not asks.is_decision
        if takes_early and (answer := early_answer(run, asks.key)) is not None:
            hand_down(run, step, answer)
            return
    else:
        return  # its question was slower than its end
    tell_parent(run, step, asks)


def _is_below(run: RunState, id: str) -> bool:
    """Whether a workflow is a child run at work, or part of one."""
    while id and id not in run.children:
        id = id.rpartition("/")[0]
    return bool(id)


def hand_down(run: RunState, step: Step, answer: CompleteTask | ApproveTask) -> None:
    """Give an answer to the child run that asked."""
    asks = run.asked.pop(answer.id)
    run.asked_since.pop(answer.id, None)
    step.do(Tell(asks.child, asks.control, answer.model_copy(update={"id": asks.name})))


def ask_again(run: RunState, step: Step, refused: object) -> None:
    """An answer was refused, maybe one that the run above has handed down: it took the question for
    answered.
    """
    if not isinstance(refused, CompleteTask):
        return
    key = refused.id
    if (question := run.questions.get(key)) is not None:
        ask_upwards(run, step, key, question.text, schema=question.schema)
    elif (asks := run.asked.get(key)) is not None:
        tell_parent(run, step, asks)


def forget_questions(run: RunState, step: Step, key: str) -> None:
    """A unit has ended: what agents of its child run asked, nobody waits for any more."""
    for name in [a for a in run.asked if a == key or a.startswith(f"{key}.")]:
        asks = run.asked.pop(name)
        run.asked_since.pop(name, None)
        tell_parent(run, step, asks.model_copy(update={"question": None}))


def questions_of(run: RunState) -> dict[str, str]:
    """Every open question by the id that answers it."""
    own = {k: q.text for k, q in run.questions.items()}
    return own | {k: a.question or "" for k, a in run.asked.items()}


# -- tasks that need a yes ------------------------------------------------------------------


def reasons_to_ask(run: RunState, task: Task) -> list[str]:
    """Under `approval: tainted`, why the task waits for a person; else nothing."""
    if run.request.approval.mode != "tainted":
        return []
    decided = run.records[task.id].is_decided_outside
    return taint.reasons_to_ask(task, run.catalog, run.tainted, is_decided_outside=decided)


def what_of(run: RunState, task: Task) -> str:
    """What a person is asked to let run, and why."""
    body = task.description or f"{task.kind} {task.tool or ''}".strip()
    return "; ".join([body, *reasons_to_ask(run, task)])


def hold_task(run: RunState, step: Step, task: Task) -> None:
    """A task waits for a person's yes; the run's `timeout` of approvals counts for it too."""
    early = run.early_tasks.pop(task.id, None)
    run.held[task.id] = step.now
    ask_upwards(run, step, task.id, what_of(run, task), control="approve_task")
    if early is not None:
        run.note(f"{task.id}: {'approved' if early.approve else 'refused'} early{_who(early.by)}")
        decide_task(run, step, early)
        return
    policy = run.request.approval
    if policy.timeout is not None and policy.on_timeout != "park":
        at = step.now + policy.timeout
        set_timer(run, step, f"approve:{task.id}", at, f"{task.id}: approval")


def decide_task(run: RunState, step: Step, decision: ApproveTask) -> None:
    """A person, or the end of the time, lets a held task run, or not."""
    task = TaskId(decision.id)
    if decision.approve:
        hold_no_more(run, step, task)
        run.allowed.append(task)
        take_settled(run, run.frontier.release(task), step.now)
        return
    note = f": {decision.note}" if decision.note else ""
    cancel_waiting_task(run, step, task, f"not approved{_who(decision.by)}{note}")


def nobody_approved(run: RunState, step: Step, task: TaskId) -> None:
    """The time in which a held task could be approved is over."""
    approve = run.request.approval.on_timeout == "approve"
    note = "nobody decided in time"
    decide_task(run, step, ApproveTask(id=task, approve=approve, note=note))


def _who(by: str | None) -> str:
    return f' by "{by}"' if by else ""
