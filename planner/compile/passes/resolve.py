"""Resolve: what each task reads, and the graph that follows from it."""

from __future__ import annotations

from typing import Any

from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Body, Plan, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import RESERVED_IDS, JsonValue, TaskId


def values_of(body: Body) -> list[tuple[str, JsonValue]]:
    """Everything of a body that may hold references, with where it stands.

    An inline sub-plan is not among it: its references are to its own tasks and params.
    """
    values: list[tuple[str, Any]] = [("args", body.args)] if body.args else []
    if body.ask is not None:
        ask = body.ask_body()
        values += [("ask.prompt", ask.prompt), ("ask.context", ask.context)]
        values += [("ask.system", ask.system)]
    if body.human is not None:
        values.append(("human.question", body.human_body().question))
    return values


def roots_of_body(body: Body) -> list[str]:
    """The first names of all references in a body, in order."""
    return [r for _, value in values_of(body) for r in roots_of(value)]


def inputs_of(task: Task) -> tuple[TaskId, ...]:
    """The tasks a task reads or waits for, each once; `item`, `index`, `params` are none.

    A fallback body's inputs are among them: they have to be there when it is needed.
    """
    roots = [*roots_of_body(task), *roots_of(task.map)]
    if (alternative := task.fallback_body) is not None:
        roots += roots_of_body(alternative)
    when = roots_of_condition(task.when) if task.when else ()
    names = [*task.depends_on, *roots, *when]
    return tuple(TaskId(n) for n in dict.fromkeys(names) if n not in RESERVED_IDS)


def graph_of(plan: Plan) -> dict[TaskId, tuple[TaskId, ...]]:
    """Each task with those of the plan's own tasks that it reads or waits for."""
    ids = {t.id for t in plan.tasks}
    return {t.id: tuple(i for i in inputs_of(t) if i in ids) for t in plan.tasks}
