"""What runs, agents and teams report, while they run and when they end."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field

from planloom.planner.language.values import (
    JsonValue,
    Model,
    Outcome,
    Stored,
    Usage,
)

T = TypeVar("T")

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
    """How several agents or teams ended, as a whole, in the codes of the agents runtime."""

    code: OutcomeCode
    """How all of them ended together."""
    retry_recommended: bool = False
    """Whether the same request may succeed later."""
    failed: list[str] = Field(default_factory=list)
    """The agents or teams that failed, by id."""
    partial: list[str] = Field(default_factory=list)
    """Teams that answered although some members failed."""
    failed_members: dict[str, list[str]] = Field(default_factory=dict)
    """The members that failed, by team."""


class UsageReport(Model):
    """Usage as people read it; `saved` is what cache, reuse and an early end saved."""

    tokens: int = 0
    """Tokens, input and output together."""
    input_tokens: int = 0
    """Tokens that models read."""
    output_tokens: int = 0
    """Tokens that models wrote, reasoning included."""
    usd: float = 0.0
    """Cost, in US dollars."""
    model_calls: int = 0
    """Calls of models, those of planner, joiner and judge included."""
    tool_calls: int = 0
    """Calls of tools."""
    cache_hits: int = 0
    """Results that came from the cache."""
    saved: dict[str, float] = Field(default_factory=dict)
    """What cache, reuse and an early end saved, by the estimates: `tokens`, `usd`, `tasks`,
    `seconds`."""
    unpriced_calls: int = 0
    """Calls whose price was not known. They are charged what was reserved."""
    tasks: int = 0
    """Tasks that were started, over the whole tree: what `budget.tasks` caps."""


class TaskTimes(Model):
    """Seconds since the run started."""

    ready: float | None = None
    """When all inputs were available."""
    started: float | None = None
    """When the first attempt was sent out."""
    ended: float | None = None
    """When the task ended."""


class TaskReport(Model):
    """One task of a result: its `output`, or `preview` and `blob` for a large one."""

    outcome: Outcome
    """How the task ended."""
    output: JsonValue = None
    """What the task returned. For a large output, see `preview` and `blob`."""
    preview: str | None = None
    """The first 200 characters of a large output."""
    blob: str | None = None
    """The address of a large output: `planloom blob HASH` prints it."""
    size_bytes: int | None = None
    """The size of a large output, in bytes."""
    error: str | None = None
    """Why the task failed."""
    error_class: str | None = None
    """The class of the failure, as in the retry table: `timeout`, `auth`, `tool`, …"""
    attempts: int = 0
    """How many attempts were made."""
    times: TaskTimes = Field(default_factory=TaskTimes)
    """When it was ready, started and ended."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What the task used."""
    items: dict[str, int] | None = None
    """For a map: how many items ended with each outcome."""
    reason: str | None = None
    """Why the task was skipped or cancelled."""
    tainted: bool = False
    """The output came from outside, or was made of something that did."""


class EstimateReport(Model):
    """Low, likely and worst, and the actual value; None where nothing is known."""

    tokens: tuple[int, int, int] | None = None
    """Tokens: low, likely, worst."""
    usd: tuple[float, float, float] | None = None
    """Cost in US dollars: low, likely, worst."""
    seconds: tuple[float, float, float] | None = None
    """Duration in seconds: low, likely, worst."""
    actual: dict[str, float] = Field(default_factory=dict)
    """The actual values: `tokens`, `usd`, `seconds`."""
    tasks: dict[str, JsonValue] = Field(default_factory=dict)
    """The same for each task, by id."""
    basis: str = ""
    """What the estimate is made from: declared, history or defaults."""


