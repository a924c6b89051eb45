"""Fuse: cheap tools without side effects that can share one activity.

A hop through the server costs ten milliseconds or more, so a task of one millisecond should not
pay for a separate hop. The run decides again, whenever tasks become ready, which of them go
together; `fuse_tasks` says before the run which can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.language.values import TaskId

CHEAP_SECONDS = 0.02
"""A tool whose calls took longer gains little: a hop costs about as much."""
LOCAL_SECONDS = 0.001
"""Likely duration of a tool with `local=True` whose calls have not been measured yet."""
LOCAL_SECONDS_MAX = 0.2
"""A tool with `local=True` that takes longer runs alone, whatever its author said."""
TASK_MAX_BYTES = 6_000
"""Of arguments, fallback and description. Longer ones are stored, which a group does not do."""
WAITS_MAX = 500
"""A task that waits for more begins a group: sets that grow with the plan would cost its square."""


def why_alone(task: Task, spec: ToolSpec | None) -> str | None:
    """Why a task can never share an activity, whatever is asked for; None when it can."""
    if task.tool is None or task.tool == "ask" or spec is None:
        return "only tools share an activity"
    if spec.side_effects or not spec.idempotent:
        return f'"{spec.name}" has side effects or is not idempotent'
    if spec.cost_usd:
        return f'"{spec.name}" costs money'
    if spec.pool is not None:
        return f'"{spec.name}" has the limits of pool {spec.pool}'
    if task.approval:
        return "it waits for a person's approval"
    if task.fallback_body is not None:
        return "its fallback is another task body"
    return None


def fused_seconds(task: Task, catalog: Catalog, fuse: bool | None = None) -> float | None:
    """Likely seconds of a task that may share an activity; None: it runs in a separate one.

    The task's `fuse` goes before the run's (`fuse`). Where neither says anything, what is known of
    the tool decides: the task's `estimate`, the durations of earlier calls, or `local=True`.
    """
    wanted = fuse if task.fuse is None else task.fuse
    spec = catalog.tool(task.tool) if task.tool is not None else None
    if wanted is False or spec is None or why_alone(task, spec) is not None:
        return None
    seconds = catalog.tool_seconds.get(spec.name)
    if task.estimate is not None and task.estimate.seconds is not None:
        seconds = task.estimate.seconds
    if seconds is None and (spec.local or wanted):
        seconds = LOCAL_SECONDS
    limit = LOCAL_SECONDS_MAX if spec.local else CHEAP_SECONDS
    if seconds is None or (seconds > limit and not wanted):
        return None
    size = len(json.dumps([task.args, task.fallback, task.description]))
    return seconds if size <= TASK_MAX_BYTES else None


def fuse_tasks(
    tasks: Sequence[Task],
    inputs: Mapping[TaskId, Sequence[TaskId]],
    seconds: Mapping[TaskId, float | None],
) -> list[list[TaskId]]:
    """Tasks that can share one activity, in the plan's order; each group has two or more.

    Together go those that wait for the same tasks outside their group: the whole group can start
    once these have ended. The items of a map go together with each other, so a map is in no group,
    and who reads it waits for it.
    """
    is_map = {t.id: t.map is not None for t in tasks}
    waits: dict[TaskId, frozenset[TaskId]] = {}
    for task in TopologicalSorter(inputs).static_order():
        found: list[frozenset[TaskId]] = []
        alone: set[TaskId] = set()
        for needed in inputs[task]:
            if seconds[needed] is None or is_map[needed]:
                alone.add(needed)
            else:
                found.append(waits[needed])
        distinct = set(found)
        # A long chain shares one set, so that it stays linear.
        if len(distinct) == 1 and alone <= found[0]:
            waits[task] = found[0]
        else:
            waits[task] = frozenset(alone).union(*distinct)
        if len(waits[task]) > WAITS_MAX:
            waits[task] = frozenset((task,))
    groups: dict[frozenset[TaskId], list[TaskId]] = {}
    for each in tasks:
        if seconds[each.id] is not None and not is_map[each.id]:
            groups.setdefault(waits[each.id], []).append(each.id)
    return [group for group in groups.values() if len(group) > 1]
