"""A plan's graph as one SVG picture: no script, no outside file, readable in light and dark. Pure.

Tasks stand in columns: each to the right of all that it reads. Within a column a task stands near
the middle of its inputs, which keeps most lines short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from html import escape

from planloom.planner.compile.explain import body_of
from planloom.planner.compile.pipeline import graph_of
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task

BOX_WIDTH, BOX_HEIGHT = 190, 46
GAP_X, GAP_Y, MARGIN = 60, 18, 12
NAME_MAX_CHARS, WORDS_MAX_CHARS = 24, 30
TASKS_MAX = 400
"""A larger graph is no picture any more: the rest is counted below it."""

COLOURS = {
    "waiting": ("#f1f1f1", "#8a8a8a"),
    "ready": ("#fff3c4", "#b78900"),
    "running": ("#cfe5ff", "#1f6feb"),
    "succeeded": ("#d3f2d9", "#1a7f37"),
    "cached": ("#d3f2d9", "#1a7f37"),
    "fallback": ("#ffe8c7", "#bc6c00"),
    "failed": ("#ffd8d6", "#cf222e"),
    "skipped": ("#f6f6f6", "#9a9a9a"),
    "cancelled": ("#e8e0f0", "#7d5bb0"),
    "unknown": ("#ffd8d6", "#cf222e"),
}
PLAIN = ("#eef3fb", "#5b7aa6")
DASHED = ("cached", "skipped", "unknown")


def svg(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """The graph as an SVG document; with `states` its tasks are coloured by them."""
    tasks = plan.tasks[:TASKS_MAX]
    known, graph = {t.id for t in tasks}, graph_of(plan)
    inputs: dict[str, list[str]] = {
        t.id: [i for i in graph[t.id] if i in known and i != t.id] for t in tasks
    }
    columns = _columns(tasks, inputs)
    places = {
        name: (MARGIN + x * (BOX_WIDTH + GAP_X), MARGIN + y * (BOX_HEIGHT + GAP_Y))
        for x, column in enumerate(columns)
        for y, name in enumerate(column)
    }
    rest = len(plan.tasks) - len(tasks)
    rows = max((len(c) for c in columns), default=1)
    width = 2 * MARGIN + len(columns) * (BOX_WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + rows * (BOX_HEIGHT + GAP_Y) - GAP_Y + (20 if rest else 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" style="max-width:100%;height:auto;font-family:system-ui,sans-serif">',
        f"<title>{_text(plan.goal or plan.name or 'plan', 200)}</title>",
    ]
    for task in tasks:
        judged = roots_of_condition(task.when) if task.when else ()
        lines += [
            _line(places[needed], places[task.id], is_dashed=needed in judged)
            for needed in inputs[task.id]
        ]
    lines += [_box(task, places[task.id], (states or {}).get(task.id)) for task in tasks]
    if rest:
        lines.append(
            f'<text x="{MARGIN}" y="{height - 8}" font-size="12" fill="#808080">'
            f"… and {rest} more tasks</text>"
        )
    return "\n".join([*lines, "</svg>"])


def _columns(tasks: Sequence[Task], inputs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Task ids by depth, each column ordered by the middle of its tasks' inputs."""
    depth: dict[str, int] = {}
    for name in TopologicalSorter(inputs).static_order():
        depth[name] = 1 + max((depth[i] for i in inputs[name]), default=-1)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for task in tasks:
        columns[depth[task.id]].append(task.id)
    row: dict[str, float] = {}
    for column in columns:
        middle = {
            name: sum(row[i] for i in inputs[name]) / len(inputs[name]) if inputs[name] else n
            for n, name in enumerate(column)
        }
        column.sort(key=lambda name: middle[name])
        row |= {name: float(y) for y, name in enumerate(column)}
    return columns


def _line(source: tuple[int, int], target: tuple[int, int], *, is_dashed: bool) -> str:
    x1, y1 = source[0] + BOX_WIDTH, source[1] + BOX_HEIGHT // 2
    x2, y2 = target[0], target[1] + BOX_HEIGHT // 2
    bend = max(24, (x2 - x1) // 2)
    dash = ' stroke-dasharray="5 4"' if is_dashed else ""
    return (
        f'<path d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" '
        f'stroke="#8a8a8a" stroke-width="1.4"{dash}/>'
    )


def _box(task: Task, place: tuple[int, int], state: str | None) -> str:
    x, y = place
    fill, edge = COLOURS.get(state, PLAIN) if state else PLAIN
    dash = ' stroke-dasharray="4 3"' if state in DASHED else ""
    radius = BOX_HEIGHT // 2 if task.human is not None else 7
    words = task.description or body_of(task)
    told = f"{task.id}: {words}" + (f" ({state})" if state else "")
    return (
        f"<g><title>{_text(told, 300)}</title>"
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{radius}" '
        f'fill="{fill}" stroke="{edge}" stroke-width="1.5"{dash}/>'
        f'<text x="{x + 12}" y="{y + 19}" font-size="13" font-weight="600" fill="#1b1b1b">'
        f"{_text(task.id, NAME_MAX_CHARS)}</text>"
        f'<text x="{x + 12}" y="{y + 36}" font-size="11" fill="#4a4a4a">'
        f"{_text(words, WORDS_MAX_CHARS)}</text></g>"
    )


def _text(text: str, chars_max: int) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return escape(line if len(line) <= chars_max else line[: chars_max - 1] + "…")
