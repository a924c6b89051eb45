"""What the command line prints: tables, answers, problems. Data in, rich renderables out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from planloom.console.graph import STYLES
from planloom.planner.compile.drawing.text import SIGNS
from planloom.planner.contract.results import RunResult, TaskReport
from planloom.planner.language.values import JsonValue

RESULT_ROWS_MAX = 200
WIDE_COLUMNS = 76
"""From this width on a table shows what a narrow terminal has no room for."""


def as_text(value: JsonValue) -> str:
    """An answer for a person: text as it is, anything else as indented JSON."""
    if isinstance(value, dict) and {"preview", "blob"} <= set(value):
        return f"{value['preview']}\n\nThe whole answer: planloom blob {value['blob']}"
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


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
        sign = SIGNS.get(row.outcome, "")
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
    """The run's time beside the ideal: its critical path, which nothing could undercut.

    A run that waited for a person is not held against it.
    """
    ideal, waited = result.critical_path_seconds, result.waited_seconds
    took = f"took {result.seconds:.2f} s"
    if waited:
        took += f", {waited:.2f} s of it waiting"
    if not result.critical_path:
        return took
    factor = f", {result.seconds / ideal:.2f} times the ideal" if ideal > 0 and not waited else ""
    work = sum(
        (r.times.ended or 0) - (r.times.started or 0)
        for r in result.tasks.values()
        if r.times.started is not None
    )
    path = " → ".join(result.critical_path[:8])
    return f"{took}; critical path {ideal:.2f} s ({path}){factor}; one after another: {work:.2f} s"


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
