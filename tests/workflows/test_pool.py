"""One pool's state: shares of workers, cool-down, rates, what people set. No Temporal, no clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.planner.contract.capacity import (
    Because,
    Directive,
    Failure,
    Release,
    Renew,
    Report,
    Reserve,
    SetCapacity,
)
from planloom.planner.contract.settings import PoolSettings
from planloom.workflows.machines.pool.pool import RATE_SHARE, Pool, PoolState, new_state
from planloom.workflows.machines.pool.pool_view import view_of

T = 1_700_000_000.0


def pool(**fields: Any) -> Pool:
    return Pool(new_state("default", "queue", PoolSettings.model_validate(fields)))


def report(worker: str = "a", **fields: Any) -> Report:
    return Report(worker=worker, **{"is_proven": True, **fields})


def test_an_endpoint_nobody_knows_is_met_with_eight_calls_at_once() -> None:
    assert pool().report(report(), T).parallel == 8
    assert pool(parallel=4).report(report(), T).parallel == 4
    assert pool(penalty="off").report(report(), T).parallel is None
    assert pool(penalty="off", parallel=64).report(report(), T).parallel == 64


def test_the_room_grows_while_all_of_it_is_used_and_nothing_is_refused() -> None:
    one, seen = pool(parallel=20), []
    for n in range(5):
        told = one.report(report(succeeded=30, was_full=True), T + n)
        seen.append(told.parallel)
    assert seen == [16, 20, 20, 20, 20]


def test_workers_share_the_room_and_a_new_one_waits_for_what_others_were_told() -> None:
    one = pool(parallel=7)
    assert one.report(report("a"), T).parallel == 7
    assert one.report(report("b"), T).parallel == 0
    assert one.report(report("a", in_flight=6), T + 1).parallel == 4
    assert one.report(report("b"), T + 1).parallel == 1  # six are still under way
    assert one.report(report("a", in_flight=4), T + 2).parallel == 4
    assert one.report(report("b"), T + 2).parallel == 3


def test_a_worker_that_is_silent_or_leaves_gives_its_share_back() -> None:
    one = pool(parallel=6, requests_per_minute=600)
    one.report(report("a", next_seconds=1), T)
    assert one.report(report("b"), T + 1).parallel == 0
    told = one.report(report("b"), T + 6)
    assert (told.parallel, told.starts_per_second) == (6, 10 * RATE_SHARE)
    one.report(report("b", is_leaving=True), T + 7)
    assert one.report(report("c"), T + 7).parallel == 6


def test_a_rate_is_shared_evenly_by_those_who_know_of_it() -> None:
    one = pool(requests_per_minute=600)
    assert one.report(report("a"), T).starts_per_second == 10 * RATE_SHARE
    assert one.report(report("b"), T).starts_per_second == 0.0
    assert one.report(report("a"), T + 1).starts_per_second == 5 * RATE_SHARE
    assert one.report(report("b"), T + 1).starts_per_second == 5 * RATE_SHARE


def test_one_429_cools_cuts_and_heals() -> None:
    one = pool()
    one.report(report(succeeded=30, was_full=True), T)
    assert one.room(T + 1) == 16
    refused = report(failed={"rate_limit": 1}, retry_after=2.0, full_at=13, in_flight=12)
    told = one.report(refused, T + 2)
    assert told.cool_seconds == 2.0
    assert one.queue_rate(T + 3.9) == 0.0
    assert one.queue_rate(T + 4.1) is None
    assert one.room(T + 2) == 4  # (16 cut to 12, for it was full at 13) / (penalty 2 + 1)
    rooms = [one.room(T + 2 + n) for n in range(1, 8)]
    assert rooms == [6, 8, 9, 10, 11, 12, 12]


def test_many_429s_of_one_moment_count_as_one() -> None:
    one = pool(parallel=12)
    one.report(report(succeeded=12, was_full=True), T)
    for n in range(4):
        one.report(report(failed={"rate_limit": 1}, retry_after=2.0), T + 1 + n / 10)
    view = view_of(one, T + 1.5)
    assert view.penalty == 2.0
    assert len(view.penalty_reasons) == 1
    assert one.room(T + 60) == 8  # 12 - 4


def test_429s_in_a_row_without_a_time_wait_longer_each() -> None:
    one, now, waits = pool(), T, []
    for _ in range(5):
        told = one.report(report(failed={"rate_limit": 1}), now)
        waits.append(told.cool_seconds)
        now += told.cool_seconds + 0.01
    assert waits == [1, 2, 4, 8, 16]


def test_a_pool_that_asks_for_hours_is_asked_again_after_five_minutes() -> None:
    told = pool().report(report(failed={"rate_limit": 1}, retry_after=86_400.0), T)
    assert told.cool_seconds == 300


def test_tokens_a_minute_become_a_rate_through_the_tokens_of_a_call() -> None:
    one = pool(tokens_per_minute=60_000)
    assert one.rate(T) is None
    assert one.report(report(), T).tokens_per_second == 1000 * RATE_SHARE
    one.report(report(succeeded=10, tokens=5_000), T + 1)
    assert one.state.tokens_per_call == 500
    assert one.queue_rate(T + 1) == 2.0
    both = pool(tokens_per_minute=60_000, requests_per_minute=60)
    both.report(report(succeeded=10, tokens=5_000), T)
    assert both.queue_rate(T) == 1.0


def test_the_penalty_narrows_the_rate_while_it_is_hot() -> None:
    one = pool(requests_per_minute=600)
    one.report(report(failed={"timeout": 3}), T)
    assert one.queue_rate(T) == 5.0  # penalty 1
    assert one.next_deadline(T) == T + 1.0
    assert one.queue_rate(T + 1.0) == pytest.approx(10 / 1.5)
    assert one.queue_rate(T + 10) == 10.0


def test_success_lowers_the_penalty_by_one_each() -> None:
    one = pool(penalty_seconds=600)
    one.report(report(failed={"timeout": 1}), T)
    one.report(report(failed={"schema_violation": 1}), T)
    assert view_of(one, T).penalty == 1.5
    one.report(report(succeeded=1), T + 1)
    assert view_of(one, T + 1).penalty == 0.5
    one.report(report(succeeded=20), T + 2)
    assert view_of(one, T + 2).penalty == 0


def test_success_in_a_cool_down_lowers_nothing() -> None:
    """It began before the refusal, and says nothing of what the endpoint bears now."""
    one = pool(penalty_seconds=600)
    one.report(report(failed={"rate_limit": 1}, retry_after=30), T)
    one.report(report(succeeded=7), T + 1)
    assert view_of(one, T + 1).penalty == 2


def test_who_looks_at_a_pool_sees_its_penalty_fade_while_no_worker_reports() -> None:
    one, now, seen = pool(), T, []
    one.report(report(failed={"timeout": 1}), T)  # no rate is set: the server is told nothing
    one.report(report(is_leaving=True), T)
    while (at := one.next_deadline(now)) is not None:
        assert at > now
        now = at
        one.tick(now)
        seen.append(view_of(one, now).penalty)
    assert seen == [0.5, 0.25, 0.125, 0.0625, 0]


def test_the_time_at_which_a_breaker_may_be_tried_is_a_time_to_wake() -> None:
    one = pool()
    failure = Failure(key="auth", error_class="auth", cause="401")
    for _ in range(2):
        one.report(report(permanent=[failure]), T)
    at = one.next_deadline(T)
    assert at is not None
    assert view_of(one, at).breakers[0].retry_seconds == 0


def test_legacy_counts_by_one_and_off_does_nothing() -> None:
    legacy, off = pool(penalty="legacy", parallel=8), pool(penalty="off", parallel=8)
    for each in (legacy, off):
        each.report(report(failed={"timeout": 1}), T)
        each.report(report(failed={"schema_violation": 1}), T)
    assert view_of(legacy, T).penalty == 2.0
    assert (view_of(off, T).penalty, off.room(T)) == (0.0, 8)


def test_answers_that_do_not_fit_weigh_half_though_their_calls_have_succeeded() -> None:
    one = pool(parallel=8)
    one.report(report(succeeded=3, schema_violations=2), T)
    assert view_of(one, T).penalty == 0.5
    assert one.state.calls == {"succeeded": 3}


def test_settings_say_which_errors_count() -> None:
    one = pool(parallel=8)
    said = {
        "failed": {"timeout": 1, "unknown": 1},
        "schema_violations": 1,
        "penalised": ["unknown"],
    }
    one.report(report(**said), T)
    view = view_of(one, T)
    assert [(r.reason, r.penalty) for r in view.penalty_reasons] == [("unknown", 1.0)]
    spared = report(failed={"rate_limit": 1}, retry_after=2.0, penalised=[])
    told = pool().report(spared, T)
    assert (told.penalty, told.cool_seconds) == (0, 2.0)  # it cools all the same


def test_predictive_lowers_the_room_for_an_hour() -> None:
    one = pool(parallel=8, predictive=True)
    one.report(report(failed={"rate_limit": 1}, retry_after=1.0), T)
    assert one.room(T + 120) == 4  # limit 7, chance 0.8
    assert one.room(T + 1300) == 5  # 0.4
    assert one.room(T + 4000) == 7


def test_two_bad_keys_open_the_breaker_for_all_and_one_probe_closes_it() -> None:
    one = pool()
    bad = Failure(key="auth", error_class="auth", cause="401 bad key")
    one.report(report("a", is_proven=False, permanent=[bad]), T)
    told = one.report(report("b", is_proven=False, permanent=[bad]), T)
    assert [(b.key, b.is_probe) for b in told.breakers] == [("auth", False)]
    assert view_of(one, T).status == "broken"
    assert not one.report(report("b"), T + 30).breakers[0].is_probe  # it has nothing to try
    assert one.report(report("a", waiting=1), T + 30).breakers[0].is_probe
    assert not one.report(report("b", waiting=1), T + 30).breakers[0].is_probe
    assert one.report(report("a", worked=["auth"]), T + 31).breakers == []
    assert view_of(one, T + 31).status == "open"


def test_processes_nobody_has_proven_share_three_tries() -> None:
    one = pool()

    def tries(worker: str, **fields: Any) -> int:
        return one.report(report(worker, **{"is_proven": False, **fields}), T).unproven_starts

    assert tries("idle") == 0  # it has nothing to try, and keeps no try from others
    assert tries("a", waiting=5) == 3
    assert tries("b", waiting=5) == 0
    assert tries("a", waiting=2, in_flight=3) == 3
    assert tries("a") == 0  # all it had has failed, not for its key
    assert tries("b", waiting=5) == 3
    assert tries("b", is_proven=True) == 0  # it needs none: from now on others try for themselves
    assert tries("a", waiting=1) == 1
    assert tries("c", waiting=1) == 1


def test_what_people_set_acts_at_once_and_outlives_a_workers_file() -> None:
    one = pool(parallel=8, requests_per_minute=600)
    one.set(SetCapacity(parallel=2, requests_per_minute=60))
    assert (one.room(T), one.queue_rate(T)) == (2, 1.0)
    one.report(report(settings=PoolSettings(parallel=16), task_queue="queue"), T)
    assert one.room(T) == 2
    one.set(SetCapacity(reset=True))
    assert (one.room(T), one.queue_rate(T)) == (8, None)  # the new file's, met step by step
    assert view_of(one, T).overrides == {}


@pytest.mark.parametrize("change", [{"tenants": {"x" * 65: 2}}, {"tenants": {"": 1}}])
def test_a_tenant_that_the_server_would_refuse_is_not_set(change: dict[str, Any]) -> None:
    """The server takes rate and weights together: with one wrong name neither was set."""
    with pytest.raises(ValueError, match=r"at most 64|at least 1"):
        SetCapacity.model_validate(change)
    with pytest.raises(ValueError, match="more than 64 bytes"):
        SetCapacity.model_validate({"tenants": {"ü" * 33: 2}})
    assert SetCapacity.model_validate({"tenants": {}}).tenants == {}


@pytest.mark.parametrize(
    "change",
    [{"requests_per_minute": 0}, {"parallel": -1}, {}, {"parallel": None}, {"reset": False}],
)
def test_a_rate_of_nothing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater than|nothing to set"):
        SetCapacity.model_validate(change)


def test_drain_stops_the_queue_until_resume() -> None:
    one = pool(requests_per_minute=60)
    one.drain(Because(reason="night", by="ops"))
    assert one.queue_rate(T) == 0.0
    assert one.report(report(), T).is_drained
    assert view_of(one, T).notes == ["drained by ops: night"]
    one.resume(Because(), T)
    assert one.queue_rate(T) == 1.0


def test_resume_also_ends_cool_down_and_penalty() -> None:
    one = pool()
    one.report(report(failed={"rate_limit": 1}, retry_after=60.0), T)
    one.resume(Because(), T + 1)
    told = one.report(report(), T + 1)
    assert (told.cool_seconds, told.penalty) == (0, 0)


def test_permits_are_limited_by_the_parallelism_when_nothing_else_is_said() -> None:
    one = pool(parallel=4)
    assert one.reserve(Reserve(holder="a", calls=3), T).allowed
    refused = one.reserve(Reserve(holder="b", calls=2), T)
    assert (refused.allowed, refused.reasons) == (False, ["calls: 5 of 4"])
    waiting = one.reserve(Reserve(holder="b", calls=2, wait_seconds=30), T)
    assert (waiting.waiting, waiting.position) == (True, 1)
    assert one.release(Release(holder="a"), T + 1).allowed
    assert one.answer("b", T + 1).allowed
    assert not one.release(Release(holder="a"), T + 1).allowed
    assert one.renew(Renew(holder="b", ttl_seconds=10), T + 2).expires_in_seconds == 10
    assert [p.holder for p in view_of(one, T + 11).permits] == ["b"]
    assert view_of(one, T + 12).permits == []
    assert one.answer("b", T + 12).reasons == ["no room in the time given"]


def test_state_survives_continue_as_new() -> None:
    one = pool(parallel=8, requests_per_minute=600)
    one.report(report(failed={"rate_limit": 1}, retry_after=2.0), T)
    one.reserve(Reserve(holder="a"), T)
    one.set(SetCapacity(tenants={"x": 3}))
    again = Pool(PoolState.model_validate_json(one.state.model_dump_json()))
    assert view_of(again, T + 1) == view_of(one, T + 1)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 12),
        st.sampled_from(["ok", "rate_limit", "capacity", "timeout", "leave", "auth"]),
        st.floats(-100, 100),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.one_of(st.none(), st.integers(1, 20)))
def test_shares_never_pass_the_room_whatever_happens_in_whatever_time(
    events: list[Any], parallel: int | None
) -> None:
    one, now = pool(parallel=parallel, requests_per_minute=600), T
    told: dict[str, Directive] = {}
    under_way = {"a": 0, "b": 0, "c": 0}
    for worker, count, what, seconds in events:
        now += seconds
        under_way[worker] = (
            min(under_way[worker], told[worker].parallel or 0) if told.get(worker) else 0
        )
        failed = {what: 1} if what in ("rate_limit", "capacity", "timeout") else {}
        permanent = [Failure(key="auth", error_class="auth", cause="x")] if what == "auth" else []
        said = report(
            worker,
            in_flight=under_way[worker],
            succeeded=count if what == "ok" else 0,
            was_full=count > 6,
            failed=failed,
            permanent=permanent,
            is_leaving=what == "leave",
        )
        told[worker] = one.report(said, now)
        alive = {w.name: w for w in one.alive(now)}
        assert 0 <= one.state.penalty.value <= 5
        assert (one.room(now) or 0) >= 1
        assert 0 <= told[worker].cool_seconds <= 300
        if worker in alive:
            others = sum(w.parallel for n, w in alive.items() if n != worker)
            mine = told[worker].parallel or 0
            assert mine == 0 or mine + others <= max(one.room(now) or 0, others)
        starts = sum(w.starts for w in alive.values())
        assert starts <= 10 + 1e-6
        view_of(one, now)
