"""What a run and its children say to each other: each word goes with a secret of the run above.

Anybody who may signal a workflow could send the same words: a child's result, or more budget "by
the parent". So a run makes a secret when it is prepared, and tells it to its children with what
they are started with. A word of the family without it counts as a stranger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planloom.planner.contract.controls import RaiseBudget
from planloom.planner.language.catalog import FAMILY_PREFIX
from planloom.workflows.machines.shared.account import PARENT
from planloom.workflows.machines.shared.events import (
    ControlTaken,
    DeadlineMoved,
    Event,
    GrantAsked,
    QuestionOfChild,
    SignalIgnored,
)
from planloom.workflows.machines.shared.machine import State

ENDED = "child_ended"
"""The signal by which a child that was asked to do so reports how it ended."""
TO_PARENT = ("grant_wanted", "child_asks", ENDED)
TO_CHILD = ("deadline_moved", "raise_budget")
NOT_THE_PARENT = "somebody who is not the parent"


def secret_for(state: State, signal: str) -> str:
    """What this run adds to a signal to its parent or to a child; `""` when it adds nothing."""
    if signal in TO_PARENT:
        return state.identity.lineage.secret
    return state.catalog.secret if signal in TO_CHILD else ""


def opened(payloads: Sequence[Any]) -> tuple[Sequence[Any], str]:
    """The payloads of a signal without the secret that its sender named, and that secret."""
    last = payloads[-1] if len(payloads) > 1 else None
    if isinstance(last, str) and last.startswith(FAMILY_PREFIX):
        return payloads[:-1], last
    return payloads, ""


def of_a_child(state: State, secret: str) -> bool:
    """Whether who says this is a child. A run of an older version has no secret, and asks none."""
    return secret == state.catalog.secret


def of_the_parent(state: State, secret: str) -> bool:
    """Whether who says this is the run's parent."""
    lineage = state.identity.lineage
    return lineage.parent is not None and secret == lineage.secret


def checked(state: State, event: Event, secret: str) -> Event:
    """The event, or what is left of it when the sender is not who could say so."""
    match event:
        case GrantAsked() | QuestionOfChild() if not of_a_child(state, secret):
            name = "grant_wanted" if isinstance(event, GrantAsked) else "child_asks"
            return SignalIgnored(f"{name}: the sender is no child of this run")
        case DeadlineMoved() if not of_the_parent(state, secret):
            return SignalIgnored("deadline_moved: the sender is not the parent of this run")
        case ControlTaken(name, RaiseBudget() as raised, token):
            is_parent = token is None and of_the_parent(state, secret)
            return ControlTaken(name, as_said(raised, is_parent=is_parent), token)
        case _:
            return event


def as_said(payload: Any, *, is_parent: bool = False) -> Any:
    """A control as its sender may send it: only the parent raises a budget by that name."""
    if isinstance(payload, RaiseBudget) and payload.by == PARENT and not is_parent:
        return payload.model_copy(update={"by": NOT_THE_PARENT})
    return payload
