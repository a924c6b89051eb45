"""Templates that contain themselves: one that nothing ends is refused before it starts."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.references import shortened
from planloom.planner.language.values import Problem, TaskId

HINT = (
    "Give that task a `when` that is false in the end, or `map` it over a list that gets shorter."
)


def check_recursion(plan: Plan, catalog: Catalog) -> list[Problem]:
    """What is wrong with tasks that start a template which then starts itself, again and again.

    A task may not run when it, or one that it waits for, has a `when` or a `map`: such a template
    may end, and how often it does is bounded while it runs.
    """
    problems: list[Problem] = []
    endless: dict[str, str | None] = {}
    for task, name in _certain(plan):
        if name not in endless:
            endless[name] = _cycle_from(name, catalog)
        if (cycle := endless[name]) is not None:
            message = f"the template contains itself, and nothing ends that: {cycle}"
            path = f"tasks.{task.id}.plan"
            problems.append(Problem(path=path, code="endless_template", message=message, hint=HINT))
    return problems


def _cycle_from(start: str, catalog: Catalog) -> str | None:
    """A way from a template back to one that is on it already, such as `a -> b -> a`."""
    ended: set[str] = set()
    way: list[str] = []
    open_: list[tuple[str, Iterator[str]]] = [(start, iter(_uses_of(start, catalog)))]
    way.append(start)
    while open_:
        name, rest = open_[-1]
        used = next(rest, None)
        if used is None:
            open_.pop()
            way.pop()
            ended.add(name)
        elif used in way:
            return " -> ".join(shortened(n) for n in [*way[way.index(used) :], used])
        elif used not in ended:
            way.append(used)
            open_.append((used, iter(_uses_of(used, catalog))))
    return None


def _uses_of(name: str, catalog: Catalog) -> list[str]:
    try:
        plan = Plan.model_validate(catalog.templates[name])
    except (KeyError, ValidationError):
        return []  # its own faults are told when it is read
    return list(dict.fromkeys(used for _, used in _certain(plan)))


def _certain(plan: Plan) -> Iterator[tuple[Task, str]]:
    """Tasks of a plan that start a template, whatever happens before them, with its name."""
    if not any(task.plan is not None for task in plan.tasks):
        return
    graph = graph_of(plan)
    maybe = {t.id for t in plan.tasks if t.when is not None or t.map is not None}
    readers: dict[TaskId, list[TaskId]] = {}
    for id, inputs in graph.items():
        for read in inputs:
            readers.setdefault(read, []).append(id)
    stack = list(maybe)
    while stack:
        found = [id for id in readers.get(stack.pop(), ()) if id not in maybe]
        maybe.update(found)
        stack += found
    for task in plan.tasks:
        if task.id in maybe or task.plan is None:
            continue
        if isinstance(task.plan, str):
            yield task, task.plan
        else:
            for _, name in _certain(task.plan):
                yield task, name
