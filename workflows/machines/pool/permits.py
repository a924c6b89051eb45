"""Reservations: room for whole pieces of work before they start, in a fair order. Pure.

A holder reserves requests and calls, keeps the permit by renewing it, and gives it back; what is
not renewed ends by itself. Source: facts on the agents runtime, §§4-5. Ours: an entry that is too
large for what is free is passed over ten times at most, then it holds the line (there it could
starve). Times are seconds since the epoch; after a clock is set back nothing lasts longer than it
was granted.
"""

from __future__ import annotations

from math import isfinite
from typing import Literal

from pydantic import Field

from planloom.planner.language.values import PRIORITY_KEYS, Model, PriorityName

PERMIT_TTL_SECONDS, PERMIT_TTL_MIN_SECONDS, PERMIT_TTL_MAX_SECONDS = 60.0, 2.0, 600.0
QUEUE_MAX = 1000
IN_A_ROW_MAX = 2
"""Permits one tenant may get in a row while another waits."""
PASSED_OVER_MAX = 10
LIFTED_AFTER_SECONDS = 20.0
"""An entry that waits longer counts as one queue class more urgent."""
PROMOTED_AFTER_SECONDS = 60.0
"""And each time this passes, as one priority more urgent."""

QueueClass = Literal["interactive", "standard", "batch"]
CLASSES: dict[QueueClass, int] = {"interactive": 0, "standard": 1, "batch": 2}


class Limits(Model):
    """None is no limit. `runs` are holders at once."""

    requests: int | None = None
    calls: int | None = None
    runs: int | None = None


class Ask(Model):
    holder: str
    requests: int = 1
    calls: int = 1
    priority: PriorityName = "normal"
    tenant: str | None = None
    queue_class: QueueClass = "standard"
    ttl_seconds: float = PERMIT_TTL_SECONDS
    deadline: float | None = None
    """It waits until then; None is not at all."""


class Permit(Model):
    holder: str
    requests: int
    calls: int
    ttl_seconds: float
    expires: float


class Waiting(Model):
    ask: Ask
    since: float
    passed_over: int = 0


class Permits(Model):
    active: list[Permit] = Field(default_factory=list)
    waiting: list[Waiting] = Field(default_factory=list)
    last_tenant: str | None = None
    in_a_row: int = 0

    def permit(self, holder: str) -> Permit | None:
        return next((p for p in self.active if p.holder == holder), None)

    def entry(self, holder: str) -> Waiting | None:
        return next((w for w in self.waiting if w.ask.holder == holder), None)


class Decision(Model):
    """`requests` and `calls`: what would be taken with this ask."""

    allowed: bool
    waits: bool = False
    reasons: list[str] = Field(default_factory=list)
    requests: int = 0
    calls: int = 0
    position: int | None = None


def clamped_ttl(seconds: float) -> float:
    if not isfinite(seconds) or seconds <= 0:
        return PERMIT_TTL_SECONDS
    return min(PERMIT_TTL_MAX_SECONDS, max(PERMIT_TTL_MIN_SECONDS, seconds))


def exceeded(state: Permits, limits: Limits, ask: Ask) -> list[str]:
    """A line for each limit that this ask would pass, beside what is held."""
    requests = sum(p.requests for p in state.active) + ask.requests
    calls = sum(p.calls for p in state.active) + ask.calls
    return [
        f"{name}: {wanted} of {limit}"
        for name, wanted, limit in (
            ("requests", requests, limits.requests),
            ("calls", calls, limits.calls),
            ("runs", len(state.active) + 1, limits.runs),
        )
        if limit is not None and wanted > limit
    ]


def reserve(state: Permits, limits: Limits, ask: Ask, now: float) -> tuple[Permits, Decision]:
    """A permit at once, a place in line, or a refusal with its reasons.

    A holder that has a permit, or waits already, is told so; nothing is counted twice.
    """
    state = sweep(state, limits, now)
    requests = sum(p.requests for p in state.active)
    calls = sum(p.calls for p in state.active)
    if state.permit(ask.holder) is not None:
        return state, Decision(allowed=True, requests=requests, calls=calls)
    projected = {"requests": requests + ask.requests, "calls": calls + ask.calls}
    if alone := exceeded(Permits(), limits, ask):
        reasons = [f"{line} can never be met" for line in alone]
        state = release(state, ask.holder)[0]
        return state, Decision(allowed=False, reasons=reasons, **projected)
    old = state.entry(ask.holder)
    if old is not None and (ask.deadline or 0.0) <= now:
        # It asks again without waiting: it keeps its place for as long as it was to wait.
        ask = ask.model_copy(update={"deadline": old.ask.deadline})
    may_wait = ask.deadline is not None and ask.deadline > now
    entry = old.model_copy(update={"ask": ask}) if old else Waiting(ask=ask, since=now)
    others = [w for w in state.waiting if w.ask.holder != ask.holder]
    state = state.model_copy(update={"waiting": _bounded([*others, entry], now)})
    state = _granted(state, limits, now)
    if state.permit(ask.holder) is not None:
        return state, Decision(allowed=True, **projected)
    ahead = [w.ask.holder for w in in_order(state.waiting, now)]
    if ask.holder not in ahead:
        full = f"the queue is full: {QUEUE_MAX} wait, more urgent or for less long"
        return state, Decision(allowed=False, reasons=[full], **projected)
    position = ahead.index(ask.holder) + 1
    reasons = exceeded(state, limits, ask) or [f"{position - 1} before it in line"]
    if may_wait:
        return state, Decision(
            allowed=False, waits=True, reasons=reasons, position=position, **projected
        )
    left = [w for w in state.waiting if w.ask.holder != ask.holder]
    return state.model_copy(update={"waiting": left}), Decision(
        allowed=False, reasons=reasons, **projected
    )


