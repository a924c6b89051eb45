"""Revisions of the plan: compiled, adopted, edited, and brought into the frontier."""

from __future__ import annotations

from collections.abc import Sequence

from planloom.planner.compile.expand import compile_request
from planloom.planner.compile.pipeline import Compiled
from planloom.planner.compile.revision import diff_plans, major_changes
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import Outcome, Problem
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.run.state import Revision, RunState
from planloom.workflows.machines.run.stopping import call_off
from planloom.workflows.machines.run.tasks import add_tasks, drop_task, spare
from planloom.workflows.machines.shared.machine import Step


def compile_for(run: RunState, plan: Plan) -> Compiled:
    """A plan compiled for this run: its tools, its limits, its place in a tree of runs."""
    return compile_request(
        run.request,
        plan,
        run.catalog,
        depth=run.lineage.depth,
        given=list(run.lineage.inputs),
        parallel=run.frontier.parallel,
    )


def adopt(run: RunState, compiled: Compiled, *, why: str, by: str = "") -> None:
    """A compiled plan becomes the newest revision. Nothing of it has started yet."""
    before = run.plan
    number = run.revision + 1
    changes = diff_plans(before, compiled.plan) if before is not None else []
    if before is not None and (run.allowed or run.early_tasks or run.early_answers):
        _forget_decisions(run, before, compiled.plan)
    run.revisions.append(Revision(number, compiled.plan, why, by, changes))
    run.compiled, run.edited = compiled, None
    run.pruned = dict(compiled.pruned)
    run.aliases = dict(compiled.aliases)
    run.approval.note_revision(number, by)
    for warning in compiled.warnings[:20]:
        run.note(f"plan: {warning}")


def _forget_decisions(run: RunState, before: Plan, after: Plan) -> None:
    """What a person said of a task was of the task as it was: written otherwise, it asks again."""
    old, new = ({t.id: t for t in plan.tasks} for plan in (before, after))
    changed = {id for id, task in old.items() if new.get(id) != task}
    run.allowed = [id for id in run.allowed if id not in changed]
    for id in [id for id in run.early_tasks if id in changed]:
        del run.early_tasks[id]
        run.note(f"{id}: changed by the new plan; its early approval was not used")
    # Of a map's item, or of an agent below the task, the key begins with the task's id.
    for key in [k for k in run.early_answers if {k, k.partition("[")[0], *_above(k)} & changed]:
        del run.early_answers[key]
        run.note(f"{key}: changed by the new plan; its early answer was not used")


def _above(key: str) -> list[str]:
    """Ids of tasks below which this one may be; ids hold dots too."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def major_of(run: RunState, before: Plan, after: Plan) -> list[str]:
    """Why a change of the plan is material, a reason each."""
    good = [t for t, o in run.frontier.outcomes().items() if o.is_good]
    return major_changes(before, after, run.catalog, run.request.approval.major, good)


def problems_with_edit(run: RunState, plan: Plan) -> list[Problem]:
    """What an edit may not do: take out or change what runs or has a value."""
    problems = list[Problem]()
    for task, state in run.frontier.states().items():
        is_done = isinstance(state, Outcome) and state.is_good
        if state is not State.RUNNING and not is_done:
            continue
        edited = plan.task(task)
        if edited == run.tasks[task] or (edited is None and is_done):
            continue
        verb = "removed" if edited is None else "changed"
        word = "is running" if state is State.RUNNING else "has finished"
        problems.append(
            Problem(
                path=f"tasks.{task}",
                code="task_started",
                message=f"cannot be {verb}: it {word}",
                hint="cancel_task it first, or leave it as it is."
                if state is State.RUNNING
                else "Leave it as it is, or add a task under another id.",
            )
        )
    return problems


def enter_revision(run: RunState, step: Step) -> None:
    """Bring the frontier in line with the newest revision: new tasks in, dropped ones out.

    What runs in other words than the new plan has is stopped first, so that it can start again as
    another task; the rest waits for its end.
    """
    plan = run.plan
    assert plan is not None, "a revision is entered after it was adopted"
    changed = [t for t in plan.tasks if _runs_otherwise(run, t)]
    if changed:
        # What has not started is taken out first: it must not be skipped for their end.
        for waiting in run.frontier.unfinished():
            if run.frontier.state_of(waiting) is not State.RUNNING:
                drop_task(run, step, waiting)
        for task in changed:
            call_off(run, step, task.id, "changed by the new plan")
    run.changing = [t.id for t in changed if run.frontier.outcome_of(t.id) is None]
    if not run.changing:
        _bring_in_line(run, step, plan)


def settle_changing(run: RunState, step: Step) -> bool:
    """Enter the revision that waits for the end of changed tasks; False when it waits still."""
    if not run.changing or not all(run.frontier.outcome_of(t) for t in run.changing):
        return False
    run.changing = []
    assert run.plan is not None
    _bring_in_line(run, step, run.plan)
    return True


def _bring_in_line(run: RunState, step: Step, plan: Plan) -> None:
    wanted = {t.id for t in plan.tasks}
    for task in list(run.tasks):
        state = run.frontier.state_of(task)
        kept = task in wanted and run.tasks[task] == plan.task(task)
        if kept or isinstance(state, Outcome) or state is None:
            continue
        if state is State.RUNNING:
            call_off(run, step, task, "no longer in the plan")
        else:
            spare(run, task, step.now)
            drop_task(run, step, task)
    enter_tasks(run, _new_tasks(run, plan), step.now)


def _runs_otherwise(run: RunState, task: Task) -> bool:
    is_running = run.frontier.state_of(task.id) is State.RUNNING
    return is_running and run.tasks[task.id] != task


def _new_tasks(run: RunState, plan: Plan) -> list[Task]:
    """Tasks of the plan to take in: new ones, and those that ended badly and may do better now.

    They may because they are written in other words, or because only their inputs were to blame
    and one of those is tried again.
    """
    new = {t.id: t for t in plan.tasks if _is_new(run, t)}
    left = [t for t in plan.tasks if t.id not in new and run.frontier.is_blocked(t.id)]
    while again := [t for t in left if any(i in new for i in run.inputs.get(t.id, ()))]:
        new |= {t.id: t for t in again}
        left = [t for t in left if t.id not in new]
    return [t for t in plan.tasks if t.id in new]


def _is_new(run: RunState, task: Task) -> bool:
    state = run.frontier.state_of(task.id)
    if state is None:
        return True
    # One that ended badly may be tried again in other words.
    ended_badly = isinstance(state, Outcome) and not state.is_good
    return ended_badly and run.tasks.get(task.id) != task


def enter_tasks(run: RunState, tasks: Sequence[Task], now: float) -> None:
    """Tasks of the newest revision that the frontier does not hold go in."""
    assert run.compiled is not None
    run.entered = run.revision
    run.join_missing = None
    known = None if run.tasks else run.compiled.inputs
    add_tasks(run, tasks, run.compiled.ranks, now, known)
    run.frontier.rerank(run.compiled.ranks)


def reopen(run: RunState) -> None:
    """More tasks may come: another plan is being written."""
    run.frontier.reopen()
    if run.stop is not None:
        run.stop, run.frontier.is_stopped = None, False
