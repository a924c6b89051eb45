"""What every machine looks like to the shell.

A machine is a module with these functions over its own state. The state is a plain
dataclass: it can be printed, compared, turned into JSON by the contract's converter and read back
equal. Only `step` changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from planloom.planner.contract.requests import Lineage
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.values import Problem
from planloom.workflows.machines.shared.commands import Command
from planloom.workflows.machines.shared.events import Event

REASON_PROBLEMS_MAX = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Which workflow this is."""

    workflow_id: str
    run_key: str
    """The workflow id with the id of its first run: the start of every idempotency key."""
    lineage: Lineage = field(default_factory=Lineage)
    """What its parent says of it; empty for a workflow that was started by itself."""


class State(Protocol):
    """What the shell knows of a state beside what the machine says of it."""

    @property
    def identity(self) -> Identity: ...

    @property
    def catalog(self) -> Catalog: ...


@dataclass(slots=True)
class Step:
    """One step in progress: the time, in seconds since 1970, and the commands so far."""

    now: float
    commands: list[Command] = field(default_factory=list)

    def do(self, *commands: Command) -> None:
        self.commands.extend(commands)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a control cannot be taken, and the contract's error type for it."""

    message: str
    type: str = "Stale"
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The workflow fails for its caller's mistake: the contract's error type, and all problems."""

    type: str
    problems: Sequence[Problem]

    @property
    def reason(self) -> str:
        """In one line, as `progress` says why the run ended."""
        told = "; ".join(p.line() for p in self.problems[:REASON_PROBLEMS_MAX])
        more = len(self.problems) - REASON_PROBLEMS_MAX
        return f"{self.type}: {told}" + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Published:
    """What a workflow's search attributes show."""

    status: str
    awaiting: str | None
    revision: int | None
    """None for a workflow without revisions."""
    tenant: str | None
    is_known: bool | None = None
    """Whether the worker has said which search attributes there are; None for a run, whose status
    changes when it has."""


S_contra = TypeVar("S_contra", contravariant=True)


class Machine(Protocol[S_contra]):
    """The functions that the shell calls. `now` is in seconds since 1970."""

    def step(self, state: S_contra, event: Event, now: float) -> list[Command]:
        """Apply one event; the only function that changes the state."""
        ...

    def ended(self, state: S_contra) -> Any | Failed | None:
        """The workflow's result once it is over, or how it failed; None while it goes on."""
        ...

    def check(self, state: S_contra, name: str, payload: Any, now: float) -> Refusal | None:
        """Why the control `name` cannot be taken now, or None. Asked by signal and update."""
        ...

    def may_continue(self, state: S_contra) -> bool:
        """Whether nothing is in flight that a continue-as-new would lose (children are not)."""
        ...

    def children(self, state: S_contra) -> dict[str, str]:
        """Child runs at work: their workflow ids by the keys of the commands that started them."""
        ...

    def published(self, state: S_contra) -> Published:
        """What search attributes show. Cheap: asked after each event."""
        ...

    def details(self, state: S_contra, now: float) -> str:
        """The current details in the Web UI, as Markdown. May walk the whole state: made when
        somebody looks."""
        ...
