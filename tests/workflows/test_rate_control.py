"""The room of an endpoint: the worked examples of the source, slow start, and clocks that jump."""

from __future__ import annotations

import pytest

from planloom.workflows.machines.pool.rate_control import (
    Concurrency,
    ControlRule,
    predicted_limit,
    probability_429,
    ramped,
    recovered,
    rejected,
    succeeded,
    timed_out,
)

RULE = ControlRule()


def test_example_of_the_source_429_four_times_from_8() -> None:
    state, seen = Concurrency(limit=8, original=8), []
    for n in range(4):
        state = rejected(state, RULE, float(n))
        seen.append(state.limit)
    assert seen == [5, 3, 1, 1]


def test_example_of_the_source_recovery_of_5_of_8() -> None:
    state = Concurrency(limit=5, original=8, last_429=0.0, last_success=290.0)
    seen = []
    for now in (299, 300, 330, 360, 420, 480):
        state = recovered(succeeded(state, now), RULE, float(now))
        seen.append(state.limit)
    assert seen == [5, 6, 6, 7, 8, 8]


def test_no_recovery_without_a_recent_success() -> None:
    state = Concurrency(limit=5, original=8, last_429=0.0, last_success=10.0)
    assert recovered(state, RULE, 400.0).limit == 5


@pytest.mark.parametrize(
    ("age", "row", "chance", "limit"),
    [(10, 1, 0.8, 4), (1200, 0, 0.2, 8), (10, 0, 0.6, 5), (7200, 2, 0.4, 6), (10, 3, 1.0, 4)],
)
def test_example_of_the_source_the_chance_of_a_429(
    age: float, row: int, chance: float, limit: int
) -> None:
    state = Concurrency(limit=8, original=8, last_429=0.0, row=row)
    assert probability_429(state, age) == pytest.approx(chance)
    assert predicted_limit(state, age) == limit


def test_a_time_out_counts_only_among_429s() -> None:
    state = Concurrency(limit=10, original=10)
    assert timed_out(state, RULE).limit == 10
    assert timed_out(state.model_copy(update={"row": 1}), RULE).limit == 9


def test_it_is_cut_no_deeper_than_what_was_refused_shows() -> None:
    state = Concurrency(limit=9, original=16)
    assert rejected(state, RULE, 0.0, over=1).limit == 8
    assert rejected(state, RULE, 0.0, over=5).limit == 6  # 0.7 of it is enough
    assert rejected(Concurrency(limit=1, original=8), RULE, 0.0, over=1).limit == 1


def test_an_endpoint_nobody_knows_is_met_step_by_step() -> None:
    state, seen = Concurrency(limit=8, original=30), []
    for _ in range(5):
        state = ramped(state, ControlRule(maximum=100), was_full=True)
        seen.append(state.limit)
    assert seen == [16, 30, 30, 30, 30]
    assert ramped(Concurrency(limit=8, original=30), RULE, was_full=False).limit == 8


def test_after_a_429_only_quiet_widens_it() -> None:
    state = rejected(Concurrency(limit=12, original=30), RULE, 0.0, over=4)
    assert ramped(state, RULE, was_full=True).limit == state.limit == 8


def test_a_success_ends_a_row() -> None:
    state = rejected(Concurrency(limit=8, original=8), RULE, 0.0)
    assert (state.row, succeeded(state, 1.0).row) == (1, 0)


def test_a_clock_that_is_set_back_is_no_quiet_time() -> None:
    state = Concurrency(limit=5, original=8, last_429=1e6, last_success=1e6)
    assert recovered(state, RULE, 10.0).limit == 5
    assert 0 <= probability_429(state, 10.0) <= 1
