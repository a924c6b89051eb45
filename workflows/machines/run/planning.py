"""A plan is written: planner calls, tasks accepted as they come, repairs, what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planloom.planner.compile.passes.deduplicate import (
    rename_inputs,
    rename_references,
    same_call_key,
)
from planloom.planner.compile.passes.rank import rank_upward
from planloom.planner.compile.pipeline import Compiled, check_task, inputs_of
from planloom.planner.compile.revision import merge_replan, still_read
from planloom.planner.contract.jobs import (
    FinishedTask,
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlanReply,
)
from planloom.planner.language.plan import PLANNED_TASKS_MAX, Plan, Task
from planloom.planner.language.values import JsonValue, Outcome, Problem, TaskId, Usage
from planloom.planner.syntax.calls.parser import call_text
from planloom.workflows.machines.run.bodies import urgency_of
from planloom.workflows.machines.run.narrowing import narrowed
from planloom.workflows.machines.run.plan_book import PLAN_REPAIRS_MAX
from planloom.workflows.machines.run.revising import compile_for, reopen
from planloom.workflows.machines.run.state import (
    Goal,
    Pending,
    Planning,
    Purpose,
    Rule,
    RunState,
    Stage,
    StopKind,
    Wait,
)
from planloom.workflows.machines.run.tasks import add_tasks
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import WritePlan
from planloom.workflows.machines.shared.estimates import (
    ANSWER_TOKENS,
    PLANNER_ANSWER_TOKENS_MIN,
    answer_room,
    at_most,
    model_amount,
    most_tokens,
    planner_prompt_tokens,
    usage_so_far,
)
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

CALL_MAX_CHARS = 400


@dataclass(frozen=True, slots=True)
class Draft:
    """What a planning came to: compiled, with the problems that were left."""

    compiled: Compiled
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Nothing usable came: the endpoint, the model, the text or the budget is to blame."""

    reason: str
    is_called_off: bool = False
    """The run was stopped while the planner wrote."""
    is_over_budget: bool = False


def goal_of(run: RunState) -> Goal:
    assert run.goal is not None, "only a run with a goal plans"
    return run.goal


def planning_of(run: RunState) -> Planning:
    assert run.planning is not None
    return run.planning


# -- calls ----------------------------------------------------------------------------------


def begin_planning(run: RunState, step: Step, planning: Planning) -> NoPlan | None:
    """Have the planner write a plan; tells at once when there can be none."""
    goal = goal_of(run)
    run.planning, planning.names = planning, (dict(goal.twins), dict(goal.aliases))
    if run.stop is not None and run.stop.kind is StopKind.BUDGET:
        return NoPlan(run.stop.reason, is_over_budget=True)  # nothing is opened again for it
    if planning.purpose is not Purpose.FIRST:
        goal.rounds += 1
        # The joiner and the planner are shown what has ended.
        run.is_decided_outside = run.is_decided_outside or any(
            r.is_tainted and r.outcome is not None for r in run.records.values()
        )
        reopen(run)
    goal.book.accepted = []
    goal.refused, goal.deferred = [], []
    run.stage = Stage.PLANNING
    return _call_planner(run, step)


def _call_planner(run: RunState, step: Step) -> NoPlan | None:
    planning = planning_of(run)
    planning.key = f"planner.{goal_of(run).book.open_call()}"
    job = _job(run)
    prompt = planner_prompt_tokens(job, run.catalog)
    want = model_amount(run.catalog, job.model, prompt, ANSWER_TOKENS, tasks=0)
    least = model_amount(run.catalog, job.model, prompt, PLANNER_ANSWER_TOKENS_MIN, tasks=0)
    granted = account.reserve(run.account, planning.key, want, least, step.now)
    if isinstance(granted, Amount):
        send_planner(run, step, granted)
        return None
    if isinstance(granted, Over):
        return NoPlan(f"budget: {granted.lack}", is_over_budget=True)
    run.waits[planning.key] = Wait.PLANNER
    return None


