"""The state of an agent, and what it shares with a team: plain values, changed by `step` only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from planloom.planner.contract.jobs import AgentCall, CallResult, TurnReply
from planloom.planner.contract.repeats import Repeats
from planloom.planner.contract.requests import (
    PARALLEL_DEFAULT,
    AgentRequest,
    Common,
    Lineage,
    Role,
    TeamRequest,
)
from planloom.planner.contract.results import AgentResult
from planloom.planner.language.catalog import Catalog, PoolSpec
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import PRIORITY_KEYS, JsonValue, Stored, Usage
from planloom.workflows.machines.shared.account import Account
from planloom.workflows.machines.shared.commands import Urgency
from planloom.workflows.machines.shared.machine import Failed, Identity
from planloom.workflows.machines.shared.notes import add_note
from planloom.workflows.machines.shared.questions import Questions

MAX_TURNS_DEFAULT = 20


@dataclass(frozen=True, slots=True)
class Persona:
    """Who speaks: definition, allowed tools, model."""

    name: str
    spec: Stored
    tools: tuple[str, ...] = ()
    model: str | None = None
    form: Literal["agent", "member", "free"] = "agent"
    output_schema: dict[str, JsonValue] | None = None
    max_turns: int = MAX_TURNS_DEFAULT
    timeout: float | None = None
    """The longest that one try of a turn may take, in seconds."""
    retry: Retry | None = None


@dataclass(slots=True)
class Ended:
    """How a conversation ended. `reply` is its last answer, if there is one."""

    status: Literal["completed", "partial", "failed", "cancelled"] = "failed"
    reply: TurnReply | None = None
    error_class: str | None = None
    reason: str | None = None
    turns: int = 0
    tool_calls: int = 0
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    transcript: Stored | None = None


class Doing(StrEnum):
    """What a conversation waits for."""

    NOTHING = "nothing"
    """It has not begun, or it has ended: `ended` says how."""
    STORING = "storing"
    """Large inputs are being stored as blobs, so that no turn carries them."""
    SUMMING = "summing"
    """Inputs that are too large to be shown whole are being summarised."""
    TURN = "turn"
    """The model writes its next message."""
    CALLS = "calls"
    """The tool calls of a turn run, all at once."""


@dataclass(slots=True)
class Call:
    """A tool call of the turn in progress; `key` is that of its command, question or activity."""

    call: AgentCall
    key: str
    result: CallResult | None = None
    part: str = ""
    """The name of its activity, while a person is asked whether it may be made."""


@dataclass(slots=True)
class Talk:
    """One persona's conversation, from its task to its answer, and on in later rounds."""

    persona: Persona
    task: Stored
    context: Stored | None = None
    inputs: dict[str, Stored] = field(default_factory=dict)
    opened: dict[str, Stored] = field(default_factory=dict)
    """What `read_output` opens: inputs, and outputs that were shown cut."""
    summaries: dict[str, Stored] = field(default_factory=dict)
    """Of large inputs, by their names."""
    transcript: Stored | None = None
    is_prepared: bool = False
    is_tainted: bool = False
    """It has seen something that came from outside."""
    turn: int = 0
    last_prompt_tokens: int = 0
    repeats: Repeats = field(default_factory=Repeats)

    # The answer in progress.
    doing: Doing = Doing.NOTHING
    heard: Stored | None = None
    """What other members say, for the next turn."""
    problems: list[str] = field(default_factory=list)
    """What was wrong with the last answer, for the next turn."""
    results: list[CallResult] = field(default_factory=list)
    """Of the last turn's calls, for the next turn; kept over a turn that failed."""
    repairs: int = 0
    why_last: str | None = None
    """Why the next turn must be the answer; None while there may be more calls."""
    was_cut: bool = False
    """The last answer was cut off at its limit: the next turn gets more room."""
    summing: dict[str, str] = field(default_factory=dict)
    """Inputs whose summary is being made, and by which blob."""
    calls: list[Call] = field(default_factory=list)
    ended: Ended = field(default_factory=Ended)

    @property
    def name(self) -> str:
        return self.persona.name

    @property
    def is_last(self) -> bool:
        return self.why_last is not None


