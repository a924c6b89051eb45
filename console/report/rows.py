"""The rows of a page: tasks, the timeline's bars, and what was spent of which cap."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from planloom.console.report.facts import RunFacts
from planloom.console.views import short_seconds
from planloom.planner.compile.drawing.text import SIGNS
from planloom.planner.compile.explain import body_of
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.contract.results import RunResult
from planloom.planner.language.plan import Plan, Task

GANTT_ROWS_MAX = 300
TASK_ROWS_MAX = 1_000
VALUE_MAX_CHARS = 4_000
TICKS = 5
START_SHARE_MAX = 0.4
"""A longer part of the run before its first task, such as an approval, is not drawn."""
_BODY = ("tool", "ask", "agent", "team", "plan", "human", "args", "map", "when", "fallback")


def shown_value(value: Any) -> dict[str, str]:
    """A value as text: whole when it is short, else its beginning and how much there is."""
    if value is None:
        return {"kind": "none", "text": "", "note": ""}
    if isinstance(value, dict) and {"preview", "blob"} <= set(value):
        size = value.get("size_bytes")
        of = f" of {size:,} bytes" if isinstance(size, int) else ""
        note = f"The beginning{of}. The whole: planloom blob {value['blob']}"
        return {"kind": "text", "text": str(value["preview"] or ""), "note": note}
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) <= VALUE_MAX_CHARS:
        return {"kind": "text", "text": text, "note": ""}
    note = f"The first {VALUE_MAX_CHARS:,} of {len(text):,} characters."
    return {"kind": "text", "text": text[:VALUE_MAX_CHARS], "note": note}


def task_rows(
    plan: Plan, reports: dict[str, dict[str, Any]], estimate: dict[str, Any], path: Sequence[str]
) -> list[dict[str, Any]]:
    """Each task of the plan: what it is given, what it gave, how long and how much it took."""
    inputs = graph_of(plan)
    likely = estimate.get("tasks") or {}
    return [
        _task_row(task, list(inputs[task.id]), reports.get(task.id, {}), likely.get(task.id), path)
        for task in plan.tasks[:TASK_ROWS_MAX]
    ]


def _task_row(
    task: Task, reads: list[Any], report: dict[str, Any], likely: Any, path: Sequence[str]
) -> dict[str, Any]:
    times, usage = report.get("times") or {}, report.get("usage") or {}
    started, ended = times.get("started"), times.get("ended")
    seconds = "" if started is None or ended is None else short_seconds(ended - started)
    output = report.get("output")
    if report.get("blob"):
        output = {k: report.get(k) for k in ("preview", "blob", "size_bytes")}
    elif output is None and report.get("preview"):
        output = report["preview"]
    written = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    state = str(report.get("state") or "")
    items = report.get("items") or {}
    good = sum(n for s, n in items.items() if s in ("succeeded", "cached", "fallback"))
    return {
        "id": task.id,
        "state": state or "planned",
        "sign": SIGNS.get(state, "·"),
        "does": body_of(task),
        "description": task.description,
        "seconds": seconds,
        "counted": f"{good}/{sum(items.values())} items" if items else "",
        "facts": _facts(report, times, usage, likely, is_critical=task.id in path),
        "error": report.get("error") or "",
        "reads": reads,
        "body": shown_value({k: written[k] for k in _BODY if k in written}),
        "output": shown_value(output),
    }


def _facts(
    report: dict[str, Any],
    times: dict[str, Any],
    usage: dict[str, Any],
    likely: Any,
    *,
    is_critical: bool,
) -> str:
    parts = []
    if is_critical:
        parts.append("on the critical path")
    if times.get("ready") is not None:
        parts.append(f"ready at {times['ready']:.2f} s")
    if times.get("started") is not None:
        parts.append(f"started at {times['started']:.2f} s")
    if times.get("ended") is not None:
        parts.append(f"ended at {times['ended']:.2f} s")
    span = likely.get("seconds") if isinstance(likely, dict) else None
    if isinstance(span, list):
        parts.append(f"estimated {short_seconds(span[1])}")
    if (attempts := report.get("attempts") or 0) > 1:
        parts.append(f"{attempts} attempts")
    if usage.get("tokens"):
        parts.append(f"{usage['tokens']:,} tokens, ${usage.get('usd', 0):.4f}")
    if report.get("reason"):
        parts.append(str(report["reason"]))
    return " · ".join(parts)


# -- the timeline ---------------------------------------------------------------------------


def gantt_of(facts: RunFacts, path: Sequence[str]) -> dict[str, Any]:
    """A bar for each task: what it waited for room, and what it worked; in order of their start."""
    now = facts.progress.seconds if facts.progress is not None else 0.0
    people = {t.id for t in facts.plan.tasks if t.human is not None} if facts.plan else set()
    bars: list[tuple[float, float, float, str, str]] = []  # ready, started, ended, task, state
    for task, row in facts.tasks.items():
        times = row.get("times") or {}
        if (started := times.get("started")) is not None:
            ended = times.get("ended")
            end = max(started, now) if ended is None else ended
            ready = times.get("ready")
            ready = started if ready is None else min(ready, started)
            state = "person" if task in people else str(row.get("state", ""))
            bars.append((ready, started, end, task, state))
    result = facts.result if isinstance(facts.result, RunResult) else None
    planned = result.planning.get("seconds") if result is not None else None
    if isinstance(planned, int | float) and bars:
        bars.append((0.0, 0.0, float(planned), "planner", "succeeded"))
    last = max((end for _, _, end, _, _ in bars), default=0.0)
    if result is not None and planned is not None and result.seconds - last > 0.05:
        bars.append((last, last, result.seconds, "joiner", "succeeded"))
        last = result.seconds
    bars.sort()
    first = bars[0][0] if bars else 0.0
    if first < START_SHARE_MAX * last:
        first = 0.0  # a short wait before the first task is part of the story
    total = max(last - first, 1e-6)
    rows = [
        _bar((ready - first, started - first, end - first, task, state), first, total, path)
        for ready, started, end, task, state in bars[:GANTT_ROWS_MAX]
    ]
    ticks = [
        {"left": 100 * n / TICKS, "label": _tick(first + total * n / TICKS, first + total)}
        for n in range(TICKS + 1)
    ]
    return {
        "rows": rows,
        "legend": _legend([row["state"] for row in rows]),
        "has_waits": any(row["wait_width"] for row in rows),
        "ticks": ticks if rows else [],
        "hidden": max(0, len(bars) - GANTT_ROWS_MAX),
        "path": " → ".join(path[:12]),
    }


_BARS = {
    "good": "work",
    "running": "running",
    "fallback": "failed, its fallback was used",
    "failed": "failed",
    "person": "waiting for a person",
    "cancelled": "cancelled",
    "unknown": "may have acted",
}


def _legend(states: Sequence[str]) -> list[dict[str, str]]:
    """The colors of the bars that there are, in words."""
    there = {"good" if state in ("succeeded", "cached") else state for state in states}
    return [{"css": f"s-{s}", "words": words} for s, words in _BARS.items() if s in there]


def _bar(
    bar: tuple[float, float, float, str, str], first: float, total: float, path: Sequence[str]
) -> dict[str, Any]:
    ready, started, ended, task, state = bar
    left, width = 100 * started / total, 100 * (ended - started) / total
    waited = started - ready
    took = ended - started
    words = short_seconds(took) if took >= 1 else f"{took:.2f}s"
    # The words stand behind a bar, or before one that reaches the end.
    place = f"left:{left + width:.2f}%" if left + width < 82 else f"right:{100 - left:.2f}%"
    if left < 12 and left + width >= 82:
        place = f"left:{left:.2f}%;color:#fff"  # on the bar itself
    told = _BARS["person"] if state == "person" else state
    title = f"{task}: {told}, from {first + started:.2f} s to {first + ended:.2f} s"
    if waited > 0.005:
        title += f", after waiting {waited:.2f} s for room"
    return {
        "task": task,
        "state": state,
        "left": f"{left:.3f}",
        "width": f"{width:.3f}",
        "wait_left": f"{100 * ready / total:.3f}",
        "wait_width": f"{100 * waited / total:.3f}" if waited > 0.002 * total else "",
        "seconds": words,
        "place": place,
        "title": title,
        "is_critical": task in path,
    }


def _tick(seconds: float, total: float) -> str:
    return f"{seconds:.2f}s" if total < 10 else short_seconds(seconds)


# -- money ----------------------------------------------------------------------------------


def cost_rows(
    usage: dict[str, Any], estimate: dict[str, Any], seconds: float | None
) -> list[dict[str, Any]]:
    """Tokens, money, time and tasks: used, reserved, the cap, and what was estimated."""
    settled, held = usage.get("settled") or {}, usage.get("reserved") or {}
    caps = usage.get("caps") or {}
    rows = []
    for name, key, form in (
        ("tokens", "tokens", "{:,.0f}"),
        ("money", "usd", "${:.4f}"),
        ("seconds", "seconds", "{:,.1f}"),
        ("tasks started", "tasks", "{:,.0f}"),
    ):
        used = seconds if key == "seconds" else settled.get(key, usage.get(key))
        spans = estimate.get(key) if key != "tasks" else None
        if used is None and not spans:
            continue
        cap, reserved = caps.get(key), held.get(key) or 0
        rows.append(
            {
                "name": name,
                "used": "" if used is None else form.format(used),
                "reserved": form.format(reserved) if reserved else "",
                "cap": form.format(cap) if cap else "none" if usage else "",
                "percent": round(min(100, 100 * (used or 0) / cap), 1) if cap else None,
                "held_percent": round(min(100, 100 * reserved / cap), 1) if cap else None,
                "is_full": cap is not None and (used or 0) + reserved >= cap,
                "estimate": " / ".join(form.format(s) for s in spans) if spans else "",
            }
        )
    return rows
