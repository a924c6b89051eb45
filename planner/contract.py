"""The public contract (DESIGN §4): requests, results, signals, queries. Names here are stable."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from planner.conditions import readable_condition
from planner.definitions import AgentSpec, AgentTask, Limits, Subtask, TeamSpec, TeamTask
from planner.plan import Plan, Retry
from planner.values import (
    TOKENS_MAX,
    USD_MAX,
    JsonValue,
    Model,
    Outcome,
    PriorityName,
    Seconds,
    Stored,
    TaskId,
    Usage,
)

# Error types of application failures that a caller caused.
INVALID_REQUEST = "InvalidRequest"
INVALID_PLAN = "InvalidPlan"
UNKNOWN_TOOL = "UnknownTool"
BUDGET_EXCEEDED = "BudgetExceeded"
PLAN_REJECTED = "PlanRejected"
STALE = "Stale"
"""An update that came too late: a revision that was replaced, a task that has ended."""

SEARCH_ATTRIBUTES = {
    "PlanloomStatus": "Keyword",
    "PlanloomRevision": "Int",
    "PlanloomAwaiting": "KeywordList",
    "PlanloomTenant": "Keyword",
}

RunStatus = Literal["completed", "partial", "failed", "rejected", "cancelled"]
LiveStatus = Literal["planning", "waiting", "running", "joining", "paused"]
Awaiting = Literal["approval", "budget", "human", "capacity"]
ApprovalMode = Literal["never", "plan", "replan", "major", "always"]
CacheMode = Literal["off", "run", "shared"]
Role = Literal["planner", "joiner", "judge", "worker"]


class ModelRoles(Model):
    """A model per role; a role without one takes `worker`'s, then the worker process's default."""

    planner: str | None = None
    joiner: str | None = None
    judge: str | None = None
    worker: str | None = None


class MajorThresholds(Model):
    """Under `approval: major` a replan asks when it passes one of these."""

    usd_factor: Annotated[float, Field(ge=1)] = 1.5
    tasks_added: Annotated[int, Field(ge=0)] = 10
    tasks_dropped: Annotated[int, Field(ge=0)] = 3
    side_effects: bool = True


class Approval(Model):
    """Who must say yes before what. Without `timeout` it waits for ever."""

    mode: ApprovalMode = "never"
    timeout: Seconds | None = None
    on_timeout: Literal["approve", "reject", "park"] = "reject"
    major: MajorThresholds = Field(default_factory=MajorThresholds)


class Replan(Model):
    """`max_rounds` counts replans: 0 means the first plan is the only one."""

    max_rounds: Annotated[int, Field(ge=0, le=20)] = 2
    on_failure: bool = True
    """Ask the joiner again, with the failures, before the run ends partial."""


TASK_CAP_MAX = 10**9
TENANT_MAX_BYTES = 64


class Budget(Model):
    """Caps over the whole tree of a run; a cap that is absent does not bind."""

    tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    usd: Annotated[float, Field(gt=0, le=USD_MAX)] | None = None
    seconds: Seconds | None = None
    tasks: Annotated[int, Field(ge=1, le=TASK_CAP_MAX)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    on_budget: Literal["park", "partial"] | None = None


PARALLEL_DEFAULT = 100


class Grant(Model):
    """What a parent's ledger lends to a child run: a hard cap, settled when the child ends."""

    tokens: int | None = None
    usd_nano: int | None = None
    tasks: int | None = None


OutcomeCode = Literal[
    "SUCCESS",
    "PARTIAL_SUCCESS",
    "RETRYABLE_FAILURE",
    "NONRETRYABLE_FAILURE",
    "CANCELLED",
    "TIMEOUT",
]


class Aggregate(Model):
    """How many agents or teams ended together, in the codes of the agents runtime."""

    code: OutcomeCode
    retry_recommended: bool = False
    failed: list[str] = Field(default_factory=list)
    partial: list[str] = Field(default_factory=list)
    """Teams with an answer of which some members failed."""
    failed_members: dict[str, list[str]] = Field(default_factory=dict)