def send_planner(run: RunState, step: Step, granted: Amount) -> None:
    """The planner's call has its budget and goes out."""
    planning, caps = planning_of(run), run.account.ledger.caps
    job = _job(run)
    planning.prompt_tokens = planner_prompt_tokens(job, run.catalog)
    planning.given = len(goal_of(run).book.accepted)
    if caps.tokens is not None or caps.usd_nano is not None:
        prompt = planning.prompt_tokens
        limit = most_tokens(granted, caps, run.catalog, job.model, prompt)
        room = answer_room(limit or granted.tokens, prompt, None)
        job = job.model_copy(update={"max_tokens": room, "tokens_max": limit})
    run.pending[planning.key] = Pending(Rule.PLAN)
    step.do(WritePlan(planning.key, job, urgency_of(run)))


def _job(run: RunState) -> PlanJob:
    request, planning, book = run.request, planning_of(run), goal_of(run).book
    model = run.model_for("planner")
    is_first = planning.purpose is Purpose.FIRST
    return PlanJob(
        call=book.call,
        goal=run.goal_text,
        revision=run.revision + 1,
        context=request.context,
        tools=request.tools,
        model=model,
        pool=run.catalog.pool_for(model).name,
        syntax=request.syntax,
        stream=request.stream,
        feedback=planning.feedback,
        finished=[] if is_first else finished_tasks(run),
        kept=[] if is_first else _kept(run),
        # What waits for a repair is written already: only what it reads is to be written again.
        accepted=[*book.accepted, *goal_of(run).deferred],
        problems=planning.problems[:50],
        agents=run.catalog.agents,
        teams=run.catalog.teams,
        template_names=run.catalog.template_names,
        cache_scope=run.root,
        tenant=request.tenant,
    )


def finished_tasks(run: RunState) -> list[FinishedTask]:
    """What planner and joiner are told of what has ended: calls, outcomes, previews, causes."""
    return [
        FinishedTask(
            id=task,
            call=call_text(run.tasks[task])[:CALL_MAX_CHARS],
            outcome=record.outcome,
            output=record.output,
            error=record.reason if record.holes else record.error or record.reason,
            description=run.tasks[task].description,
        )
        for task, record in run.records.items()
        if record.outcome is not None
    ]


def _kept(run: RunState) -> list[PlannedTask]:
    left = [run.tasks[t] for t in run.frontier.unfinished()]
    if not run.tasks and run.plan is not None:
        left = run.plan.tasks  # it waits for approval: nothing of it has been taken in
    return [PlannedTask(task=task, text=call_text(task)) for task in left]


# -- tasks as they come ---------------------------------------------------------------------


def take_batch(run: RunState, batch: PlannedBatch, now: float) -> None:
    """Tasks that the planner has just finished writing; stale ones are dropped."""
    if run.goal is not None:
        accept(run, run.goal.book.take_batch(batch), now)


def accept(run: RunState, planned: Sequence[PlannedTask], now: float) -> None:
    """Check tasks as they come; take in those that hold, start them when the run is live."""
    goal = goal_of(run)
    added: list[Task] = []
    # A dict, as a thousand tasks are looked up and the order is shown in hints.
    earlier = dict.fromkeys([*run.tasks, *(p.task.id for p in goal.book.accepted), *goal.aliases])
    queue, released = list(planned), list[PlannedTask]()
    for one in queue:  # grows while it is walked: a repaired task lets its readers in
        if any(one is r for r in released) and not any(one is d for d in goal.deferred):
            continue  # it was written once more meanwhile
        goal.book.seen.add(one.task.id)
        goal.deferred = [d for d in goal.deferred if d.task.id != one.task.id]
        task = rename_inputs(one.task, goal.aliases)
        task = narrowed(task, run.request, run.tasks.get(task.id))
        if _reads_refused(goal, task):
            goal.deferred.append(one)
            continue
        problems = check_task(task, earlier, run.catalog, run.request.tools)
        if len(goal.book.accepted) >= PLANNED_TASKS_MAX:
            message = f"more than {PLANNED_TASKS_MAX:,} tasks"
            problems = [Problem(path=f"tasks.{task.id}", code="too_many", message=message)]
        if problems:
            goal.book.refuse(problems)
            goal.refused = [*dict.fromkeys([*goal.refused, task.id])]
            continue
        earlier[task.id] = None
        if task.id in goal.refused:
            goal.refused.remove(task.id)
            released += goal.deferred
            queue += goal.deferred
        if _is_twin(run, goal, task):
            continue
        goal.book.accept(PlannedTask(task=task, text=one.text))
        added.append(task)
    if goal.is_live and added:
        _take_in(run, added, now)


