"""The state of a run: a plain value, changed by `step` only, and carried over a continue-as-new."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import PlainSerializer, TypeAdapter

from planloom.planner.compile.pipeline import Compiled
from planloom.planner.contract.controls import (
    ApproveTask,
    ChildAsks,
    CompleteTask,
    EditPlan,
)
from planloom.planner.contract.jobs import FinishedTask, PlannedTask, TaskOutput
from planloom.planner.contract.requests import Lineage, RunRequest
from planloom.planner.contract.results import AgentResult, RunResult, RunStatus
from planloom.planner.language.catalog import Catalog, PoolSpec
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import (
    JsonValue,
    Problem,
    Stored,
    TaskId,
    Usage,
)
from planloom.planner.walk.frontier import Frontier, Unit
from planloom.workflows.machines.run.plan_book import PlanBook
from planloom.workflows.machines.run.record import Record
from planloom.workflows.machines.shared.account import Account
from planloom.workflows.machines.shared.approval import ApprovalState
from planloom.workflows.machines.shared.budget import NOTHING, Amount
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Failed, Identity
from planloom.workflows.machines.shared.metering import Metering
from planloom.workflows.machines.shared.notes import add_note

EARLY_MAX = 100
"""Early decisions that are kept."""


def _slim(kind: Any) -> PlainSerializer:
    """Without what has its default: most of what is known of a task that has not started."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return PlainSerializer(lambda v: adapter.dump_python(v, mode="json", exclude_defaults=True))


# A state of 20,000 tasks is read in a fifth of the time.
SLIM_FRONTIER = _slim(Frontier)
SLIM_RECORDS = _slim(dict[TaskId, Record])


class Stage(StrEnum):
    """The stage of a run. Tasks may run in all stages except the first two."""

    PREPARING = "preparing"
    """The run asks its worker for tools, pools and prices."""
    ROOM = "room"
    """The run waits for a permit of its pool."""
    PLANNING = "planning"
    """The planner model writes a plan. Accepted tasks may run already."""
    APPROVING = "approving"
    """The newest revision waits for a person's decision."""
    RUNNING = "running"
    """Tasks run, and there is nothing else to do before they end."""
    JOINING = "joining"
    """The joiner model reads the outcomes and decides: an answer, or a replan."""
    ANSWERING = "answering"
    """The answer is being made from the outputs."""
    STOPPING = "stopping"
    """Running tasks are being cancelled. Then the run ends as `Ending` says."""
    OVER = "over"
    """The run has its result, or has failed."""


class Rule(StrEnum):
    """What the end of a command means for the run: the name of the rule that takes it."""

    PREPARED = "prepared"
    PERMIT = "permit"
    CONDITION = "condition"
    """A task's `when`, over values that only an activity can read."""
    AHEAD = "ahead"
    """The `when` of a branch that runs ahead of it."""
    ITEMS = "items"
    BODY = "body"
    GROUP = "group"
    """Of several tasks at once."""
    QUESTION = "question"
    ANSWER_STORED = "answer_stored"
    LIST = "list"
    """The output of a map."""
    STOP_WHEN = "stop_when"
    PLAN = "plan"
    JOIN = "join"
    SUMMARY = "summary"
    """Of an output that the joiner looks at."""
    UNMET = "unmet"
    """`stop_when`, once all has run."""
    ANSWER = "answer"
    PATCHED = "patched"
    LEARNED = "learned"
    """What an edited plan names is known."""
    CHILD_LOOK = "child_look"


@dataclass(frozen=True, slots=True)
class Pending:
    """A command in flight: the rule for its end, and whom it is about."""

    rule: Rule
    subject: str = ""


class Doing(StrEnum):
    """What a unit at work does."""

    CONDITION = "condition"
    ITEMS = "items"
    BODY = "body"
    QUESTION = "question"
    """Its question is being resolved."""
    ASKING = "asking"
    """It waits for a person."""
    STORING = "storing"
    WAITING = "waiting"
    """Its fallback waits for budget."""
    GROUP = "group"
    """It runs with others, in the activity of a group."""


@dataclass(slots=True)
class Work:
    """A unit that has been started and has not ended."""

    unit: Unit
    granted: Amount
    doing: Doing = Doing.BODY
    command: str = ""
    """The key of its command in flight; empty when it waits for a person or for budget."""
    has_begun: bool = False
    """Its body was sent, or its question asked: it counts as a task."""
    failed: Failure | None = None
    """What the body failed of, when its fallback runs."""
    is_counted: bool = False
    """Its body ran before its fallback, and is counted."""
    is_ahead: bool = False
    """A speculation: it was started before its condition is known."""
    ahead_output: TaskOutput | None = None
    ahead_failure: Failure | None = None
    """How the speculation came out, while its condition is still not known."""
    is_cancelled: bool = False
    """Its command was cancelled: whatever comes of it starts nothing more."""
    is_late: bool = False
    """A child run whose time is over; it is being cancelled."""
    is_losing: bool = False
    """A speculation whose condition said no; it is being cancelled."""
    cut_at: int = 0
    """The first answer was cut off after so many tokens, and more room was found for another."""
    group: str = ""
    """The group in which it runs."""


