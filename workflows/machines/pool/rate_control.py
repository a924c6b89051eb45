"""How many calls at once an endpoint bears: narrowed by 429s, widened in quiet times. Pure.

Source: facts on the agents runtime, §8a (numbers and formulas), additive increase and
multiplicative decrease as in TCP (RFC 5681). Ours is `ramped`: an endpoint that nobody knows yet
must not meet a whole fan-out at once, for each call too many is a 429 that was paid with time.
"""

from __future__ import annotations

from math import ceil, floor

from pydantic import Field

from planloom.planner.language.values import Model

RATE_HISTORY_MAX = 50
RAMP = 2.0
LIKELY = 0.3
"""A chance of a 429 above this is worth a smaller limit."""


class ControlRule(Model):
    """The source's numbers; `maximum` there is 16."""

    minimum: int = 1
    maximum: int = 16
    reduce: float = 0.7
    reduce_again: float = 0.5
    again_from: int = 3
    """429s in a row from which it is reduced a second time."""
    reduce_timeout: float = 0.9
    quiet_seconds: float = 300.0
    check_seconds: float = 60.0
    grow: float = 1.1


class Concurrency(Model):
    """`limit` now; `original` is what it grows back to; `row` counts 429s without a success."""

    limit: int
    original: int
    last_429: float | None = None
    row: int = 0
    total_429: int = 0
    last_success: float | None = None
    last_check: float | None = None
    history: list[float] = Field(default_factory=list)


def _clamped(limit: float, rule: ControlRule) -> int:
    return max(rule.minimum, min(rule.maximum, floor(limit)))


def rejected(
    state: Concurrency, rule: ControlRule, now: float, over: int | None = None
) -> Concurrency:
    """A 429. With `over`, how many calls it has refused: that many were too many, and no more."""
    row = state.row + 1
    limit = floor(state.limit * rule.reduce)
    if row >= rule.again_from:
        limit = floor(limit * rule.reduce_again)
    if over is not None:
        limit = max(limit, state.limit - max(1, over))
    return state.model_copy(
        update={
            "limit": _clamped(limit, rule),
            "last_429": now,
            "row": row,
            "total_429": state.total_429 + 1,
            "history": [*state.history, now][-RATE_HISTORY_MAX:],
        }
    )


def succeeded(state: Concurrency, now: float) -> Concurrency:
    return state.model_copy(update={"row": 0, "last_success": now})


def timed_out(state: Concurrency, rule: ControlRule) -> Concurrency:
    """A timeout counts only among 429s."""
    if state.row == 0:
        return state
    return state.model_copy(update={"limit": _clamped(state.limit * rule.reduce_timeout, rule)})


def recovered(state: Concurrency, rule: ControlRule, now: float) -> Concurrency:
    """A step back towards `original`: once a check, after a quiet time with successes."""
    checked = state.last_check
    if checked is not None and 0 <= now - checked < rule.check_seconds:
        return state
    if state.last_429 is None or state.limit >= state.original:
        return state
    # A clock that was set back: no time has passed.
    quiet = now - state.last_429 if now >= state.last_429 else 0.0
    success = state.last_success
    if quiet < rule.quiet_seconds or success is None or now - success > rule.quiet_seconds:
        return state
    limit = min(state.original, ceil(state.limit * rule.grow))
    return state.model_copy(update={"limit": _clamped(limit, rule), "last_check": now})


def ramped(state: Concurrency, rule: ControlRule, was_full: bool) -> Concurrency:
    """Twice as much (slow start, RFC 5681), while no 429 was seen and all of it was in use."""
    if state.total_429 or not was_full or state.limit >= state.original:
        return state
    limit = min(state.original, ceil(state.limit * RAMP))
    return state.model_copy(update={"limit": _clamped(limit, rule)})


def probability_429(state: Concurrency, now: float) -> float:
    """The chance that the next call meets a 429, from those of the last hour."""
    if state.last_429 is None:
        return 0.0
    age = max(0.0, now - state.last_429)
    chance = 0.4 * (age < 600) + 0.15 * (age < 1800) + 0.05 * (age < 3600) + 0.2 * state.row
    return min(1.0, chance)


def predicted_limit(state: Concurrency, now: float) -> int:
    """The limit, made smaller when a 429 is likely."""
    chance = probability_429(state, now)
    return max(1, floor(state.limit * (1 - chance / 2))) if chance > LIKELY else state.limit
