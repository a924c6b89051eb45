"""Deduplicate: identical calls of idempotent tools are made once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from planner.catalog import Site
from planner.plan import Plan, Task
from planner.references import rename
from planner.values import JsonValue, TaskId

_LABELS = ("id", "description", "estimate")


def twin_key(task: Task, site: Site) -> str | None:
    """Equal keys: the same call, which need be made only once. None: it must always be made."""
    if task.tool is None or task.map is not None or task.approval:
        return None
    spec = site.tool(task.tool)
    if spec is None or spec.side_effects or not spec.idempotent or task.tool == "ask":
        return None
    document = task.model_dump(mode="json", exclude_unset=True, exclude=set(_LABELS))
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def rename_references(value: JsonValue, aliases: Mapping[TaskId, TaskId]) -> JsonValue:
    """A value whose references to duplicates name the task that is kept."""
    return rename(value, {str(k): str(v) for k, v in aliases.items()})


def rename_inputs(task: Task, aliases: Mapping[TaskId, TaskId]) -> Task:
    """A task that reads the kept tasks instead of their duplicates."""
    if not aliases:
        return task
    document: dict[str, Any] = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    renamed = rename_references(document, aliases)
    assert isinstance(renamed, dict)
    if task.depends_on:
        renamed["depends_on"] = [aliases.get(d, d) for d in task.depends_on]
    if task.when is not None:
        renamed["when"] = rename_condition(str(renamed["when"]), aliases)
    return task if renamed == document else Task.model_validate(renamed)


def rename_condition(condition: str, aliases: Mapping[TaskId, TaskId]) -> str:
    """A condition over the kept tasks; names of tasks outside `${…}` are looked for as words."""
    import re

    for old, new in aliases.items():
        pattern = rf'(?<![\w.$"\'-]){re.escape(old)}(?=\.|\s|$|\))'
        condition = re.sub(pattern, lambda _, new=new: str(new), condition)  # type: ignore[misc]
    return condition


def deduplicate_calls(plan: Plan, site: Site) -> tuple[Plan, dict[TaskId, TaskId]]:
    """The plan without identical calls, and each duplicate with the task that is kept for it.

    Walks tasks in order until nothing changes: duplicates of inputs make twins of their readers.
    """
    aliases: dict[TaskId, TaskId] = {}
    tasks = list(plan.tasks)
    while True:
        seen: dict[str, TaskId] = {}
        found: dict[TaskId, TaskId] = {}
        kept: list[Task] = []
        for task in tasks:
            key = twin_key(task, site)
            first = seen.setdefault(key, task.id) if key is not None else task.id
            if first == task.id:
                kept.append(task)
            else:
                found[task.id] = first
        if not found:
            break
        aliases = {k: found.get(v, v) for k, v in aliases.items()} | found
        tasks = [rename_inputs(task, found) for task in kept]
    if not aliases:
        return plan, {}
    more: dict[str, Any] = {"tasks": tasks}
    if plan.has_answer:
        more["answer"] = rename_references(plan.answer, aliases)
    if plan.join:
        more["join"] = [aliases.get(j, j) for j in plan.join]
    if plan.stop_when:
        text = rename_references(plan.stop_when, aliases)
        more["stop_when"] = rename_condition(str(text), aliases)
    return plan.model_copy(update=more), aliases
