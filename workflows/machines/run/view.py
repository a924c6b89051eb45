"""What a run shows of itself: its queries, search attributes and current details."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from planloom.planner.compile.drawing.text import text_graph
from planloom.planner.compile.explain import mermaid
from planloom.planner.contract.requests import Reused, Role
from planloom.planner.contract.results import Awaiting, OpenWait, Progress
from planloom.planner.language.values import NANO, Outcome, TaskId
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.run.finishing import estimate_of, usage_of
from planloom.workflows.machines.run.people import questions_of, what_of
from planloom.workflows.machines.run.record import REPORTS_MAX, Record, task_reports
from planloom.workflows.machines.run.state import Doing, RunState, Stage, Wait
from planloom.workflows.machines.run.status import details_page, progress
from planloom.workflows.machines.shared import account, waits
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.estimates import unpriced
from planloom.workflows.machines.shared.machine import Published

GRAPH_TASKS_MAX = 40
_PHASES = {
    Stage.PREPARING: "planning",
    Stage.ROOM: "planning",
    Stage.PLANNING: "planning",
    Stage.APPROVING: "running",
    Stage.JOINING: "joining",
}


# -- what is waited for ---------------------------------------------------------------------


def open_waits(run: RunState, now: float) -> list[OpenWait]:
    """Everything that people or the pool must give; in the order in which it is shown."""
    if run.result is not None:
        return []
    id, since = run.identity.workflow_id, run.account.started
    found: list[OpenWait] = []
    if run.room_wait is not None:
        found.append(waits.room_wait(run.room_wait, 0.0))
    if run.approval.is_open:
        why = f" ({'; '.join(run.approval.why)})" if run.approval.why else ""
        opened = run.approval_since - since
        found.append(waits.approval_wait(id, run.approval.revision, why, opened))
    for task, at in run.held.items():
        found.append(waits.task_wait(id, task, what_of(run, run.tasks[task]), at - since))
    for key, asks in run.asked.items():
        if asks.control == "approve_task":
            at = run.asked_since[key]
            found.append(waits.task_wait(id, key, asks.question or "", at - since))
    if (lack := lack_of(run, now)) is not None:
        least = run.lack_least if run.lack is not None else account.least_of(run.account)
        found.append(waits.budget_wait(run.account, lack + _why_so_much(run, least), least, now))
    for key, question in questions_of(run).items():
        if key in run.asked and run.asked[key].control != "complete_task":
            continue
        at = run.questions[key].since if key in run.questions else run.asked_since[key]
        is_decision = key in run.asked and run.asked[key].is_decision
        found.append(waits.question_wait(id, key, question, at - since, is_decision=is_decision))
    return found


def _why_so_much(run: RunState, least: Amount) -> str:
    """The reason when money runs out before much of it is paid: a price that nobody knows."""
    free = run.account.ledger.free.usd_nano
    models = unpriced(run.catalog, map(run.model_for, get_args(Role)))
    if free is None or free >= least.usd_nano or not models:
        return ""
    named = ", ".join(f'"{m}"' for m in models)
    return (
        f" (no price of {named} is known, so a high one is counted: give it under [prices] in "
        "planloom.toml, 0 for a local model)"
    )


def lack_of(run: RunState, now: float) -> str | None:
    """What the budget lacks for the run to go on, in words."""
    if run.is_time_up:
        return account.time_lack(run.account, now)
    return run.lack if run.lack is not None else account.lack_of(run.account)


def awaiting(run: RunState) -> Awaiting | None:
    """What is awaited, in one word; cheap, as it is looked at after every event."""
    if run.result is not None:
        return None
    if run.room_wait is not None:
        return "capacity"
    if run.approval.is_open or run.held:
        return "approval"
    if any(asks.control == "approve_task" for asks in run.asked.values()):
        return "approval"
    if run.lack or run.is_time_up or account.lack_of(run.account):
        return "budget"
    return "human" if run.questions or run.asked else None


def is_busy(run: RunState) -> bool:
    """Whether anything goes on that does not wait: for a person, budget, or its condition."""
    if run.lists or (run.planning is not None and run.planning.key in run.pending):
        return True
    if run.joining is not None and run.joining.key in run.pending:
        return True
    # Counted from what waits: a run may have thousands of questions open.
    waiting = len(run.questions) + sum(wait is Wait.FALLBACK for wait in run.waits.values())
    waiting += sum(run.frontier.is_idle(run.works[key].unit.task) for key in run.ahead)
    return len(run.works) > waiting + len(_asking_below(run))


def _asking_below(run: RunState) -> set[str]:
    """Units whose child run asks a person: under its task's id, or what is below that."""
    found: set[str] = set()
    for asked in run.asked:
        parts = asked.split(".")
        names = (".".join(parts[: n + 1]) for n in range(len(parts)))
        found |= {n for n in names if n in run.works and _is_running(run, n)}
    return found


def _is_running(run: RunState, key: str) -> bool:
    work = run.works[key]
    is_idle = run.frontier.is_idle(work.unit.task)
    return work.doing not in (Doing.ASKING, Doing.WAITING) and not is_idle


def is_asleep(run: RunState) -> bool:
    """Whether the run does nothing but wait for people."""
    return awaiting(run) in ("approval", "human", "budget") and not is_busy(run)


def status_word(run: RunState) -> str:
    """The status that `progress` and the search attributes show."""
    if run.result is not None:
        return run.result.status
    if run.failed is not None:
        return "failed"
    if run.approval.is_open:
        return "waiting"
    if run.is_paused and not run.is_time_up:
        return "paused"
    if awaiting(run) is not None and not is_busy(run):
        return "waiting"
    return _PHASES.get(run.stage, "running")


