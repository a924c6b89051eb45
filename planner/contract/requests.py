"""What a run, an agent or a team is asked to do: the inputs of the three workflows."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from planloom.planner.language.conditions import readable_condition
from planloom.planner.language.definitions import (
    AgentSpec,
    AgentTask,
    Limits,
    Subtask,
    TeamSpec,
    TeamTask,
    ToolNames,
)
from planloom.planner.language.plan import TASKS_MAX, Plan, Retry
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
    """The model that writes plans."""
    joiner: str | None = None
    """The model that answers or asks for a replan."""
    judge: str | None = None
    """The model that judges a team's answers."""
    worker: str | None = None
    """The model of asks, agents and team members, and of roles without a model here."""


class MajorThresholds(Model):
    """Under `approval: major`, a replan that exceeds one of these needs approval."""

    usd_factor: Annotated[float, Field(ge=1)] = 1.5
    """Ask when the expected cost is more than this many times that of the approved plan."""
    tasks_added: Annotated[int, Field(ge=0)] = 10
    """Ask when more tasks than this are new."""
    tasks_dropped: Annotated[int, Field(ge=0)] = 3
    """Ask when more tasks than this are gone."""
    side_effects: bool = True
    """Ask when a tool with side effects is new."""


class Approval(Model):
    """What a person must approve. Without `timeout` the run waits until somebody decides."""

    mode: ApprovalMode = "never"
    """What needs approval: nothing, the first plan, later plans, the first plan and material
    changes, every plan, or (`tainted`) side effects that follow from outside data."""
    timeout: Seconds | None = None
    """How long to wait for a decision, in seconds or as `30s`, `5m`, `2h`. Without it, the run
    waits until somebody decides."""
    on_timeout: Literal["approve", "reject", "park"] = "reject"
    """What happens when nobody decides in time. `park` means that the run keeps waiting."""
    major: MajorThresholds = Field(default_factory=MajorThresholds)
    """When a change counts as material under `major`."""


class AgentApproval(Model):
    """What a person must approve of an agent: side effects, once it has seen outside data."""

    mode: Literal["never", "tainted"] = "never"
    """`tainted`: the agent asks before a side effect, once it has seen what came from outside."""


class Replan(Model):
    """`max_rounds` counts replans: 0 means the first plan is the only one."""

    max_rounds: Annotated[int, Field(ge=0, le=20)] = 2
    """How many replans are allowed. 0 means that the first plan is the only one."""
    on_failure: bool = True
    """Whether the joiner is asked again, with the failures, before the run ends as `partial`."""


TASK_CAP_MAX = 10**9
TENANT_MAX_BYTES = 64


class Budget(Model):
    """Caps over the whole tree of a run; without a cap there is no limit."""

    tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    """The most tokens, input and output together."""
    usd: Annotated[float, Field(gt=0, le=USD_MAX)] | None = None
    """The most money, in US dollars."""
    seconds: Seconds | None = None
    """The longest time, in seconds or as `30s`, `5m`, `2h`, from the start of the run, waiting
    time included."""
    tasks: Annotated[int, Field(ge=1, le=TASK_CAP_MAX)] | None = None
    """The most tasks that may be started, those of sub-plans included."""
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The most tasks that run at once. Without it, 100."""
    on_budget: Literal["park", "partial"] | None = None
    """What a child does at its cap. Set by `on_budget` of the request; do not set it here."""


PARALLEL_DEFAULT = 100


class Grant(Model):
    """What a parent's ledger lends to a child run: a hard cap, settled when the child ends."""

    tokens: int | None = None
    usd_nano: int | None = None
    tasks: int | None = None


class Reused(Model):
    """A task that an earlier run or revision finished: its outcome and value, not run again."""

    outcome: Outcome
    """How the task ended in the earlier run."""
    output: Stored
    """Its output there."""
    tainted: bool = False
    """It came from outside, or was made of something that did."""


