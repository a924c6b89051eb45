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
    """Input of `CapacityWorkflow`. `settings` without: the worker's own for that pool."""

    pool: Annotated[str, Field(min_length=1, max_length=100)]
    settings: PoolSettings | None = None
    task_queue: str | None = None
    """The pool's queue; without it the worker's own name for it."""
    state: JsonValue = None
    """What continue-as-new hands over."""


class Reserve(Model):
    """Room for a piece of work before it starts; answered at once unless `wait_seconds` is given.

    The same holder asking again is told of the permit it has, or keeps its place.
    """

    holder: Holder
    requests: Annotated[int, Field(ge=0, le=10_000)] = 1
    calls: Annotated[int, Field(ge=0, le=10_000)] = 1
    wait_seconds: Wait = 0.0
    answer_seconds: Wait | None = None
    """Answered within this, though it keeps its place until `wait_seconds` are over."""
    ttl_seconds: Life = 60.0
    """The permit ends by itself after this, unless it is renewed; kept between 2 and 600, and 60
    when it is not positive."""
    priority: PriorityName = "normal"
    tenant: Annotated[str, Field(max_length=64)] | None = None
    queue_class: Literal["interactive", "standard", "batch"] = "standard"


class Renew(Model):
    holder: Holder
    ttl_seconds: Life = 60.0


class Release(Model):
    holder: Holder


class PermitReply(Model):
    """The answer to `reserve`, `renew` and `release`."""

    allowed: bool
    """The holder has a permit now; for `release`: had one until now."""
    waiting: bool = False
    """It has none yet and keeps its place: ask again with the same holder."""
    reasons: list[str] = Field(default_factory=list)
    expires_in_seconds: float | None = None
    position: int | None = None
    """Place in the queue, from 1."""
    requests: int = 0
    """Reserved and asked for together, as counted for this answer."""
    calls: int = 0


class SetCapacity(Model):
    """`set`: live changes, kept until `reset`. Only what is given changes."""

    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    penalty: PenaltyMode | None = None
    max_requests: Annotated[int, Field(ge=1)] | None = None
    max_calls: Annotated[int, Field(ge=1)] | None = None
    max_runs: Annotated[int, Field(ge=1)] | None = None
    tenants: dict[str, Annotated[float, Field(ge=0.001, le=1000)]] | None = None
    """Fairness weights by tenant."""
    reset: bool = False
    """First go back to what the settings say."""

    @model_validator(mode="after")
    def _changes_something(self) -> SetCapacity:
        if not self.model_fields_set:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"nothing to set; one of {names}")
        return self


class Because(Model):
    """`drain` and `resume`: why, for those who look later."""

    reason: str = ""
    by: str | None = None


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
    key: str
    error_class: str
    cause: str
    retry_seconds: float
    is_probe: bool = False
    """This worker may try one call under this key."""


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
    seconds_ago: float
    reason: str
    penalty: float
    """Right after it was raised."""


class WorkerView(Model):
    worker: str
    parallel: int | None
    in_flight: int
    waiting: int


class PermitView(Model):
    holder: str
    requests: int
    calls: int
    expires_in_seconds: float


class CapacityState(Model):
    """The answer of the query `state`."""

    pool: str
    status: Literal["open", "cooling", "drained", "broken"]
    task_queue: str
    requests_per_minute: float | None
    """As it acts now: scaled by the penalty, and by tokens where those are the narrower limit."""
    tokens_per_minute: float | None
    tokens_per_call: float
    parallel: int | None
    """As it acts now, over all workers."""
    parallel_set: int | None
    """As the settings say."""
    in_flight: int
    waiting: int
    """In workers; `planloom capacity` adds what waits in the queue."""
    cool_seconds: float
    penalty_mode: PenaltyMode
    penalty: float
    penalty_reasons: list[PenaltyReason]
    chance_of_429: float
    breakers: list[OpenBreaker]
    workers: list[WorkerView]
    permits: list[PermitView]
    permits_waiting: dict[str, int]
    """By priority."""
    longest_wait_seconds: float
    calls: dict[str, int]
    """Ended calls since the workflow was first started: `succeeded`, and each error class."""
    tokens: int
    overrides: dict[str, JsonValue]
    notes: list[str]
    """The latest of what people and the workflow did, newest last."""


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
