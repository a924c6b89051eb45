"""Circuit breakers: what fails the same way for all siblings is not paid for by each. Pure.

Closed: calls pass. Open: none does, for a while. Half open: one call tries; it closes or re-opens.
Source: M. Nygard, "Release It!", 2nd edition, §5.4.
"""

from __future__ import annotations

from pydantic import Field

from planloom.planner.language.values import Model

KEYS_MAX = 100


class BreakerRule(Model):
    """After how many equal failures in a row it opens, and for how long."""

    after: dict[str, int] = Field(default_factory=lambda: {"auth": 2, "refused": 3})
    open_seconds: float = 30.0
    open_max_seconds: float = 600.0
    probe_seconds: float = 60.0
    """A probe of which nothing was heard for this long is given to another."""


RULE = BreakerRule()


class Breaker(Model):
    key: str
    error_class: str
    cause: str
    failures: int = 0
    """In a row."""
    opens: int = 0
    retry_at: float | None = None
    """None while it is closed."""
    wait_seconds: float = 0.0
    prober: str | None = None
    probe_until: float = 0.0


class Breakers(Model):
    """All of one pool. Only keys that have failed are in it."""

    known: list[Breaker] = Field(default_factory=list)

    def open(self) -> list[Breaker]:
        """Those that let nothing, or only a probe, pass."""
        return [b for b in self.known if b.retry_at is not None]

    def get(self, key: str) -> Breaker | None:
        return next((b for b in self.known if b.key == key), None)

    def replaced(self, breaker: Breaker) -> Breakers:
        others = [b for b in self.known if b.key != breaker.key]
        return Breakers(known=[*others, breaker][-KEYS_MAX:])


def failed(
    state: Breakers, key: str, error_class: str, cause: str, now: float, rule: BreakerRule = RULE
) -> Breakers:
    """One more failure that repeating would not fix."""
    old = state.get(key) or Breaker(key=key, error_class=error_class, cause=cause)
    new = old.model_copy(update={"failures": old.failures + 1, "cause": cause, "prober": None})
    is_probe_failed = old.retry_at is not None and old.prober is not None
    if is_probe_failed or (
        old.retry_at is None and new.failures >= rule.after.get(error_class, rule.after["refused"])
    ):
        wait = min(rule.open_max_seconds, rule.open_seconds * 2 ** min(old.opens, 20))
        new = new.model_copy(
            update={"opens": old.opens + 1, "retry_at": now + wait, "wait_seconds": wait}
        )
    return state.replaced(new)


def succeeded(state: Breakers, key: str) -> Breakers:
    """A call under the key worked: it is closed and forgotten."""
    return Breakers(known=[b for b in state.known if b.key != key])


def probe(
    state: Breakers, key: str, who: str, now: float, rule: BreakerRule = RULE
) -> tuple[Breakers, bool]:
    """Whether `who` may try one call under an open breaker now."""
    breaker = state.get(key)
    if breaker is None or breaker.retry_at is None or wait_of(breaker, now) > 0:
        return state, False
    is_taken = breaker.prober is not None and now < breaker.probe_until <= now + rule.probe_seconds
    if is_taken:
        return state, breaker.prober == who
    update = {"prober": who, "probe_until": now + rule.probe_seconds}
    return state.replaced(breaker.model_copy(update=update)), True


def wait_of(breaker: Breaker, now: float) -> float:
    """Seconds until it lets a probe pass; a clock that was set back makes it no longer."""
    if breaker.retry_at is None:
        return 0.0
    return min(max(0.0, breaker.retry_at - now), breaker.wait_seconds)


def resumed(state: Breakers, now: float) -> Breakers:
    """By a person: every breaker lets a probe pass at once."""
    return Breakers(
        known=[
            b.model_copy(update={"retry_at": now, "wait_seconds": 0.0, "opens": 0, "prober": None})
            if b.retry_at is not None
            else b
            for b in state.known
        ]
    )