class Rule(StrEnum):
    """What the end of a command means: the name of the rule that takes it."""

    LOADED = "loaded"
    PREPARED = "prepared"
    PERMIT = "permit"
    STORED = "stored"
    """A large word of a talk."""
    SUMMARY = "summary"
    TURN = "turn"
    TOOL = "tool"
    READ = "read"
    """A part of a large value."""
    ANSWER = "answer"
    """A person's large answer is stored."""
    JUDGE = "judge"
    JUDGED = "judged"
    """What of the judge's long answer comes into the state."""
    COMPOSED = "composed"


@dataclass(frozen=True, slots=True)
class Pending:
    """A command in flight, or one that waits for budget: its rule, and whom it is about."""

    rule: Rule
    talk: str = ""
    part: str = ""


def talk_about(persona: Persona, request: AgentRequest | TeamRequest, lineage: Lineage) -> Talk:
    """The talk about the task of a request, with what the parent run gave beside it."""
    inputs = dict(lineage.inputs)
    task = inputs.pop("task", None) or Stored(value=request.task)
    context = None if request.context is None else Stored(value=request.context)
    return Talk(persona, task, context, inputs, is_tainted=lineage.is_tainted)


@dataclass(slots=True)
class Summary:
    """A summary, made once for all who read the same value."""

    key: str
    stored: Stored | None = None
    is_made: bool = False
    """True without `stored`: none could be had, and the beginning must do."""


@dataclass(slots=True)
class Host:
    """What all talks of one workflow share; the states of agents and teams are such hosts.

    Each key is in `pending` (its command is in flight) or in `waiting` (its call stands in
    `account.parked`), and never in both.
    """

    request: Common
    identity: Identity
    account: Account
    catalog: Catalog = field(default_factory=Catalog)
    talks: dict[str, Talk] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    waiting: dict[str, Pending] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    """By blob."""
    questions: Questions = field(default_factory=Questions)
    notes: list[str] = field(default_factory=list)
    permit: PoolSpec | None = None
    """The pool whose permit the workflow holds, or waits for."""
    renew_at: float | None = None
    """When the permit is renewed; None while it is waited for."""
    parallel: int = PARALLEL_DEFAULT
    is_team: bool = False
    is_paused: bool = False
    is_long: bool = False
    """The history is long: no call is made until the workflow has continued as new."""
    is_cancelled: bool = False

    @property
    def lineage(self) -> Lineage:
        return self.identity.lineage

    @property
    def root(self) -> str:
        return self.lineage.root or self.identity.workflow_id

    @property
    def used(self) -> Usage:
        return self.account.ledger.usage

    @property
    def may_call(self) -> bool:
        """Whether a call that has its budget may be made."""
        return not (self.is_paused or self.is_long or self.is_cancelled)

    @property
    def is_asking(self) -> bool:
        """Whether a person is asked before what came from outside is acted upon."""
        approval = getattr(self.request, "approval", None)
        return approval is not None and approval.mode == "tainted"

    @property
    def is_tainted(self) -> bool:
        return any(talk.is_tainted for talk in self.talks.values())

    @property
    def is_in_room(self) -> bool:
        """False while the workflow waits for room in its pool."""
        return self.permit is None or self.renew_at is not None

    def note(self, text: str) -> None:
        add_note(self.notes, text)

    def seconds(self, now: float) -> float:
        """Seconds since the workflow started."""
        return now - self.account.started

    def model_for(self, role: Role, named: str | None = None) -> str | None:
        """The model of a call: the persona's own, else the request's, else the catalog's."""
        asked = named or self.request.model_for(role)
        return asked or self.catalog.models.get(role) or self.catalog.models.get("worker") or None

    @property
    def urgency(self) -> Urgency:
        tenant = self.request.tenant
        weight = self.catalog.tenants.get(tenant or "")
        return Urgency(PRIORITY_KEYS[self.request.priority], tenant, weight)


@dataclass(slots=True)
class AgentState(Host):
    """All of one agent."""

    request: AgentRequest
    persona: Persona | None = None
    """Who speaks, once the definition is known."""
    result: AgentResult | None = None
    failed: Failed | None = None

    @property
    def talk(self) -> Talk | None:
        return next(iter(self.talks.values()), None)
