"""A run as a page of Markdown: for a chat, a pull request, or an agent that tells a person."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from planloom import Refused, Run, RunFailed
from planloom.planner.compile.explain import mermaid
from planloom.planner.contract.results import Progress, RunResult, TaskReport

ANSWER_MAX_CHARS = 20_000
CELL_MAX_CHARS = 120


async def report_of(run: Run) -> str:
    """The report of a run that has ended, or of one that is in progress."""
    result: Any = None
    if await run.describe() != "RUNNING":
        try:
            result = await run.result()
        except RunFailed as error:
            lines = "\n".join(f"- {p.line()}" for p in error.problems)
            return f"# Run {run.id}: refused\n\n{error.type}\n\n{lines or error}\n"
    shown = await run.progress()
    graph = ""
    with contextlib.suppress(Refused, ValueError):  # an agent has none, nor has a run that begins
        plan = await run.plan()
        drawn = mermaid(plan, shown.tasks)
        graph = f"## Plan, revision {shown.revision}\n\n```mermaid\n{drawn}\n```\n"
    parts = [_head(run, shown, result), _waits(shown), graph, _tasks(result), _notes(shown, result)]
    return "\n".join(part for part in parts if part)


def _head(run: Run, shown: Progress, result: RunResult | None) -> str:
    status = result.status if result is not None else shown.status
    usage = result.usage if result is not None else shown.usage
    seconds = result.seconds if result is not None else shown.seconds
    lines = [f"# Run {run.id}: {status}", ""]
    if shown.goal:
        lines += [f"**Goal:** {shown.goal}", ""]
    if result is not None and result.reason:
        lines += [f"**Reason:** {result.reason}", ""]
    lines.append(
        f"{seconds:.1f} s, {usage.model_calls} model calls, {usage.tool_calls} tool calls, "
        f"{usage.tokens:,} tokens, ${usage.usd:.4f}"
    )
    if result is not None and result.answer is not None:
        answer = result.answer
        text = (
            answer if isinstance(answer, str) else json.dumps(answer, indent=2, ensure_ascii=False)
        )
        lines += ["", "## Answer", "", _cut(text, ANSWER_MAX_CHARS)]
    return "\n".join(lines) + "\n"


def _waits(shown: Progress) -> str:
    if not shown.waits:
        return ""
    rows = [f"- {w.kind}: {w.what}\n\n      {w.command}" for w in shown.waits]
    return "## It waits for\n\n" + "\n".join(rows) + "\n"


def _tasks(result: RunResult | None) -> str:
    tasks: dict[str, TaskReport] = getattr(result, "tasks", None) or {}
    if not tasks:
        return ""
    rows = ["| task | outcome | seconds | tokens | output or cause |", "|---|---|---|---|---|"]
    for name, task in tasks.items():
        times = task.times
        took = f"{times.ended - times.started:.2f}" if times.ended and times.started else ""
        told = task.error or task.preview
        if told is None:
            told = task.output if isinstance(task.output, str) else json.dumps(task.output)
        rows.append(
            f"| {name} | {task.outcome} | {took} | {task.usage.tokens or ''} | {_cell(told)} |"
        )
    return "## Tasks\n\n" + "\n".join(rows) + "\n"


def _notes(shown: Progress, result: RunResult | None) -> str:
    notes = result.notes if result is not None else shown.notes
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else ""


def _cell(text: str) -> str:
    return _cut(" ".join(text.split()), CELL_MAX_CHARS).replace("|", "\\|")


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
