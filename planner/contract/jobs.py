"""Inputs and outputs of activities: the types that workflows and activities share.

Workflows may not import activities, so what both sides use stands here. None of these carries a
prompt built from large values, a transcript or a key: large values are `Stored` references.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planloom.planner.contract.requests import CacheMode, Role
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Body, Plan, Retry, Task
from planloom.planner.language.values import (
    Bindings,
    JsonValue,
    Model,
    Outcome,
    PriorityName,
    Problem,
    Stored,
    Usage,
)

ErrorClass = Literal[
    "rate_limit",
    "capacity",
    "timeout",
    "schema_violation",
    "auth",
    "refused",
    "context_length",
    "cancelled",
    "tool",
    "unknown",
]
"""Decided in one place, `activities/models/errors.py`: the type of every activity's failure."""


class PrepareJob(Model):
    """`prepare_run`: ask the worker what a run must know before it starts."""

    is_goal: bool = False
    tools: list[str] = Field(default_factory=list)
    """Tools to describe; empty with `is_goal` means all that the allow-list leaves."""
    allow: list[str] | None = None
    templates: list[str] = Field(default_factory=list)
    agents: list[str] = Field(default_factory=list)
    teams: list[str] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    """Model names the request gives, for their prices."""


class ToolJob(Model):
    """`run_tool`: one call of a registered tool. `args` may hold references."""

    task: str
    tool: str
    args: dict[str, JsonValue] = Field(default_factory=dict)
    literal: Stored | None = None
    """In place of `args` when they are long: history holds each long text once at most."""
    bindings: Bindings = Field(default_factory=Bindings)
    key: str = ""
    """Idempotency key: the same for every attempt of this task in this run."""
    revision: int = 0
    """The newest revision when the task started, for logs; 0 while the first is being written."""
    cache: CacheMode = "off"
    cache_scope: str = ""
    """What `cache: run` is keyed by beside the content: the root run's id."""
    tenant: str | None = None
    allow: list[str] | None = None
    """The run's allow-list, checked again where the tool runs; None allows every tool."""
    max_attempts: int = 3
    """Real failures are counted against this; waits that a server asked for are not."""
    attempts_before: int = 0
    """Attempts that were made already, in a group."""


class AskJob(Model):
    """`ask_model`: one model call of an `ask` task, or a summary. Strings may hold references."""

    task: str
    revision: int = 0
    role: Role = "worker"
    prompt: str
    context: JsonValue = None
    system: str | None = None
    outside: list[str] = Field(default_factory=list)
    """Names whose values came from outside: the prompt shows them as data."""
    literal: Stored | None = None
    """In place of prompt, context and system when they are long: an object of the three."""
    model: str | None = None
    pool: str = "default"
    max_tokens: int | None = None
    output_schema: dict[str, JsonValue] | None = None
    bindings: Bindings = Field(default_factory=Bindings)
    cache: CacheMode = "off"
    cache_scope: str = ""
    tenant: str | None = None
    max_attempts: int = 3
    retry: Retry | None = None
    """Pauses between failed attempts, when the task names its own; `max_attempts` counts them."""
    tokens_max: int | None = None
    """What is reserved for the whole call: repairs and failed attempts stay within it."""
    before: dict[str, JsonValue] | None = None
    """What earlier attempts counted, when the call was put in line again."""


class TaskOutput(Model):
    """What every task activity returns."""

    output: Stored
    outcome: Outcome = Outcome.SUCCEEDED
    usage: Usage = Field(default_factory=Usage)
    attempts: int = 1
    seconds: float = 0.0
    saved_usd_nano: int = 0
    saved_tokens: int = 0
    note: str | None = None
    tasks: int | None = None
    """Tasks that ran for it, itself included, where it is more than one: a child run."""


class ResolveJob(Model):
    """`resolve_value`: references in `value` resolved where blobs can be read.

    `mode`: `value` gives the value; `condition` evaluates a JMESPath condition over outcomes and
    gives true or false; `list` gives a list (or fails when it is not one) and sets `count`;
    `joined` makes one list of several lists, where a number stands for as many nulls.
    """

    value: JsonValue = None
    mode: Literal["value", "condition", "list", "joined"] = "value"
    bindings: Bindings = Field(default_factory=Bindings)
    outcomes: dict[str, str] = Field(default_factory=dict)
    """For a condition: each task's outcome; its output is in `bindings.inputs`."""
    inline_max_bytes: int | None = None
    batch: int | None = None
    """For a list of more than `batched_from` items: give it in parts of so many."""
    batched_from: int = 0

    @property
    def is_long(self) -> bool:
        """Whether it may take seconds: it reads or writes a list of any length."""
        return self.batch is not None or self.mode == "joined"


