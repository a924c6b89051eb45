"""Room that a whole run, agent or team holds in its pool while it goes on.

Only where the pool limits it (`max_requests`, `max_calls`, `max_runs`), and only at the root: a
child that waited for room which its parent holds would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from temporalio import workflow

from planloom.planner.contract.capacity import Release, Renew
from planloom.planner.contract.jobs import PermitJob
from planloom.planner.contract.requests import Common
from planloom.planner.language.catalog import PoolSpec
from planloom.workflows.shell import activities as doors

RUN_PERMIT_TTL_SECONDS = 300.0
"""A run whose workflow is gone without a word gives its room back after this."""


@contextlib.asynccontextmanager
async def run_permit(
    pool: PoolSpec, request: Common, calls: int, on_wait: Callable[[str | None], None]
) -> AsyncIterator[None]:
    """Hold a permit of the pool while the block runs; `on_wait` hears why it waits, then None."""
    if not pool.is_reserved or request.lineage.parent is not None:
        yield
        return
    holder = workflow.info().workflow_id
    on_wait(f"room in pool {pool.name}: planloom capacity")
    job = PermitJob(
        pool=pool.name,
        capacity_id=pool.capacity_id,
        holder=holder,
        calls=min(calls, pool.max_calls or calls),
        priority=request.priority,
        tenant=request.tenant,
        ttl_seconds=RUN_PERMIT_TTL_SECONDS,
    )
    await doors.take_permit(job)
    on_wait(None)
    renewing = asyncio.create_task(_renew(pool, holder))
    try:
        yield
    finally:
        renewing.cancel()
        # Also when the run is being cancelled.
        await asyncio.shield(doors.tell(pool.capacity_id, "release", Release(holder=holder)))


async def _renew(pool: PoolSpec, holder: str) -> None:
    while True:
        await workflow.sleep(RUN_PERMIT_TTL_SECONDS / 3, summary="renew the permit")
        # A pool that is gone limits nothing.
        renewed = Renew(holder=holder, ttl_seconds=RUN_PERMIT_TTL_SECONDS)
        await doors.tell(pool.capacity_id, "renew", renewed)