class RunResult(Model):
    """What a run ends with. A large `answer` is `{preview, blob, size_bytes}`."""

    status: RunStatus
    """How the run ended."""
    tainted: bool = False
    """Something in the run came from outside (`http_get`, tools marked `outside`)."""
    answer: JsonValue = None
    """The answer. A large one is `{preview, blob, size_bytes}`."""
    answer_ref: Stored | None = None
    """Where the whole of a large answer is."""
    revision: int = 0
    """The last revision of the plan."""
    rounds: int = 0
    """How many times the planner wrote a plan."""
    tasks: dict[str, TaskReport] = Field(default_factory=dict)
    """A report of each task, by id."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What the whole run used, everything below it included."""
    estimate: EstimateReport | None = None
    """The estimate, with the actual values."""
    critical_path: list[str] = Field(default_factory=list)
    """The tasks on the longest path, in order."""
    critical_path_seconds: float = 0.0
    """The length of that path, in seconds."""
    seconds: float = 0.0
    """Duration from start to end, in seconds."""
    waited_seconds: float = 0.0
    """How much of that the run only waited for people, in seconds."""
    planning: dict[str, JsonValue] = Field(default_factory=dict)
    """How the plan came about: calls, repairs, seconds to the first task, time won by streaming,
    replans and how much of the plan stayed."""
    aggregate: Aggregate | None = None
    """With `agents` or `teams`: how they ended together."""
    speculation: dict[str, int] = Field(default_factory=dict)
    """Tasks that started before their condition was known: `won` were right, `lost` were
    cancelled."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings, rejected replans."""
    reason: str | None = None
    """Why the status is not `completed`."""


class OpenWait(Model):
    """One thing that a run waits for."""

    kind: Awaiting
    """What is missing: a decision, budget, an answer, or capacity."""
    what: str
    """What exactly: the revision, the task, the question, how much is missing."""
    since: float
    """When the wait began, in seconds after the run started."""
    command: str
    """The command that answers it."""
    update: str | None = None
    """The signal or update that answers it; None if only another run or a pool can."""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    """What that signal or update takes, as far as it is known."""

    @property
    def task(self) -> str | None:
        """The id to answer by: of a task that waits for approval, or of a question."""
        return self._named("id", str)

    @property
    def revision(self) -> int | None:
        """The revision of the plan that waits for approval."""
        return self._named("revision", int)

    @property
    def key(self) -> tuple[str, str | None, int | None]:
        """The same as long as it is the same thing that is waited for."""
        return self.kind, self.task, self.revision

    def _named(self, name: str, kind: type[T]) -> T | None:
        value = self.input.get(name)
        return value if isinstance(value, kind) else None


class Progress(Model):
    """Answer of the query `progress`."""

    status: str
    """Where the run is now: `planning`, `waiting`, `running`, `joining`, `paused`, or the result's
    status."""
    awaiting: Awaiting | None = None
    """What a person or the pool must give, even while other tasks run."""
    waits: list[OpenWait] = Field(default_factory=list)
    """Everything the run waits for, each with the command that answers it."""
    revision: int = 0
    """The current revision of the plan. 0 before the first."""
    counts: dict[str, int] = Field(default_factory=dict)
    """How many tasks are in each state."""
    running: list[str] = Field(default_factory=list)
    """The tasks that run now, by id."""
    tasks: dict[str, str] = Field(default_factory=dict)
    """The state of each task, by id."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What was used so far."""
    seconds: float = 0.0
    """Seconds since the run started. Grows while the run waits."""
    running_seconds: dict[str, float] = Field(default_factory=dict)
    """For each running task: seconds since it started."""
    items: dict[str, dict[str, int]] = Field(default_factory=dict)
    """For each map: how many items ended with each outcome, or have not ended (`running`)."""
    goal: str = ""
    """The goal."""
    detail: str | None = None
    """What is awaited, in words: which revision, which question, how much is missing."""
    reason: str | None = None
    """Why the run did not end as `completed`."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings, rejected replans."""
    phase: str = ""
    """For a team: `initial`, `round 2`, `retry 1`, `judge`."""
    members: dict[str, str] = Field(default_factory=dict)
    """For a team: the state of each member, by id."""
    rounds: list[dict[str, JsonValue]] = Field(default_factory=list)
    """For a team: the rounds so far."""


class Diagnosis(Model):
    """What a member's answer shows of its certainty, for the judge."""

    confidence: float | None = None
    """The confidence that the answer states, 0 to 1."""
    violations: list[str] = Field(default_factory=list)
    """Labels that are missing or malformed."""
    evidence: int = 0
    """How many pieces of evidence the answer names."""
    contradictions: int = 0
    """How many contradictions the answer names."""
    conflicts: int = 0
    """How many conflicts with other answers it names."""