@dataclass(slots=True)
class Group:
    """Tasks and items that one activity runs."""

    since: float
    """When it was started, in seconds since the run started."""
    members: dict[str, Unit] = field(default_factory=dict)
    """By key. Those that were cancelled meanwhile are gone: their ends are not looked at."""


@dataclass(slots=True)
class Question:
    """An open question of a human task."""

    text: str
    schema: dict[str, JsonValue] | None
    since: float


@dataclass(slots=True)
class Child:
    """A child run at work."""

    key: str
    """Of the command that started it."""
    deadline: float | None = None
    """What it was told last."""
    is_adopted: bool = False
    """The workflow has continued as new since: it reports by signal."""


class StopKind(StrEnum):
    """Why a run was stopped before all had run."""

    ENOUGH = "enough"
    """`stop_when`, or the joiner's inputs are there: it is complete."""
    TASK_FAILED = "task_failed"
    """`on_failure: fail`."""
    BUDGET = "budget"
    CANCELLED = "cancelled"
    ENDED = "ended"
    """Planning or joining failed, or a person refused: what runs is of no use."""


@dataclass(frozen=True, slots=True)
class Stop:
    kind: StopKind
    reason: str


@dataclass(slots=True)
class Revision:
    """One revision of the plan: kept, with why it came to be."""

    number: int
    plan: Plan
    why: str
    by: str = ""
    changes: list[str] = field(default_factory=list)


class Purpose(StrEnum):
    """Why a plan is being written."""

    FIRST = "first"
    JOINER = "joiner"
    """The joiner asked for another."""
    UNMET = "unmet"
    """`stop_when` was not met."""
    PERSON = "person"
    WHILE_APPROVING = "while_approving"
    """A person asked for another plan instead of deciding about this one."""


@dataclass(slots=True)
class Planning:
    """A plan that is being written."""

    purpose: Purpose
    feedback: str | None
    why: str
    by: str = ""
    repairs: int = 0
    problems: list[Problem] = field(default_factory=list)
    names: tuple[dict[str, TaskId], dict[TaskId, TaskId]] = field(default_factory=lambda: ({}, {}))
    """Twins and aliases from before, if the plan is not taken."""
    prompt_tokens: int = 0
    given: int = 0
    """How many of the accepted tasks the planner's call was given: it is not paid for them."""
    key: str = ""
    """Of the planner's call and its reservation."""


class Then(StrEnum):
    """What follows an approval."""

    ENTER = "enter"
    """Tasks of the first given plan go in."""
    ENTER_REVISION = "enter_revision"


@dataclass(frozen=True, slots=True)
class EarlyDecision:
    """A decision about a revision that is still being written."""

    approve: bool
    by: str
    note: str


@dataclass(slots=True)
class Approving:
    is_first: bool
    major: list[str]
    then: Then


@dataclass(slots=True)
class Joining:
    """The joiner's call, and its looks."""

    told: list[FinishedTask] = field(default_factory=list)
    looks_left: int = 0
    looked: list[str] = field(default_factory=list)
    question: str = ""
    summaries: dict[str, Stored] = field(default_factory=dict)
    to_sum: list[str] = field(default_factory=list)
    """Outputs that are still to be summed up."""
    key: str = ""
    """Of the call and its reservation."""
    status: RunStatus = "completed"
    reason: str | None = None
    records: int = 0
    """How many records there were when it began: part of its reservations' keys."""
    cut_at: int = 0
    """The last answer was cut off after so many tokens, and more room was found for another."""


@dataclass(slots=True)
class Ending:
    """How the run ends once what runs has stopped, or once its answer is made."""

    status: RunStatus
    reason: str | None = None
    is_given_up: bool = False
    """Planning or joining failed: what has a value is kept, with the answer as far as it goes."""


