"""What people and parent runs may do to an agent or a team: one check and one rule for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planloom.planner.contract.controls import CompleteTask, RaiseBudget, Reply
from planloom.planner.contract.names import BUDGET_EXCEEDED, INVALID_REQUEST
from planloom.workflows.machines.agent import calls, talk
from planloom.workflows.machines.agent.state import Host
from planloom.workflows.machines.shared import questions
from planloom.workflows.machines.shared.account import PARENT, problem_with_raise, raise_caps
from planloom.workflows.machines.shared.machine import Refusal, Step

CONTROLS = ("pause", "resume", "complete_task", "raise_budget")


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
            return _problem_with_raise(host, payload, now)
        case _:
            return Refusal(f"{name}: there is nothing here that takes it.", INVALID_REQUEST)


def _problem_with_raise(host: Host, raised: RaiseBudget, now: float) -> Refusal | None:
    if not raised.model_dump(exclude={"by"}, exclude_none=True):
        message = 'raise_budget: name at least one cap, for example {"tokens": 60000}'
        return Refusal(message, INVALID_REQUEST)
    problem = problem_with_raise(host.account, raised, now)
    return Refusal(f"raise_budget: {problem}", BUDGET_EXCEEDED) if problem else None


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
    given = raised.model_dump(exclude={"by"}, exclude_none=True)
    caps = ", ".join(f"{k} {v:g}" for k, v in given.items())
    if raised.by != PARENT:
        host.note("budget raised" + (f' by "{raised.by}"' if raised.by else "") + f": {caps}")
    return Reply(message=f"caps: {caps}")
