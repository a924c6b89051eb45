"""Calls of a host's talks: each waits for its budget, is made once, and is then settled."""

from __future__ import annotations

from planloom.planner.language.values import Usage
from planloom.workflows.machines.agent.state import Host, Pending, Rule
from planloom.workflows.machines.shared.account import (
    Over,
    Parked,
    reserve_now,
    retry_parked,
    settle,
)
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import Cancel, Command
from planloom.workflows.machines.shared.events import Broke, Returned
from planloom.workflows.machines.shared.machine import Step

NO_ROOM = Over("there is no room for it")


def free_key(host: Host, wanted: str) -> str:
    """The key, or one like it: two activities of one id at a time would hang the workflow.

    Ids of members may hold dots, and models choose the ids of their calls.
    """
    key = wanted
    while key in host.pending or key in host.waiting:
        key += "-"
    return key


def queue_call(host: Host, key: str, what: Pending, want: Amount, least: Amount) -> None:
    """Let a call wait for its budget, behind those that wait already."""
    host.account.parked[key] = Parked(want, least)
    host.waiting[key] = what


def granted_calls(host: Host, now: float) -> list[tuple[str, Pending, Amount | Over]]:
    """Waiting calls that may be made now, or never; in the order they came.

    A summary never waits: what it is for can do without it.
    """
    if not host.may_call:
        return []
    found: list[tuple[str, Pending, Amount | Over]] = []
    for key, what in list(host.waiting.items()):
        if what.rule is Rule.SUMMARY:
            call = host.account.parked.pop(key)
            del host.waiting[key]
            granted = reserve_now(host.account, key, call.want, call.least, now)
            found.append((key, what, granted or NO_ROOM))
    for key, answer in retry_parked(host.account, now):
        found.append((key, host.waiting.pop(key), answer))
    return found


def send(host: Host, key: str, what: Pending, command: Command, step: Step) -> None:
    """Make a call; its end is one event of the same key."""
    host.pending[key] = what
    step.do(command)


def take_end(host: Host, end: Returned | Broke) -> Pending | None:
    """Whose call has ended, its budget settled; None for one that is not known."""
    what = host.pending.pop(end.key, None)
    if what is not None:
        settle(host.account, end.key, usage_of(end))
    return what


def usage_of(end: Returned | Broke) -> Usage:
    """What a call was paid, as far as it said."""
    if isinstance(end, Broke):
        return end.failure.usage
    found = getattr(end.value, "usage", None)
    return found if isinstance(found, Usage) else Usage()


def forget_waiting(host: Host) -> None:
    """No call that waits for budget is made any more."""
    for key in host.waiting:
        host.account.parked.pop(key, None)
    host.waiting.clear()


def cancel_pending(host: Host, step: Step) -> None:
    """Cancel what is in flight; each end still comes as an event."""
    step.do(*(Cancel(key) for key in host.pending))