def _reads_refused(goal: Goal, task: Task) -> bool:
    """Whether a task reads a refused one: it waits for the repair, and never runs on null."""
    absent = {*goal.refused, *(d.task.id for d in goal.deferred)}
    return any(i in absent for i in inputs_of(task))


def _is_twin(run: RunState, goal: Goal, task: Task) -> bool:
    """Whether the task is the same call as another, whose output then stands for it."""
    key = same_call_key(task, run.catalog)
    twin = goal.twins.get(key) if key else None
    if twin is not None and twin != task.id and _is_usable(run, twin):
        goal.aliases[task.id] = twin
        run.note(f"{task.id}: same call as {twin}, made once")
        return True
    if key:
        goal.twins[key] = task.id
    goal.aliases.pop(task.id, None)
    return False


def _is_usable(run: RunState, task: TaskId) -> bool:
    """Whether a call need not be made again: it has a value, or is still to get one."""
    state = run.frontier.state_of(task)
    if isinstance(state, Outcome):
        return state.is_good
    return state is not None or any(p.task.id == task for p in goal_of(run).book.accepted)


def _take_in(run: RunState, added: list[Task], now: float) -> None:
    tasks = [p.task for p in goal_of(run).book.accepted]
    inputs = {t.id: tuple(i for i in inputs_of(t) if i != t.id) for t in tasks}
    known = {t: tuple(i for i in ins if i in inputs) for t, ins in inputs.items()}
    by_id = {t.id: t for t in tasks}
    ranks = rank_upward(known, {t: _likely_seconds(run, by_id[t]) for t in known})
    add_tasks(run, added, ranks, now)
    run.frontier.rerank(ranks)


def _likely_seconds(run: RunState, task: Task) -> float:
    if task.estimate and task.estimate.seconds is not None:
        return task.estimate.seconds
    return run.catalog.tool_seconds.get(task.tool or "", 1.0)


# -- the planner's answer -------------------------------------------------------------------


def take_reply(run: RunState, step: Step, reply: PlanReply) -> Draft | NoPlan | None:
    """One planner call has ended: the plan, a failure, or (None) another call repairs it."""
    goal, planning = goal_of(run), planning_of(run)
    settle_outside(run, planning.key, reply.usage)
    goal.wasted_tokens += reply.wasted_tokens
    for warning in reply.warnings[:20]:
        run.note(f"planner: {warning}")
    accept(run, goal.book.fresh(reply.tasks), step.now)
    draft = _draft(run, reply)
    problems = [
        *reply.problems,
        *goal.book.rejected,
        *_deferred_problems(goal),
        *(draft.problems if draft else []),
    ]
    if reply.is_cut_off and not problems:
        problems = [Problem(path="plan", code="cut_off", message="the answer was cut off")]
    if not problems and draft is None:
        problems = [Problem(path="plan", code="no_tasks", message="no tasks in the answer")]
    if problems and planning.repairs < PLAN_REPAIRS_MAX:
        planning.repairs += 1
        goal.repairs += 1
        planning.problems = problems
        return _call_planner(run, step)
    if goal.planned_at is None:
        goal.planned_at = run.seconds(step.now)
    if draft is None or (problems and draft.problems):
        draft = _draft(run, reply, only_tasks=True)
    if draft is None or draft.problems:
        asked = f"{planning.repairs + 1} answers of the planner"
        return NoPlan(f"no plan after {asked}: {lines_of(problems)}")
    return Draft(draft, problems)


