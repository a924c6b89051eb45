"""What has happened: the events of all machines. Each is a plain value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.controls import ChildAsks, GrantWanted
from planloom.planner.contract.jobs import PlannedBatch, PlannerAttempt
from planloom.planner.language.values import Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """How an activity or a child ended without a result, after its retries."""

    message: str
    error_class: str
    """A class of `planner.contract.retries`, or `cancelled`."""
    attempts: int = 1
    usage: Usage = field(default_factory=Usage)
    """What its attempts were paid, as far as they said."""
    tasks: int = 1
    """Tasks that ran for it, itself included."""
    may_have_acted: bool = False
    """A side effect may have happened: it is never tried again."""
    cut_at: int = 0
    """Tokens that a model had written when the limit of its answer cut it off; else 0."""

    @property
    def is_cancelled(self) -> bool:
        return self.error_class == "cancelled"


@dataclass(frozen=True, slots=True)
class Begun:
    """The workflow starts. Always the first event."""


@dataclass(frozen=True, slots=True)
class Continued:
    """The workflow continues as new, with the state of the run before."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The command `key` succeeded."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Broke:
    """The command `key` failed or was cancelled."""

    key: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class TimeReached:
    """The timer `key` fired."""

    key: str


@dataclass(frozen=True, slots=True)
class ControlTaken:
    """A person or a parent run sent a signal or an update."""

    name: str
    payload: Any
    """The payload, already read into its model."""
    token: int | None = None
    """Set for an update, which waits for an answer."""


@dataclass(frozen=True, slots=True)
class SignalIgnored:
    """A signal was unreadable or has an unknown name."""

    reason: str


@dataclass(frozen=True, slots=True)
class GrantAsked:
    """A child run has used up its grant and asks for more."""

    wanted: GrantWanted


@dataclass(frozen=True, slots=True)
class QuestionOfChild:
    """An agent in a child run asks a person a question, or withdraws it."""

    asks: ChildAsks


@dataclass(frozen=True, slots=True)
class DeadlineMoved:
    """The parent run's deadline changed. In seconds since 1970."""

    deadline: float | None


@dataclass(frozen=True, slots=True)
class PlanWritten:
    """The planner finished writing some tasks."""

    batch: PlannedBatch


@dataclass(frozen=True, slots=True)
class PlannerRetried:
    """A later attempt of the planner's activity begins and asks for the tasks accepted so far."""

    attempt: PlannerAttempt
    token: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody cancelled the workflow."""


@dataclass(frozen=True, slots=True)
class HistoryLong:
    """The history has grown long. Continue as new as soon as nothing is in flight."""


Event = (
    Begun
    | Continued
    | Returned
    | Broke
    | TimeReached
    | ControlTaken
    | SignalIgnored
    | GrantAsked
    | QuestionOfChild
    | DeadlineMoved
    | PlanWritten
    | PlannerRetried
    | CancelRequested
    | HistoryLong
)
