"""The report of `planloom eval`: candidates side by side, by shape of plan, and goal by goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from planloom.console.evaluation import Candidate, EvalRow


def rows_of(rows: Sequence[EvalRow], candidate: Candidate) -> list[EvalRow]:
    return [r for r in rows if (r.model, r.syntax) == (candidate.model, candidate.syntax)]


def summary_of(rows: Sequence[EvalRow]) -> dict[str, Any]:
    """The figures to compare by; shares are of the goals that were run."""
    run = [r for r in rows if r.is_run]
    count = max(1, len(run))
    firsts = [r.first_task_seconds for r in run if r.first_task_seconds is not None]
    return {
        "goals": len(rows),
        "not_run": len(rows) - len(run),
        "plans_valid": sum(r.valid for r in run) / count,
        "plans_at_once": sum(r.at_once for r in run) / count,
        "plans_after_repair": sum(r.valid and not r.at_once for r in run) / count,
        "answers_right": sum(r.right for r in run) / count,
        "repairs": sum(r.repairs for r in run),
        "width_mean": round(statistics.fmean([r.width for r in run if r.valid] or [0]), 2),
        "tokens_median": statistics.median([r.tokens for r in run] or [0]),
        "tokens": sum(r.tokens for r in run),
        "usd": sum(r.usd for r in run),
        "first_task_seconds_median": round(statistics.median(firsts), 3) if firsts else None,
        "seconds_median": statistics.median([r.seconds for r in run] or [0.0]),
    }


def compared(rows: Sequence[EvalRow], candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """A summary for each candidate, and in it the answers that were right by shape."""
    return [
        {
            "model": c.model,
            "syntax": c.syntax,
            **summary_of(own := rows_of(rows, c)),
            "right_by_shape": {s: _right(own, s) for s in _shapes(own)},
        }
        for c in candidates
    ]


def _shapes(rows: Sequence[EvalRow]) -> list[str]:
    return list(dict.fromkeys(r.shape for r in rows if r.shape))


def _right(rows: Sequence[EvalRow], shape: str) -> list[int]:
    own = [r for r in rows if r.shape == shape and r.is_run]
    return [sum(r.right for r in own), len(own)]


def comparison_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """One line for each model and syntax."""
    names = ("model", "syntax", "goals", "valid at once", "after repair", "right", "width")
    table = _table(*names, "tokens", "first task", "seconds", "usd", left=2)
    for s in summaries:
        first = s["first_task_seconds_median"]
        table.add_row(
            s["model"] or "(the worker's)",
            s["syntax"],
            str(s["goals"] - s["not_run"]),
            f"{s['plans_at_once']:.0%}",
            f"{s['plans_after_repair']:.0%}",
            f"{s['answers_right']:.0%}",
            f"{s['width_mean']:.1f}",
            f"{s['tokens_median']:,.0f}",
            "" if first is None else f"{first:.2f} s",
            f"{s['seconds_median']:.1f}",
            f"{s['usd']:.4f}",
        )
    return table


def shapes_table(summaries: Sequence[dict[str, Any]]) -> Table | None:
    """Answers that were right, by shape of plan; None for a set without shapes."""
    shapes = list(dict.fromkeys(shape for s in summaries for shape in s["right_by_shape"]))
    if not shapes:
        return None
    table = _table("right by shape", "", *shapes, left=2)
    for s in summaries:
        cells = (s["right_by_shape"].get(shape, [0, 0]) for shape in shapes)
        name = s["model"] or "(the worker's)"
        table.add_row(name, s["syntax"], *(f"{right}/{count}" for right, count in cells))
    return table


def goals_table(rows: Sequence[EvalRow]) -> Table:
    """One line for each goal."""
    names = ("goal", "plan", "answer", "tasks", "width", "repairs", "tokens", "seconds")
    table = _table(*names, left=1)
    for row in rows:
        table.add_row(
            row.id,
            "not run" if not row.is_run else "valid" if row.valid else "none",
            "right" if row.right else "wrong",
            str(row.tasks),
            str(row.width),
            str(row.repairs),
            f"{row.tokens:,}",
            f"{row.seconds:.1f}",
        )
    return table


def _table(*names: str, left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, name in enumerate(names):
        table.add_column(name, no_wrap=True, justify="left" if n < left else "right")
    return table