def renew(state: Permits, holder: str, now: float, ttl_seconds: float) -> tuple[Permits, bool]:
    """Keep a permit for longer; false when there is none (any more)."""
    ttl = clamped_ttl(ttl_seconds)
    if (permit := state.permit(holder)) is None:
        return state, False
    kept = permit.model_copy(update={"expires": now + ttl, "ttl_seconds": ttl})
    active = [kept if p.holder == holder else p for p in state.active]
    return state.model_copy(update={"active": active}), True


def release(state: Permits, holder: str) -> tuple[Permits, bool]:
    """Give a permit, or a place in line, back; false for a stranger or a second time."""
    had = state.permit(holder) is not None or state.entry(holder) is not None
    update = {
        "active": [p for p in state.active if p.holder != holder],
        "waiting": [w for w in state.waiting if w.ask.holder != holder],
    }
    return state.model_copy(update=update), had


def sweep(state: Permits, limits: Limits, now: float) -> Permits:
    """Let end what time has ended; give what became free, in order."""
    active = [
        p
        if p.expires - now <= p.ttl_seconds
        else p.model_copy(update={"expires": now + p.ttl_seconds})
        for p in state.active
        if p.expires > now
    ]
    waiting = [w for w in state.waiting if (w.ask.deadline or 0.0) > now]
    return _granted(state.model_copy(update={"active": active, "waiting": waiting}), limits, now)


def _granted(state: Permits, limits: Limits, now: float) -> Permits:
    while (chosen := _first_that_may(state, limits, now)) is not None:
        ask = chosen.ask
        permit = Permit(
            holder=ask.holder,
            requests=ask.requests,
            calls=ask.calls,
            ttl_seconds=clamped_ttl(ask.ttl_seconds),
            expires=now + clamped_ttl(ask.ttl_seconds),
        )
        passed = [w.ask.holder for w in in_order(state.waiting, now)]
        passed = passed[: passed.index(ask.holder)]
        is_again = ask.tenant == state.last_tenant
        state = Permits(
            active=[*state.active, permit],
            waiting=[
                w.model_copy(update={"passed_over": w.passed_over + 1})
                if w.ask.holder in passed
                else w
                for w in state.waiting
                if w.ask.holder != ask.holder
            ],
            last_tenant=ask.tenant,
            in_a_row=state.in_a_row + 1 if is_again else 1,
        )
    return state


def _first_that_may(state: Permits, limits: Limits, now: float) -> Waiting | None:
    tenants = {w.ask.tenant for w in state.waiting}
    for entry in in_order(state.waiting, now):
        is_theirs = entry.ask.tenant == state.last_tenant and state.in_a_row >= IN_A_ROW_MAX
        if is_theirs and len(tenants) > 1:
            continue
        if not exceeded(state, limits, entry.ask):
            return entry
        if entry.passed_over >= PASSED_OVER_MAX:
            return None
    return None


def in_order(waiting: list[Waiting], now: float) -> list[Waiting]:
    """The line: queue class, then priority, both more urgent with time; then first come."""
    return sorted(waiting, key=lambda w: (*_urgency(w, now), w.since, w.ask.holder))


def _urgency(entry: Waiting, now: float) -> tuple[int, int]:
    waited = max(0.0, now - entry.since)
    place, key = CLASSES[entry.ask.queue_class], PRIORITY_KEYS[entry.ask.priority]
    if waited > LIFTED_AFTER_SECONDS:
        place = max(0, place - int(waited // LIFTED_AFTER_SECONDS))
    return place, max(1, key - int(waited // PROMOTED_AFTER_SECONDS))


def score(entry: Waiting, now: float) -> float:
    """What an entry is worth in a full queue: the smallest is dropped."""
    waited = max(0.0, now - entry.since)
    place = 3 - CLASSES[entry.ask.queue_class]
    return 10_000 * place + 100 * (6 - PRIORITY_KEYS[entry.ask.priority]) - min(waited, 99)


def _bounded(waiting: list[Waiting], now: float) -> list[Waiting]:
    if len(waiting) <= QUEUE_MAX:
        return waiting
    worst = min(waiting, key=lambda w: (score(w, now), w.since))
    return [w for w in waiting if w is not worst]


def next_deadline(state: Permits) -> float | None:
    """When the first permit ends or the first entry gives up."""
    times = [p.expires for p in state.active if state.waiting]
    times += [w.ask.deadline for w in state.waiting if w.ask.deadline is not None]
    return min(times, default=None)


def waiting_by_priority(state: Permits) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in PRIORITY_KEYS:
        if count := sum(w.ask.priority == name for w in state.waiting):
            found[name] = count
    return found


def longest_wait(state: Permits, now: float) -> float:
    return max((now - w.since for w in state.waiting), default=0.0)
