"""What is sent to a workflow, as tables: signals and updates by name, their payloads, their events.

The shell makes handlers of them; a run without Temporal reads its messages by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import read_request
from planloom.workflows.machines.shared.events import DeadlineMoved, Event


@dataclass(frozen=True, slots=True)
class Control:
    """A signal and update of one name: its payload, and what people are told it does."""

    name: str
    model: type[BaseModel]
    description: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A signal that activities and other runs send: its payload, and the event that it is."""

    name: str
    model: type[BaseModel]
    event: Callable[[Any], Event]
    description: str


@dataclass(frozen=True, slots=True)
class Question:
    """An update that activities send: its payload, and the event that it is, with its token."""

    name: str
    model: type[BaseModel]
    event: Callable[[Any, int], Event]
    description: str


def read_payload(model: type[BaseModel], payloads: Sequence[Any]) -> BaseModel | list[Problem]:
    """What was sent, as the model it should be; or all that is wrong with it."""
    if len(payloads) > 1:
        message = f"{len(payloads)} payloads were sent; one is needed"
        return [Problem(path="input", code="surplus", message=message)]
    document = payloads[0] if payloads else {}
    if isinstance(document, bytes):
        message = "the payload is bytes; JSON is needed"
        return [Problem(path="input", code="not_json", message=message)]
    parsed, problems = read_request({} if document is None else document, model)
    return problems if parsed is None else parsed


class Deadline(BaseModel):
    """Signal `deadline_moved`: when the parent's time is over, in seconds since 1970."""

    model_config = ConfigDict(extra="ignore")
    at: float | None = None


DEADLINE = Notice(
    "deadline_moved",
    Deadline,
    lambda deadline: DeadlineMoved(deadline.at),
    "The parent run has more time, or less {at}",
)