class Lineage(Model):
    """What a run tells its child beside the request: the second input of a child workflow.

    No part of a request. It counts only where the server says that the sender is the parent.
    """

    parent: str | None = None
    secret: str = ""
    """The parent's: what parent and child say to each other goes with it."""
    parent_key: str | None = None
    """The parent's id with that of its first run: another run may have its id later."""
    root: str | None = None
    depth: int = 0
    breadth: int = 1
    """How many runs of plans there may be at this depth, if all are as wide as those above."""
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
    first_index: int = 0
    """Of a batch of a wide map: which item of the map its first one is."""
    form: Literal["agent", "member"] = "agent"
    """The labelled form that an agent is asked for: a team's members say more."""

    @property
    def is_tainted(self) -> bool:
        """Whether something from outside is in what the child was given, or decided it."""
        return self.tainted_inputs or self.tainted_plan


def _short_enough(tenant: str) -> str:
    # The server's limit of a fairness key, which it enforces when the first task is scheduled.
    if len(tenant.encode("utf-8", "replace")) > TENANT_MAX_BYTES:
        raise ValueError(f"has more than {TENANT_MAX_BYTES} bytes as UTF-8")
    return tenant


class Common(Model):
    """Fields that runs of plans, agents and teams share."""

    model: str | ModelRoles | None = None
    """The model for all roles, or an object with a model for each role. Without it,
    `PLANLOOM_MODEL`."""
    tools: ToolNames | None = None
    """The tools that may be used. Without it, all tools of the worker; an agent or member that
    names no `tools` then has none."""
    context: JsonValue = None
    """Any JSON that planner, agents and members read in addition to the goal or task."""
    budget: Budget = Field(default_factory=Budget)
    """Caps over the run and everything below it."""
    on_budget: Literal["park", "partial"] = "park"
    """At a cap: wait for `raise_budget` (`park`), or end with what there is (`partial`)."""
    priority: PriorityName = "normal"
    """The order in which work waits for slots and for model endpoints."""
    tenant: Annotated[str, Field(max_length=64), AfterValidator(_short_enough)] | None = None
    """Whose work it is: tenants share a pool fairly. Up to 64 bytes."""
    cache: CacheMode = "off"
    """Where results of idempotent tools and model calls are reused from: nowhere, this run, or all
    runs."""

    def model_for(self, role: Role) -> str | None:
        """The model this request names for a role, or None."""
        if self.model is None or isinstance(self.model, str):
            return self.model
        return getattr(self.model, role) or self.model.worker


