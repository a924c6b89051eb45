"""A plan's graph drawn in a terminal: layers of tasks, coloured by state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from planloom.planner.compile.explain import body_of
from planloom.planner.compile.pipeline import graph_of
from planloom.planner.language.plan import Plan

STYLES = {
    "waiting": "dim",
    "ready": "yellow",
    "running": "bold blue",
    "succeeded": "green",
    "cached": "green",
    "fallback": "yellow",
    "failed": "bold red",
    "skipped": "dim",
    "cancelled": "magenta",
    "unknown": "red",
}
SYMBOLS = {
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


def layers(plan: Plan) -> list[list[str]]:
    """Tasks by depth: each layer reads only layers before it. Within a layer, plan order."""
    inputs = graph_of(plan)
    depth: dict[str, int] = {}
    for name in TopologicalSorter(inputs).static_order():
        depth[name] = 1 + max((depth[i] for i in inputs[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for task in plan.tasks:
        rows[depth[task.id]].append(task.id)
    return rows


def draw(plan: Plan, states: Mapping[str, str] | None = None, *, width: int = 100) -> str:
    """The graph as text with rich markup: a block a layer, each task with what it reads."""
    state_by_id = states or {}
    inputs = graph_of(plan)
    lines: list[str] = []
    for depth, members in enumerate(layers(plan)):
        if depth:
            lines.append("  [dim]│[/dim]")
        for name in members:
            task = plan.task(name)
            assert task is not None
            lines.append(_row(name, body_of(task), inputs[task.id], state_by_id.get(name), width))
    return "\n".join(lines)


def _row(name: str, does: str, reads: Sequence[str], state: str | None, width: int) -> str:
    style, mark = STYLES.get(state or "", ""), SYMBOLS.get(state or "", "•")
    source = f" [dim]← {', '.join(reads)}[/dim]" if reads else ""
    words = does if len(does) + len(name) < width - 10 else does[: max(8, width - len(name) - 12)]
    head = f"{mark} {name}"
    body = f"[{style}]{head}[/{style}]" if style else head
    return f"  {body} [dim]{words}[/dim]{source}"
