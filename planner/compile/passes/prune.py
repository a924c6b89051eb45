"""Prune: tasks that neither reach the answer nor have side effects are not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import TaskId


def is_kept_for_itself(task: Task, catalog: Catalog) -> bool:
    """Whether a task matters though nobody reads it: it acts on the world, or asks a person."""
    for body in task.bodies:
        if body.tool is None and body.ask is None:
            return True  # agents, teams, sub-plans and people may do more than answer
        spec = catalog.tool(body.tool) if body.tool else None
        if spec is not None and spec.side_effects:
            return True
    return False


def prune_tasks(
    plan: Plan, inputs: Mapping[TaskId, Sequence[TaskId]], catalog: Catalog
) -> tuple[Plan, dict[TaskId, str]]:
    """The plan without what its answer does not need, and why each task was left out.

    Without an `answer` (and without `join`) every leaf is part of the answer, and all stay.
    """
    if not plan.has_answer and not plan.join:
        return plan, {}
    wanted = [*roots_of(plan.answer), *(plan.join or ())]
    if plan.stop_when:
        wanted += roots_of_condition(plan.stop_when, {t.id for t in plan.tasks})
    wanted += [t.id for t in plan.tasks if is_kept_for_itself(t, catalog)]
    needed: set[str] = set()
    stack = list(wanted)
    while stack:
        task = stack.pop()
        if task not in needed:
            needed.add(task)
            stack.extend(inputs.get(TaskId(task), ()))
    dropped = {t.id: "the answer does not need it" for t in plan.tasks if t.id not in needed}
    if not dropped or len(dropped) == len(plan.tasks):
        return plan, {}
    kept = [t for t in plan.tasks if t.id in needed]
    return plan.model_copy(update={"tasks": kept}), dropped