class Reused(Model):
    """A task that an earlier run or revision finished: its outcome and value, not run again."""

    outcome: Outcome
    output: Stored


class Lineage(Model):
    """Set by a parent run for its child, or by `fork`; not typed by people."""

    parent: str | None = None
    root: str | None = None
    depth: int = 0
    params: Stored | None = None
    """The child's params when they are too large to travel inline."""
    inputs: dict[str, Stored] = Field(default_factory=dict)
    """Values a task of the child may refer to beside its own tasks."""
    grant: Grant | None = None
    deadline: float | None = None
    """When the time of the parent run is over, in seconds since 1970."""
    forked_from: str | None = None
    form: Literal["agent", "member"] = "agent"
    """The labelled form that an agent is asked for: a team's members say more."""


def _short_enough(tenant: str) -> str:
    # The server's limit of a fairness key, which it enforces when the first task is scheduled.
    if len(tenant.encode("utf-8", "replace")) > TENANT_MAX_BYTES:
        raise ValueError(f"has more than {TENANT_MAX_BYTES} bytes as UTF-8")
    return tenant


class Common(Model):
    """Fields that runs of plans, agents and teams share."""

    model: str | ModelRoles | None = None
    tools: list[str] | None = None
    context: JsonValue = None
    budget: Budget = Field(default_factory=Budget)
    on_budget: Literal["park", "partial"] = "park"
    priority: PriorityName = "normal"
    tenant: Annotated[str, Field(max_length=64), AfterValidator(_short_enough)] | None = None
    cache: CacheMode = "off"
    lineage: Lineage = Field(default_factory=Lineage)

    def model_for(self, role: Role) -> str | None:
        """The model this request names for a role, or None."""
        if self.model is None or isinstance(self.model, str):
            return self.model
        return getattr(self.model, role) or self.model.worker


