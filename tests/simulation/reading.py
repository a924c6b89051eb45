"""Whether a task may run, found by reading the plan again, slowly: the oracle of the frontier."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import AtLeast, Body, Plan, Task
from planloom.planner.language.values import Outcome
from planloom.planner.walk.frontier import State, Unit
from planloom.workflows.machines.run.state import RunState

REFERENCE = re.compile(r"(?<!\$)\$\{\"?([A-Za-z0-9_-]+)")


def should_run(run: RunState, unit: Unit) -> bool:
    """Whether the inputs of a task let it start now."""
    task = run.tasks[unit.task]
    hard = _known(run, task, _read_by(task))
    other = _known(run, task, _read_by_others(task))
    other = [o for o in other if o not in hard]
    outcomes = [_outcome(run, i) for i in hard]
    have_all_ended = all(_outcome(run, i) is not None for i in [*hard, *other])
    if unit.mode == "fallback":
        return have_all_ended and not _is_met(task, outcomes)
    if not _is_met(task, outcomes):
        return False
    has_conditions = all(_outcome(run, i) is not None for i in other)
    return has_conditions or _may_guess(run, task)


def unknown_reads(run: RunState, unit: Unit) -> list[str]:
    """What the body of a unit reads that is no task of the run and no given value."""
    task = run.tasks[unit.task]
    body = task.fallback_body if unit.mode == "fallback" else None
    names = _references(_values(body or task)) + _references(task.map)
    known = {*run.frontier.entries, *run.values, *run.lineage.inputs, "params", "item", "index"}
    known |= run.request.reuse.keys()  # of an earlier run's task that the plan has no more
    return [n for n in names if n not in known]


def _may_guess(run: RunState, task: Task) -> bool:
    if not task.speculate or task.when is None or task.map is not None or task.tool is None:
        return False
    spec = run.catalog.tool(task.tool)
    return spec is not None and not spec.side_effects and task.fallback_body is None


def _is_met(task: Task, outcomes: list[Outcome | None]) -> bool:
    good = sum(1 for o in outcomes if o is not None and o.is_good)
    match task.requires:
        case "best_effort":
            return all(o is not None for o in outcomes)
        case "any":
            return good >= 1 or not outcomes
        case AtLeast(at_least=n):
            return good >= n
        case _:
            return good == len(outcomes)


def _outcome(run: RunState, name: str) -> Outcome | None:
    state = run.frontier.entries[name].state  # type: ignore[index]
    return None if isinstance(state, State) else state


def _known(run: RunState, task: Task, names: Iterable[str]) -> list[str]:
    found = dict.fromkeys(n for n in names if n in run.frontier.entries and n != task.id)
    return list(found)


def _read_by(task: Task) -> list[str]:
    return [*task.depends_on, *_references(_values(task)), *_references(task.map)]


def _read_by_others(task: Task) -> list[str]:
    found = list(roots_of_condition(task.when)) if task.when is not None else []
    alternative = task.fallback_body
    return found + (_references(_values(alternative)) if alternative is not None else [])


def _values(body: Body) -> Any:
    """What of a body is resolved: an inline plan has names of its own."""
    document = body.model_dump(mode="json", exclude_unset=True, by_alias=True)
    kept = {k: document.get(k) for k in ("args", "ask", "human")}
    if isinstance(body.plan, Plan | str):
        kept["plan"] = None
    return kept


def _references(value: Any) -> list[str]:
    match value:
        case str():
            return REFERENCE.findall(value)
        case list():
            return [r for v in value for r in _references(v)]
        case dict():
            return [r for v in value.values() for r in _references(v)]
        case _:
            return []