class Resolved(Model):
    stored: Stored = Field(default_factory=Stored)
    count: int | None = None
    parts: list[Stored] | None = None
    """The list in parts, in place of `stored`."""


class PatchJob(Model):
    """`patch_plan`: an RFC 6902 patch on a plan document."""

    document: JsonValue
    patch: list[dict[str, JsonValue]]


class PatchedPlan(Model):
    document: JsonValue = None
    problem: str | None = None


class FinishedTask(Model):
    """What planner and joiner read of a task that has ended."""

    id: str
    call: str = ""
    """The task as one readable line."""
    outcome: Outcome
    output: Stored | None = None
    error: str | None = None
    description: str = ""


class LoadJob(Model):
    """`load_definition`: an agent or team by name, as this worker knows it."""

    kind: Literal["agent", "team"]
    name: str


class LoadedDefinition(Model):
    """The definition (an `AgentSpec` or `TeamSpec` document), or why there is none."""

    spec: Stored | None = None
    tools: list[str] | None = None
    model: str | None = None
    members: list[dict[str, JsonValue]] = Field(default_factory=list)
    """Of a team: each member without its prompt text."""
    links: JsonValue = None
    strategy: Literal["parallel", "sequential"] | None = None
    description: str = ""
    max_turns: int | None = None
    output_schema: dict[str, JsonValue] | None = None
    problems: list[Problem] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


class AgentCall(Model):
    """One tool call that an agent's model asked for; large arguments are in `inputs`."""

    id: str
    name: str
    args: dict[str, JsonValue] = Field(default_factory=dict)
    inputs: dict[str, Stored] = Field(default_factory=dict)
    fingerprint: str = ""
    """Equal for equal calls."""
    problem: str | None = None


class CallResult(Model):
    """What a tool call of an agent came to, for its next turn."""

    id: str
    name: str = ""
    """By which `read_output` opens it, when it is too large to be shown whole."""
    output: Stored | None = None
    error: str | None = None
    note: str | None = None
    """What the model is told beside the result."""
    is_outside: bool = False
    """It came from outside: the model is shown it as data."""


class TurnJob(Model):
    """`agent_turn`: one model turn of an agent or a team member. The transcript is a blob."""

    name: str
    spec: Stored
    """An `AgentSpec` document: system prompt and description."""
    task: Stored
    context: Stored | None = None
    inputs: dict[str, Stored] = Field(default_factory=dict)
    """More values that `read_output` opens, by name."""
    summaries: dict[str, Stored] = Field(default_factory=dict)
    """Of inputs that are too large to be shown whole."""
    others_answers: Stored | None = None
    """What other members say, in a later round."""
    transcript: Stored | None = None
    results: list[CallResult] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)
    tools: list[str] = Field(default_factory=list)
    allow: list[str] | None = None
    """The run's allow-list, checked again where the turn is taken; None allows every tool."""
    is_last: bool = False
    """No tools any more: the answer must come now."""
    form: Literal["agent", "member", "free"] = "free"
    output_schema: dict[str, JsonValue] | None = None
    role: Role = "worker"
    model: str | None = None
    pool: str = "default"
    max_tokens: int | None = None
    tokens_max: int | None = None
    tenant: str | None = None
    before: dict[str, JsonValue] | None = None
    """What earlier attempts counted, when the call was put in line again."""
    retry: Retry | None = None
    """How often and how soon a failed try is repeated, when the request says so."""


class TurnReply(Model):
    """What a turn came to: calls to make, or the answer with what is wrong with it."""

    transcript: Stored
    calls: list[AgentCall] = Field(default_factory=list)
    text: Stored | None = None
    value: Stored | None = None
    """The parsed answer when there is a schema."""
    fields: dict[str, str] = Field(default_factory=dict)
    """The labelled form's fields, each cut to a length that history bears."""
    confidence: float | None = None
    evidence: int = 0
    contradictions: int = 0
    conflicts: int = 0
    problems: list[str] = Field(default_factory=list)
    violations: list[str] = Field(default_factory=list)
    """Fields of the form that are missing, too short, too long or unclear."""
    is_cut_off: bool = False
    """The answer, or the calls, ended at a limit: another turn should have more room."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know of the turn, such as a prompt that the server cut."""
    usage: Usage = Field(default_factory=Usage)
    attempts: int = 1


class PermitJob(Model):
    """`take_permit`: wait for room in a pool, in a fair order."""

    pool: str
    capacity_id: str
    holder: str
    requests: int = 1
    calls: int = 1
    priority: PriorityName = "normal"
    tenant: str | None = None
    ttl_seconds: float = 60.0


