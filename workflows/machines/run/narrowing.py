"""What a planner's model may not choose: it narrows what its run allows, and never widens it. Pure.

A plan from a person may name any priority and cache, as whoever starts a run may.
"""

from __future__ import annotations

from typing import Any, get_args

from planloom.planner.contract.requests import CacheMode, RunRequest
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import PRIORITY_KEYS

_REACH: dict[str, int] = {name: n for n, name in enumerate(get_args(CacheMode))}


def narrowed(task: Task, request: RunRequest, known: Task | None = None) -> Task:
    """The task without a priority above its run's, and without a cache that reaches further.

    What it had before, as `known`, it keeps: a person may have given it. So does a task that waits
    for a person's yes.
    """
    document: dict[str, Any] = {}
    if known is not None and known.approval and not task.approval:
        document["approval"] = True

    def is_new(field: str) -> bool:
        return known is None or getattr(known, field) != getattr(task, field)

    is_above = task.priority and PRIORITY_KEYS[task.priority] < PRIORITY_KEYS[request.priority]
    if is_above and is_new("priority"):
        document["priority"] = None
    if task.cache and _REACH[task.cache] > _REACH[request.cache] and is_new("cache"):
        document["cache"] = None
    if (
        isinstance(task.plan, Plan)
        and is_new("plan")
        and (inner := _narrowed_plan(task.plan, request))
    ):
        document["plan"] = inner
    other = task.fallback_body
    below = other.plan if other is not None else None
    if isinstance(below, Plan) and is_new("fallback") and (inner := _narrowed_plan(below, request)):
        plan = inner.model_dump(mode="json", exclude_unset=True, by_alias=True)
        document["fallback"] = {**task.fallback, "plan": plan}  # type: ignore[dict-item]
    if not document:
        return task
    made = task.model_copy(update=document)
    unset = {name for name, value in document.items() if value is None}
    made.__pydantic_fields_set__ -= unset  # it is written as if it had not been named
    return made


def _narrowed_plan(plan: Plan, request: RunRequest) -> Plan | None:
    """The plan with its tasks narrowed; None when there is nothing to narrow."""
    inner = [narrowed(task, request) for task in plan.tasks]
    if all(a is b for a, b in zip(inner, plan.tasks, strict=True)):
        return None
    return plan.model_copy(update={"tasks": inner})
