"""The contract of `CapacityWorkflow` (DESIGN §4, "Pools"): one model endpoint's rate and room.

People use `reserve`, `renew`, `release`, `set`, `drain`, `resume` and the query `state`; `report`
is what workers say and are told, several times a second while there is work.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings
from planloom.planner.language.values import JsonValue, Model, PriorityName, parse_seconds

PenaltyMode = Literal["off", "legacy", "enhanced"]
Rate = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Wait = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0, le=3600)]
Life = Annotated[float, BeforeValidator(parse_seconds)]
PRESSURE_CLASSES: tuple[ErrorClass, ...] = ("rate_limit", "capacity")
"""Error classes by which an endpoint says that it has too much to do."""
UNPROVEN_STARTS = 3
"""Calls that may be running, or have failed permanently, before the first call has succeeded: of
all processes together, as long as the workflow answers."""

OF_ANY_VERSION = ConfigDict(extra="ignore", frozen=True)
"""Of what workers and workflow tell each other: while workers are replaced, both ends differ."""
Holder = Annotated[str, Field(min_length=1, max_length=200)]


class CapacityRequest(Model):
    """Input of `CapacityWorkflow`. Without `settings`, the worker's own apply."""

    pool: Annotated[str, Field(min_length=1, max_length=100)]
    """The pool's name."""
    settings: PoolSettings | None = None
    """The pool's settings. Without it, the worker's own."""
    task_queue: str | None = None
    """The pool's task queue. Without it, the worker's own name for it."""
    state: JsonValue = None
    """What continue-as-new hands over. Not typed by people."""


class Reserve(Model):
    """Reserves room for work before it starts; answered at once unless `wait_seconds` is given.

    A holder that asks again gets the permit it has, or keeps its place.
    """

    holder: Holder
    """Who asks. The same name asking again gets the same permit."""
    requests: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many requests to reserve."""
    calls: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many model calls at once to reserve."""
    wait_seconds: Wait = 0.0
    """How long to wait for room, in seconds."""
    answer_seconds: Wait | None = None
    """Answer within this many seconds, and keep the place in the queue until `wait_seconds` are
    over."""
    ttl_seconds: Life = 60.0
    """After how many seconds the permit ends unless it is renewed; between 2 and 600."""
    priority: PriorityName = "normal"
    """The order among waiting requests of the same class."""
    tenant: Annotated[str, Field(max_length=64)] | None = None
    """Whose work it is."""
    queue_class: Literal["interactive", "standard", "batch"] = "standard"
    """The first criterion of the order among waiting requests."""


class Renew(Model):
    """Extends a permit, so that it does not end while its holder works."""

    holder: Holder
    """Who holds the permit."""
    ttl_seconds: Life = 60.0
    """Seconds from now until it ends."""


class Release(Model):
    """Gives a permit back."""

    holder: Holder
    """Who holds the permit."""


class PermitReply(Model):
    """The answer to `reserve`, `renew` and `release`."""

    allowed: bool
    """Whether the holder has a permit now; for `release`, whether it had one until now."""
    waiting: bool = False
    """Whether it waits and keeps its place. Ask again with the same holder."""
    reasons: list[str] = Field(default_factory=list)
    """Why there is no permit."""
    expires_in_seconds: float | None = None
    """Seconds until the permit ends."""
    position: int | None = None
    """The place in the queue, from 1."""
    requests: int = 0
    """Requests reserved and asked for together, as counted for this answer."""
    calls: int = 0
    """Calls reserved and asked for together, as counted for this answer."""


class SetCapacity(Model):
    """`set`: live changes, kept until `reset`. Only what is given changes."""

    requests_per_minute: Rate | None = None
    """The most requests a minute."""
    tokens_per_minute: Rate | None = None
    """The most tokens a minute."""
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The most calls at once."""
    penalty: PenaltyMode | None = None
    """How the endpoint's errors lower the parallelism."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Permits: requests at once."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Permits: model calls at once."""
    max_runs: Annotated[int, Field(ge=1)] | None = None
    """Permits: holders at once."""
    tenants: dict[str, Annotated[float, Field(ge=0.001, le=1000)]] | None = None
    """Weights by which tenants share the pool."""
    reset: bool = False
    """Whether to go back to what the settings say first."""

    @model_validator(mode="after")
    def _changes_something(self) -> SetCapacity:
        if not self.model_fields_set:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"nothing to set; one of {names}")
        return self


class Because(Model):
    """Input of `drain` and `resume`: who did it and why, for those who look later."""

    reason: str = ""
    """Why; recorded."""
    by: str | None = None
    """Who; recorded."""


class Failure(Model):
    """A permanent failure, as a breaker counts it."""

    key: str
    error_class: str
    cause: str


