"""The plan: one pydantic model for human, template and model plans (DESIGN §3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from planloom.planner.language.definitions import AgentSpec, TeamSpec
from planloom.planner.language.values import (
    ID_PATTERN,
    TOKENS_MAX,
    USD_MAX,
    JsonValue,
    Model,
    PriorityName,
    Seconds,
    TaskId,
)

BODY_FIELDS = ("tool", "ask", "agent", "team", "plan", "human")

PLAN_MAX_BYTES = 2_000_000
TASKS_MAX = 2_000
MAP_ITEMS_MAX = 1_000_000
SECONDS_MAX = 1e9
PLAN_DEPTH_MAX = 5
"""How deep sub-plans may nest."""


class Ask(Model):
    """One model call."""

    prompt: str
    context: JsonValue = None
    system: str | None = None
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    output_schema: dict[str, JsonValue] | None = None


class Human(Model):
    """A question to a person; `schema` is what the answer must fit."""

    question: str
    schema_: Annotated[dict[str, JsonValue] | None, Field(alias="schema")] = None

    model_config = Model.model_config | {"populate_by_name": True, "serialize_by_alias": True}


class Retry(Model):
    """How often and how soon a failed attempt is repeated."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    initial_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    max_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0


class AtLeast(Model):
    """`requires`: this many of the inputs must be good."""

    at_least: Annotated[int, Field(ge=1)]


Requires = Literal["all", "any", "best_effort"] | AtLeast


class Cost(Model):
    """What the author expects of one task."""

    tokens: Annotated[int, Field(ge=0, le=TOKENS_MAX)] | None = None
    usd: Annotated[float, Field(ge=0, le=USD_MAX)] | None = None
    seconds: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = None


class Body(Model):
    """What a task does: exactly one of the six, with its arguments."""

    tool: str | None = None
    ask: Ask | str | None = None
    agent: str | AgentSpec | None = None
    team: str | TeamSpec | None = None
    plan: Plan | str | None = None
    human: Human | str | None = None
    args: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Which of the six it is; `""` when none is set."""
        return next((f for f in BODY_FIELDS if getattr(self, f) is not None), "")

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        named = [f for f in BODY_FIELDS if getattr(self, f) is not None]
        if len(named) != 1:
            seen = " and ".join(named) if named else "none"
            raise ValueError(f"exactly one of {', '.join(BODY_FIELDS)} is needed; found {seen}")
        return self

    def ask_body(self) -> Ask:
        """The ask, also when it was written as just the prompt."""
        if self.ask is None:
            raise ValueError("not an ask")
        return Ask(prompt=self.ask) if isinstance(self.ask, str) else self.ask

    def human_body(self) -> Human:
        if self.human is None:
            raise ValueError("not a human task")
        return Human(question=self.human) if isinstance(self.human, str) else self.human


def is_body(value: Any) -> bool:
    """Whether a `fallback` is an alternative path rather than a plain value."""
    if value is None:
        return False
    if isinstance(value, Body):
        return True
    return (
        isinstance(value, dict)
        and sum(f in value for f in BODY_FIELDS) == 1
        and set(value) <= {*BODY_FIELDS, "args"}
    )


class Task(Body):
    """One node of the plan."""

    id: Annotated[TaskId, Field(pattern=ID_PATTERN)]
    description: str = ""
    depends_on: list[TaskId] = Field(default_factory=list)
    when: str | None = None
    map: JsonValue = None
    requires: Requires = "all"
    retry: Retry | None = None
    timeout: Seconds | None = None
    fallback: JsonValue = None
    on_error: Literal["fail", "skip"] | None = None
    approval: bool = False
    estimate: Cost | None = None
    speculate: bool = False
    fuse: bool | None = None
    """Whether it may share one activity with other cheap tasks; absent: what is known of its tool
    decides."""
    priority: PriorityName | None = None
    cache: Literal["off", "run", "shared"] | None = None

    @model_validator(mode="after")
    def _fallback_reads(self) -> Self:
        if is_body(self.fallback):
            Body.model_validate(self.fallback)
        return self

    @property
    def has_fallback(self) -> bool:
        """An explicit `fallback: null` counts: null is a value."""
        return "fallback" in self.model_fields_set

    @property
    def fallback_body(self) -> Body | None:
        """The alternative path, or None when the fallback is a plain value."""
        return Body.model_validate(self.fallback) if is_body(self.fallback) else None


class Param(Model):
    """One parameter of a template."""

    type: Literal["string", "integer", "number", "boolean", "array", "object"] = "string"
    description: str = ""
    default: JsonValue = None
    enum: list[JsonValue] | None = None
    required: bool = True


class Plan(Model):
    """A graph of tasks, and how the answer is made from it. Immutable."""

    version: Literal[1] = 1
    name: str = ""
    description: str = ""
    goal: str = ""
    params: dict[str, Param] = Field(default_factory=dict)
    tasks: Annotated[list[Task], Field(min_length=1)]
    answer: JsonValue = None
    join: list[TaskId] | None = None
    """What the joiner is shown; once these have ended, it need not wait for the rest."""
    stop_when: str | None = None

    @property
    def has_answer(self) -> bool:
        return "answer" in self.model_fields_set

    def task(self, task_id: str) -> Task | None:
        return next((t for t in self.tasks if t.id == task_id), None)


Body.model_rebuild()
Task.model_rebuild()
