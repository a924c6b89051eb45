"""What people and child runs send to a run: the payloads of signals and updates, and the reply."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from planloom.planner.contract.requests import TASK_CAP_MAX
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import (
    TOKENS_MAX,
    USD_MAX,
    JsonValue,
    Model,
    Seconds,
)

# Signals and updates of the same names.


class ApprovePlan(Model):
    revision: int
    by: str | None = None
    note: str | None = None


class RejectPlan(Model):
    revision: int
    reason: str | None = None
    by: str | None = None


class EditPlan(Model):
    """A whole new plan, or an RFC 6902 patch of the current one."""

    revision: int
    plan: Plan | None = None
    patch: list[dict[str, JsonValue]] | None = None
    by: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.plan is None) == (self.patch is None):
            raise ValueError("exactly one of plan and patch is needed")
        return self


class RequestReplan(Model):
    feedback: str
    by: str | None = None


class RaiseBudget(Model):
    """New caps (totals, not additions); those left out stay."""

    tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    usd: Annotated[float, Field(gt=0, le=USD_MAX)] | None = None
    seconds: Seconds | None = None
    tasks: Annotated[int, Field(ge=1, le=TASK_CAP_MAX)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    by: str | None = None


class Pause(Model):
    """Start nothing new; what runs goes on."""

    by: str | None = None


class Resume(Model):
    """Go on after a pause."""

    by: str | None = None


class CancelTask(Model):
    id: str
    by: str | None = None


class CompleteTask(Model):
    """The answer to a `human` task (or to an agent's question)."""

    id: str
    output: JsonValue = None
    by: str | None = None


class ApproveTask(Model):
    """Lets a task with `approval: true` run, or not."""

    id: str
    approve: bool = True
    by: str | None = None
    note: str | None = None


class Nothing(Model):
    """A control without arguments: `pause`, `resume`."""

    by: str | None = None


class GrantWanted(Model):
    """A child run has used its grant up: signalled to its parent. Not typed by people."""

    child: str
    name: str
    own_tasks: int = 1
    """Of its reservation, what the child itself is. A batch of a map is none beside its items."""
    """The child's task in its parent."""
    tokens: int = 0
    usd_nano: int = 0
    tasks: int = 0


class ChildAsks(Model):
    """An agent in a child run asks a person: signalled upwards. Not typed by people."""

    child: str
    """The workflow that waits for `complete_task {id: name}`."""
    name: str
    key: str
    """The id by which the run that gets it is answered: the task's, and the member's."""
    question: str | None = None
    """None: it is answered, or asks no more."""
    is_decision: bool = False
    """It asks whether it may act: only `{"approve": true}` or `false` answers, and never early."""


class Reply(Model):
    """Answer of every update."""

    accepted: bool = True
    message: str = ""
    revision: int | None = None
