"""The result of a run: its status, answer, reports and usage."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.jobs import ResolveJob
from planloom.planner.contract.results import (
    EstimateReport,
    RunResult,
    RunStatus,
    UsageReport,
    usage_report,
)
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import (
    NANO,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    TaskId,
)
from planloom.workflows.machines.run.record import critical_path, task_reports
from planloom.workflows.machines.run.state import Ending, Pending, Rule, RunState, Stage, StopKind
from planloom.workflows.machines.run.status import aggregate_of, run_status
from planloom.workflows.machines.run.values import resolve_now
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.commands import DropTimer, Resolve
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step

ANSWER_INLINE_BYTES = 12_000
"""A longer answer is shown as a preview and a blob, so that no history event is large."""


def judged(run: RunState) -> tuple[RunStatus, str | None]:
    """How a run whose tasks have all ended came out, and why it is not `completed`."""
    stop = run.stop
    if stop is not None and stop.kind is StopKind.ENOUGH:
        return "completed", None
    if stop is not None and stop.kind is StopKind.TASK_FAILED:
        return "failed", stop.reason
    status, reason = run_status(run.records)
    if stop is not None:
        return "partial", stop.reason
    return status, reason


# -- the answer -----------------------------------------------------------------------------


def begin_answer(run: RunState, step: Step, ending: Ending) -> None:
    """Make the answer that the plan describes; the run ends with it."""
    plan = run.plan
    assert plan is not None, "an answer is made of a plan"
    run.stage, run.ending = Stage.ANSWERING, ending
    answer: JsonValue = plan.answer if plan.has_answer else _leaves(run)
    inputs = {r: run.value_of(r) or Stored() for r in roots_of(answer)}
    bound = Bindings(inputs=inputs) if inputs else Bindings()
    found = resolve_now(answer, bound, run.metering.meter, limit=ANSWER_INLINE_BYTES)
    if found is None:
        job = ResolveJob(value=answer, bindings=bound, inline_max_bytes=ANSWER_INLINE_BYTES)
        run.pending[Rule.ANSWER.value] = Pending(Rule.ANSWER)
        step.do(Resolve(Rule.ANSWER.value, job))
    else:
        take_plan_answer(run, step, found)


def take_plan_answer(run: RunState, step: Step, found: Stored | Failure) -> None:
    """The plan's answer is made, or cannot be."""
    ending = run.ending
    assert ending is not None
    if isinstance(found, Failure):
        reason = f"answer: {found.message}"
        if ending.is_given_up:
            reason = f"{ending.reason}; {reason}"
        end_run(run, step, "partial", None, reason)
    else:
        end_run(run, step, ending.status, found, ending.reason)


def _leaves(run: RunState) -> dict[str, JsonValue]:
    """The tasks that nobody reads, duplicates by the names they were written with."""
    tasks, aliases = run.tasks, run.aliases
    read = {i for inputs in run.inputs.values() for i in inputs}
    names = [t for t in tasks if t not in read]
    if run.compiled is not None:
        names += [t for t in run.compiled.leaves if t in aliases or t in tasks]
    return {t: f'${{"{aliases.get(t, t)}"}}' for t in names}


# -- the end --------------------------------------------------------------------------------


def end_run(
    run: RunState, step: Step, status: RunStatus, answer: Stored | None, reason: str | None
) -> None:
    """The run is over: its result."""
    leave(run, step)
    run.result = _result(run, step.now, status, answer, reason)


def leave(run: RunState, step: Step) -> None:
    """Nothing follows: timers are dropped, and the permit goes back."""
    run.stage, run.is_time_up = Stage.OVER, False
    for key in list(run.timers):
        del run.timers[key]
        step.do(DropTimer(key))
    if run.account.timer_at is not None:
        run.account.timer_at = None
        step.do(DropTimer("budget.seconds"))
    if run.permit is not None:
        step.do(permit.release(run.permit, run.identity.workflow_id))
        run.permit = None


def _result(
    run: RunState, now: float, status: RunStatus, answer: Stored | None, reason: str | None
) -> RunResult:
    path, path_seconds = critical_path(run.records, run.inputs)
    tasks = task_reports(run.records.values()) | _elsewhere(run)
    return RunResult.model_validate(
        {
            "status": status,
            "answer": shown_answer(answer),
            **({"tainted": True} if is_tainted(run) else {}),
            **({"answer_ref": answer} if answer is not None and not answer.is_inline else {}),
            "revision": run.revision,
            "rounds": run.goal.rounds if run.goal else 0,
            "tasks": tasks,
            "usage": usage_of(run),
            "estimate": estimate_of(run, now, short=True),
            "critical_path": path,
            "critical_path_seconds": round(path_seconds, 4),
            "seconds": round(run.seconds(now), 4),
            "waited_seconds": round(run.asleep_seconds, 4),
            "planning": planning_report(run),
            "aggregate": aggregate_of(run.request, run.records, run.failed_members),
            "speculation": speculation_report(run),
            "notes": run.notes,
            "reason": reason,
        }
    )