class AgentResult(Model):
    """`output` is text, or JSON by the schema; `fields` is what was parsed of the labelled form."""

    status: RunStatus
    """How the agent ended."""
    tainted: bool = False
    """The agent saw something that came from outside."""
    output: JsonValue = None
    """The answer: text, or JSON if there is an `output_schema`."""
    output_ref: Stored | None = None
    """Where the whole of a large output is."""
    preview: str | None = None
    """The first 200 characters of a large output."""
    blob: str | None = None
    """The address of a large output: `planloom blob HASH` prints it."""
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    """The labelled fields of the answer, such as `claim` and `evidence`."""
    turns: int = 0
    """How many model turns were taken."""
    tool_calls: int = 0
    """How many tools were called."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What the agent used."""
    seconds: float = 0.0
    """Duration from start to end, in seconds."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings."""
    reason: str | None = None
    """Why the status is not `completed`."""
    error_class: str | None = None
    """The class of a failure: `schema_violation`, `timeout`, `auth`, …"""
    transcript: str | None = None
    """The blob of the whole conversation."""
    diagnosis: Diagnosis | None = None
    """How certain the answer is, as the judge of a team reads it."""


class MemberReport(Model):
    """One member of a team: its last answer, and how that came about."""

    outcome: Outcome
    """How the member's last answer ended."""
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    """The labelled fields of the answer, such as `claim` and `evidence`."""
    confidence: float | None = None
    """The confidence that the answer states, 0 to 1."""
    attempts: int = 0
    """How often the member was asked, communication rounds not counted."""
    recovered: bool = False
    """Whether it failed first and answered in a retry round."""
    violations: list[str] = Field(default_factory=list)
    """Labels that are missing or malformed: `EVIDENCE:missing`, `CLAIM:too_long`."""
    error: str | None = None
    """Why the member failed."""
    error_class: str | None = None
    """The class of the failure: `timeout`, `auth`, …"""
    output: JsonValue = None
    """The whole answer. For a large one, see `preview` and `blob`."""
    preview: str | None = None
    """The first 200 characters of a large answer."""
    blob: str | None = None
    """The address of a large answer: `planloom blob HASH` prints it."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What the member used."""


class JudgeReport(Model):
    """How far a team's answers can be trusted."""

    verdict: Literal["trusted", "partial", "uncertain"]
    """Whether the answers can be trusted."""
    confidence: float
    """How sure the judge is, 0 to 1."""
    u_intra: float
    """Uncertainty within the members' answers, 0 to 1."""
    u_inter: float
    """Uncertainty between the members' answers, 0 to 1."""
    u_sys: float
    """Uncertainty of the whole, 0 to 1."""
    signals: list[str] = Field(default_factory=list)
    """What raised the uncertainty."""
    reason: str = ""
    """The judge's reason, in words."""
    disagreements: list[str] = Field(default_factory=list)
    """Where members disagree."""


class RoundReport(Model):
    """One round: who read whose answers. `replan`: it began with a new revision of the subtasks."""

    round: int
    """The number of the round, from 0 for the first answers."""
    kind: Literal["initial", "communication", "retry", "replan"] = "communication"
    """What kind of round it was."""
    heard: dict[str, list[str]] = Field(default_factory=dict)
    """Whose answers each member read, by member id."""
    members: list[str] = Field(default_factory=list)
    """The members that were asked."""


class TeamResult(Model):
    """What a team ends with. A large `answer` is `{preview, blob, size_bytes}`."""

    status: RunStatus
    """How the team ended."""
    tainted: bool = False
    """A member saw something that came from outside."""
    answer: JsonValue = None
    """The answer. A large one is `{preview, blob, size_bytes}`."""
    answer_ref: Stored | None = None
    """Where the whole of a large answer is."""
    members: dict[str, MemberReport] = Field(default_factory=dict)
    """A report of each member, by id."""
    rounds: list[RoundReport] = Field(default_factory=list)
    """The rounds, in order."""
    judge: JudgeReport | None = None
    """The verdict. Without it, the team ended before it was judged."""
    tasks: dict[str, TaskReport] = Field(default_factory=dict)
    """For a team on a graph: a report of each subtask, by id."""
    revision: int = 0
    """For a team on a graph: the last revision of the subtasks."""
    usage: UsageReport = Field(default_factory=UsageReport)
    """What the whole team used."""
    seconds: float = 0.0
    """Duration from start to end, in seconds."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: ignored signals, warnings."""
    reason: str | None = None
    """Why the status is not `completed`."""


RESULT_MODELS: dict[str, type[RunResult | AgentResult | TeamResult]] = {
    "DagWorkflow": RunResult,
    "AgentWorkflow": AgentResult,
    "TeamWorkflow": TeamResult,
}
"""By workflow type."""


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
