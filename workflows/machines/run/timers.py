"""Timers of a run: kept in its state, so that they start again after a continue-as-new."""

from __future__ import annotations

from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.commands import DropTimer, SetTimer
from planloom.workflows.machines.shared.machine import Step


def set_timer(run: RunState, step: Step, key: str, at: float, summary: str) -> None:
    """Start or move a timer of the run; it is set again after a continue-as-new."""
    run.timers[key] = (at, summary)
    step.do(SetTimer(key, at, summary))


def drop_timer(run: RunState, step: Step, key: str) -> None:
    """Drop a timer, if it runs."""
    if run.timers.pop(key, None) is not None:
        step.do(DropTimer(key))
