"""A plan's graph drawn in a terminal: levels of tasks, coloured by state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from planloom.planner.compile.drawing.text import SIGNS, levels
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


def draw(plan: Plan, states: Mapping[str, str] | None = None, *, width: int = 100) -> Text:
    """The graph as coloured text: a block a level, each task with what it reads."""
    state_by_id = states or {}
    inputs = graph_of(plan)
    drawn = Text()
    for depth, members in enumerate(levels(plan)):
        if depth:
            drawn.append("\n  │\n", "dim")
        for n, name in enumerate(members):
            task = plan.task(name)
            assert task is not None
            drawn.append("\n" if n else "")
            drawn.append(_row(name, body_of(task), inputs[task.id], state_by_id.get(name), width))
    return drawn


def _row(name: str, does: str, reads: Sequence[str], state: str | None, width: int) -> Text:
    mark = SIGNS.get(state or "", "•")
    source = f" ← {', '.join(reads)}" if reads else ""
    words = does if len(does) + len(name) < width - 10 else does[: max(8, width - len(name) - 12)]
    head = (f"  {mark} {name}", STYLES.get(state or "", ""))
    return Text.assemble(head, (f" {words}{source}", "dim"))
