"""The rules that agents and teams share: the permit, the pause, the end; time and budget."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.results import Awaiting, OpenWait
from planloom.planner.language.catalog import PoolSpec
from planloom.workflows.machines.agent import calls, talk
from planloom.workflows.machines.agent.calling import cancel_pending, forget_waiting, send
from planloom.workflows.machines.agent.state import Host, Pending, Rule
from planloom.workflows.machines.shared import permit, questions, waits
from planloom.workflows.machines.shared.account import (
    TIMER,
    ask_for_parked,
    keep_timer,
    lack_of,
    least_of,
)
from planloom.workflows.machines.shared.commands import DropTimer
from planloom.workflows.machines.shared.machine import Step

WORDS = {
    Rule.LOADED: "its definition could not be loaded",
    Rule.PREPARED: "what the worker offers could not be asked for",
    Rule.PERMIT: "no room in its pool",
    Rule.STORED: "its context could not be stored",
}
"""What failed before anybody spoke."""


def ask_for_room(host: Host, pool: PoolSpec, calls_at_once: int, step: Step) -> bool:
    """Wait for room in the pool, where it must be waited for; whether that is so."""
    if not permit.is_needed(pool, host.lineage):
        return False
    host.permit = pool
    taken = permit.take_permit(pool, host.request, host.identity.workflow_id, calls_at_once)
    send(host, permit.KEY, Pending(Rule.PERMIT), taken, step)
    return True


def take_room(host: Host, step: Step) -> None:
    """The permit is there: it is renewed from now on."""
    timer = permit.renew_at(step.now)
    host.renew_at = timer.at
    step.do(timer)


def renew_permit(host: Host, step: Step) -> None:
    if host.permit is not None and host.renew_at is not None:
        host.renew_at = permit.renew_at(step.now).at
        step.do(*permit.renew(host.permit, host.identity.workflow_id, step.now))


def leave(host: Host, step: Step) -> None:
    """The workflow is over: its room goes back, and no timer fires any more."""
    if host.permit is not None:
        if host.renew_at is not None:
            step.do(DropTimer(permit.KEY))
        step.do(permit.release(host.permit, host.identity.workflow_id))
        host.permit = host.renew_at = None
    if host.account.timer_at is not None:
        host.account.timer_at = None
        step.do(DropTimer(TIMER))


def keep_account(host: Host, step: Step) -> None:
    """After every event: ask for what is lacking, and watch the time."""
    if host.may_call:  # what it cannot take now it would ask for again and again
        step.do(*ask_for_parked(host.account))
    step.do(*keep_timer(host.account, step.now))


def continue_as_new(host: Host, step: Step) -> None:
    """The workflow goes on in a new run: its timers are set again."""
    host.is_long = False
    host.account.timer_at = None
    if host.permit is not None and host.renew_at is not None:
        timer = permit.renew_at(host.renew_at - permit.TTL_SECONDS / 3)
        step.do(timer)


def cancel(host: Host, step: Step) -> None:
    """Start nothing more, and cancel what is in flight."""
    host.is_cancelled = True
    forget_waiting(host)
    for name, each in host.talks.items():
        talk.stop(each)
        if questions.withdraw(host.questions, name):
            calls.tell_parent(host, name, step)
    cancel_pending(host, step)


def open_waits(host: Host, now: float) -> list[OpenWait]:
    """Everything that people or the pool must give, each with the command that answers it."""
    found: list[OpenWait] = []
    if host.permit is not None and not host.is_in_room:
        found.append(waits.room_wait(permit.why_it_waits(host.permit), 0.0))
    if (lack := lack_of(host.account)) is not None:
        found.append(waits.budget_wait(host.account, lack, least_of(host.account), now))
    id = host.identity.workflow_id
    for asker, question in host.questions.open.items():
        since = host.seconds(question.since)
        text, is_decision = question.text, question.is_decision
        found.append(waits.question_wait(id, asker, text, since, is_decision=is_decision))
    return found


def awaiting(host: Host) -> Awaiting | None:
    """The same in one word; cheap, as it is looked at after every event."""
    if not host.is_in_room:
        return "capacity"
    if lack_of(host.account) is not None:
        return "budget"
    return "human" if host.questions.open else None


def shown_waits(host: Host, now: float, *, is_over: bool) -> dict[str, Any]:
    """What `progress` says of it."""
    found = [] if is_over else open_waits(host, now)
    return {
        "awaiting": waits.first_kind(found),
        "detail": waits.detail_of(found),
        "waits": [w.model_dump(mode="json") for w in found],
    }


def status_word(host: Host, phase: str) -> str:
    """The status that `progress` and the search attributes show."""
    return "paused" if host.is_paused else "waiting" if awaiting(host) else phase