# -- queries --------------------------------------------------------------------------------


def progress_of(run: RunState, now: float) -> Progress:
    """The answer of the query `progress`."""
    elsewhere: dict[str, str] = {t: "skipped" for t in run.pruned if t not in run.records}
    for alias, kept in run.aliases.items():
        state = run.frontier.state_of(kept)
        good = isinstance(state, Outcome) and state.is_good
        elsewhere[alias] = "cached" if good else str(state or State.WAITING)
    if run.plan is not None and not run.tasks:
        elsewhere |= {t.id: State.WAITING.value for t in run.plan.tasks}
    waiting = open_waits(run, now)
    shown = progress(
        status=status_word(run),
        awaiting=waits.first_kind(waiting),
        detail=waits.detail_of(waiting),
        revision=run.revision,
        frontier=run.frontier,
        settled_elsewhere=elsewhere,
        usage=usage_of(run),
        seconds=run.result.seconds if run.result else run.seconds(now),
        goal=run.goal_text,
        notes=run.notes,
    )
    running = {
        t: round(run.seconds(now) - r.started, 3)
        for t, r in run.records.items()
        if r.outcome is None and r.started is not None and shown.tasks.get(t) == "running"
    }
    items = {t: c for t, r in run.records.items() if (c := r.item_counts()) is not None}
    ended = run.failed or run.result
    more = {"waits": waiting, "running_seconds": running, "items": items}
    return shown.model_copy(update={**more, "reason": ended.reason if ended is not None else None})


def tasks_document(run: RunState, now: float, ids: Sequence[str] | None = None) -> dict[str, Any]:
    """Each task as a result reports it, with its state; one that has not ended has no outcome.

    With `ids` only those tasks: of thousands a result has short reports.
    """
    states = progress_of(run, now).tasks
    if ids is not None:
        states = {t: states[t] for t in ids if t in states}
    reports = task_reports([run.records[t] for i in states if (t := TaskId(i)) in run.records])
    is_short = len(reports) > REPORTS_MAX
    found: dict[str, Any] = {}
    for task, state in states.items():
        record = run.records.get(TaskId(task))
        report = reports.get(TaskId(task))
        shown = report.model_dump(mode="json", exclude_unset=is_short) if report else {}
        if record is not None and record.outcome is None:
            shown["outcome"] = None
        found[task] = shown | {"state": state}
    return found


def plan_document(run: RunState) -> dict[str, Any] | None:
    """The plan of the newest revision."""
    plan = run.plan
    return plan.model_dump(mode="json", exclude_unset=True, by_alias=True) if plan else None


def graph(run: RunState, now: float) -> str:
    """The graph as mermaid, tasks coloured by state."""
    if run.plan is None:
        return "flowchart TD"
    return mermaid(run.plan, progress_of(run, now).tasks)


def usage_document(run: RunState) -> dict[str, Any]:
    """Usage so far, beside what is settled and reserved of which caps."""
    ledger = run.account.ledger
    held, caps, settled = ledger.held, ledger.caps, ledger.settled
    return usage_of(run).model_dump(mode="json") | {
        "settled": {
            "tokens": settled.tokens,
            "usd": settled.usd_nano / NANO,
            "tasks": settled.tasks,
        },
        "reserved": {"tokens": held.tokens, "usd": held.usd_nano / NANO, "tasks": held.tasks},
        "caps": {
            "tokens": caps.tokens,
            "usd": None if caps.usd_nano is None else caps.usd_nano / NANO,
            "tasks": caps.tasks,
            "seconds": run.account.cap_seconds,
        },
    }


def estimate_document(run: RunState, now: float) -> dict[str, Any] | None:
    """Low, likely and worst, beside the actual."""
    report = estimate_of(run, now)
    return report.model_dump(mode="json") if report else None


def diff(run: RunState) -> list[str]:
    """What the last revision changed."""
    return list(run.revisions[-1].changes) if run.revisions else []


def outputs(run: RunState) -> dict[str, Any]:
    """Finished tasks as a fork reuses them."""
    return {
        task: _reused(r)
        for task, r in run.records.items()
        if r.outcome is not None and r.outcome.is_good and r.output is not None
    }


def _reused(record: Record) -> dict[str, Any]:
    assert record.outcome is not None
    assert record.output is not None
    more = {"tainted": True} if record.is_tainted else {}
    reused = Reused.model_validate({"outcome": record.outcome, "output": record.output, **more})
    return reused.model_dump(mode="json", exclude_unset=True)


def revisions_document(run: RunState) -> list[dict[str, Any]]:
    """All revisions: plan, why, by whom."""
    return [
        {
            "revision": r.number,
            "why": r.why,
            "by": r.by,
            "changes": r.changes,
            "plan": r.plan.model_dump(mode="json", exclude_unset=True, by_alias=True),
        }
        for r in run.revisions
    ]


def published(run: RunState) -> Published:
    """What search attributes show."""
    return Published(status_word(run), awaiting(run), run.revision, run.request.tenant)


def details(run: RunState, now: float) -> str:
    """The current details: what waits, the tasks, and the graph where it is small enough."""
    shown = progress_of(run, now)
    tree = ""
    if run.plan is not None and len(shown.tasks) <= GRAPH_TASKS_MAX:
        tree = text_graph(run.plan, shown.tasks)
    return details_page(shown, run.records, tree)
