"""The budget of a whole run: reserve before dispatch, settle with real usage, refund on failure.

Invariant: for each cap, settled + reserved <= cap, unless real usage was above its reservation
(then `beyond` says by how much it may be passed). One ledger owner: the root run; a
child run works inside a grant. Pure: amounts are integers (tokens, nano-dollars, tasks).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from planloom.planner.contract.controls import RaiseBudget
from planloom.planner.contract.requests import Budget, Grant
from planloom.planner.language.values import NANO, Usage


@dataclass(frozen=True, slots=True)
class Amount:
    """What a piece of work may use."""

    tokens: int = 0
    usd_nano: int = 0
    tasks: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.tokens + other.tokens, self.usd_nano + other.usd_nano, self.tasks + other.tasks
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.tokens - other.tokens, self.usd_nano - other.usd_nano, self.tasks - other.tasks
        )

    def clipped_to(self, free: Caps) -> Amount:
        return Amount(
            self.tokens if free.tokens is None else min(self.tokens, free.tokens),
            self.usd_nano if free.usd_nano is None else min(self.usd_nano, free.usd_nano),
            self.tasks if free.tasks is None else min(self.tasks, free.tasks),
        )

    def covers(self, other: Amount) -> bool:
        return (
            self.tokens >= other.tokens
            and self.usd_nano >= other.usd_nano
            and self.tasks >= other.tasks
        )


@dataclass(frozen=True, slots=True)
class Caps:
    """Upper limits; None does not bind."""

    tokens: int | None = None
    usd_nano: int | None = None
    tasks: int | None = None

    def but(self, others: Caps) -> Caps:
        """Those of which the others have none."""
        return Caps(
            self.tokens if others.tokens is None else None,
            self.usd_nano if others.usd_nano is None else None,
            self.tasks if others.tasks is None else None,
        )


NOTHING = Amount()


def caps_from(budget: Budget, grant: Grant | None = None) -> Caps:
    """The tighter of the request's budget and the parent's grant, per cap."""
    usd = None if budget.usd is None else round(budget.usd * NANO)
    if grant is None:
        return Caps(budget.tokens, usd, budget.tasks)
    return Caps(
        _tighter(budget.tokens, grant.tokens),
        _tighter(usd, grant.usd_nano),
        _tighter(budget.tasks, grant.tasks),
    )


def _raised(before: int | None, new: int | None, may_grow: bool) -> int | None:
    if before is None or new is None:
        return new
    return max(before, new) if may_grow else before


def _tighter(a: int | None, b: int | None) -> int | None:
    return min((x for x in (a, b) if x is not None), default=None)


@dataclass(slots=True)
class Ledger:
    """Reservations by key. `reserve` and then exactly one of `settle` and `refund`."""

    caps: Caps
    settled: Amount = NOTHING
    reserved: dict[str, Amount] = field(default_factory=dict)
    held: Amount = NOTHING
    """The sum of `reserved`, kept as it changes: a fan-out reserves thousands of times."""
    usage: Usage = field(default_factory=Usage)
    beyond: Amount = NOTHING
    """What was used above the reservations, in all, or before there was a cap."""
    unpriced: int = 0

    @property
    def free(self) -> Caps:
        """What may still be reserved under each cap; never below zero."""
        used = self.settled + self.held
        return Caps(
            None if self.caps.tokens is None else max(0, self.caps.tokens - used.tokens),
            None if self.caps.usd_nano is None else max(0, self.caps.usd_nano - used.usd_nano),
            None if self.caps.tasks is None else max(0, self.caps.tasks - used.tasks),
        )

    @property
    def overrun(self) -> Amount:
        """By how much reality passed a cap (a model that ignored its limit), else nothing."""
        used = self.settled + self.held
        return Amount(
            _above(used.tokens, self.caps.tokens),
            _above(used.usd_nano, self.caps.usd_nano),
            _above(used.tasks, self.caps.tasks),
        )

    def reserve(self, key: str, want: Amount, at_least: Amount | None = None) -> Amount | None:
        """What was set aside for `key`: `want`, or less but `at_least`; None when it is not free.

        Raises:
            ValueError: the key holds a reservation already: a bug in Planloom.
        """
        if key in self.reserved:
            raise ValueError(f"budget: {key} is reserved already")
        granted = want.clipped_to(self.free)
        if not granted.covers(want if at_least is None else at_least):
            return None
        self.reserved[key] = granted
        self.held += granted
        return granted

    def extend(self, key: str, more: Amount, at_least: Amount) -> Amount | None:
        """Add to a reservation; its new total, or None when not even `at_least` is free."""
        granted = more.clipped_to(self.free)
        if not granted.covers(at_least):
            return None
        self.reserved[key] += granted
        self.held += granted
        return self.reserved[key]

    def settle(self, key: str, usage: Usage, tasks: int | None = None) -> None:
        """Replace a reservation by what was used. Unknown money is charged as reserved.

        `tasks` is how many ran, where that may be other than reserved: in a child run.
        """
        held = self.reserved.pop(key)
        self.held -= held
        usd = usage.usd_nano
        if not usage.is_priced:
            self.unpriced += 1
            usd = max(usd, held.usd_nano)
        spent = Amount(usage.tokens, usd, held.tasks if tasks is None else tasks)
        self.settled += spent
        self.beyond += Amount(
            _above(spent.tokens, held.tokens),
            _above(spent.usd_nano, held.usd_nano),
            _above(spent.tasks, held.tasks),
        )
        self.usage += usage

    def count(self, usage: Usage) -> None:
        """Add usage that needed no reservation: a value that an earlier run has made."""
        self.usage += usage

    def refund(self, key: str) -> None:
        """Give a reservation back: the work never ran, or failed without cost."""
        held = self.reserved.pop(key, NOTHING)
        self.held -= held

    def shortfall(self, at_least: Amount) -> str:
        """What is missing for `at_least`, in words with numbers."""
        free, parts = self.free, list[str]()
        if free.tokens is not None and free.tokens < at_least.tokens:
            parts.append(
                f"needs {at_least.tokens:,} tokens; {free.tokens:,} of {self.caps.tokens:,} free"
            )
        if free.usd_nano is not None and free.usd_nano < at_least.usd_nano:
            cap = (self.caps.usd_nano or 0) / NANO
            parts.append(
                f"needs ${at_least.usd_nano / NANO:.4f}; "
                f"${free.usd_nano / NANO:.4f} of ${cap:.4f} free"
            )
        if free.tasks is not None and free.tasks < at_least.tasks:
            parts.append(f"needs {at_least.tasks} task; {free.tasks} of {self.caps.tasks} free")
        return " and ".join(parts)

    def problem_with(self, raised: RaiseBudget) -> str | None:
        """Why new caps cannot be taken: below what is spent and reserved already."""
        used = self.settled + self.held
        if raised.tokens is not None and raised.tokens < used.tokens:
            return f"tokens {raised.tokens:,} is below the {used.tokens:,} spent and reserved"
        if raised.usd is not None and round(raised.usd * NANO) < used.usd_nano:
            return f"usd {raised.usd} is below the ${used.usd_nano / NANO:.6f} spent and reserved"
        if raised.tasks is not None and raised.tasks < used.tasks:
            return f"tasks {raised.tasks} is below the {used.tasks} started"
        return None

    def raise_caps(self, raised: RaiseBudget) -> None:
        """New totals; those left out stay."""
        self.caps = Caps(
            self.caps.tokens if raised.tokens is None else raised.tokens,
            self.caps.usd_nano if raised.usd is None else round(raised.usd * NANO),
            self.caps.tasks if raised.tasks is None else raised.tasks,
        )

    def keep_caps(self, before: Caps, *, may_grow: bool = True) -> None:
        """Take back what of a raise was no raise. A cap where there was none stays.

        Without `may_grow` caps of tokens and money stay as they were too.

        More than that may have been used by then: it counts as used above the reservations.
        """
        self.caps = Caps(
            _raised(before.tokens, self.caps.tokens, may_grow),
            _raised(before.usd_nano, self.caps.usd_nano, may_grow),
            _raised(before.tasks, self.caps.tasks, True),
        )
        over = self.overrun
        self.beyond = Amount(
            max(self.beyond.tokens, over.tokens),
            max(self.beyond.usd_nano, over.usd_nano),
            max(self.beyond.tasks, over.tasks),
        )

    def check(self) -> None:
        """Assert the invariant; the workflow does after every change, tests after every step."""
        over, beyond = self.overrun, self.beyond
        assert beyond.covers(over), (self.caps, self.settled, self.held, beyond)


def _above(used: int, cap: int | None) -> int:
    return 0 if cap is None else max(0, used - cap)
