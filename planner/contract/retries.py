"""What each error class means for retries, penalty and the DAG's own retry round: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.language.values import Model


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How one class of failure is treated.

    `attempts_max` bounds real failures beside the job's own limit (the smaller counts);
    `waits_max` is how often the endpoint may ask us to wait without that using up an attempt.
    """

    retryable: bool
    attempts_max: int = 100
    waits_max: int = 0
    initial_seconds: float = 1.0
    backoff: float = 2.0
    max_seconds: float = 30.0
    counts_as_penalty: bool = False
    dag_retry: bool = False

    def delay_seconds(self, nth: int) -> float:
        """The pause after the nth failure (or wait) of this kind, from 1."""
        # 60 doublings are past every bound; more would overflow.
        return min(self.max_seconds, self.initial_seconds * self.backoff ** min(nth - 1, 60))


RETRY_TABLE: Mapping[ErrorClass, RetryRule] = MappingProxyType(
    {
        # Bounded by the activity's schedule-to-close timeout, not by a count.
        "rate_limit": RetryRule(
            True, waits_max=100_000, max_seconds=60.0, counts_as_penalty=True, dag_retry=True
        ),
        # An overloaded endpoint may be a dead one behind a proxy: free waits, but not forever.
        "capacity": RetryRule(True, waits_max=10, counts_as_penalty=True, dag_retry=True),
        "timeout": RetryRule(True, counts_as_penalty=True, dag_retry=True),
        # One repair round is inside the call; a whole new call is worth one more try.
        "schema_violation": RetryRule(
            True, attempts_max=2, initial_seconds=0.2, counts_as_penalty=True
        ),
        "auth": RetryRule(False),
        "refused": RetryRule(False),
        "context_length": RetryRule(False),
        "cancelled": RetryRule(False),
        "tool": RetryRule(True),
        "unknown": RetryRule(True, dag_retry=True),
    }
)


class RetryOverride(Model):
    """`[retries.<class>]` of `planloom.toml`: only what is given changes."""

    retryable: bool | None = None
    """Whether failures of this class are repeated at all."""
    attempts_max: Annotated[int, Field(ge=1)] | None = None
    """The most attempts. The task has its own limit too; the smaller number counts."""
    waits_max: Annotated[int, Field(ge=0)] | None = None
    """How often the endpoint may ask to wait without using up an attempt."""
    initial_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None
    """The first wait, in seconds."""
    backoff: Annotated[float, Field(ge=1, le=100)] | None = None
    """By what factor each wait is longer than the one before."""
    max_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """The longest wait, in seconds."""
    counts_as_penalty: bool | None = None
    """Whether a failure lowers the parallelism of its pool for a while."""
    dag_retry: bool | None = None
    """Whether the run gives the task another round after everything else is done."""


RetryTable = Mapping[ErrorClass, RetryRule]


def penalised(table: RetryTable = RETRY_TABLE) -> list[ErrorClass]:
    """The classes that narrow their pool."""
    return [name for name, rule in table.items() if rule.counts_as_penalty]


def table_with(overrides: Mapping[ErrorClass, RetryOverride]) -> RetryTable:
    """The table as settings change it."""
    changed = {
        name: replace(RETRY_TABLE[name], **override.model_dump(exclude_none=True))
        for name, override in overrides.items()
    }
    return MappingProxyType({**RETRY_TABLE, **changed})
