"""What people and child runs send to a run: the payloads of signals and updates, and the reply."""

from __future__ import annotations

from typing import Annotated, Literal, Self

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

FEEDBACK_MAX_CHARS = 20_000
"""Of what a planner is told to do otherwise: it goes along with its call, beside the goal."""
WORDS_MAX_CHARS: dict[str, int] = {
    "feedback": FEEDBACK_MAX_CHARS,
    "reason": 4_000,
    "note": 4_000,
    "by": 200,
}
"""What a run keeps of what people say beside a decision: the rest is left out, with a sign.

A signal may have two megabytes; a result or a call that quotes it may not have more."""

# Signals and updates of the same names.


class ApprovePlan(Model):
    """A person approves the plan that waits."""

    revision: int
    """The revision that is approved."""
    by: str | None = None
    """Who sends it; recorded."""
    note: str | None = None
    """Why; recorded."""


class RejectPlan(Model):
    """A person rejects the plan that waits. The run ends as `rejected`."""

    revision: int
    """The revision that is rejected."""
    reason: str | None = None
    """Why; recorded, and the run's `reason`."""
    by: str | None = None
    """Who sends it; recorded."""


class EditPlan(Model):
    """A whole new plan, or an RFC 6902 patch of the current one."""

    revision: int
    """The revision that the edit starts from."""
    plan: Plan | None = None
    """The whole new plan."""
    patch: list[dict[str, JsonValue]] | None = None
    """An RFC 6902 patch of that revision."""
    by: str | None = None
    """Who sends it; recorded."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.plan is None) == (self.patch is None):
            raise ValueError("exactly one of plan and patch is needed")
        return self


class RequestReplan(Model):
    """A person asks the planner for another plan."""

    feedback: str
    """What the new plan should do differently. The planner reads it."""
    by: str | None = None
    """Who sends it; recorded."""


class RaiseBudget(Model):
    """New caps (totals, not additions); those left out stay."""

    tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    """The new cap of tokens."""
    usd: Annotated[float, Field(gt=0, le=USD_MAX)] | None = None
    """The new cap of cost, in US dollars."""
    seconds: Seconds | None = None
    """The new cap of time since the start, in seconds or as `30s`, `5m`, `2h`."""
    tasks: Annotated[int, Field(ge=1, le=TASK_CAP_MAX)] | None = None
    """The new cap of tasks."""
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The new limit of tasks at once."""
    by: str | None = None
    """Who sends it; recorded."""


class Pause(Model):
    """Start no new tasks; running tasks finish."""

    by: str | None = None
    """Who sends it; recorded."""


class Resume(Model):
    """Continue after a pause."""

    by: str | None = None
    """Who sends it; recorded."""


class CancelTask(Model):
    """A person cancels one task, or one item of a map."""

    id: str
    """The task's id. One item of a map is `id[0]`."""
    by: str | None = None
    """Who sends it; recorded."""


class CompleteTask(Model):
    """The answer to a `human` task (or to an agent's question)."""

    id: str
    """The task's id. One item of a map is `id[0]`; an agent's question has the agent's id."""
    output: JsonValue = None
    """The answer. It must fit the question's schema."""
    by: str | None = None
    """Who sends it; recorded."""


class ApproveTask(Model):
    """A person decides whether a task that waits for approval runs."""

    id: str
    """The task's id."""
    approve: bool = True
    """Whether the task may run."""
    by: str | None = None
    """Who sends it; recorded."""
    note: str | None = None
    """Why; recorded."""


class GrantWanted(Model):
    """A child run has used its grant up: signalled to its parent. Not typed by people."""

    child: str
    name: str
    """The child's task in its parent."""
    own_tasks: int = 1
    """How many tasks of its reservation are the child itself. A batch of a map counts 0."""
    tokens: int = 0
    usd_nano: int = 0
    tasks: int = 0


class ChildAsks(Model):
    """Something in a child run waits for a person: signalled upwards. Not typed by people."""

    child: str
    """The workflow that waits for the control, with `{id: name}`."""
    name: str
    key: str
    """The id by which the run that gets it is answered: the task's, and the member's."""
    question: str | None = None
    """None: it is answered, or asks no more."""
    is_decision: bool = False
    """It asks whether it may act: only `{"approve": true}` or `false` answers, and never early."""
    control: Literal["complete_task", "approve_task"] = "complete_task"
    """What answers it."""
    answer_schema: dict[str, JsonValue] | None = None
    """What the answer must fit."""


class Reply(Model):
    """Answer of every update."""

    accepted: bool = True
    """Whether it took effect."""
    message: str = ""
    """What was done, in words."""
    revision: int | None = None
    """The revision of the plan after it."""


CONTROLS: dict[str, type[Model]] = {
    "approve_plan": ApprovePlan,
    "reject_plan": RejectPlan,
    "edit_plan": EditPlan,
    "request_replan": RequestReplan,
    "raise_budget": RaiseBudget,
    "pause": Pause,
    "resume": Resume,
    "cancel_task": CancelTask,
    "complete_task": CompleteTask,
    "approve_task": ApproveTask,
}
"""Every signal and update of a run, by name, with its payload."""
