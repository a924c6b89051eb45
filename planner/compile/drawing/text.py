"""A plan's graph as plain text: tasks by level, each with its state and what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from planloom.planner.compile.explain import body_of
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import TaskId

SIGNS = {
    "waiting": "·",
    "ready": "○",
    "running": "▶",
    "succeeded": "✓",
    "cached": "≡",
    "fallback": "↷",
    "failed": "✗",
    "skipped": "–",
    "cancelled": "⊘",
    "unknown": "?",
}


def levels(plan: Plan, graph: Mapping[TaskId, Sequence[TaskId]] | None = None) -> list[list[str]]:
    """Tasks by depth: each level reads only levels before it. Within a level, plan order."""
    inputs = graph_of(plan) if graph is None else graph
    depth: dict[str, int] = {}
    for name in TopologicalSorter(inputs).static_order():
        depth[name] = 1 + max((depth[i] for i in inputs[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for task in plan.tasks:
        rows[depth[task.id]].append(task.id)
    return rows


def text_graph(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """The graph for a place that draws nothing but text, such as Temporal's Web UI."""
    inputs = graph_of(plan)
    known = {t.id: t for t in plan.tasks}
    lines: list[str] = []
    for members in levels(plan, inputs):
        if lines:
            lines.append("  |")
        for name in members:
            task = known[name]  # type: ignore[index]
            reads = ", ".join(inputs[task.id])
            sign = SIGNS.get((states or {}).get(name, ""), "·")
            lines.append(f"{sign} {name}: {body_of(task)}{f'  <- {reads}' if reads else ''}")
    return "\n".join(lines)
