"""Deduplicate: identical calls of idempotent tools are made once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from planloom.planner.compile.passes.rank import depths_of
from planloom.planner.compile.passes.resolve import inputs_of
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import rename_in_condition
from planloom.planner.language.plan import Plan, Task, is_body
from planloom.planner.language.references import rename
from planloom.planner.language.values import JsonValue, TaskId

_LABELS = {"id", "description", "estimate"}
_READING = ("args", "ask", "human", "map")
"""Fields whose references are resolved. An inline `plan` has its own names."""


def same_call_key(task: Task, catalog: Catalog) -> str | None:
    """Equal keys: the same call, which need be made only once. None: it must always be made."""
    if task.tool is None or task.map is not None or task.approval:
        return None
    spec = catalog.tool(task.tool)
    if spec is None or spec.side_effects or not spec.idempotent or task.tool == "ask":
        return None
    document = task.model_dump(mode="json", exclude_defaults=True, exclude=_LABELS)
    document["depends_on"] = sorted(task.depends_on)
    document["has_fallback"] = task.has_fallback  # `fallback: null` is one
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def rename_references(value: JsonValue, aliases: Mapping[TaskId, TaskId]) -> JsonValue:
    """A value whose references to duplicates name the task that is kept."""
    return rename(value, {str(k): str(v) for k, v in aliases.items()})


def rename_condition(condition: str, aliases: Mapping[TaskId, TaskId]) -> str:
    """A condition over the kept tasks."""
    return rename_in_condition(condition, {str(k): str(v) for k, v in aliases.items()})


def rename_in_document(
    document: Mapping[str, Any], aliases: Mapping[TaskId, TaskId]
) -> dict[str, Any]:
    """A task's document that reads the kept tasks, wherever it reads one."""
    renamed = dict(document)
    for name in _READING:
        if renamed.get(name) is not None:
            renamed[name] = rename_references(renamed[name], aliases)
    if is_body(renamed.get("fallback")):
        renamed["fallback"] = rename_in_document(renamed["fallback"], aliases)
    if renamed.get("depends_on"):
        renamed["depends_on"] = list(
            dict.fromkeys(aliases.get(d, d) for d in renamed["depends_on"])
        )
    if renamed.get("when") is not None:
        renamed["when"] = rename_condition(renamed["when"], aliases)
    return renamed


def rename_inputs(task: Task, aliases: Mapping[TaskId, TaskId]) -> Task:
    """A task that reads the kept tasks instead of their duplicates."""
    if not aliases or not any(i in aliases for i in inputs_of(task)):
        return task
    document = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return Task.model_validate(rename_in_document(document, aliases))


def deduplicate_calls(
    plan: Plan, inputs: Mapping[TaskId, Sequence[TaskId]], catalog: Catalog
) -> tuple[Plan, dict[TaskId, TaskId]]:
    """The plan without identical calls, and each duplicate with the task that is kept for it.

    One pass, inputs before readers: duplicates of inputs make twins of their readers. Twins read
    the same tasks, so they stand at one depth, and the first of the plan's order is kept.
    """
    depths = depths_of(inputs)
    places = sorted(range(len(plan.tasks)), key=lambda n: (depths[plan.tasks[n].id], n))
    seen: dict[str, TaskId] = {}
    aliases: dict[TaskId, TaskId] = {}
    kept: dict[int, Task] = {}
    for n in places:
        task = rename_inputs(plan.tasks[n], aliases)
        key = same_call_key(task, catalog)
        first = seen.setdefault(key, task.id) if key is not None else task.id
        if first == task.id:
            kept[n] = task
        else:
            aliases[task.id] = first
    if not aliases:
        return plan, {}
    more: dict[str, Any] = {"tasks": [kept[n] for n in sorted(kept)]}
    if plan.has_answer:
        more["answer"] = rename_references(plan.answer, aliases)
    if plan.join:
        more["join"] = list(dict.fromkeys(aliases.get(j, j) for j in plan.join))
    if plan.stop_when:
        more["stop_when"] = rename_condition(plan.stop_when, aliases)
    return plan.model_copy(update=more), aliases
