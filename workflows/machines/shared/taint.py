"""What came from outside, and which side effects a person is asked about because of it. Pure.

A value is tainted when a tool that reads the outside gave it, when a task read such a value, or
when a model that saw such a value decided about the task. Under `approval: tainted`, a side effect
whose arguments are tainted, or which such a model decided, waits for a person.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Body, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import JsonValue

PARAMS = "params"
"""The name under which a child run reads what its parent gave it."""
NAMES_MAX = 5


def reads_outside(task: Task, catalog: Catalog) -> bool:
    """Whether a tool of the task gives what came from outside."""
    return any((s := catalog.tool(b.tool or "")) and s.outside for b in _bodies(task))


def acts(task: Task, catalog: Catalog) -> bool:
    """Whether a tool of the task changes the world."""
    return any((s := catalog.tool(b.tool or "")) and s.side_effects for b in _bodies(task))


def tainted_inputs(task: Task, tainted: Container[str]) -> list[str]:
    """The names of tainted values that the task reads, in its arguments, items or condition."""
    read = [r for value in _values(task) for r in roots_of(value)]
    read += roots_of_condition(task.when) if task.when else ()
    return [name for name in dict.fromkeys(read) if name in tainted]


def outside_of(task: Task, tainted: Container[str], words: JsonValue) -> list[str]:
    """The names by which these words of the task read what came from outside."""
    read = roots_of(words)
    outside = sorted(name for name in dict.fromkeys(read) if name in tainted)
    if ("item" in read or "index" in read) and tainted_inputs(task, tainted):
        outside.append("item")
    return outside


def is_output_tainted(
    task: Task, catalog: Catalog, tainted: Container[str], *, is_decided_outside: bool
) -> bool:
    """Whether the task's output is, as far as the task alone can tell.

    A person's answer is not, whatever the question held. What a child run did is told by its end.
    """
    if task.kind == "human":
        values = _values_of(task.fallback_body) if task.fallback_body is not None else []
        return any(r in tainted for value in values for r in roots_of(value))
    return is_decided_outside or reads_outside(task, catalog) or bool(tainted_inputs(task, tainted))


def reasons_to_ask(
    task: Task, catalog: Catalog, tainted: Container[str], *, is_decided_outside: bool
) -> list[str]:
    """Why a person must say yes before the task acts; empty when nobody need be asked."""
    if not acts(task, catalog):
        return []
    reasons = []
    if names := tainted_inputs(task, tainted):
        shown = ", ".join(names[:NAMES_MAX]) + (", …" if len(names) > NAMES_MAX else "")
        reasons.append(f"it uses what came from outside: {shown}")
    if is_decided_outside:
        reasons.append("a model that saw what came from outside decided it")
    return reasons


def _bodies(task: Task) -> Sequence[Body]:
    fallback = task.fallback_body
    return [task] if fallback is None else [task, fallback]


def _values(task: Task) -> list[JsonValue]:
    # References in a plain fallback value stay as they are written.
    bodies = _bodies(task)
    # An agent or team whose `args` name no task is given the description.
    reads_description = any(b.agent is not None or b.team is not None for b in bodies)
    words = [task.description] if reads_description else []
    return [task.map, *words, *(value for body in bodies for value in _values_of(body))]


def _values_of(body: Body) -> list[JsonValue]:
    values: list[JsonValue] = [dict(body.args)]
    if body.ask is not None:
        ask = body.ask_body()
        values += [ask.prompt, ask.context, ask.system]
    if body.human is not None:
        values.append(body.human_body().question)
    return values
