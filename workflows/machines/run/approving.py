"""A revision waits for a person where the policy says so."""

from __future__ import annotations

from collections.abc import Sequence

from planloom.planner.contract.controls import ApprovePlan, RejectPlan
from planloom.workflows.machines.run.state import Approving, EarlyDecision, RunState, Stage, Then
from planloom.workflows.machines.run.timers import drop_timer, set_timer
from planloom.workflows.machines.shared.approval import Decision, Verdict, needs_approval
from planloom.workflows.machines.shared.machine import Step

TIMER = "approval"


def ask_approval(
    run: RunState, step: Step, *, is_first: bool, major: Sequence[str], then: Then
) -> None:
    """Have the newest revision approved, then go on as `then` says; at once if nobody is asked."""
    run.approving = Approving(is_first, list(major), then)
    run.stage = Stage.APPROVING
    if needs_approval(run.request.approval.mode, is_first=is_first, major=major):
        open_approval(run, step, major)
    else:
        run.approval.close()


def open_approval(run: RunState, step: Step, major: Sequence[str]) -> None:
    """The newest revision waits for a decision, unless one came early. It has its own time."""
    run.approval.open(run.revision, major)
    run.approval_since = step.now
    early = run.early_plans.pop(run.revision, None)
    run.early_plans = {n: d for n, d in run.early_plans.items() if n > run.revision}
    if early is not None:
        verb = "approved" if early.approve else "rejected"
        run.note(f"revision {run.revision} was {verb} early")
        decide(run, step, early)
    elif (timeout := run.request.approval.timeout) is not None:
        set_timer(run, step, TIMER, step.now + timeout, TIMER)


def decision_of(payload: ApprovePlan | RejectPlan) -> EarlyDecision:
    """What a person decided, apart from which revision it is about."""
    if isinstance(payload, ApprovePlan):
        return EarlyDecision(True, payload.by or "", payload.note or "")
    return EarlyDecision(False, payload.by or "", payload.reason or "")


def decide(run: RunState, step: Step, decision: EarlyDecision) -> None:
    """A person has decided about the open revision."""
    verb: Decision = "approved" if decision.approve else "rejected"
    close_approval(run, step, Verdict(run.approval.revision, verb, decision.by, decision.note))


def nobody_decided(run: RunState, step: Step) -> None:
    """The time for a decision is over."""
    policy = run.request.approval
    if policy.on_timeout == "park" or not run.approval.is_open:
        return
    decision = "approved" if policy.on_timeout == "approve" else "rejected"
    verdict = Verdict(run.approval.revision, decision, how="timeout")  # type: ignore[arg-type]
    close_approval(run, step, verdict)


def close_approval(run: RunState, step: Step, verdict: Verdict | None) -> None:
    """The revision is decided, or (None) another plan is asked for instead."""
    drop_timer(run, step, TIMER)
    if verdict is None:
        run.approval.close()
        return
    run.approval.decide(verdict)
    run.note(f"revision {verdict.revision} {verdict.decision}{who_decided(verdict)}")


def who_decided(verdict: Verdict) -> str:
    who = f' by "{verdict.by}"' if verdict.by else " by timeout" * (verdict.how == "timeout")
    return who + (f": {verdict.note}" if verdict.note else "")
