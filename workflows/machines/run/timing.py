"""The time of a run: its own cap, and that of the run it is part of."""

from __future__ import annotations

from planloom.workflows.machines.run.state import RunState, Stop, StopKind
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.commands import Tell
from planloom.workflows.machines.shared.machine import Step


def watch_time(run: RunState, step: Step) -> None:
    """Set the timer of the time's end; hold the run when it is over, let it go on when not."""
    step.do(*account.keep_timer(run.account, step.now))
    is_over = account.time_lack(run.account, step.now) is not None
    if is_over:
        time_is_over(run, step.now)
    elif run.is_time_up:
        run.is_time_up = False
        hold_or_go(run)


def time_is_over(run: RunState, now: float) -> None:
    """Nothing new starts; with `on_budget: partial` the run ends."""
    if account.ends_with_time(run.account, now):
        lack = account.time_lack(run.account, now)
        run.stop = run.stop or Stop(StopKind.BUDGET, f"budget: {lack}")
    else:
        run.is_time_up = True
        hold_or_go(run)


def time_moved(run: RunState, step: Step) -> None:
    """The run's time, or that of the run it is part of, ends at another moment now."""
    watch_time(run, step)
    deadline = account.ends_at(run.account)
    for id, child in run.children.items():
        child.deadline = deadline
        step.do(Tell(id, "deadline_moved", {"at": deadline}))


def hold_or_go(run: RunState) -> None:
    """Start nothing new while a person has paused the run, or its time is over."""
    run.frontier.is_paused = run.is_paused or run.is_time_up
