"""Reservations: limits, time to live, the order of the line, and any interleaving of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.workflows.machines.pool.permits import (
    PASSED_OVER_MAX,
    QUEUE_MAX,
    Ask,
    Decision,
    Limits,
    Permits,
    Waiting,
    clamped_ttl,
    exceeded,
    in_order,
    longest_wait,
    next_deadline,
    release,
    renew,
    reserve,
    score,
    sweep,
    waiting_by_priority,
)

ONE = Limits(runs=1)


def ask(holder: str, **fields: Any) -> Ask:
    return Ask(holder=holder, **{"deadline": 1e9, **fields})


def taken(state: Permits, limits: Limits, wish: Ask, now: float = 0.0) -> Permits:
    return reserve(state, limits, wish, now)[0]


def decision(state: Permits, limits: Limits, wish: Ask, now: float = 0.0) -> Decision:
    return reserve(state, limits, wish, now)[1]


def test_example_of_the_source_active_reserved_and_asked_together() -> None:
    limits = Limits(calls=6)
    state = taken(Permits(), limits, ask("active", calls=3))
    state = taken(state, limits, ask("reserved", calls=2))
    assert exceeded(state, limits, ask("x", calls=1)) == []
    found = decision(state, limits, ask("x", calls=2, deadline=None))
    assert (found.allowed, found.reasons, found.calls) == (False, ["calls: 7 of 6"], 7)


@pytest.mark.parametrize(
    ("asked", "ttl"),
    [(500e-3, 2), (0, 60), (9_999_999, 600), (-5, 60), (float("nan"), 60), (45, 45)],
)
def test_example_of_the_source_time_to_live_is_clamped(asked: float, ttl: float) -> None:
    assert clamped_ttl(asked) == ttl


def test_example_of_the_source_a_heartbeat_at_5_ends_at_65() -> None:
    state = taken(Permits(), ONE, ask("a"))
    state, was_held = renew(state, "a", 5.0, 60)
    assert was_held
    assert sweep(state, ONE, 64.9).permit("a")
    assert sweep(state, ONE, 65.0).permit("a") is None


def test_example_of_the_source_two_of_a_tenant_then_another() -> None:
    state = taken(Permits(), ONE, ask("first", tenant="Z"))
    for holder, tenant in (("1", "X"), ("2", "X"), ("3", "X"), ("4", "Y")):
        state = taken(state, ONE, ask(holder, tenant=tenant), float(holder))
    order = []
    state, _ = release(state, "first")
    while (state := sweep(state, ONE, 10.0)).active:
        order.append(state.active[0].holder)
        state, _ = release(state, order[-1])
    assert order == ["1", "2", "4", "3"]


@pytest.mark.parametrize(
    ("fields", "waited", "worth"),
    [
        ({}, 10, 20290),
        ({}, 50, 20250),
        ({}, 500, 20201),
        ({"queue_class": "batch", "priority": "background"}, 0, 10100),
        ({"queue_class": "interactive", "priority": "background"}, 99, 30001),
    ],
)
def test_example_of_the_source_what_an_entry_is_worth(
    fields: dict[str, Any], waited: float, worth: float
) -> None:
    assert score(Waiting(ask=ask("x", **fields), since=0.0), waited) == worth


def test_the_line_goes_by_class_then_priority_then_time() -> None:
    asks = [
        ("normal", {}, 1),
        ("high", {"priority": "high"}, 3),
        ("critical", {"priority": "critical"}, 4),
        ("batch", {"queue_class": "batch", "priority": "critical"}, 0),
        ("person", {"queue_class": "interactive", "priority": "low"}, 5),
        ("later", {}, 2),
    ]
    line = [Waiting(ask=ask(n, **f), since=float(t)) for n, f, t in asks]
    names = [w.ask.holder for w in in_order(line, 6.0)]
    assert names == ["person", "critical", "high", "normal", "later", "batch"]


def test_waiting_makes_more_urgent_so_nothing_starves() -> None:
    old = Waiting(ask=ask("old", priority="background", queue_class="batch"), since=0.0)
    new = Waiting(ask=ask("new", priority="critical", queue_class="interactive"), since=239.0)
    assert [w.ask.holder for w in in_order([old, new], 240.0)] == ["old", "new"]


def test_an_ask_that_can_never_be_met_is_refused_and_never_waits() -> None:
    state, found = reserve(Permits(), Limits(calls=4), ask("x", calls=5), 0.0)
    assert (found.allowed, found.waits) == (False, False)
    assert found.reasons == ["calls: 5 of 4 can never be met"]
    assert state == Permits()


def test_asking_again_changes_nothing() -> None:
    state = taken(Permits(), ONE, ask("a"))
    again, found = reserve(state, ONE, ask("a"), 1.0)
    assert (again, found.allowed) == (state, True)
    state = taken(state, ONE, ask("b"), 2.0)
    state = taken(state, ONE, ask("c"), 3.0)
    found = decision(state, ONE, ask("b"), 4.0)
    assert (found.waits, found.position) == (True, 1)


def test_releasing_twice_or_by_a_stranger_is_said_and_changes_nothing() -> None:
    state = taken(Permits(), ONE, ask("a"))
    assert release(state, "stranger") == (state, False)
    state, was_held = release(state, "a")
    assert was_held
    assert release(state, "a") == (state, False)
    assert renew(state, "a", 0.0, 60) == (state, False)


def test_a_large_ask_is_passed_over_ten_times_then_holds_the_line() -> None:
    limits = Limits(calls=4)
    state = taken(Permits(), limits, ask("held", calls=2))
    state = taken(state, limits, ask("large", calls=4), 1.0)
    passed = 0
    for n in range(PASSED_OVER_MAX + 5):
        state, found = reserve(state, limits, ask(f"small {n}", calls=1), 2.0)
        if found.allowed:
            passed += 1
            state, _ = release(state, f"small {n}")
    assert passed == PASSED_OVER_MAX
    state, _ = release(state, "held")
    assert sweep(state, limits, 3.0).permit("large")


def test_a_full_queue_drops_what_is_worth_least() -> None:
    state = taken(Permits(), ONE, ask("held"))
    line = [Waiting(ask=ask(f"{n}"), since=0.0) for n in range(QUEUE_MAX - 1)]
    worst = Waiting(ask=ask("worst", priority="low"), since=0.0)
    state = state.model_copy(update={"waiting": [*line, worst]})
    state, found = reserve(state, ONE, ask("new"), 1.0)
    assert found.waits
    assert len(state.waiting) == QUEUE_MAX
    assert state.entry("worst") is None
    found = decision(state, ONE, ask("late", priority="background"), 1.0)
    assert (found.waits, "queue is full" in found.reasons[0]) == (False, True)


def test_a_waiter_gives_up_at_its_deadline() -> None:
    state = taken(Permits(), ONE, ask("a", ttl_seconds=600))
    state = taken(state, ONE, ask("b", deadline=5.0))
    assert next_deadline(state) == 5.0
    assert (waiting_by_priority(state), longest_wait(state, 3.0)) == ({"normal": 1}, 3.0)
    assert sweep(state, ONE, 5.0).waiting == []


def test_a_clock_that_is_set_back_keeps_a_permit_no_longer_than_granted() -> None:
    state = taken(Permits(), ONE, ask("a", ttl_seconds=30), 1_000_000.0)
    state = sweep(state, ONE, 10.0)
    assert sweep(state, ONE, 40.0).permit("a") is None


HOLDERS = [f"h{n}" for n in range(8)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "try", "release", "renew", "wait"]),
        st.sampled_from(HOLDERS),
        st.integers(0, 3),
        st.floats(-30, 90),
        st.sampled_from(["X", "Y", None]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_no_limit_is_passed_and_everyone_is_served_in_the_end(
    steps: list[Any], requests: int, calls: int, runs: int
) -> None:
    limits = Limits(requests=requests, calls=calls, runs=runs)
    state, now = Permits(), 1000.0
    for what, holder, size, seconds, tenant in steps:
        if what == "wait":
            now += seconds  # back as well
            state = sweep(state, limits, now)
        elif what in ("reserve", "try"):
            deadline = now + 300 if what == "reserve" else None
            wish = Ask(holder=holder, requests=size, calls=size, tenant=tenant, deadline=deadline)
            state, found = reserve(state, limits, wish, now)
            assert found.allowed == (state.permit(holder) is not None)
            assert found.waits == (state.entry(holder) is not None)
            assert found.allowed or found.reasons
        elif what == "release":
            state, _ = release(state, holder)
        else:
            state, _ = renew(state, holder, now, seconds)
        assert sum(p.requests for p in state.active) <= requests
        assert sum(p.calls for p in state.active) <= calls
        assert len(state.active) <= runs
        names = [p.holder for p in state.active] + [w.ask.holder for w in state.waiting]
        assert len(names) == len(set(names))
    for _ in range(200):
        if not state.waiting:
            break
        now += 5
        state = sweep(state, limits, now)
    assert not state.waiting


def test_who_asks_again_without_waiting_keeps_its_place() -> None:
    state = taken(Permits(), ONE, ask("first"))
    state = taken(state, ONE, ask("second", deadline=60.0))
    state = taken(state, ONE, ask("third", deadline=60.0))
    found = decision(state, ONE, ask("second", deadline=10.0), now=10.0)
    assert (found.allowed, found.waits, found.position) == (False, True, 1)
    state = taken(state, ONE, ask("second", deadline=10.0), now=10.0)
    assert [w.ask.deadline for w in state.waiting] == [60.0, 60.0]
    assert release(state, "first")[0].waiting
