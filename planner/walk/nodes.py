"""A task of the plan as a node of the frontier. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from planloom.planner.compile.pipeline import values_of
from planloom.planner.language.plan import Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import TaskId
from planloom.planner.walk.frontier import Node

FUSED_INPUTS_MAX = 500
"""A task that reads more runs alone: the job of a group would grow with the plan."""


def node_of(
    task: Task,
    inputs: Sequence[TaskId],
    *,
    rank: float = 0.0,
    priority: int = 3,
    is_ahead: bool = False,
    fuse_seconds: float | None = None,
) -> Node:
    """The node of a task whose known `inputs` are given in order.

    What its own body, `map` or `depends_on` reads counts for `requires`; what only its `when` or
    its alternative path reads is merely waited for, and `is_ahead` need not wait for that.
    """
    fallback: Literal["value", "body"] | None = None
    if task.has_fallback:
        fallback = "body" if task.fallback_body is not None else "value"
    hard: set[str] = set(inputs)
    if task.when is not None or fallback == "body":  # else nothing but the task itself reads
        own = [r for _, value in values_of(task) for r in roots_of(value)]
        hard = {*task.depends_on, *own, *roots_of(task.map)}
    return Node(
        task.id,
        inputs=tuple(i for i in inputs if i in hard),
        conditions=tuple(i for i in inputs if i not in hard),
        requires=task.requires,
        priority=priority,
        rank=rank,
        fallback=fallback,
        on_error=task.on_error,
        is_free=task.human is not None,
        is_ahead=is_ahead,
        fuse_seconds=fuse_seconds if len(inputs) <= FUSED_INPUTS_MAX else None,
    )
