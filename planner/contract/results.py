"""What runs, agents and teams report, while they run and when they end."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planloom.planner.language.values import (
    JsonValue,
    Model,
    Outcome,
    Stored,
    Usage,
)

RunStatus = Literal["completed", "partial", "failed", "rejected", "cancelled"]
LiveStatus = Literal["planning", "waiting", "running", "joining", "paused"]
Awaiting = Literal["approval", "budget", "human", "capacity"]


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
    tainted: bool = False
    """The output came from outside, or was made of something that did."""


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
    tainted: bool = False
    """Something in the run came from outside (`http_get`, tools marked `outside`)."""
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
    waited_seconds: float = 0.0
    """How much of that it did nothing but wait for people."""
    planning: dict[str, JsonValue] = Field(default_factory=dict)
    """How the plan came: calls, repairs, time to the first task, overlap won, plan stability."""
    aggregate: Aggregate | None = None
    """Of `agents` or `teams` beside a goal: how they ended together."""
    speculation: dict[str, int] = Field(default_factory=dict)
    """Branches that ran ahead of their condition: `won` were right, `lost` were cancelled."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings, overruled replans."""
    reason: str | None = None


class OpenWait(Model):
    """One thing that a run waits for."""

    kind: Awaiting
    what: str
    since: float
    """Seconds after the run started."""
    command: str
    """What to type to answer it."""
    update: str | None = None
    """The signal or update that answers it; None where another run or pool must give."""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    """What that signal or update takes, as far as it is known."""


class Progress(Model):
    """Answer of the query `progress`."""

    status: str
    awaiting: Awaiting | None = None
    """What a person or the pool must give, also while other tasks run."""
    waits: list[OpenWait] = Field(default_factory=list)
    """Everything that is waited for, with the command that answers it."""
    revision: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    running: list[str] = Field(default_factory=list)
    tasks: dict[str, str] = Field(default_factory=dict)
    usage: UsageReport = Field(default_factory=UsageReport)
    seconds: float = 0.0
    running_seconds: dict[str, float] = Field(default_factory=dict)
    """Of each running task: seconds since it started."""
    items: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Of each map: how many items ended how, and how many have not ended (`running`)."""
    goal: str = ""
    detail: str | None = None
    """What is awaited, in words: which revision, which question, how much is missing."""
    reason: str | None = None
    """Why the run ended otherwise than `completed`."""
    notes: list[str] = Field(default_factory=list)
    phase: str = ""
    """Of a team: `initial`, `round 2`, `retry 1`, `judge`."""
    members: dict[str, str] = Field(default_factory=dict)
    """Of a team: each member's state."""
    rounds: list[dict[str, JsonValue]] = Field(default_factory=list)
    """Of a team: its rounds so far."""


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
    tainted: bool = False
    """The agent saw something that came from outside."""
    output: JsonValue = None
    output_ref: Stored | None = None
    """Where the whole of a large output is."""
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
    """One round: who read whose answers. `replan`: it began with a new revision of the subtasks."""

    round: int
    kind: Literal["initial", "communication", "retry", "replan"] = "communication"
    heard: dict[str, list[str]] = Field(default_factory=dict)
    members: list[str] = Field(default_factory=list)


class TeamResult(Model):
    """What a team ends with. A large `answer` is `{preview, blob, size_bytes}`."""

    status: RunStatus
    tainted: bool = False
    """A member saw something that came from outside."""
    answer: JsonValue = None
    answer_ref: Stored | None = None
    """Where the whole of a large answer is."""
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