@dataclass(slots=True)
class Goal:
    """What only a run with a planner or joiner has."""

    book: PlanBook = field(default_factory=PlanBook)
    rounds: int = 0
    repairs: int = 0
    is_live: bool = False
    """Accepted tasks start while the plan is still being written."""
    twins: dict[str, TaskId] = field(default_factory=dict)
    aliases: dict[TaskId, TaskId] = field(default_factory=dict)
    refused: list[TaskId] = field(default_factory=list)
    """Tasks of this planning that were refused and not written again yet."""
    deferred: list[PlannedTask] = field(default_factory=list)
    """Tasks that read a refused one: they wait for its repair."""
    asked: tuple[str, str] | None = None
    """A person waits for another plan: feedback, and who."""
    fingerprints: dict[str, int] = field(default_factory=dict)
    planned_at: float | None = None
    wasted_tokens: int = 0
    stabilities: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Edit:
    """An `edit_plan` whose patch or tools are being looked up."""

    payload: EditPlan
    token: int | None
    plan: Plan | None = None


class Wait(StrEnum):
    """What a parked call is: what goes on once its budget is there."""

    PLANNER = "planner"
    JOINER = "joiner"
    SUMMARY = "summary"
    FALLBACK = "fallback"


@dataclass(slots=True)
class Saved:
    """What work that was called off would likely have cost."""

    tokens: float = 0.0
    usd: float = 0.0
    tasks: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class RunState:
    """All of one run."""

    request: RunRequest
    identity: Identity
    account: Account
    frontier: Annotated[Frontier, SLIM_FRONTIER]
    catalog: Catalog = field(default_factory=Catalog)
    stage: Stage = Stage.PREPARING
    has_site: bool = False
    """The catalog was handed in: nothing is to be prepared (a team's plan)."""

    # The plan.
    revisions: list[Revision] = field(default_factory=list)
    compiled: Compiled | None = None
    pruned: dict[TaskId, str] = field(default_factory=dict)
    aliases: dict[TaskId, TaskId] = field(default_factory=dict)
    entered: int = 0
    """The revision whose tasks the frontier holds; 0: none, or one that is being written."""
    goal: Goal | None = None
    planning: Planning | None = None
    approval: ApprovalState = field(default_factory=ApprovalState)
    approving: Approving | None = None
    approval_since: float = 0.0
    """When the open approval was asked for."""
    early_plans: dict[int, EarlyDecision] = field(default_factory=dict)
    """Decisions about a revision that is still being written."""
    edited: list[str] | None = None
    """An edit waits for approval: why it is material."""
    edits: dict[str, Edit] = field(default_factory=dict)
    """Edits that are being patched or looked up, by key."""
    edits_taken: int = 0
    changing: list[TaskId] = field(default_factory=list)
    """Running tasks that the newest revision writes in other words: it is entered at their end."""
    joining: Joining | None = None
    ending: Ending | None = None

    # The tasks.
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    sub_plans: int = 0
    """How many of them have been sub-plans so far."""
    inputs: dict[TaskId, tuple[TaskId, ...]] = field(default_factory=dict)
    records: Annotated[dict[TaskId, Record], SLIM_RECORDS] = field(default_factory=dict)
    dropped: dict[TaskId, int] = field(default_factory=dict)
    """Tasks that were left out before they started, with how often they were written: one that
    comes back must not be taken for an earlier one that has acted."""
    values: dict[str, Stored] = field(default_factory=dict)
    """What references may name beside tasks: params, and inputs of a child run."""
    works: dict[str, Work] = field(default_factory=dict)
    """Units at work, by the key of their reservation."""
    groups: dict[str, Group] = field(default_factory=dict)
    """Groups at work, by the key of their command."""
    groups_made: int = 0
    pending: dict[str, Pending] = field(default_factory=dict)
    """Commands in flight, by key."""
    timers: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Timers that run: when they fire, and what the Web UI calls them."""
    children: dict[str, Child] = field(default_factory=dict)
    """Child runs at work, by workflow id."""
    lists: list[TaskId] = field(default_factory=list)
    """Maps whose items have all ended, and whose output is being made."""
    round: int = 0
    """DAG-level rounds for failures that may pass, after the first."""

    # People.
    held: dict[TaskId, float] = field(default_factory=dict)
    """Tasks that wait for a person's yes, and since when."""
    allowed: list[TaskId] = field(default_factory=list)
    is_decided_outside: bool = False
    """Whoever plans now has seen something that came from outside."""
    early_tasks: dict[TaskId, ApproveTask] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    """By task, or by item of a map: `which[0]`."""
    early_answers: dict[str, list[CompleteTask]] = field(default_factory=dict)
    asked: dict[str, ChildAsks] = field(default_factory=dict)
    """What waits for people in child runs, by the id that answers it."""
    asked_since: dict[str, float] = field(default_factory=dict)
    is_paused: bool = False

    # Budget, time, early end.
    lack: str | None = None
    """What the budget lacks for the next task, in words; the run is parked while it is set."""
    lack_least: Amount = NOTHING
    """The least that the next task can do with."""
    is_time_up: bool = False
    stop: Stop | None = None
    cancelled_why: dict[TaskId, str] = field(default_factory=dict)
    is_stop_checked: bool = True
    """`stop_when` was looked at since the last task ended."""
    join_missing: TaskId | None = None
    """One that the joiner still waits for."""
    ahead: list[str] = field(default_factory=list)
    """Branches that run before their condition is known, by key."""
    held_ahead: list[TaskId] = field(default_factory=list)
    """Branches held back, as too many run ahead already."""
    speculations_won: int = 0
    speculations_lost: int = 0

    # A team's plan.
    cast: dict[str, AgentSpec] = field(default_factory=dict)
    """Agents that only this run knows: the members of a team whose subtasks it runs."""
    cast_fields: dict[str, Any] = field(default_factory=dict)
    """What their requests say beside task and context."""
    spoken: dict[str, AgentResult] = field(default_factory=dict)
    """Their last results, by task."""
    failed_members: dict[str, list[str]] = field(default_factory=dict)
    """Of teams with an answer, by task."""

    metering: Metering = field(default_factory=Metering)
    """The work of references and conditions in this activation."""
    notes: list[str] = field(default_factory=list)
    permit: PoolSpec | None = None
    """The pool in which the run holds a permit."""
    room_wait: str | None = None
    is_long: bool = False
    """The history is long: start nothing, and continue as new once nothing is in flight."""
    is_cancelled: bool = False
    result: RunResult | None = None
    failed: Failed | None = None
    asleep_seconds: float = 0.0
    """How long the run has only waited for people, in all: not its own slowness."""
    asleep_since: float | None = None
    """Since when it does; None while it does anything else."""
    waits: dict[str, Wait] = field(default_factory=dict)
    """Calls that wait for budget, by the key of their reservation."""
    saved: Saved = field(default_factory=lambda: Saved())
    outside: Usage = field(default_factory=Usage)
    """What planner, joiner and summaries used: with the tasks' usage it is the run's."""

    @property
    def plan(self) -> Plan | None:
        return self.revisions[-1].plan if self.revisions else None

    @property
    def entered_plan(self) -> Plan | None:
        """The plan whose tasks the frontier holds."""
        return self.revisions[self.entered - 1].plan if self.entered else None

    @property
    def revision(self) -> int:
        return self.revisions[-1].number if self.revisions else 0

    @property
    def lineage(self) -> Lineage:
        return self.identity.lineage

    @property
    def root(self) -> str:
        return self.lineage.root or self.identity.workflow_id

    @property
    def given_params(self) -> Stored | None:
        """Parameters that are too large to stand in the request."""
        return self.lineage.params or self._reused("params")

    @property
    def goal_text(self) -> str:
        plan = self.plan
        named = plan.goal or plan.name if plan else ""
        return self.request.goal or named or self.request.template or ""

    def seconds(self, now: float) -> float:
        """Seconds since the run started."""
        return now - self.account.started

    def note(self, text: str) -> None:
        add_note(self.notes, text)

    def value_of(self, name: str) -> Stored | None:
        """What a reference's first name stands for: a finished task's output, or a given value."""
        record = self.records.get(TaskId(name))
        if record is not None:
            good = record.outcome is not None and record.outcome.is_good
            return record.output if good else None
        return self.values.get(name) or self._reused(name)

    def _reused(self, name: str) -> Stored | None:
        found = self.request.reuse.get(TaskId(name))
        return found.output if found is not None else None

    def has_name(self, name: str) -> bool:
        """Whether references may name it: a task, or a given value."""
        return TaskId(name) in self.tasks or name in self.values

    @property
    def tainted(self) -> Container[str]:
        """Names of values that came from outside, or were made of something that did."""
        return _Tainted(self)

    def model_for(self, role: str, named: str | None = None) -> str | None:
        """The model of a call: the task's own, the request's for its role, or the default."""
        asked = named or self.request.model_for(role)  # type: ignore[arg-type]
        return asked or self.catalog.models.get(role) or self.catalog.models.get("worker") or None


@dataclass(frozen=True, slots=True)
class _Tainted:
    """Asked name by name: a run looks at every start, and a set of all would cost its size."""

    run: RunState

    def __contains__(self, name: object) -> bool:
        record = self.run.records.get(TaskId(str(name)))
        if record is not None and record.is_tainted:
            return True
        reused = self.run.request.reuse.get(TaskId(str(name)))
        if reused is not None and reused.tainted:
            return True
        return self.run.lineage.tainted_inputs and name in self.run.values
