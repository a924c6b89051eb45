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
PLAN_FILE_MAX_BYTES = 16_000_000
"""Of a plan in a file or a blob; a request and its plan may have 2 MB."""
TASKS_MAX = 20_000
PLANNED_TASKS_MAX = 2_000
"""Of a plan that a model writes."""
MAP_ITEMS_MAX = 1_000_000
SECONDS_MAX = 1e9
PLAN_DEPTH_MAX = 5
"""How deep sub-plans may nest."""


class Ask(Model):
    """One model call."""

    prompt: str
    """What the model is asked. May hold references."""
    context: JsonValue = None
    """Any JSON that the model reads below the prompt. May hold references."""
    system: str | None = None
    """The system message. Without it, Planloom's own."""
    model: str | None = None
    """The model that answers. Without it, the run's `worker` model."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The longest answer, in tokens. Without it, what the endpoint and the budget allow."""
    output_schema: dict[str, JsonValue] | None = None
    """A JSON Schema that the answer must fit. The output is then JSON instead of text."""


class Human(Model):
    """A question to a person; `schema` is what the answer must fit."""

    question: str
    """What the person is asked. May hold references."""
    schema_: Annotated[dict[str, JsonValue] | None, Field(alias="schema")] = None
    """A JSON Schema that the answer must fit. Without it, any JSON is accepted."""

    model_config = Model.model_config | {"populate_by_name": True, "serialize_by_alias": True}


class Retry(Model):
    """How often and how soon a failed attempt is repeated."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """How many attempts in all, the first included."""
    initial_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds to wait before the second attempt."""
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    """By what factor each wait is longer than the one before."""
    max_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """The longest wait between two attempts, in seconds."""


class AtLeast(Model):
    """`requires`: this many of the inputs must be good."""

    at_least: Annotated[int, Field(ge=1)]
    """How many inputs must have ended well."""


Requires = Literal["all", "any", "best_effort"] | AtLeast


class Cost(Model):
    """What the author expects of one task."""

    tokens: Annotated[int, Field(ge=0, le=TOKENS_MAX)] | None = None
    """Expected tokens, input and output together."""
    usd: Annotated[float, Field(ge=0, le=USD_MAX)] | None = None
    """Expected cost, in US dollars."""
    seconds: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = None
    """Expected duration, in seconds."""


class Body(Model):
    """What a task does: exactly one of the six, with its arguments."""

    tool: str | None = None
    """The name of a registered tool to call with `args`."""
    ask: Ask | str | None = None
    """One model call: the prompt, or an object with the prompt and more."""
    agent: str | AgentSpec | None = None
    """An agent to run as a child workflow: the name of a definition, or the definition itself."""
    team: str | TeamSpec | None = None
    """A team to run as a child workflow: the name of a definition, or the definition itself."""
    plan: Plan | str | None = None
    """A plan to run as a child workflow: the name of a template, or the plan itself."""
    human: Human | str | None = None
    """A question to a person: the text, or an object with `question` and `schema`."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the tool, agent, team or plan. May hold references."""

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
    """The task's name in references, reports and signals: letters, digits, `_`, `.`, `-`; up to
    100 characters."""
    description: str = ""
    """What the task is for, in words. Shown in the Web UI and to the joiner."""
    depends_on: list[TaskId] = Field(default_factory=list)
    """Tasks to wait for, in addition to those that the task refers to."""
    when: str | None = None
    """A condition over outcomes. If it is false, the task is skipped. Without it, the task always
    runs."""
    map: JsonValue = None
    """A list, or a reference to one. The body runs once for each item, with `${item}` and
    `${index}`; the output is the list of results in order."""
    requires: Requires = "all"
    """How many of the task's inputs must have ended well before it runs."""
    retry: Retry | None = None
    """How failed attempts are repeated. Without it: 3 attempts, waits of 1 s doubling up to 60
    s."""
    timeout: Seconds | None = None
    """The longest that one attempt may take, in seconds or as `30s`, `5m`, `2h`; for `human`, the
    longest wait. Without it, the tool's own limit."""
    fallback: JsonValue = None
    """What to use when the task fails: a value, or another body (the alternative path). `null` is
    a value."""
    on_error: Literal["fail", "skip"] | None = None
    """What the task becomes when it, or its inputs, cannot succeed and there is no fallback.
    Without it, a task that failed is `failed`, and one whose inputs failed is `skipped`."""
    approval: bool = False
    """Whether a person must let the task run, with `approve_task`."""
    estimate: Cost | None = None
    """What you expect the task to cost. Without it, Planloom estimates it from earlier calls or
    defaults."""
    speculate: bool = False
    """Whether the task may start before its `when` is known. Only for tools without side
    effects."""
    fuse: bool | None = None
    """Whether it may share one activity with other cheap tasks; absent: what is known of its tool
    decides."""
    priority: PriorityName | None = None
    """The order in which the task waits for a slot. Without it, the run's priority."""
    cache: Literal["off", "run", "shared"] | None = None
    """Where results are reused from. Only for idempotent tools and model calls. Without it, the
    run's `cache`."""

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

    @property
    def bodies(self) -> list[Body]:
        """What the task may run: its body, and its alternative path when it has one."""
        alternative = self.fallback_body
        return [self] if alternative is None else [self, alternative]


class Param(Model):
    """One parameter of a template."""

    type: Literal["string", "integer", "number", "boolean", "array", "object"] = "string"
    """The JSON type of the value."""
    description: str = ""
    """What the parameter is for, in words."""
    default: JsonValue = None
    """The value when none is given. A parameter with a default is not required."""
    enum: list[JsonValue] | None = None
    """The values that are allowed. Without it, any value of the type."""
    required: bool = True
    """Whether a value must be given when there is no default."""


class Plan(Model):
    """A graph of tasks, and how the answer is made from it. Immutable."""

    version: Literal[1] = 1
    """The version of the plan format."""
    name: str = ""
    """A short name, as `planloom plan save` uses it."""
    description: str = ""
    """What the plan does, in words."""
    goal: str = ""
    """The goal that the plan serves, in words. The joiner reads it."""
    params: dict[str, Param] = Field(default_factory=dict)
    """The parameters of a template, by name. A plan with parameters is a template."""
    tasks: Annotated[list[Task], Field(min_length=1)]
    """The tasks, in any order. Up to 20,000."""
    answer: JsonValue = None
    """The answer of the run: any JSON with references. Without it, the outputs of the tasks that
    no other task reads, by id."""
    join: list[TaskId] | None = None
    """The tasks that the joiner reads. Once they have ended, the joiner need not wait for the
    rest. Without it, all tasks."""
    stop_when: str | None = None
    """A condition over outcomes that ends the run early, as soon as it is true."""

    @property
    def has_answer(self) -> bool:
        return "answer" in self.model_fields_set

    def task(self, task_id: str) -> Task | None:
        return next((t for t in self.tasks if t.id == task_id), None)


Body.model_rebuild()
Task.model_rebuild()