def _deferred_problems(goal: Goal) -> list[Problem]:
    return [
        Problem(
            path=f"tasks.{d.task.id}",
            code="refused_input",
            message="reads "
            + ", ".join(f'"{i}"' for i in inputs_of(d.task) if i in goal.refused)
            + ", which was refused",
            hint="Write the refused task again, or leave this one out.",
        )
        for d in goal.deferred
        if any(i in goal.refused for i in inputs_of(d.task))
    ]


def take_failure(run: RunState, failed: Failure) -> NoPlan:
    """A planner call has failed, or was called off."""
    planning = planning_of(run)
    if not failed.is_cancelled:
        settle_outside(run, planning.key, failed.usage)
        return NoPlan(f"planner: {failed.message}")
    goal = goal_of(run)
    goal.book.is_called_off = True
    text = sum(text_bytes(t.text) for t in goal.book.accepted[planning.given :])
    usage = usage_so_far(run.catalog, run.model_for("planner"), planning.prompt_tokens, text)
    held = run.account.ledger.reserved.get(planning.key)
    usage = usage if held is None else at_most(usage, held)  # it was told its limit
    settle_outside(run, planning.key, usage)
    why = run.stop.reason if run.stop is not None else "it was cancelled"
    run.note(f"planner called off ({why}): about {usage.tokens:,} tokens are charged for it")
    return NoPlan(why, is_called_off=True)


def settle_outside(run: RunState, key: str, usage: Usage) -> None:
    """Settle a call of planner or joiner: it belongs to the run and to no task."""
    account.settle(run.account, key, usage)
    run.outside += usage


def written_so_far(run: RunState, now: float) -> Draft | None:
    """The plan as far as it came before the run was stopped; None if nothing of it ran."""
    goal_of(run).planned_at = run.seconds(now)
    draft = _draft(run, PlanReply(), only_tasks=True) if run.tasks else None
    return Draft(draft, []) if draft is not None and not draft.problems else None


def _draft(run: RunState, reply: PlanReply, only_tasks: bool = False) -> Compiled | None:
    tasks = [p.task for p in goal_of(run).book.accepted]
    plan = _merged(run, tasks, reply, only_tasks)
    return None if plan is None else compile_for(run, plan)


def _merged(run: RunState, tasks: list[Task], reply: PlanReply, only_tasks: bool) -> Plan | None:
    """The new tasks, after those of the plan before that stay."""
    aliases = goal_of(run).aliases
    more: dict[str, JsonValue] = {}
    if not only_tasks:
        if reply.has_answer:
            more["answer"] = rename_references(reply.answer, aliases)
        if reply.join_only:
            more["join"] = [aliases.get(TaskId(j), TaskId(j)) for j in reply.join_only]
        if reply.stop_when:
            more["stop_when"] = reply.stop_when
    before = run.plan
    if before is None:
        if not tasks:
            return None
        return Plan.model_validate({"goal": run.goal_text, "tasks": tasks, **more})
    if not tasks and not more:
        return None
    kept = [t for t, o in run.frontier.outcomes().items() if o.is_good]
    gone = [run.tasks[t] for t in kept if before.task(t) is None]
    whole = before.model_copy(update={"tasks": [*before.tasks, *gone]})
    may_stay = [*run.frontier.unfinished(), *(t.id for t in gone)]
    read = still_read(whole, tasks, more, may_stay)
    if read:
        before = whole.model_copy(
            update={"tasks": [*before.tasks, *(t for t in gone if t.id in read)]}
        )
        kept += [t for t in read if t not in kept]
    merged, problems = merge_replan(before, finished=kept, new_tasks=tasks, more=more)
    goal_of(run).book.refuse(problems)
    return merged


def lines_of(problems: Sequence[Problem]) -> str:
    return "; ".join(p.line() for p in problems[:10])