class Report(Model):
    """What a worker process has seen since its last report, and what it is doing."""

    model_config = OF_ANY_VERSION

    worker: str
    settings: PoolSettings | None = None
    """What this worker's file says of the pool; sent when it joins."""
    task_queue: str | None = None
    in_flight: int = 0
    waiting: int = 0
    succeeded: int = 0
    tokens: int = 0
    """Paid by the calls that ended."""
    failed: dict[str, int] = Field(default_factory=dict)
    """Ended calls by error class, without the successes."""
    schema_violations: int = 0
    """Answers that did not fit their schema after their repair; their calls have succeeded."""
    penalised: list[str] | None = None
    """The error classes that count as penalty, where this worker's settings change that."""
    retry_after: float | None = None
    """The longest wait that an endpoint asked for."""
    full_at: int | None = None
    """Calls of this process under way when an endpoint refused one, that one included."""
    permanent: list[Failure] = Field(default_factory=list)
    worked: list[str] = Field(default_factory=list)
    """Breaker keys under which a call has succeeded."""
    was_full: bool = False
    is_proven: bool = False
    """A call of this process has succeeded: its key is good."""
    next_seconds: float = 1.0
    """It reports again within this; a worker that does not is taken for dead."""
    is_leaving: bool = False
    worker_queue: str | None = None
    """This process's own task queue, for notices that cannot wait until it reports again."""


class OpenBreaker(Model):
    """A breaker that is open: it stops calls that would fail."""

    key: str
    """What it stops: a key or a model."""
    error_class: str
    """The class of the error."""
    cause: str
    """The error, in words."""
    retry_seconds: float
    """Seconds until one call tries again."""
    is_probe: bool = False
    """Whether this worker may try one call under this key."""


class Directive(Model):
    """What a worker may do until it reports again."""

    model_config = OF_ANY_VERSION

    parallel: int | None = None
    """Calls at once in this process; None is no limit of the pool's."""
    starts_per_second: float | None = None
    tokens_per_second: float | None = None
    tokens_per_call: float = 0.0
    cool_seconds: float = 0.0
    """No call starts within this."""
    is_drained: bool = False
    breakers: list[OpenBreaker] = Field(default_factory=list)
    unproven_starts: int = UNPROVEN_STARTS
    """Calls this process may have tried before the first succeeds; 0 while others try."""
    penalty: float = 0.0
    report_seconds: float = 1.0
    """While it is busy: shorter when the room is about to change."""


class PoolNotice(Model):
    """What a worker process is told at once, on its own queue: a cool-down, or to report now."""

    model_config = OF_ANY_VERSION

    pool: str
    cool_seconds: float = 0.0
    report_now: bool = False
    """People changed something: the answer to the next report says what."""


class PenaltyReason(Model):
    """One error that raised the penalty."""

    seconds_ago: float
    """When, in seconds before now."""
    reason: str
    """The error class that raised it."""
    penalty: float
    """The penalty right after it was raised."""


class WorkerView(Model):
    """One worker process, as it last reported."""

    worker: str
    """The worker process."""
    parallel: int | None
    """Its share of the calls at once. Without it, no limit."""
    in_flight: int
    """Its calls under way."""
    waiting: int
    """Its calls that wait."""


class PermitView(Model):
    """A permit that is held."""

    holder: str
    """Who holds it."""
    requests: int
    """Requests reserved."""
    calls: int
    """Calls reserved."""
    expires_in_seconds: float
    """Seconds until it ends."""


class CapacityState(Model):
    """The answer of the query `state`."""

    pool: str
    """The pool's name."""
    status: Literal["open", "cooling", "drained", "broken"]
    """Whether calls go out."""
    task_queue: str
    """The pool's task queue."""
    requests_per_minute: float | None
    """The rate now, with penalty and token limit applied. Without it, no limit."""
    tokens_per_minute: float | None
    """The limit of tokens a minute."""
    tokens_per_call: float
    """The mean tokens of a call."""
    parallel: int | None
    """The most calls at once now, over all workers."""
    parallel_set: int | None
    """The most calls at once by the settings."""
    in_flight: int
    """Calls under way."""
    waiting: int
    """Calls that wait in workers. `planloom capacity` adds those that wait in the task queue."""
    cool_seconds: float
    """Seconds until calls go out again after a 429."""
    penalty_mode: PenaltyMode
    """How errors lower the parallelism."""
    penalty: float
    """The penalty now."""
    penalty_reasons: list[PenaltyReason]
    """What raised it lately."""
    chance_of_429: float
    """The chance of a 429, learned from the last hour, 0 to 1."""
    breakers: list[OpenBreaker]
    """The open breakers."""
    workers: list[WorkerView]
    """The worker processes."""
    permits: list[PermitView]
    """The permits that are held."""
    permits_waiting: dict[str, int]
    """How many permits are waited for, by priority."""
    longest_wait_seconds: float
    """How long the first of them has waited, in seconds."""
    calls: dict[str, int]
    """Ended calls since the workflow was first started: `succeeded`, and each error class."""
    tokens: int
    """Tokens since the workflow was first started."""
    overrides: dict[str, JsonValue]
    """What was set by hand."""
    notes: list[str]
    """What people and the workflow did lately, newest last."""


class QueueRate(Model):
    """`set_queue_rate`: what the server lets the pool's queue dispatch."""

    task_queue: str
    per_second: float | None = None
    """0 stops the queue, None removes the limit."""
    weights: dict[str, float] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)
    """Tenants whose weight is no longer set by hand."""
    reason: str = ""


class PoolLoaded(Model):
    """`load_pool`: the worker's settings of a pool, or why it has none."""

    settings: PoolSettings | None = None
    task_queue: str = ""
    problem: str | None = None