class PlannedTask(Model):
    """One task as the planner wrote it."""

    task: Task
    text: str = ""
    """Its source text: given back to the model when a planner call must go on."""


class PlanJob(Model):
    """`write_plan`: one planner call, streamed.

    The activity signals `plan_written` (a `PlannedBatch`) to its own workflow as tasks complete,
    and returns the whole in `PlanReply`. An attempt after the first begins with the update
    `planner_attempt {call, attempt}`, which answers with the accepted prefix (`PlannerPrefix`)
    and makes earlier attempts stale.
    """

    call: int
    goal: str
    revision: int
    context: JsonValue = None
    tools: list[str] | None = None
    model: str | None = None
    pool: str = "default"
    syntax: Literal["calls", "json"] = "calls"
    stream: bool = True
    feedback: str | None = None
    """Why a replan was asked for."""
    finished: list[FinishedTask] = Field(default_factory=list)
    finished_ref: Stored | None = None
    """In place of `finished` when that is long."""
    kept: list[PlannedTask] = Field(default_factory=list)
    """Unfinished tasks of the plan being replaced."""
    accepted: list[PlannedTask] = Field(default_factory=list)
    """Tasks already accepted in this planning: the model goes on after them."""
    problems: list[Problem] = Field(default_factory=list)
    """What was wrong with the last attempt, all at once."""
    agents: dict[str, str] = Field(default_factory=dict)
    teams: dict[str, str] = Field(default_factory=dict)
    template_names: list[str] = Field(default_factory=list)
    max_tokens: int | None = None
    tokens_max: int | None = None
    cache_scope: str = ""
    tenant: str | None = None


class PlannedBatch(Model):
    """Signal `plan_written`: tasks in order; `seq` counts batches of one attempt from 0."""

    call: int
    attempt: int
    seq: int
    tasks: list[PlannedTask] = Field(default_factory=list)


class PlannerAttempt(Model):
    call: int
    attempt: int


class PlannerPrefix(Model):
    accepted: list[PlannedTask] = Field(default_factory=list)


class PlanReply(Model):
    """The whole of one planner call.

    `tasks` are all tasks this attempt accepted or was given, in order; `answer` and `join_only`
    come from the join line; `problems` are what the parser found; `is_cut_off` says that the model
    hit its length limit.
    """

    tasks: list[PlannedTask] = Field(default_factory=list)
    answer: JsonValue = None
    has_answer: bool = False
    join_only: list[str] | None = None
    """`join(a, b)`: what the joiner is shown; None means all leaves."""
    stop_when: str | None = None
    is_complete: bool = True
    is_cut_off: bool = False
    problems: list[Problem] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    usage: Usage = Field(default_factory=Usage)
    attempt: int = 1
    seconds: float = 0.0
    first_task_seconds: float | None = None
    wasted_tokens: int = 0
    """Tokens of earlier attempts that were paid and not used, as far as known."""


class JoinJob(Model):
    """`join_outcomes`: the joiner model decides from outcomes."""

    goal: str
    finished: list[FinishedTask] = Field(default_factory=list)
    finished_ref: Stored | None = None
    """In place of `finished` when that is long."""
    rounds_left: int = 0
    looks_left: int = 0
    """How often it may still ask to see more of outputs that were cut."""
    looked: list[str] = Field(default_factory=list)
    """Outputs that it asked to see more of: they get a larger share of the room."""
    question: str = ""
    """What it looks for in them."""
    summaries: dict[str, Stored] = Field(default_factory=dict)
    """Of those that are too large even for that, made for goal and question."""
    context: JsonValue = None
    model: str | None = None
    pool: str = "default"
    feedback: str | None = None
    max_tokens: int | None = None
    tokens_max: int | None = None
    tenant: str | None = None


class JoinReply(Model):
    action: Literal["finish", "replan", "look"]
    answer: Stored | None = None
    feedback: str = ""
    ids: list[str] = Field(default_factory=list)
    """With look."""
    question: str = ""
    thought: str = ""
    usage: Usage = Field(default_factory=Usage)
    problems: list[str] = Field(default_factory=list)


__all__ = [
    "AskJob",
    "Body",
    "ErrorClass",
    "FinishedTask",
    "JoinJob",
    "JoinReply",
    "PatchJob",
    "PatchedPlan",
    "Plan",
    "PlanJob",
    "PlanReply",
    "PlannedBatch",
    "PlannedTask",
    "PlannerAttempt",
    "PlannerPrefix",
    "PrepareJob",
    "ResolveJob",
    "Resolved",
    "TaskOutput",
    "ToolJob",
    "ToolSpec",
]
