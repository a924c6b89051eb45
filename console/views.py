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
RESULT_ROWS_MAX = 200
WIDE_COLUMNS = 76
"""From this width on a table shows what a narrow terminal has no room for."""
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
    """One row a task: outcome, seconds, what it gave. `width` is the terminal's: a narrow one
    sees the outcome as a sign, and no start."""
    is_wide = width >= WIDE_COLUMNS
    rows = list(result.tasks.items())[:RESULT_ROWS_MAX]
    names = min(30 if is_wide else 20, max([len(t) for t, _ in rows] + [4]))
    table = Table(box=None, pad_edge=False, header_style="bold", width=width)
    table.add_column("task", no_wrap=True, width=names, overflow="ellipsis")
    table.add_column("outcome" if is_wide else "", no_wrap=True, width=11 if is_wide else 1)
    if is_wide:
        table.add_column("start", justify="right", no_wrap=True, width=7)
    table.add_column("seconds", justify="right", no_wrap=True, width=7)
    table.add_column("output", overflow="ellipsis", no_wrap=True, ratio=1)
    for task, row in rows:
        sign = SYMBOLS.get(row.outcome, "")
        outcome = Text(f"{sign} {row.outcome}" if is_wide else sign, STYLES.get(row.outcome, ""))
        start = "" if row.times.started is None else f"{row.times.started:.2f}"
        cells = [Text(task), outcome, *([Text(start)] if is_wide else [])]
        table.add_row(*cells, Text(_seconds(row)), Text(_shown(row)))
    return table


def short_seconds(seconds: float) -> str:
    """A length of time in a few characters: `4.2s`, `3m 05s`, `2h 10m`, `5d`."""
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{max(0.0, seconds):.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d"


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
    items = f"{_items(row.items)} " if row.items else ""
    note = items + (f"({row.reason}) " if row.reason else "")
    return (note + text.replace("\n", " "))[:120]


def _items(items: dict[str, int]) -> str:
    """Items of a map that have a value, of all: `8/12`."""
    good = sum(n for state, n in items.items() if state in ("succeeded", "cached", "fallback"))
    return f"{good}/{sum(items.values())}"


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
        table.add_row(Text(f"{spec['name']}({names})"), Text(spec.get("description", "") + flags))
    return table
