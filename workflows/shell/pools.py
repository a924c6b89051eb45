"""Which pool serves a model call, how urgent it is, and what happens when the pool cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from temporalio.common import Priority
from temporalio.exceptions import FailureError

from planloom.planner.contract.jobs import AskJob, TaskOutput, TurnJob, TurnReply
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.values import PRIORITY_KEYS, PriorityName, Usage
from planloom.workflows.shell.activities import Place
from planloom.workflows.shell.failures import BodyCancelled, failure_of

ELSEWHERE = ("auth", "capacity", "timeout", "unknown")
"""Failures of an endpoint, not of a question: the pool's fallback may do better."""

J = TypeVar("J", AskJob, TurnJob)
R = TypeVar("R", TaskOutput, TurnReply)


def priority_of(name: PriorityName, tenant: str | None, catalog: Catalog) -> Priority:
    """A level as Temporal knows it; tenants are fairness keys with their weights."""
    weight = catalog.tenants.get(tenant or "")
    return Priority(priority_key=PRIORITY_KEYS[name], fairness_key=tenant, fairness_weight=weight)


async def on_pools(
    catalog: Catalog, job: J, place: Place, ask: Callable[[J, Place], Awaitable[R]]
) -> R:
    """One model call on the pool of its model; where that cannot serve it, on the next one.

    Raises:
        BodyFailed, BodyCancelled: as the last pool failed, with what all of them were paid.
    """
    paid = Usage()
    pools = catalog.pools_for(job.model)
    for pool in pools:
        is_first, is_last = pool is pools[0], pool is pools[-1]
        model = job.model if is_first else pool.model_for(job.model)
        here = replace(
            place,
            queue=pool.task_queue,
            activity_id=place.activity_id + ("" if is_first else f"@{pool.name}"),
        )
        try:
            found = await ask(job.model_copy(update={"pool": pool.name, "model": model}), here)
        except FailureError as error:
            failed = failure_of(error, 1)
            if isinstance(failed, BodyCancelled):
                raise failed from error
            paid = failed.usage = paid + failed.usage
            if is_last or failed.error_class not in ELSEWHERE:
                raise failed from error
        else:
            return found if is_first else found.model_copy(update={"usage": paid + found.usage})
    raise AssertionError("a catalog has at least one pool")