def _approval_from_mode(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


class RunRequest(Common):
    """Input of `DagWorkflow`. One of `goal`, `plan`, `template` is needed."""

    goal: str | None = None
    plan: Plan | None = None
    template: str | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    agents: list[str | AgentTask | AgentSpec] | None = None
    teams: list[str | TeamTask | TeamSpec] | None = None
    limits: Limits = Field(default_factory=Limits)
    syntax: Literal["calls", "json"] = "calls"
    stream: bool = True
    approval: Annotated[Approval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=Approval
    )
    replan: Replan = Field(default_factory=Replan)
    on_failure: Literal["partial", "fail"] = "partial"
    retry_rounds: Annotated[int, Field(ge=0, le=3)] = 1
    """DAG-level rounds for failures that may pass (time-outs, capacity), after all else is done."""
    stop_when: Annotated[str, AfterValidator(readable_condition)] | None = None
    joiner: bool = False
    """With `plan` or `template`: the joiner model answers and may replan, as for a goal."""
    reuse: dict[TaskId, Reused] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        named = [f for f in ("goal", "plan", "template") if getattr(self, f) is not None]
        if self.plan is not None and self.goal is not None and self.template is None:
            raise ValueError("goal and plan exclude each other: put the goal inside the plan")
        if len(named) != 1:
            seen = " and ".join(named) if named else "none of them"
            raise ValueError(f"exactly one of goal, plan, template is needed; found {seen}")
        if self.goal is not None and not self.goal.strip():
            raise ValueError("goal is empty: say what you want")
        if self.params and self.template is None and self.plan is None:
            raise ValueError("params go with template or plan")
        if (self.agents or self.teams) and self.goal is None:
            raise ValueError("agents and teams go with goal: it is the task they are given")
        return self


class UsageReport(Model):
    """Usage as people read it; `saved` is what cache, reuse and early end spared."""

    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    model_calls: int = 0
    tool_calls: int = 0
    cache_hits: int = 0
    saved: dict[str, float] = Field(default_factory=dict)
    unpriced_calls: int = 0
    tasks: int = 0
    """Tasks that were started, over the whole tree: what `budget.tasks` caps."""


class TaskTimes(Model):
    """Seconds since the run started."""

    ready: float | None = None
    started: float | None = None
    ended: float | None = None


class TaskReport(Model):
    """One task of a result: its `output`, or `preview` and `blob` for a large one."""

    outcome: Outcome
    output: JsonValue = None
    preview: str | None = None
    blob: str | None = None
    size_bytes: int | None = None
    error: str | None = None
    error_class: str | None = None
    attempts: int = 0
    times: TaskTimes = Field(default_factory=TaskTimes)
    usage: UsageReport = Field(default_factory=UsageReport)
    items: dict[str, int] | None = None
    """For a map: how many items ended how."""
    reason: str | None = None


class EstimateReport(Model):
    """Low, likely and worst beside what it came to; None where nothing is known."""

    tokens: tuple[int, int, int] | None = None
    usd: tuple[float, float, float] | None = None
    seconds: tuple[float, float, float] | None = None
    actual: dict[str, float] = Field(default_factory=dict)
    tasks: dict[str, JsonValue] = Field(default_factory=dict)
    basis: str = ""


class RunResult(Model):
    """What a run ends with. A large `answer` is `{preview, blob, size_bytes}`."""

    status: RunStatus
    answer: JsonValue = None
    answer_ref: Stored | None = None
    """Where the whole of a large answer is."""
    revision: int = 0
    rounds: int = 0
    tasks: dict[str, TaskReport] = Field(default_factory=dict)
    usage: UsageReport = Field(default_factory=UsageReport)
    estimate: EstimateReport | None = None
    critical_path: list[str] = Field(default_factory=list)
    critical_path_seconds: float = 0.0
    seconds: float = 0.0
    planning: dict[str, JsonValue] = Field(default_factory=dict)
    """How the plan came: calls, repairs, time to the first task, overlap won, plan stability."""
    aggregate: Aggregate | None = None
    """Of `agents` or `teams` beside a goal: how they ended together."""
    speculation: dict[str, int] = Field(default_factory=dict)
    """Branches that ran ahead of their condition: `won` were right, `lost` were cancelled."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings, overruled replans."""
    reason: str | None = None


class Progress(Model):
    """Answer of the query `progress`."""

    status: str
    awaiting: Awaiting | None = None
    revision: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    running: list[str] = Field(default_factory=list)
    tasks: dict[str, str] = Field(default_factory=dict)
    usage: UsageReport = Field(default_factory=UsageReport)
    seconds: float = 0.0
    goal: str = ""
    detail: str | None = None
    """What is awaited, in words: which revision, which question, how much is missing."""
    notes: list[str] = Field(default_factory=list)
    phase: str = ""
    """Of a team: `initial`, `round 2`, `retry 1`, `judge`."""
    members: dict[str, str] = Field(default_factory=dict)
    """Of a team: each member's state."""
    rounds: list[dict[str, JsonValue]] = Field(default_factory=list)
    """Of a team: its rounds so far."""


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


class GrantWanted(Model):
    """A child run has used its grant up: signalled to its parent. Not typed by people."""

    child: str
    name: str
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
    """The id by which the run that hears it is answered: the task's, and the member's."""
    question: str | None = None
    """None: it is answered, or asks no more."""


class Reply(Model):
    """Answer of every update."""

    accepted: bool = True
    message: str = ""
    revision: int | None = None


# Agents and teams.


class AgentRequest(Common):
    """Input of `AgentWorkflow`."""

    agent: str | AgentSpec
    task: str
    output_schema: dict[str, JsonValue] | None = None
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    timeout: Seconds | None = None
    """The longest that one try of a model turn may take."""
    retry: Retry | None = None
    """Of a model turn that fails; waits that the endpoint asks for are not counted."""


class Diagnosis(Model):
    """What a member's answer shows of its certainty, for the judge."""

    confidence: float | None = None
    violations: list[str] = Field(default_factory=list)
    evidence: int = 0
    contradictions: int = 0
    conflicts: int = 0


class AgentResult(Model):
    """`output` is text, or JSON by the schema; `fields` is what was parsed of the labelled form."""

    status: RunStatus
    output: JsonValue = None
    preview: str | None = None
    blob: str | None = None
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    turns: int = 0
    tool_calls: int = 0
    usage: UsageReport = Field(default_factory=UsageReport)
    seconds: float = 0.0
    notes: list[str] = Field(default_factory=list)
    reason: str | None = None
    error_class: str | None = None
    """Of a failure: `schema_violation`, `timeout`, `auth`, …"""
    transcript: str | None = None
    """Blob of the whole conversation."""
    diagnosis: Diagnosis | None = None


class TeamRequest(Common):
    """Input of `TeamWorkflow`."""

    team: str | TeamSpec
    task: str
    rounds: Annotated[int, Field(ge=0, le=20)] = 1
    retry_rounds: Annotated[int, Field(ge=0, le=2)] = 1
    strategy: Literal["parallel", "sequential"] = "parallel"
    quorum: Annotated[int, Field(ge=1)] | None = None
    consensus: bool = True
    replan: Replan = Field(default_factory=lambda: Replan(max_rounds=0))
    approval: Annotated[Approval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=Approval
    )
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    timeout: Seconds | None = None
    """The longest that one try of a member's turn may take."""
    retry: Retry | None = None
    subtasks: list[Subtask] | Literal["plan"] | None = None
    """A team on a graph: its parts, or `plan`: the planner model writes them."""


class MemberReport(Model):
    outcome: Outcome
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    confidence: float | None = None
    attempts: int = 0
    recovered: bool = False
    violations: list[str] = Field(default_factory=list)
    """What of the labelled form its answer did not keep: `EVIDENCE:missing`, `CLAIM:too_long`."""
    error: str | None = None
    error_class: str | None = None
    output: JsonValue = None
    preview: str | None = None
    blob: str | None = None
    usage: UsageReport = Field(default_factory=UsageReport)


class JudgeReport(Model):
    verdict: Literal["trusted", "partial", "uncertain"]
    confidence: float
    u_intra: float
    u_inter: float
    u_sys: float
    signals: list[str] = Field(default_factory=list)
    reason: str = ""
    disagreements: list[str] = Field(default_factory=list)


class RoundReport(Model):
    """One round: who heard whom. `replan` is one that a new revision of the subtasks began."""

    round: int
    kind: Literal["initial", "communication", "retry", "replan"] = "communication"
    heard: dict[str, list[str]] = Field(default_factory=dict)
    members: list[str] = Field(default_factory=list)


class TeamResult(Model):
    status: RunStatus
    answer: JsonValue = None
    members: dict[str, MemberReport] = Field(default_factory=dict)
    rounds: list[RoundReport] = Field(default_factory=list)
    judge: JudgeReport | None = None
    tasks: dict[str, TaskReport] = Field(default_factory=dict)
    """Of a team on a graph that ran as a plan: its subtasks."""
    revision: int = 0
    """The last revision of those subtasks."""
    usage: UsageReport = Field(default_factory=UsageReport)
    seconds: float = 0.0
    notes: list[str] = Field(default_factory=list)
    reason: str | None = None


def usage_report(usage: Usage, saved: dict[str, float] | None = None) -> UsageReport:
    """Usage for people: dollars instead of nano-dollars, totals filled in."""
    return UsageReport(
        tokens=usage.tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        usd=usage.usd_nano / 1e9,
        model_calls=usage.model_calls,
        tool_calls=usage.tool_calls,
        cache_hits=usage.cache_hits,
        saved=saved or {},
        unpriced_calls=0 if usage.is_priced else 1,
    )
