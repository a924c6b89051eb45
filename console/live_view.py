"""What `watch` shows of a run: levels of tasks, what is spent of which cap, what waits. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planloom.console.graph import STYLES
from planloom.console.views import short_seconds
from planloom.planner.compile.drawing.text import SIGNS, levels
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.contract.results import OpenWait, Progress
from planloom.planner.language.plan import Plan

READS_COLUMNS = 96
"""From this width on a task also shows what it reads."""
NAME_MAX_CHARS = 40
FEW_ROWS = 6
"""So many tasks are shown whatever the height of the terminal."""
WAITS_SHOWN = 4
WAIT_LINES = 4
"""A wait says what to do about it, so it is cut late."""
_GOOD = ("succeeded", "cached", "fallback")
_DULL = (*_GOOD, "waiting", "skipped")
"""States of tasks that make room first when there is not enough."""


@dataclass(slots=True)
class Shown:
    """All that a view is made of."""

    run: str
    progress: Progress
    plan: Plan | None = None
    caps: Mapping[str, Any] = field(default_factory=dict)
    keys: Sequence[str] = ()
    """What can be pressed, in words."""
    said: str = ""
    """The answer to the last decision."""


def live_view(shown: Shown, width: int, height: int) -> RenderableType:
    """The whole view, for a terminal of this size."""
    now = shown.progress
    below = _below(shown, width)
    room = max(FEW_ROWS, height - sum(_lines(each, width) for each in below) - 4)
    parts: list[RenderableType] = [_head(shown)]
    if now.goal:
        parts.append(Text(_cut(" ".join(now.goal.split()), width), style="dim"))
    if shown.plan is not None:
        parts.append(_levels(shown.plan, now, width, room))
    elif now.members:
        parts.append(_members(now))
    elif now.tasks:
        parts.append(_table(_rows(list(now.tasks), now, {}, width, room)))
    return Group(*parts, *below)


def _head(shown: Shown) -> Text:
    now = shown.progress
    done = sum(n for state, n in now.counts.items() if state in _GOOD)
    head = Text.assemble((now.status, "bold"), overflow="fold")
    if now.counts:
        head.append(f"  {done}/{sum(now.counts.values())} tasks")
    if now.phase and now.phase != now.status:
        head.append(f"  {now.phase}")
    head.append(f"  {short_seconds(now.seconds)}")
    if now.revision > 1:
        head.append(f"  revision {now.revision}")
    for text in spent(now, shown.caps):
        head.append(f"  {text}")
    for state in ("failed", "unknown", "cancelled"):
        if n := now.counts.get(state):
            head.append(f"  {n} {state}", style=STYLES[state])
    return head


def spent(now: Progress, caps: Mapping[str, Any]) -> list[str]:
    """Tokens and money so far, against their caps."""
    found = []
    if now.usage.tokens or caps.get("tokens"):
        cap = f" of {caps['tokens']:,}" if caps.get("tokens") else ""
        found.append(f"{now.usage.tokens:,}{cap} tokens")
    if now.usage.usd or caps.get("usd"):
        cap = f" of ${caps['usd']:g}" if caps.get("usd") else ""
        found.append(f"${now.usage.usd:.4f}{cap}")
    return found


# -- tasks ----------------------------------------------------------------------------------


def _levels(plan: Plan, now: Progress, width: int, room: int) -> Table:
    """The tasks by level; where there is not room for all, each level is cut on its own."""
    reads = {str(t): [str(i) for i in ins] for t, ins in graph_of(plan).items()}
    each = levels(plan)
    left = max(0, room - len(each) + 1)  # a line between two levels
    share = max(1, left // max(1, len(each)))
    is_all = sum(map(len, each)) <= left
    rows: list[tuple[Text, ...]] = []
    for n, members in enumerate(each):
        if n:
            rows.append((Text("  │", style="dim"), Text(), Text(), Text()))
        rows += _rows(members, now, reads, width, len(members) if is_all else share)
    return _table(rows)


def _rows(
    members: Sequence[str],
    now: Progress,
    reads: Mapping[str, Sequence[str]],
    width: int,
    room: int,
) -> list[tuple[Text, ...]]:
    """A row a task, those that matter now first when not all have room; then how many more."""
    shown = list(members)
    if len(shown) > room:
        shown.sort(key=lambda task: now.tasks.get(task, "waiting") in _DULL)
        shown = shown[: max(1, room - 1)]
    rows = [_row(task, now, reads.get(task, ()), width) for task in shown]
    if hidden := [t for t in members if t not in set(shown)]:
        counts: dict[str, int] = {}
        for task in hidden:
            state = now.tasks.get(task, "waiting")
            counts[state] = counts.get(state, 0) + 1
        words = ", ".join(f"{n} {state}" for state, n in counts.items())
        rows.append((Text(f"… {words}", style="dim"), Text(), Text(), Text()))
    return rows


def _row(task: str, now: Progress, reads: Sequence[str], width: int) -> tuple[Text, ...]:
    state = now.tasks.get(task, "waiting")
    name = _cut(task, min(NAME_MAX_CHARS, max(12, width - 26)))
    seconds = now.running_seconds.get(task)
    items = now.items.get(task)
    counted = f"{sum(items.get(s, 0) for s in _GOOD)}/{sum(items.values())}" if items else ""
    word = "" if state in _DULL or state == "running" else state
    source = f"← {', '.join(reads)}" if reads and width >= READS_COLUMNS else ""
    return (
        Text(f"{SIGNS.get(state, '·')} {name}", style=STYLES.get(state, "")),
        Text(counted),
        Text(short_seconds(seconds) if seconds is not None else word),
        Text(_cut(source, max(0, width - len(name) - 24)), style="dim"),
    )


def _table(rows: Sequence[tuple[Text, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _members(now: Progress) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for member, state in now.members.items():
        style = STYLES.get(state, "")
        table.add_row(Text(f"{SIGNS.get(state, '·')} {member}", style=style), Text(state))
    return table


# -- what waits -----------------------------------------------------------------------------


def _lines(text: Text, width: int) -> int:
    return max(1, ceil(text.cell_len / max(1, width)))


def _below(shown: Shown, width: int) -> list[Text]:
    parts: list[Text] = []
    if shown.progress.reason:
        parts.append(Text(shown.progress.reason, style="red", overflow="fold"))
    for wait in shown.progress.waits[:WAITS_SHOWN]:
        what = _cut(wait.what, WAIT_LINES * width - 2)
        parts.append(Text(f"? {what}", style="yellow", overflow="fold"))
        parts.append(Text(f"  {answer_command(shown.run, wait)}", style="bold", overflow="fold"))
    if shown.said:
        parts.append(Text(shown.said, style="green", overflow="fold"))
    if shown.keys:
        parts.append(Text("  ".join(shown.keys), style="dim", overflow="fold"))
    return parts


def answer_command(run: str, wait: OpenWait) -> str:
    """The shortest command that answers a wait."""
    id = str(wait.input.get("id", ""))
    match wait.update:
        case "approve_plan":
            return shlex.join(["planloom", "approve", run])
        case "approve_task":
            return shlex.join(["planloom", "approve", run, "--task", id])
        case "complete_task":
            return f"{shlex.join(['planloom', 'complete', run, id])} '…'"
        case "raise_budget":
            caps = [word for k, v in wait.input.items() for word in (f"--{k}", _number(v))]
            return shlex.join(["planloom", "budget", run, *caps])
    return wait.command


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


# -- plain lines ----------------------------------------------------------------------------


def plain_line(now: Progress, caps: Mapping[str, Any]) -> str:
    """Progress as one line without its time, for a pipe or a log."""
    counts = ", ".join(f"{n} {state}" for state, n in now.counts.items())
    maps = [
        f"{task} {sum(c.get(s, 0) for s in _GOOD)}/{sum(c.values())}"
        for task, c in now.items.items()
        if now.tasks.get(task) == "running"
    ]
    parts = [counts or ("" if now.phase == now.status else now.phase), *maps, *spent(now, caps)]
    return f"{now.status}: {', '.join(filter(None, parts))}".rstrip(": ")


def wait_lines(run: str, waits: Sequence[OpenWait]) -> list[str]:
    """What waits, each with the command that answers it."""
    return [f"waiting for {w.kind}: {w.what}: {answer_command(run, w)}" for w in waits]
