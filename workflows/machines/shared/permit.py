"""A permit of a pool that a whole run, agent or team holds while it goes on.

Only where the pool limits it (`max_requests`, `max_calls`, `max_runs`), and only at the root: a
child that waited for room which its parent holds would wait forever.
"""

from __future__ import annotations

from planloom.planner.contract.capacity import Release, Renew
from planloom.planner.contract.jobs import PermitJob
from planloom.planner.contract.requests import Common, Lineage
from planloom.planner.language.catalog import PoolSpec
from planloom.workflows.machines.shared.commands import Command, SetTimer, TakePermit, Tell

TTL_SECONDS = 300.0
"""After this many seconds a run that died gives its room back."""
KEY = "permit"
"""Of the command, and of the timer that renews the permit."""


def is_needed(pool: PoolSpec, lineage: Lineage) -> bool:
    """Whether this workflow must hold a permit of the pool while it runs."""
    return pool.is_reserved and lineage.parent is None


def take_permit(pool: PoolSpec, request: Common, holder: str, calls: int) -> Command:
    """Wait for room; `calls` is how many model calls go out at once."""
    job = PermitJob(
        pool=pool.name,
        capacity_id=pool.capacity_id,
        holder=holder,
        calls=min(calls, pool.max_calls or calls),
        priority=request.priority,
        tenant=request.tenant,
        ttl_seconds=TTL_SECONDS,
    )
    return TakePermit(KEY, job)


def why_it_waits(pool: PoolSpec) -> str:
    """What the workflow waits for, with the command that shows more."""
    return f"room in pool {pool.name}: planloom capacity"


def renew_at(now: float) -> SetTimer:
    """The timer at which the permit is to be renewed."""
    return SetTimer(KEY, now + TTL_SECONDS / 3, "renew the permit")


def renew(pool: PoolSpec, holder: str, now: float) -> list[Command]:
    """Keep the permit. A pool that is gone limits nothing."""
    kept = Renew(holder=holder, ttl_seconds=TTL_SECONDS)
    return [Tell(pool.capacity_id, "renew", kept), renew_at(now)]


def release(pool: PoolSpec, holder: str) -> Command:
    """Give the permit back."""
    return Tell(pool.capacity_id, "release", Release(holder=holder))
