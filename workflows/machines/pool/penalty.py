"""The adaptive penalty: pressure narrows a pool, time and success widen it again. Pure.

Source: facts on the agents runtime, §6, with two repairs: what is left of a decay step is kept for
the next reading (there it was lost, so a pool that is read often cooled more slowly), and it acts
(there a constant switched it off). Times are seconds since the epoch; a clock that is set back
means that no time has passed.
"""

from __future__ import annotations

from math import floor
from typing import Literal

from pydantic import Field

from planloom.planner.contract.capacity import PenaltyMode
from planloom.planner.language.values import Model

Decay = Literal["linear", "exponential", "hybrid"]
WEIGHTS = {"rate_limit": 2.0, "capacity": 1.5, "timeout": 1.0, "schema_violation": 0.5}
PENALTY_HISTORY_MAX = 100
PENALTY_NEGLIGIBLE = 0.05
"""An exponential decay never ends by itself: below this it has."""
HYBRID_FROM, HYBRID_BASE = 5.0, 0.7


class PenaltyRule(Model):
    """How a penalty grows and fades. `legacy`: by 1, whatever the reason; `enhanced`: by weight."""

    mode: PenaltyMode = "enhanced"
    maximum: float = 5.0
    decay_seconds: float = 1.5
    decay: Decay = "exponential"
    base: float = 0.5
    weights: dict[str, float] = Field(default_factory=lambda: dict(WEIGHTS))


class Reason(Model):
    at: float
    reason: str
    value: float
    """Right after it was raised."""


class Penalty(Model):
    """`updated` is the time up to which decay has been reckoned."""

    value: float = 0.0
    updated: float = 0.0
    reasons: list[Reason] = Field(default_factory=list)


def decayed(penalty: Penalty, rule: PenaltyRule, now: float) -> Penalty:
    """The penalty now, by whole steps of `decay_seconds`."""
    elapsed = now - penalty.updated
    if penalty.value <= 0 or elapsed < 0:
        return penalty.model_copy(update={"updated": now})
    steps = floor(elapsed / rule.decay_seconds)
    if steps < 1:
        return penalty
    value = _faded(penalty.value, rule, steps)
    return penalty.model_copy(
        update={"value": value, "updated": penalty.updated + steps * rule.decay_seconds}
    )


def _faded(value: float, rule: PenaltyRule, steps: int) -> float:
    kind = "linear" if rule.mode == "legacy" else rule.decay
    if kind == "exponential":
        value *= rule.base ** min(steps, 1000)
        return value if value >= PENALTY_NEGLIGIBLE else 0.0
    for _ in range(min(steps, 1000)):
        if kind == "hybrid" and value > HYBRID_FROM:
            value *= HYBRID_BASE
        else:
            value -= 1.0
        if value <= 0:
            return 0.0
    return value


def raised(
    penalty: Penalty, rule: PenaltyRule, reason: str, now: float, default: float = 0.0
) -> Penalty:
    """More penalty; a reason without a weight in `weights` counts `default`."""
    weight = rule.weights.get(reason, default)
    if rule.mode == "off" or not weight:
        return penalty
    before = decayed(penalty, rule, now)
    more = 1.0 if rule.mode == "legacy" else weight
    value = min(rule.maximum, before.value + more)
    reasons = [*before.reasons, Reason(at=now, reason=reason, value=value)][-PENALTY_HISTORY_MAX:]
    # The first step of decay is counted from the newest reason only when there was no penalty.
    updated = before.updated if before.value > 0 else now
    return Penalty(value=value, updated=updated, reasons=reasons)


def lowered(penalty: Penalty, rule: PenaltyRule, now: float, times: int = 1) -> Penalty:
    """One less for each piece of work that went well."""
    before = decayed(penalty, rule, now)
    return before.model_copy(update={"value": max(0.0, before.value - times)})


def apply_limit(penalty: Penalty, rule: PenaltyRule, base: int) -> int:
    """A limit under the penalty: never below 1, and as it is without one."""
    if rule.mode == "off" or penalty.value <= 0:
        return base
    return max(1, floor(base / (penalty.value + 1)))


def scaled_rate(penalty: Penalty, rule: PenaltyRule, rate: float) -> float:
    """A rate under the penalty."""
    return rate if rule.mode == "off" else rate / (1 + max(0.0, penalty.value))


def next_decay(penalty: Penalty, rule: PenaltyRule, now: float) -> float | None:
    """When the penalty changes next by itself; None when there is none."""
    if rule.mode == "off" or penalty.value <= 0:
        return None
    current = decayed(penalty, rule, now)
    return current.updated + rule.decay_seconds if current.value > 0 else None