def _approval_from_mode(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


class RunRequest(Common):
    """Input of `DagWorkflow`. One of `goal`, `plan`, `plan_blob`, `template` is needed."""

    goal: str | None = None
    """What you want, in words. The planner model writes a plan for it."""
    plan: Plan | None = None
    """A plan to run as it is."""
    plan_blob: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """In place of `plan`: the SHA-256 of a plan in the workers' blob store, as
    `planloom plan store FILE` prints it. For plans that are too large for a request."""
    template: str | None = None
    """The name of a template to run with `params`."""
    params: dict[str, JsonValue] = Field(default_factory=dict)
    """Values of the template's or plan's parameters, by name."""
    agents: Annotated[list[str | AgentTask | AgentSpec], Field(max_length=TASKS_MAX)] | None = None
    """With `goal`: agents that are each given the goal, in parallel. No planner is asked."""
    teams: Annotated[list[str | TeamTask | TeamSpec], Field(max_length=TASKS_MAX)] | None = None
    """With `goal`: teams that are each given the goal, in parallel. No planner is asked."""
    limits: Limits = Field(default_factory=Limits)
    """How many agents, teams, members and model calls run at once, with `agents` or `teams`."""
    syntax: Literal["calls", "json"] = "calls"
    """The syntax in which the planner model writes plans."""
    stream: bool = True
    """Whether tasks start while the planner is still writing the plan."""
    approval: Annotated[Approval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=Approval
    )
    """Which plans a person must approve: a mode, or an object with the mode and more."""
    replan: Replan = Field(default_factory=Replan)
    """How often the plan may be replaced."""
    on_failure: Literal["partial", "fail"] = "partial"
    """When a task fails for good: finish the rest (`partial`), or end the run at once (`fail`)."""
    retry_rounds: Annotated[int, Field(ge=0, le=3)] = 1
    """How many more rounds failed tasks get after everything else is done, for failures that may
    pass (timeouts, capacity)."""
    stop_when: Annotated[str, AfterValidator(readable_condition)] | None = None
    """A condition over outcomes that ends the run early, as soon as it is true."""
    joiner: bool = False
    """With `plan` or `template`: whether the joiner model answers and may replan, as for a goal."""
    reuse: dict[TaskId, Reused] = Field(default_factory=dict)
    """Tasks that an earlier run finished, by id. They do not run again. The plan may refer to
    others of these names. `planloom fork` fills this."""
    forked_from: str | None = None
    """The run that `reuse` comes from, for the record. `planloom fork` fills this."""
    fuse: bool | None = None
    """Whether cheap tools share activities: `true` all that can, `false` none. Without it, those
    that are known to be quick. A task's own `fuse` takes precedence."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        named = [
            f for f in ("goal", "plan", "plan_blob", "template") if getattr(self, f) is not None
        ]
        if self.plan is not None and self.goal is not None and self.template is None:
            raise ValueError("goal and plan exclude each other: put the goal inside the plan")
        if len(named) != 1:
            seen = " and ".join(named) if named else "none of them"
            raise ValueError(f"exactly one of goal, plan, template is needed; found {seen}")
        if self.goal is not None and not self.goal.strip():
            raise ValueError("goal is empty: say what you want")
        if self.params and named == ["goal"]:
            raise ValueError("params go with template or plan")
        if (self.agents or self.teams) and self.goal is None:
            raise ValueError("agents and teams go with goal: it is the task they are given")
        return self


# Agents and teams.


class AgentRequest(Common):
    """Input of `AgentWorkflow`."""

    agent: str | AgentSpec
    """The agent: the name of a definition, or the definition itself."""
    task: str
    """What the agent is asked to do."""
    approval: Annotated[AgentApproval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=lambda: AgentApproval()
    )
    """What a person must approve: a mode, or an object with the mode."""
    output_schema: dict[str, JsonValue] | None = None
    """A JSON Schema that the answer must fit. The output is then JSON instead of text."""
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    """The most model turns."""
    timeout: Seconds | None = None
    """The longest that one attempt of a model turn may take, in seconds or as `30s`, `5m`, `2h`.
    Without it, the endpoint's limit."""
    retry: Retry | None = None
    """How failed model turns are repeated. Waits that the endpoint asks for are not counted."""


class TeamRequest(Common):
    """Input of `TeamWorkflow`."""

    team: str | TeamSpec
    """The team: the name of a definition, or the definition itself."""
    task: str
    """What the team is asked to do."""
    rounds: Annotated[int, Field(ge=0, le=100)] = 1
    """How many communication rounds follow the first answers."""
    retry_rounds: Annotated[int, Field(ge=0, le=2)] = 1
    """How often members that failed are asked again."""
    strategy: Literal["parallel", "sequential"] = "parallel"
    """Whether members give their first answers at once or in turn."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """How many members must have answered for the team to be `completed`. Without it, all."""
    consensus: bool = True
    """Whether rounds end early when all claims agree."""
    replan: Replan = Field(default_factory=lambda: Replan(max_rounds=0))
    """For a team on a graph: how often its subtasks may be replaced."""
    approval: Annotated[Approval, BeforeValidator(_approval_from_mode)] = Field(
        default_factory=Approval
    )
    """For a team on a graph: which revisions of its subtasks a person must approve."""
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    """The most model turns of one member in one round."""
    timeout: Seconds | None = None
    """The longest that one attempt of a member's turn may take, in seconds or as `30s`, `5m`,
    `2h`. Without it, the endpoint's limit."""
    retry: Retry | None = None
    """How failed model turns are repeated. Waits that the endpoint asks for are not counted."""
    subtasks: Annotated[list[Subtask], Field(max_length=TASKS_MAX)] | Literal["plan"] | None = None
    """Makes it a team on a graph: the subtasks, or `plan` to let the planner model write them."""


REQUEST_MODELS: dict[str, type[Common]] = {
    "DagWorkflow": RunRequest,
    "AgentWorkflow": AgentRequest,
    "TeamWorkflow": TeamRequest,
}
"""By workflow type."""
