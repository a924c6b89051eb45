"""What a run shows of itself: progress, current details, result. Pure functions of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planloom.planner.contract.outcomes import aggregate
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import Aggregate, Awaiting, Progress, RunStatus, UsageReport
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.frontier import Frontier
from planloom.workflows.machines.run.record import Record
from planloom.workflows.machines.shared.page import DETAILS_MAX_CHARS, FENCE, markdown_page


def run_status(records: Mapping[TaskId, Record]) -> tuple[RunStatus, str | None]:
    """How a run that was not stopped ended, and why it is not `completed`."""
    failed = [t for t, r in records.items() if r.outcome in (Outcome.FAILED, Outcome.UNKNOWN)]
    cancelled = [
        t for t, r in records.items() if r.outcome is Outcome.CANCELLED and not r.is_excused
    ]
    holes = [t for t, r in records.items() if r.holes]
    good = any(r.outcome is not None and r.outcome.is_good for r in records.values())
    if not (failed or cancelled or holes):
        return "completed", None
    parts = []
    if failed:
        first = records[failed[0]]
        parts.append(f"failed: {_names(failed)} ({failed[0]}: {first.error or first.reason})")
    if cancelled:
        parts.append(f"cancelled: {_names(cancelled)}")
    if holes:
        parts.append("; ".join(f"{t}: {records[t].reason}" for t in holes[:5]))
    return ("failed" if failed and not good else "partial"), "; ".join(parts)


def _names(tasks: Sequence[str]) -> str:
    shown = ", ".join(tasks[:10])
    return shown if len(tasks) <= 10 else f"{shown} and {len(tasks) - 10} more"


def progress(
    *,
    status: str,
    awaiting: Awaiting | None,
    detail: str | None,
    revision: int,
    frontier: Frontier,
    settled_elsewhere: Mapping[str, str],
    usage: UsageReport,
    seconds: float,
    goal: str,
    notes: Sequence[str],
) -> Progress:
    """The answer of the query `progress`. `settled_elsewhere` are pruned and duplicate tasks."""
    tasks = {t: s.value for t, s in frontier.states().items()} | dict(settled_elsewhere)
    counts: dict[str, int] = {}
    for state in tasks.values():
        counts[state] = counts.get(state, 0) + 1
    return Progress(
        status=status,
        awaiting=awaiting,
        revision=revision,
        counts=counts,
        running=[t for t, s in tasks.items() if s == "running"],
        tasks=tasks,
        usage=usage,
        seconds=round(seconds, 3),
        goal=goal,
        detail=detail,
        notes=list(notes[-20:]),
    )


def aggregate_of(
    request: RunRequest,
    records: Mapping[TaskId, Record],
    failed_members: Mapping[str, Sequence[str]],
) -> Aggregate | None:
    """How the agents or teams of a request ended together; None for other runs."""
    if not request.agents and not request.teams:
        return None
    failures = {
        str(task): None if r.outcome and r.outcome.is_good else r.error or r.reason or "failed"
        for task, r in records.items()
    }
    return aggregate(failures, failed_members, {str(t): _class_of(r) for t, r in records.items()})


def _class_of(record: Record) -> str | None:
    return "cancelled" if record.outcome is Outcome.CANCELLED else record.error_class


_ORDER = ("running", "ready", "waiting", "failed", "unknown", "cancelled", "skipped")


def details_page(shown: Progress, records: Mapping[TaskId, Record], graph: str) -> str:
    """Markdown for the Web UI: a live table of tasks, and the graph as text."""
    counts = ", ".join(f"{n} {state}" for state, n in shown.counts.items())
    head = f"**{shown.status}**, revision {shown.revision}: {counts or 'no tasks yet'}"
    rows: list[tuple[str, ...]] = []
    for task, state in sorted(
        shown.tasks.items(), key=lambda e: _ORDER.index(e[1]) if e[1] in _ORDER else len(_ORDER)
    ):
        record = records.get(TaskId(task))
        seconds = f"{record.seconds:.2f}" if record and record.ended is not None else ""
        rows.append((task, state, seconds, (record.error or record.reason or "") if record else ""))
    page = markdown_page(shown.goal, head, shown.waits, ("task", "state", "seconds", "note"), rows)
    if graph and len(graph) < 6_000:
        shown_graph = graph.replace(FENCE, "")
        page += f"\n\n{FENCE}\n{shown_graph}\n{FENCE}"
    return page[:DETAILS_MAX_CHARS]
