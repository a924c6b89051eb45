"""What people and parent runs may do to an agent or a team: one check and one rule for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planloom.planner.contract.controls import CompleteTask, RaiseBudget, Reply
from planloom.planner.contract.names import INVALID_REQUEST, STALE
from planloom.workflows.machines.agent import calls, talk
from planloom.workflows.machines.agent.state import Host
from planloom.workflows.machines.shared import questions
from planloom.workflows.machines.shared.account import (
    PARENT,
    raise_caps,
    refusal_of_raise,
    told_of_raise,
)
from planloom.workflows.machines.shared.commands import Refuse
from planloom.workflows.machines.shared.events import ControlTaken, Event, PlannerRetried
from planloom.workflows.machines.shared.machine import Refusal, Step

CONTROLS = ("pause", "resume", "complete_task", "raise_budget")


def refuse_late(event: Event, what: str, step: Step) -> None:
    """What comes after the end is answered, and changes nothing. `what` has ended, and how."""
    if isinstance(event, ControlTaken | PlannerRetried) and event.token is not None:
        name = f"{event.name}: " if isinstance(event, ControlTaken) else ""
        step.do(Refuse(event.token, f"{name}{what}", STALE))


def check(
    host: Host, name: str, payload: Any, askers: Sequence[str] | None, now: float
) -> Refusal | None:
    """Why a control cannot be taken now, or None. `askers` None: who may ask is not known yet."""
    match name, payload:
        case (("pause" | "resume"), _):
            return None
        case "complete_task", CompleteTask():
            problem = questions.problem_with_answer(host.questions, payload, askers)
            return Refusal(problem, INVALID_REQUEST) if problem else None
        case "raise_budget", RaiseBudget():
            return refusal_of_raise(host.account, payload, now)
        case _:
            return Refusal(f"{name}: there is nothing here that takes it.", INVALID_REQUEST)


def take(host: Host, name: str, payload: Any, step: Step) -> Reply:
    """Carry a control out that `check` lets pass."""
    match name, payload:
        case "pause", _:
            host.is_paused = True
            return Reply(message="paused")
        case "resume", _:
            host.is_paused = False
            return Reply(message="running")
        case "complete_task", CompleteTask():
            return _answer(host, payload, step)
        case "raise_budget", RaiseBudget():
            return _raise(host, payload)
        case _:
            raise AssertionError(f"{name} was not checked")


def _answer(host: Host, given: CompleteTask, step: Step) -> Reply:
    answered = questions.answer(host.questions, given, step.now)
    if not answered:
        who = f' by "{given.by}"' if given.by else ""
        host.note(f"{given.id}: an answer came early{who}; its next question takes it")
        text = f"{given.id} has not asked yet; its next question takes the answer"
        return Reply(message=text)
    calls.tell_parent(host, given.id, step)
    for each in answered:
        speaker = host.talks[given.id]
        calls.take_answer(host, speaker, each, step)
        talk.go_on_after_calls(host, speaker)
    return Reply(message=f"{given.id} is answered")


def _raise(host: Host, raised: RaiseBudget) -> Reply:
    raise_caps(host.account, raised)
    host.parallel = raised.parallel or host.parallel
    caps, who = told_of_raise(raised)
    if raised.by != PARENT:
        host.note(f"budget raised{who}: {caps}")
    return Reply(message=f"caps: {caps}")
