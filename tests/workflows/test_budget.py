"""The ledger: settled + reserved never exceeds the cap, and every reservation ends once."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.planner.contract.controls import RaiseBudget
from planloom.planner.contract.requests import Budget, Grant
from planloom.planner.language.values import NANO, Usage
from planloom.workflows.machines.shared.budget import Amount, Caps, Ledger, caps_from


@settings(max_examples=1000)
@given(
    st.randoms(use_true_random=False),
    st.integers(1, 5_000),
    st.integers(1, 10**9),
    st.integers(1, 40),
)
def test_settled_plus_reserved_never_exceeds_the_cap(
    random: Random, tokens: int, usd: int, tasks: int
) -> None:
    ledger = Ledger(Caps(tokens, usd, tasks))
    open_: dict[str, Amount] = {}
    for n in range(60):
        match random.choice(("reserve", "settle", "refund", "raise")):
            case "reserve":
                want = Amount(random.randrange(800), random.randrange(10**8), 1)
                least = Amount(min(want.tokens, 10), 0, 1)
                granted = ledger.reserve(f"k{n}", want, least)
                if granted is not None:
                    assert want.covers(granted)
                    assert granted.covers(least)
                    open_[f"k{n}"] = granted
            case "settle" if open_:
                key = random.choice(list(open_))
                held = open_.pop(key)
                used = random.randint(0, held.tokens)
                money = random.randint(0, held.usd_nano)
                ledger.settle(key, Usage(input_tokens=used, usd_nano=money))
            case "refund" if open_:
                key = random.choice(list(open_))
                del open_[key]
                ledger.refund(key)
            case "raise":
                raised = RaiseBudget(tokens=(ledger.caps.tokens or 0) + random.randrange(100) + 1)
                assert ledger.problem_with(raised) is None
                ledger.raise_caps(raised)
        ledger.check()
        assert ledger.held == sum(ledger.reserved.values(), Amount())
        used_now = ledger.settled + ledger.held
        assert used_now.tokens <= (ledger.caps.tokens or 0)
        assert used_now.usd_nano <= (ledger.caps.usd_nano or 0)
        assert used_now.tasks <= (ledger.caps.tasks or 0)
    assert set(ledger.reserved) == set(open_)


def test_a_reservation_shrinks_to_what_is_free_but_not_below_its_least() -> None:
    ledger = Ledger(Caps(tokens=1_000))
    assert ledger.reserve("a", Amount(700), Amount(100)) == Amount(700)
    assert ledger.reserve("b", Amount(700), Amount(100)) == Amount(300)
    assert ledger.reserve("c", Amount(700), Amount(100)) is None
    ledger.settle("a", Usage(input_tokens=50))
    assert ledger.reserve("c", Amount(700), Amount(100)) == Amount(650)


def test_an_unknown_price_charges_the_reservation_and_never_zero() -> None:
    ledger = Ledger(Caps(usd_nano=NANO))
    ledger.reserve("a", Amount(100, NANO // 2))
    ledger.settle("a", Usage(input_tokens=10, is_priced=False))
    assert ledger.settled.usd_nano == NANO // 2
    assert ledger.unpriced == 1


def test_a_refund_gives_all_back() -> None:
    ledger = Ledger(Caps(tokens=10, tasks=1))
    ledger.reserve("a", Amount(10, tasks=1))
    ledger.refund("a")
    assert ledger.free == Caps(10, None, 1)


def test_a_call_that_used_more_than_reserved_while_others_run_is_no_bug_of_ours() -> None:
    """The check failed, and with it the workflow task, again and again.

    Order: two calls reserve the whole cap; one of them ignores its limit.
    """
    ledger = Ledger(Caps(tokens=100))
    assert ledger.reserve("a", Amount(50))
    assert ledger.reserve("b", Amount(50))
    ledger.settle("a", Usage(output_tokens=58))
    ledger.check()
    assert (ledger.beyond.tokens, ledger.overrun.tokens, ledger.free.tokens) == (8, 8, 0)
    assert ledger.reserve("c", Amount(1)) is None
    ledger.settle("b", Usage(output_tokens=40))
    ledger.check()
    assert ledger.free.tokens == 2


def test_reality_above_a_reservation_is_an_overrun_and_stops_everything_more() -> None:
    ledger = Ledger(Caps(tokens=100))
    ledger.reserve("a", Amount(50))
    ledger.settle("a", Usage(output_tokens=130))
    ledger.check()
    assert ledger.overrun.tokens == 30
    assert ledger.reserve("b", Amount(1)) is None


def test_a_cap_cannot_be_lowered_below_what_is_spent() -> None:
    ledger = Ledger(Caps(tokens=1_000, usd_nano=NANO))
    ledger.reserve("a", Amount(600, NANO // 2))
    said = ledger.problem_with(RaiseBudget(tokens=500))
    assert said is not None
    assert "500 is below the 600 spent and reserved" in said
    assert "usd" in (ledger.problem_with(RaiseBudget(usd=0.1)) or "")
    assert ledger.problem_with(RaiseBudget(tokens=600)) is None


def test_the_tighter_of_budget_and_grant_binds() -> None:
    caps = caps_from(Budget(tokens=500, usd=2), Grant(tokens=300, usd_nano=5 * NANO))
    assert caps == Caps(tokens=300, usd_nano=2 * NANO)


def test_the_shortfall_names_every_number() -> None:
    ledger = Ledger(Caps(tokens=50_000))
    ledger.reserve("a", Amount(46_900))
    said = ledger.shortfall(Amount(12_400))
    assert said == "needs 12,400 tokens; 3,100 of 50,000 free"


def test_a_key_is_reserved_once() -> None:
    ledger = Ledger(Caps())
    ledger.reserve("a", Amount(1))
    with pytest.raises(ValueError, match="reserved already"):
        ledger.reserve("a", Amount(1))


def test_all_that_ran_counts_also_beyond_what_was_set_aside() -> None:
    """A sub-plan that began without a cap: a cap that came later was to hold for the rest only."""
    ledger = Ledger(Caps())
    ledger.reserve("sub", Amount(tasks=3))
    ledger.raise_caps(RaiseBudget(tasks=5))
    ledger.settle("sub", Usage(), tasks=9)
    ledger.check()
    assert (ledger.settled.tasks, ledger.free.tasks) == (9, 0)


def test_a_parents_word_is_the_first_cap_or_a_higher_one() -> None:
    ledger = Ledger(Caps(usd_nano=70))
    ledger.reserve("a", Amount(400, 7))
    ledger.settle("a", Usage(input_tokens=400, usd_nano=7))
    before = ledger.caps
    ledger.raise_caps(RaiseBudget(tokens=100, usd=50 / NANO))
    ledger.keep_caps(before)
    ledger.check()
    assert ledger.caps == Caps(tokens=100, usd_nano=70)
    assert ledger.overrun == ledger.beyond == Amount(300)
