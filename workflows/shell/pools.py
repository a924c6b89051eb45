"""One model call on the pool of its model; where that cannot serve it, on the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from temporalio.exceptions import FailureError

from planloom.planner.contract.jobs import AskJob, TurnJob
from planloom.planner.language.catalog import PoolSpec
from planloom.planner.language.values import Usage
from planloom.workflows.shell.ends import CommandFailed, failure_of

C = TypeVar("C", AskJob, TurnJob)

ELSEWHERE = ("auth", "capacity", "timeout", "unknown")
"""Failures of an endpoint, not of a question: the pool's fallback may do better."""


async def on_pools(
    pools: Sequence[PoolSpec],
    job: C,
    activity_id: str,
    call: Callable[[C, PoolSpec, str], Awaitable[Any]],
) -> Any:
    """What `call` gives for the first pool that can serve the job; the id says which pool it is.

    Raises:
        CommandFailed: as the last pool failed, with what all of them were paid.
    """
    paid = Usage()
    for n, pool in enumerate(pools):
        model = job.model if n == 0 else pool.model_for(job.model)
        name = activity_id + ("" if n == 0 else f"@{pool.name}")
        try:
            found = await call(
                job.model_copy(update={"pool": pool.name, "model": model}), pool, name
            )
        except FailureError as error:
            failed = failure_of(error)
            paid += failed.usage
            if n + 1 == len(pools) or failed.error_class not in ELSEWHERE:
                raise CommandFailed(replace(failed, usage=paid)) from error
        else:
            return found if n == 0 else found.model_copy(update={"usage": paid + found.usage})
    raise AssertionError("a catalog has at least one pool")
