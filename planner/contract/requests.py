"""What a run, an agent or a team is asked to do: the inputs of the three workflows."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from planloom.planner.language.conditions import readable_condition
from planloom.planner.language.definitions import (
    AgentSpec,
    AgentTask,
    Limits,
    Subtask,
    TeamSpec,
    TeamTask,
)
from planloom.planner.language.plan import Plan, Retry
from planloom.planner.language.values import (
    TOKENS_MAX,
    USD_MAX,
    JsonValue,
    Model,
    Outcome,
    PriorityName,
    Seconds,
    Stored,
    TaskId,
)

ApprovalMode = Literal["never", "plan", "replan", "major", "always", "tainted"]
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


class AgentApproval(Model):
    """Of an agent: `tainted` asks before a side effect, once it saw what came from outside."""

    mode: Literal["never", "tainted"] = "never"


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


class Reused(Model):
    """A task that an earlier run or revision finished: its outcome and value, not run again."""

    outcome: Outcome
    output: Stored
    tainted: bool = False
    """It came from outside, or was made of something that did."""


class Lineage(Model):
    """Set by a parent run for its child, or by `fork`; not typed by people."""

    parent: str | None = None
    root: str | None = None
    depth: int = 0
    params: Stored | None = None
    """The child's params when they are too large to travel inline."""
    inputs: dict[str, Stored] = Field(default_factory=dict)
    """Values a task of the child may refer to beside its own tasks."""
    tainted_inputs: bool = False
    """What the child was given holds something that came from outside."""
    tainted_plan: bool = False
    """A model that saw something from outside decided what the child does."""
    grant: Grant | None = None
    deadline: float | None = None
    """When the time of the parent run is over, in seconds since 1970."""
    forked_from: str | None = None
    first_index: int = 0
    """Of a batch of a wide map: which item of the map its first one is."""
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
    lineage: SkipJsonSchema[Lineage] = Field(default_factory=Lineage)
    """What a parent run says to its child, beside the request: no part of the public schema."""

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
    fuse: bool | None = None
    """Whether cheap tools share activities: `true` all that can, `false` none; absent: those that
    are known to be quick. A task's own `fuse` goes first."""

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


# Agents and teams.


class AgentRequest(Common):
    """Input of `AgentWorkflow`."""

    agent: str | AgentSpec
    task: str
    approval: Annotated[AgentApproval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=lambda: AgentApproval()
    )
    output_schema: dict[str, JsonValue] | None = None
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    timeout: Seconds | None = None
    """The longest that one try of a model turn may take."""
    retry: Retry | None = None
    """Of a model turn that fails; waits that the endpoint asks for are not counted."""


class TeamRequest(Common):
    """Input of `TeamWorkflow`."""

    team: str | TeamSpec
    task: str
    rounds: Annotated[int, Field(ge=0, le=100)] = 1
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