def is_tainted(run: RunState) -> bool:
    """Whether something in the run came from outside: its answer may be made of it."""
    has_read = any(r.is_tainted and r.outcome is not None for r in run.records.values())
    was_given = run.lineage.tainted_inputs or any(r.tainted for r in run.request.reuse.values())
    return has_read or was_given or run.is_decided_outside


def shown_answer(answer: Stored | None) -> JsonValue:
    """An answer as a result shows it: whole, or its beginning and where all of it is."""
    if answer is None or answer.is_inline:
        return answer.value if answer is not None else None
    return {"preview": answer.preview, "blob": answer.blob, "size_bytes": answer.size_bytes}


def _elsewhere(run: RunState) -> dict[str, Any]:
    """Reports of tasks that compile passes took out: duplicates and what nobody reads."""
    rows: dict[str, Any] = {}
    reports = task_reports(
        [run.records[kept] for kept in run.aliases.values() if kept in run.records]
    )
    for task, kept in run.aliases.items():
        if kept in reports:
            good = reports[kept].outcome.is_good
            outcome = Outcome.CACHED if good else reports[kept].outcome
            rows[task] = reports[kept].model_copy(
                update={
                    "outcome": outcome,
                    "usage": UsageReport(),
                    "reason": f"same call as {kept}",
                }
            )
    for task, why in run.pruned.items():
        if task not in run.records:  # else it ran while the plan was still being written
            rows[task] = {"outcome": Outcome.SKIPPED, "output": None, "reason": f"pruned: {why}"}
    return rows


def usage_of(run: RunState) -> UsageReport:
    """Tokens, money and calls so far, and what was saved."""
    total, records = run.account.ledger.usage, run.records.values()
    saved = {
        "tokens": sum(r.saved_tokens for r in records) + run.saved.tokens,
        "usd": sum(r.saved_usd_nano for r in records) / NANO + run.saved.usd,
        "tasks": run.saved.tasks + sum(1 for r in records if r.outcome is Outcome.CACHED),
        "seconds": run.saved.seconds,
    }
    report = usage_report(total, saved)
    ledger = run.account.ledger
    return report.model_copy(
        update={"unpriced_calls": ledger.unpriced, "tasks": ledger.settled.tasks}
    )


def estimate_of(run: RunState, now: float, short: bool = False) -> EstimateReport | None:
    """What was expected of the newest plan, beside what it came to so far."""
    if run.compiled is None:
        return None
    total = run.account.ledger.usage
    actual = {
        "tokens": float(total.tokens),
        "usd": total.usd_nano / NANO,
        "seconds": round(run.seconds(now), 3),
    }
    estimate = run.compiled.estimate
    tasks = {} if short else {t: _beside(run, t, r) for t, r in estimate.tasks.items()}
    return estimate.model_copy(update={"actual": actual, "tasks": tasks})


def _beside(run: RunState, task: str, row: JsonValue) -> JsonValue:
    """A task's estimate, with what it came to once it has ended."""
    record = run.records.get(TaskId(task))
    if record is None or record.ended is None or not isinstance(row, dict):
        return row
    used = record.usage
    actual: JsonValue = {
        "tokens": used.tokens,
        "usd": used.usd_nano / NANO,
        "seconds": round(record.seconds, 3),
    }
    return {**row, "actual": actual}


def planning_report(run: RunState) -> dict[str, JsonValue]:
    """How the plan came; empty for a run without a planner."""
    goal = run.goal
    if goal is None:
        return {}
    started = [r.started for r in run.records.values() if r.started is not None]
    first = min(started, default=None)
    overlap = None
    if first is not None and goal.planned_at is not None:
        overlap = round(max(0.0, goal.planned_at - first), 4)
    return {
        "calls": goal.book.call,
        "repairs": goal.repairs,
        "planner_attempts_lost": goal.book.attempts_lost,
        "stale_batches": goal.book.stale,
        "wasted_tokens": goal.wasted_tokens,
        "seconds": None if goal.planned_at is None else round(goal.planned_at, 4),
        "first_task_seconds": None if first is None else round(first, 4),
        "overlap_seconds": overlap,
        "stability": [round(s, 3) for s in goal.stabilities],
        "replans": list(goal.reasons),
    }


def speculation_report(run: RunState) -> dict[str, int]:
    """Branches that ran ahead and were right, or in vain; empty when there were none."""
    if not run.speculations_won and not run.speculations_lost:
        return {}
    return {"won": run.speculations_won, "lost": run.speculations_lost}
