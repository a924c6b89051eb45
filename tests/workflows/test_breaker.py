"""Breakers: when they open, whom they let try, when they close."""

from __future__ import annotations

from planloom.workflows.machines.pool.breaker import (
    Breakers,
    failed,
    probe,
    resumed,
    succeeded,
    wait_of,
)


def auth(state: Breakers, now: float) -> Breakers:
    return failed(state, "auth", "auth", "401: bad key", now)


def opened(now: float = 0.0) -> Breakers:
    return auth(auth(Breakers(), now), now)


def test_the_second_bad_key_opens_it_and_says_why() -> None:
    once = auth(Breakers(), 0.0)
    assert not once.open()
    (found,) = auth(once, 1.0).open()
    assert (found.cause, found.error_class) == ("401: bad key", "auth")
    assert wait_of(found, 1.0) == 30


def test_three_equal_refusals_open_it_and_a_success_between_starts_anew() -> None:
    state = Breakers()
    for n in range(2):
        state = failed(state, "refused:m:x", "refused", "x", float(n))
    state = succeeded(state, "refused:m:x")
    for n in range(2):
        state = failed(state, "refused:m:x", "refused", "x", float(n))
    assert not state.open()
    assert failed(state, "refused:m:x", "refused", "x", 9.0).open()


def test_other_failures_count_by_themselves() -> None:
    state = auth(Breakers(), 0.0)
    state = failed(state, "refused:m:x", "refused", "x", 0.0)
    assert not state.open()


def test_one_probe_at_a_time_and_only_when_the_time_is_over() -> None:
    state = opened()
    assert probe(state, "auth", "a", 29.0) == (state, False)
    state, may = probe(state, "auth", "a", 30.0)
    assert may
    assert probe(state, "auth", "b", 31.0)[1] is False
    assert probe(state, "auth", "a", 31.0)[1] is True
    assert probe(state, "auth", "b", 91.0)[1] is True  # nothing was heard of the first


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_ten_minutes() -> None:
    state, now, waits = opened(), 0.0, []
    for _ in range(7):
        (found,) = state.open()
        waits.append(wait_of(found, now))
        now += waits[-1]
        state, may = probe(state, "auth", "a", now)
        assert may
        state = auth(state, now)
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_a_late_failure_of_a_call_from_before_changes_no_time() -> None:
    state = opened(0.0)
    (found,) = auth(state, 20.0).open()
    assert found.retry_at == 30.0


def test_a_probe_that_works_closes_it() -> None:
    state, _ = probe(opened(), "auth", "a", 30.0)
    assert succeeded(state, "auth") == Breakers()


def test_a_person_lets_it_try_at_once() -> None:
    state = resumed(opened(), 5.0)
    assert probe(state, "auth", "a", 5.0)[1] is True
    closed = auth(Breakers(), 0.0)
    assert resumed(closed, 5.0) == closed


def test_a_clock_that_is_set_back_keeps_it_open_no_longer_than_it_was() -> None:
    (found,) = opened(1_000_000.0).open()
    assert wait_of(found, 5.0) == 30


def test_unknown_keys_and_many_keys_do_no_harm() -> None:
    assert probe(Breakers(), "auth", "a", 0.0) == (Breakers(), False)
    state = Breakers()
    for n in range(300):
        state = failed(state, f"refused:m:{n}", "refused", "x", 0.0)
    assert len(state.known) == 100
