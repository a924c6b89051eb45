"""What is to be done: the commands of all machines. The shell has one function per kind.

A command with a `key` ends in exactly one event of that key: `Returned` or `Broke` (`TimeReached`
for a timer), unless the machine cancelled a timer. Keys are unique among what is in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from planloom.planner.compile.pipeline import Compiled
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.groups import GroupJob
from planloom.planner.contract.jobs import (
    AskJob,
    JoinJob,
    LoadJob,
    PatchJob,
    PermitJob,
    PlanJob,
    PlannerPrefix,
    PrepareJob,
    ResolveJob,
    ToolJob,
    TurnJob,
)
from planloom.planner.contract.requests import Lineage, RunRequest
from planloom.planner.language.catalog import Catalog, PoolSpec
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Bindings, JsonValue, Problem, Stored


@dataclass(frozen=True, slots=True)
class Urgency:
    """A task's place in a queue: level 1 (first) to 5, and the tenant's fair share."""

    level: int = 3
    tenant: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask the worker for tools, pools, prices and models. Ends with a `Catalog`."""

    key: str
    job: PrepareJob


@dataclass(frozen=True, slots=True)
class PreparePlan:
    """Ask the same for a request with a large plan, and have it compiled: the machine would take
    too long. Ends with a `PlanPrepared`."""

    key: str
    request: RunRequest
    depth: int = 0
    given: list[str] = field(default_factory=list)
    """What its references may name beside its tasks."""


@dataclass(frozen=True, slots=True)
class PlanPrepared:
    """What the run must know of its worker, and its plan; or all that is wrong with the plan."""

    catalog: Catalog
    request: RunRequest
    """It names the plan, and holds it no more."""
    problems: list[Problem] = field(default_factory=list)
    compiled: Compiled | None = None


@dataclass(frozen=True, slots=True)
class LoadDefinition:
    """Load an agent or team by name. Ends with a `LoadedDefinition`."""

    key: str
    job: LoadJob


@dataclass(frozen=True, slots=True)
class TakePermit:
    """Wait for a permit of a pool. Ends with None."""

    key: str
    job: PermitJob


@dataclass(frozen=True, slots=True)
class RunTool:
    """Call a tool. Ends with a `TaskOutput`.

    Long literal arguments and wide bindings are stored by the shell on the way.
    """

    key: str
    job: ToolJob
    activity_id: str
    summary: str
    urgency: Urgency
    queue: str
    retry: Retry
    timeout: float | None = None
    is_local: bool = False
    delay: float = 0.0
    """Seconds to wait first: an earlier attempt was made in a group."""


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Cheap tasks that share one activity; ends with a `GroupReply`."""

    key: str
    job: GroupJob
    summary: str
    urgency: Urgency
    queue: str


@dataclass(frozen=True, slots=True)
class AskModel:
    """Call a model on the first of `pools` that can serve it. Ends with a `TaskOutput`."""

    key: str
    job: AskJob
    activity_id: str
    summary: str
    urgency: Urgency
    pools: tuple[PoolSpec, ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Take one model turn of an agent on the first of `pools` that can serve it.

    Ends with a `TurnReply`.
    """

    key: str
    job: TurnJob
    activity_id: str
    summary: str
    urgency: Urgency
    pools: tuple[PoolSpec, ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Call the planner model. Ends with a `PlanReply`; `PlanWritten` events come before it."""

    key: str
    job: PlanJob
    urgency: Urgency


@dataclass(frozen=True, slots=True)
class JoinOutcomes:
    """Call the joiner model. Ends with a `JoinReply`."""

    key: str
    job: JoinJob
    activity_id: str
    urgency: Urgency


@dataclass(frozen=True, slots=True)
class Resolve:
    """Resolve references over large values. Ends with a `Resolved`."""

    key: str
    job: ResolveJob


@dataclass(frozen=True, slots=True)
class ReadOutput:
    """Read a part of a large value. Ends with a `Stored`."""

    key: str
    stored: Stored
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """Apply a JSON patch to a plan document. Ends with a `PatchedPlan`."""

    key: str
    job: PatchJob


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child run, whose arguments are resolved on the way. Ends with its result model.

    `values` may hold references, resolved over `bindings`; `fields` are the rest of the request.
    `inputs_of` (machines.run.children) makes the request of both, or says what is wrong.
    """

    key: str
    kind: Literal["DagWorkflow", "AgentWorkflow", "TeamWorkflow"]
    id: str
    """The child's workflow id."""
    task: str
    """The task's id, for messages."""
    values: dict[str, JsonValue]
    bindings: Bindings
    fields: dict[str, Any]
    lineage: Lineage
    """What the child is told beside its request."""
    summary: str
    urgency: Urgency
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class LookAtChild:
    """Ask the server whether an adopted child still runs. Ends with its status."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire `TimeReached(key)` at `at`, in seconds since 1970. Set again, the key moves."""

    key: str
    at: float
    summary: str = ""


@dataclass(frozen=True, slots=True)
class DropTimer:
    """Drop the timer `key`."""

    key: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel what `key` started. Its end still comes as an event (`Broke`, cancelled)."""

    key: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Signal another run. No event follows; if that run has ended, nothing happens."""

    run: str
    signal: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the update that `token` stands for."""

    token: int
    reply: Reply | PlannerPrefix


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the update that `token` stands for, with an error type of the contract and details."""

    token: int
    message: str
    type: str
    details: list[dict[str, Any]] = field(default_factory=list)


Command = (
    Prepare
    | PreparePlan
    | LoadDefinition
    | TakePermit
    | RunTool
    | RunGroup
    | AskModel
    | TakeTurn
    | WritePlan
    | JoinOutcomes
    | Resolve
    | ReadOutput
    | PatchPlan
    | StartChild
    | LookAtChild
    | SetTimer
    | DropTimer
    | Cancel
    | Tell
    | Answer
    | Refuse
)
