"""A pool as people see it: the answer of the query `state`. Pure."""

from __future__ import annotations

from typing import Literal

from planloom.planner.contract.capacity import CapacityState, PenaltyReason, PermitView, WorkerView
from planloom.workflows.machines.pool import penalty, permits, rate_control
from planloom.workflows.machines.pool.pool import Pool

STATE_REASONS_MAX = 10


def view_of(pool: Pool, now: float) -> CapacityState:
    """The state now; changes nothing."""
    state, own = pool.state, pool.settings
    cool = max(0.0, pool.cool_until(now) - now)
    opened = Pool(state).open_breakers(now, None)
    rate, alive = pool.rate(now), pool.alive(now)
    felt = penalty.decayed(state.penalty, pool.penalty_rule, now)
    status: Literal["open", "cooling", "drained", "broken"] = "open"
    if state.is_drained:
        status = "drained"
    elif cool:
        status = "cooling"
    elif opened:
        status = "broken"
    return CapacityState(
        pool=state.pool,
        status=status,
        task_queue=state.task_queue,
        requests_per_minute=None if rate is None else round(rate * 60, 3),
        tokens_per_minute=own.tokens_per_minute,
        tokens_per_call=round(state.tokens_per_call, 1),
        parallel=pool.room(now),
        parallel_set=own.parallel,
        in_flight=sum(w.in_flight for w in alive),
        waiting=sum(w.waiting for w in alive),
        cool_seconds=round(cool, 3),
        penalty_mode=own.penalty,
        penalty=round(felt.value, 4),
        penalty_reasons=[
            PenaltyReason(
                seconds_ago=round(max(0.0, now - r.at), 1), reason=r.reason, penalty=r.value
            )
            for r in felt.reasons[-STATE_REASONS_MAX:]
        ],
        chance_of_429=round(rate_control.probability_429(state.concurrency, now), 3),
        breakers=opened,
        workers=[
            WorkerView(worker=w.name, parallel=w.parallel, in_flight=w.in_flight, waiting=w.waiting)
            for w in alive
        ],
        permits=[
            PermitView(
                holder=p.holder,
                requests=p.requests,
                calls=p.calls,
                expires_in_seconds=round(p.expires - now, 1),
            )
            for p in state.permits.active
            if p.expires > now
        ],
        permits_waiting=permits.waiting_by_priority(state.permits),
        longest_wait_seconds=round(permits.longest_wait(state.permits, now), 1),
        calls=state.calls,
        tokens=state.tokens,
        overrides=state.overrides,
        notes=state.notes,
    )
