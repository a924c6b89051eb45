"""What the command line prints: tables, answers, problems. Data in, rich renderables out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planloom.console.graph import STYLES, SYMBOLS
from planloom.planner.contract.results import Progress, RunResult, TaskReport
from planloom.planner.language.values import JsonValue

PROGRESS_ROWS_MAX = 30
_ORDER = ("running", "ready", "failed", "fallback", "waiting")


def as_text(value: JsonValue) -> str:
    """An answer for a person: text as it is, anything else as indented JSON."""
    if isinstance(value, dict) and {"preview", "blob"} <= set(value):
        return f"{value['preview']}\n\nThe whole answer: planloom blob {value['blob']}"
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def progress_view(shown: Progress) -> RenderableType:
    """A live table of tasks under one line of status."""
    counts = "  ".join(
        f"[{STYLES.get(state, '')}]{n} {state}[/]" if STYLES.get(state) else f"{n} {state}"
        for state, n in shown.counts.items()
    )
    head = Text.from_markup(f"[bold]{shown.status}[/bold]  {counts}  {shown.seconds:.1f}s")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    rows = sorted(
        shown.tasks.items(), key=lambda e: _ORDER.index(e[1]) if e[1] in _ORDER else len(_ORDER)
    )
    for task, state in rows[:PROGRESS_ROWS_MAX]:
        style = STYLES.get(state, "")
        table.add_row(
            Text(f"{SYMBOLS.get(state, ' ')} {task}", style=style), Text(state, style="dim")
        )
    if len(rows) > PROGRESS_ROWS_MAX:
        table.add_row(Text(f"… and {len(rows) - PROGRESS_ROWS_MAX} more", style="dim"), "")
    parts: list[RenderableType] = [head]
    if shown.detail:
        parts.append(Text(f"awaiting {shown.awaiting}: {shown.detail}", style="yellow"))
    return Group(*parts, table)


def progress_line(shown: Progress) -> str:
    """Progress as one plain line, for a pipe or a log."""
    counts = ", ".join(f"{n} {state}" for state, n in shown.counts.items())
    waits = f"; awaiting {shown.awaiting}: {shown.detail}" if shown.awaiting else ""
    return f"{shown.seconds:6.1f}s {shown.status}: {counts}{waits}"


def result_table(result: RunResult, width: int = 100) -> Table:
    """One row a task: outcome, when it ran, what it gave; `width` is the terminal's."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = min(30, max([len(t) for t in result.tasks] + [4]))
    for name, least in (("task", names), ("outcome", 11)):
        table.add_column(name, no_wrap=True, min_width=least)
    for name in ("start", "seconds"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7)
    room = max(20, width - names - 11 - 14 - 6)
    table.add_column("output", overflow="ellipsis", no_wrap=True, max_width=room)
    for task, row in list(result.tasks.items())[:200]:
        table.add_row(
            task,
            Text(
                f"{SYMBOLS.get(row.outcome, '')} {row.outcome}", style=STYLES.get(row.outcome, "")
            ),
            "" if row.times.started is None else f"{row.times.started:.2f}",
            _seconds(row),
            _shown(row),
        )
    return table


def _seconds(row: TaskReport) -> str:
    if row.times.started is None or row.times.ended is None:
        return ""
    return f"{row.times.ended - row.times.started:.2f}"


def _shown(row: TaskReport) -> str:
    if row.error and not row.outcome.is_good:
        return row.error.split("\n")[0][:120]
    if row.blob:
        return f"{row.preview} [{row.size_bytes:,} bytes, blob {row.blob[:12]}]"[:160]
    text = row.output if isinstance(row.output, str) else json.dumps(row.output, ensure_ascii=False)
    note = f"({row.reason}) " if row.reason else ""
    return (note + text.replace("\n", " "))[:120]


def times_line(result: RunResult) -> str:
    """The run's time beside the ideal: its critical path, which nothing could undercut."""
    ideal = result.critical_path_seconds
    factor = f", {result.seconds / ideal:.2f} times the ideal" if ideal > 0 else ""
    work = sum(
        (r.times.ended or 0) - (r.times.started or 0)
        for r in result.tasks.values()
        if r.times.started is not None
    )
    path = " → ".join(result.critical_path[:8])
    return (
        f"took {result.seconds:.2f} s; critical path {ideal:.2f} s ({path}){factor}; "
        f"one after another: {work:.2f} s"
    )


def usage_line(result: RunResult) -> str:
    used = result.usage
    money = f"${used.usd:.4f}" if not used.unpriced_calls else "cost unknown"
    return (
        f"{used.model_calls} model calls, {used.tool_calls} tool calls, "
        f"{used.tokens:,} tokens, {money}"
    )


def tools_table(specs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tool", no_wrap=True)
    table.add_column("what it does")
    for spec in specs:
        names = ", ".join(spec.get("parameters", {}).get("properties", {}))
        flags = " [acts]" if spec.get("side_effects") else ""
        table.add_row(f"{spec['name']}({names})", Text(spec.get("description", "") + flags))
    return table
