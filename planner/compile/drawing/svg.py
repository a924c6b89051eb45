"""A plan as an SVG picture, coloured by state, in light and dark. Everything in it is escaped."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from html import escape

from planloom.planner.compile.drawing.layout import Layout, layout
from planloom.planner.compile.drawing.text import SIGNS as STATE_SIGNS
from planloom.planner.compile.explain import body_of
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task

NODE_WIDTH, NODE_HEIGHT = 176, 46
COLUMN_GAP, ROW_GAP = 56, 16
MARGIN = 12
NAME_MAX_CHARS, DOES_MAX_CHARS = 20, 26
LAYOUT_TASKS_MAX = 600
"""A picture of more tasks cannot be read, and takes seconds to make."""

SIGNS = {**STATE_SIGNS, "waiting": "", "added": "+", "removed": "−", "changed": "~"}
_COLOURS = {
    # state: (fill, stroke) in light and in dark
    "plain": ("#ffffff", "#b6bec9", "#1b2027", "#4b5563"),
    "ready": ("#fff8e1", "#c98a00", "#2b2410", "#d9a400"),
    "running": ("#e3efff", "#1f6feb", "#10233f", "#5b9dff"),
    "succeeded": ("#e6f6ea", "#1a7f37", "#12281a", "#3fb950"),
    "cached": ("#e6f6ea", "#1a7f37", "#12281a", "#3fb950"),
    "fallback": ("#fff1dc", "#b35900", "#2e2010", "#e0913a"),
    "failed": ("#ffebe9", "#cf222e", "#33161a", "#ff6b66"),
    "unknown": ("#ffebe9", "#cf222e", "#33161a", "#ff6b66"),
    "skipped": ("#f4f5f7", "#a9b1bc", "#191d22", "#59626d"),
    "cancelled": ("#f1ebfa", "#7d5bb0", "#241b33", "#a98bdb"),
    "added": ("#e6f6ea", "#1a7f37", "#12281a", "#3fb950"),
    "removed": ("#ffebe9", "#cf222e", "#33161a", "#ff6b66"),
    "changed": ("#fff8e1", "#c98a00", "#2b2410", "#d9a400"),
}
_DASHED = ("cached", "skipped", "unknown", "removed")


def _style() -> str:
    light = [f".pl-{n} .pl-b{{fill:{f};stroke:{s}}}" for n, (f, s, _, _) in _COLOURS.items()]
    dark = [f".pl-{n} .pl-b{{fill:{f};stroke:{s}}}" for n, (_, _, f, s) in _COLOURS.items()]
    return (
        ".pl-g{font:12px system-ui,-apple-system,'Segoe UI',sans-serif}"
        ".pl-b{stroke-width:1.4}.pl-t{fill:#1c2430;font-weight:600}.pl-d{fill:#5b6673}"
        ".pl-e{fill:none;stroke:#9aa4b1;stroke-width:1.4}.pl-w{stroke-dasharray:5 4}"
        ".pl-a{fill:#9aa4b1}.pl-p{stroke:#d1440c;stroke-width:2.6}"
        ".pl-k .pl-b{stroke-width:2.8}"
        + "".join(light)
        + "".join(f".pl-{n} .pl-b{{stroke-dasharray:5 3}}" for n in _DASHED)
        + "@media (prefers-color-scheme:dark){.pl-t{fill:#e6ebf2}.pl-d{fill:#9aa6b4}"
        ".pl-e{stroke:#66717f}.pl-a{fill:#66717f}.pl-p{stroke:#ff8a4c}" + "".join(dark) + "}"
    )


STYLE = _style()
"""The style sheet of all these pictures: once in a page, or inside a separate picture."""


def plan_svg(
    plan: Plan,
    states: Mapping[str, str] | None = None,
    *,
    notes: Mapping[str, str] | None = None,
    path: Collection[str] = (),
    links: bool = False,
    is_alone: bool = True,
) -> str:
    """The graph of a plan.

    `states` colours tasks, `notes` are a few characters beside their names (seconds, `8/12`),
    `path` is the critical path in order, `links` makes each task a link to `#task-<id>`;
    `is_alone`: with its own style sheet, as a file needs it.
    """
    inputs = {str(t): [str(i) for i in reads] for t, reads in graph_of(plan).items()}
    title = escape(plan.goal or plan.name or "A plan")
    if len(inputs) > LAYOUT_TASKS_MAX:
        return _too_large(len(inputs), title)
    placed = layout(inputs)
    steps = set(itertools.pairwise(path))
    parts = []
    for task in plan.tasks:
        judged = roots_of_condition(task.when) if task.when else ()
        for source in inputs.get(task.id, ()):
            if source in inputs:
                edge = (source, str(task.id))
                parts.append(_edge(placed, edge, source in judged, edge in steps))
    for task in plan.tasks:
        state = (states or {}).get(task.id, "")
        note = (notes or {}).get(task.id, "")
        parts.append(_node(placed, task, state, note, task.id in path, links))
    width = 2 * MARGIN + placed.width * (NODE_WIDTH + COLUMN_GAP) - COLUMN_GAP
    height = 2 * MARGIN + placed.height * (NODE_HEIGHT + ROW_GAP) - ROW_GAP
    return _svg(width, height, title, "".join(parts), is_alone)


def _svg(width: float, height: float, title: str, inner: str, is_alone: bool) -> str:
    style = f"<style>{STYLE}</style>" if is_alone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pl-g" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>{title}</title>{style}{inner}</svg>"
    )


def _too_large(count: int, title: str) -> str:
    words = f"{count:,} tasks: too many for a picture (at most {LAYOUT_TASKS_MAX})"
    return _svg(420, 40, title, f'<text class="pl-d" x="12" y="25">{words}</text>', True)


def _corner(placed: Layout, column: int, height: float) -> tuple[float, float]:
    return (
        MARGIN + column * (NODE_WIDTH + COLUMN_GAP),
        MARGIN + height * (NODE_HEIGHT + ROW_GAP),
    )


def _edge(placed: Layout, edge: tuple[str, str], is_condition: bool, is_critical: bool) -> str:
    """A curve from one task's right side to another's left, through its stand-ins."""
    source, task = edge
    x, y = _corner(placed, placed.columns[source], placed.heights[source])
    points = [(x + NODE_WIDTH, y + NODE_HEIGHT / 2)]
    for column, height in placed.ways.get(edge, ()):
        x, y = _corner(placed, column, height)
        points += [(x, y + NODE_HEIGHT / 2), (x + NODE_WIDTH, y + NODE_HEIGHT / 2)]
    x, y = _corner(placed, placed.columns[task], placed.heights[task])
    points.append((x - 6, y + NODE_HEIGHT / 2))
    line = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        bend = (x2 - x1) / 2
        line += f"C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    tip_x, tip_y = points[-1]
    tip = f"M{tip_x + 6:.1f} {tip_y:.1f}l-8 -4v8z"
    kinds = "pl-e" + (" pl-w" if is_condition else "") + (" pl-p" if is_critical else "")
    return f'<path class="{kinds}" d="{line}"/><path class="pl-a" d="{tip}"/>'


def _node(placed: Layout, task: Task, state: str, note: str, is_critical: bool, links: bool) -> str:
    x, y = _corner(placed, placed.columns[task.id], placed.heights[task.id])
    sign = SIGNS.get(state, "")
    name = _cut(f"{sign} {task.id}" if sign else task.id, NAME_MAX_CHARS - len(note) // 2)
    kind = state if state in _COLOURS else "plain"
    hint = " · ".join(filter(None, [task.id, state, body_of(task), task.description]))
    radius = NODE_HEIGHT / 2 if task.human is not None else 8
    box = f'width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="{radius:g}"'
    back = f'<rect class="pl-b" x="5" y="-5" {box}/>' if task.map is not None else ""
    inner = (
        f"<title>{escape(hint[:500])}</title>{back}"
        f'<rect class="pl-b" {box}/>'
        f'<text class="pl-t" x="12" y="20">{escape(name)}</text>'
        f'<text class="pl-d" x="12" y="36">{escape(_cut(body_of(task), DOES_MAX_CHARS))}</text>'
    )
    if note:
        place = f'x="{NODE_WIDTH - 10}" y="20" text-anchor="end"'
        inner += f'<text class="pl-d" {place}>{escape(note)}</text>'
    kinds = f"pl-{kind}" + (" pl-k" if is_critical else "")
    drawn = f'<g class="{kinds}" transform="translate({x:.1f} {y:.1f})">{inner}</g>'
    return f'<a href="#task-{escape(task.id)}">{drawn}</a>' if links else drawn


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def plan_dot(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """The graph in Graphviz's language; `states` colours its tasks."""
    lines = [
        "digraph plan {",
        '  rankdir=LR; node [shape=box, style="rounded,filled", fillcolor=white, '
        'fontname="sans-serif"];',
    ]
    for task in plan.tasks:
        state = (states or {}).get(task.id, "")
        fill, stroke = _COLOURS[state if state in _COLOURS else "plain"][:2]
        label = _quoted(f"{task.id}\n{body_of(task)}")
        colours = f'fillcolor="{fill}", color="{stroke}"'
        lines.append(f"  {_quoted(task.id)} [label={label}, {colours}];")
    known = {t.id for t in plan.tasks}
    for task_id, reads in graph_of(plan).items():
        lines += [f"  {_quoted(i)} -> {_quoted(task_id)};" for i in reads if i in known]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def changed_tasks(old: Plan, new: Plan) -> tuple[Plan, dict[str, str]]:
    """Both plans in one, and each task that differs as `added`, `removed` or `changed`."""
    before, after = {t.id: t for t in old.tasks}, {t.id: t for t in new.tasks}
    states = {str(t): "added" for t in after if t not in before}
    states |= {str(t): "removed" for t in before if t not in after}
    states |= {str(t): "changed" for t in after if t in before and before[t] != after[t]}
    gone: Sequence[Task] = [t for t in old.tasks if t.id not in after]
    return new.model_copy(update={"tasks": [*new.tasks, *gone]}), states
