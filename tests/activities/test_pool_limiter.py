"""The limiter of a pool in one worker: turns, pace, cool-down, the unproven key, open breakers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import pytest

from planloom.activities.models.errors import ModelError
from planloom.activities.models.pace import Pace
from planloom.activities.models.pool_limiter import PoolLimiter, Reporter
from planloom.activities.models.pool_report import breaker_key
from planloom.planner.contract.capacity import Directive, OpenBreaker, Report
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.settings import PoolSettings

MakeLimiter = Callable[..., tuple[PoolLimiter, list[Report]]]


@pytest.fixture
async def make_limiter() -> AsyncIterator[MakeLimiter]:
    limiters: list[PoolLimiter] = []

    def make(
        *directives: Directive,
        is_proven: bool = True,
        error: Exception | None = None,
        **settings: object,
    ) -> tuple[PoolLimiter, list[Report]]:
        reports: list[Report] = []
        answers = list(directives) or [Directive()]

        async def report(sent: Report) -> Directive:
            reports.append(sent)
            if error is not None:
                raise error
            return answers.pop(0) if len(answers) > 1 else answers[0]

        own = PoolSettings.model_validate(settings)
        limiter = PoolLimiter("p", own, report, worker="w", task_queue="q")
        limiter.is_proven = is_proven
        limiters.append(limiter)
        return limiter, reports

    yield make
    for limiter in limiters:
        await limiter.close()


async def call(
    limiter: PoolLimiter, seconds: float = 0.0, error: ErrorClass | None = None, **more: object
) -> float:
    """One call of that duration; gives the time at which it began."""
    fields = {"model": "m", "estimate": 10, "is_queued": True, **more}
    admitted = await limiter.admit(**fields)  # type: ignore[arg-type]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    limiter.end(admitted, error_class=error, cause="401 bad key" if error == "auth" else "")
    return began


async def test_calls_at_once_never_pass_the_share(make_limiter: MakeLimiter) -> None:
    limiter, reports = make_limiter(Directive(parallel=3))
    most = 0

    async def one() -> None:
        nonlocal most
        admitted = await limiter.admit("m", 10, is_queued=True)
        most = max(most, limiter.in_flight)
        await asyncio.sleep(0.02)
        limiter.end(admitted, error_class=None)

    await asyncio.gather(*(one() for _ in range(12)))
    assert most == 3
    assert limiter.in_flight == 0
    await limiter.close()
    assert sum(r.succeeded for r in reports) == 12
    assert any(r.was_full for r in reports)
    assert reports[-1].is_leaving


async def test_planner_calls_do_not_wait_for_the_queues_room(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(parallel=1))
    held = await limiter.admit("m", 10, is_queued=True)
    await asyncio.wait_for(call(limiter, is_queued=False), 30)
    limiter.end(held, error_class=None)


async def test_starts_are_spread_evenly_without_a_burst(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(starts_per_second=50))
    starts = sorted(await asyncio.gather(*(call(limiter) for _ in range(26))))
    assert 0.42 <= starts[-1] - starts[0] <= 0.8  # 25 pauses of 20 ms
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert sorted(gaps)[12] == pytest.approx(0.02, abs=0.008)


async def test_a_few_paced_calls_stand_ready_and_the_others_wait_on_the_server(
    make_limiter: MakeLimiter,
) -> None:
    for paced, parallel, at_rest, with_one in (
        (None, None, None, None),
        (None, 6, 6, 6),
        (2.0, None, 2, 3),
        (40.0, None, 11, 12),
        (40.0, 3, 4, 4),
    ):
        limiter, _ = make_limiter(Directive(starts_per_second=paced, parallel=parallel))
        limiter.is_proven = True
        held = await limiter.admit("m", 10, is_queued=True)
        assert limiter.slots == with_one
        limiter.end(held, error_class=None)
        assert limiter.slots == at_rest


def test_a_start_that_woke_up_late_is_made_up_for_and_idle_time_is_not() -> None:
    pace, times, now = Pace(), [], 100.0
    for late in (0.0, 0.2, 0.0, 0.0):  # one that waits wakes up 0.2 s late
        now += pace.delay(now) + late
        pace.took(now, 0.1)
        times.append(round(now - 100, 3))
    assert times == [0.0, 0.3, 0.3, 0.3]
    now += 60
    assert pace.delay(now) == 0
    pace.took(now, 0.1)
    assert pace.delay(now) == pytest.approx(0.1)


async def test_tokens_are_paced_by_estimate_and_settled_by_use(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(tokens_per_second=1000))
    first = await limiter.admit("m", 100, is_queued=True)  # takes 0.1 s of the pace
    began = time.monotonic()
    limiter.end(first, error_class=None, tokens=300)  # but has cost 0.3 s of it
    await call(limiter)
    assert time.monotonic() - began >= 0.2


async def test_a_429_cools_all_calls_and_is_reported_at_once(make_limiter: MakeLimiter) -> None:
    limiter, reports = make_limiter(Directive(), Directive(cool_seconds=0.3), Directive())
    admitted = await limiter.admit("m", 10, is_queued=True)
    refused = time.monotonic()
    limiter.end(admitted, error_class="rate_limit", retry_after=0.3)
    began = await call(limiter)
    assert began - refused >= 0.25
    assert reports[1].failed == {"rate_limit": 1}
    assert reports[1].retry_after == 0.3


async def test_a_429_is_not_held_back_to_go_with_others(
    make_limiter: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, reports = make_limiter(Directive(report_seconds=30))
    admitted = await limiter.admit("m", 10, is_queued=True)
    monkeypatch.setattr("planloom.activities.models.pool_limiter.REPORT_GAP_SECONDS", 60.0)
    limiter._report, reported = _held_back(limiter._report)
    limiter.end(admitted, error_class="rate_limit", retry_after=5)
    await asyncio.wait_for(reported.wait(), 25)
    assert reports[-1].failed == {"rate_limit": 1}


async def test_a_notice_of_a_cool_down_outlives_an_answer_that_did_not_know_of_it(
    make_limiter: MakeLimiter,
) -> None:
    limiter, _ = make_limiter(Directive(report_seconds=30))
    await call(limiter)
    limiter._report, reported = _held_back(limiter._report)
    limiter.notify(0, report_now=True)  # a report is under way, and its answer made …
    await asyncio.wait_for(reported.wait(), 25)
    limiter.notify(60)  # … when the cool-down begins
    assert limiter.cool_seconds() > 50
    await asyncio.sleep(0.1)  # its answer arrives
    assert limiter.directive is not None
    assert limiter.cool_seconds() > 50
    limiter.notify(0, report_now=True)  # a person ends it
    async with asyncio.timeout(60):
        while limiter.cool_seconds():  # noqa: ASYNC110 - the next answer ends it
            await asyncio.sleep(0.01)


def _held_back(report: Reporter) -> tuple[Reporter, asyncio.Event]:
    """Reports whose answers take 50 ms; the event is set when one has been sent."""
    sent = asyncio.Event()

    async def slow(content: Report) -> Directive:
        directive = await report(content)
        sent.set()
        await asyncio.sleep(0.05)
        return directive

    return slow, sent


async def test_a_process_that_has_left_asks_before_it_starts_a_call(
    make_limiter: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planloom.activities.models.pool_limiter.IDLE_SECONDS", 0.0)
    limiter, _ = make_limiter()
    await call(limiter)
    async with asyncio.timeout(60):
        while limiter.directive is not None:  # noqa: ASYNC110 - it leaves by itself
            await asyncio.sleep(0.01)

    async def cooling(sent: Report) -> Directive:
        return Directive(cool_seconds=90)

    limiter._report = cooling
    with pytest.raises(ModelError, match="cools down"):
        await limiter.admit("m", 10, is_queued=False)


async def test_a_call_that_waits_too_long_goes_back_to_the_server(
    make_limiter: MakeLimiter,
) -> None:
    limiter, _ = make_limiter(Directive(is_drained=True))
    with pytest.raises(ModelError) as seen:
        await limiter.admit("m", 10, is_queued=True, wait_max_seconds=0.05)
    assert (seen.value.error_class, seen.value.retry_after) == ("rate_limit", 1.0)
    assert "drained" in str(seen.value)


async def test_a_long_cool_down_is_not_waited_out_here(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(cool_seconds=90))
    with pytest.raises(ModelError) as seen:
        await asyncio.wait_for(limiter.admit("m", 10, is_queued=True), 60)
    assert seen.value.retry_after == pytest.approx(90, abs=1)


async def test_a_key_that_nobody_has_tried_is_tried_by_three_calls_at_most(
    make_limiter: MakeLimiter,
) -> None:
    opened = OpenBreaker(key="auth", error_class="auth", cause="401", retry_seconds=30)
    limiter, _ = make_limiter(is_proven=False)
    tried = failed = 0

    async def report(sent: Report) -> Directive:
        nonlocal failed
        failed += len(sent.permanent)
        await asyncio.sleep(0.02)
        return Directive(breakers=[opened] if failed >= 2 else [])

    limiter._report = report

    async def one() -> str:
        nonlocal tried
        try:
            admitted = await limiter.admit("m", 10, is_queued=True)
        except ModelError as error:
            return error.error_class
        tried += 1
        await asyncio.sleep(0.01 * tried)
        limiter.end(admitted, error_class="auth", cause="401 bad key")
        return "asked"

    outcomes = await asyncio.gather(*(one() for _ in range(100)))
    assert tried <= 3
    assert outcomes.count("auth") == 100 - tried


async def test_the_first_success_lets_all_start(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(), is_proven=False)
    waiting = [asyncio.create_task(limiter.admit("m", 10, is_queued=True)) for _ in range(10)]
    await asyncio.wait(waiting, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.2)
    begun = [task for task in waiting if task.done()]
    assert len(begun) == 3
    limiter.end(begun[0].result(), error_class=None)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)


async def test_failures_of_one_prompt_do_not_stop_others(make_limiter: MakeLimiter) -> None:
    limiter, _ = make_limiter(Directive(), is_proven=False)
    for _ in range(8):
        await asyncio.wait_for(call(limiter, error="schema_violation"), 30)


async def test_calls_go_on_when_the_workflow_does_not_answer(make_limiter: MakeLimiter) -> None:
    limiter, reports = make_limiter(error=ConnectionError("no server"))
    await asyncio.wait_for(call(limiter), 60)
    await asyncio.wait_for(call(limiter), 30)  # not asked again for each call
    limiter.end(await limiter.admit("m", 1, is_queued=True), error_class="timeout")
    limiter.start_reporting()
    await asyncio.sleep(0.1)
    assert reports


async def test_what_could_not_be_reported_is_reported_later(make_limiter: MakeLimiter) -> None:
    limiter, reports = make_limiter()
    admitted = await limiter.admit("m", 10, is_queued=True)
    answer, limiter._report = limiter._report, _failing
    limiter.end(admitted, error_class="rate_limit", retry_after=0.1)
    await asyncio.sleep(0.2)
    limiter._report = answer
    await asyncio.sleep(0.1)
    await limiter.close()
    assert sum(r.failed.get("rate_limit", 0) for r in reports) == 1


async def _failing(report: Report) -> Directive:
    raise ConnectionError("gone")


async def test_an_open_breaker_waits_when_the_pool_says_so(make_limiter: MakeLimiter) -> None:
    opened = OpenBreaker(key="auth", error_class="auth", cause="401", retry_seconds=12)
    limiter, _ = make_limiter(Directive(breakers=[opened]), on_broken="wait")
    with pytest.raises(ModelError) as seen:
        await limiter.admit("m", 10, is_queued=True)
    assert (seen.value.error_class, seen.value.retry_after) == (
        "rate_limit",
        pytest.approx(12, abs=0.1),
    )


async def test_a_breaker_of_one_model_lets_others_pass(make_limiter: MakeLimiter) -> None:
    key = "refused:gone:model not found"
    opened = OpenBreaker(key=key, error_class="refused", cause="404", retry_seconds=30)
    limiter, _ = make_limiter(Directive(breakers=[opened]))
    await asyncio.wait_for(call(limiter, model="there"), 30)
    with pytest.raises(ModelError) as seen:
        await limiter.admit("gone", 10, is_queued=True)
    assert seen.value.error_class == "refused"
    assert "planloom capacity resume p" in str(seen.value)


def half_open(is_probe: bool) -> OpenBreaker:
    return OpenBreaker(
        key="auth", error_class="auth", cause="stale 401", retry_seconds=0, is_probe=is_probe
    )


async def test_who_is_not_the_prober_waits_for_the_verdict(make_limiter: MakeLimiter) -> None:
    """A person has resumed the pool with a good key; one call of this process tries it."""
    probing, closed = Directive(breakers=[half_open(True)]), Directive()
    limiter, reports = make_limiter(probing)
    admitted = await limiter.admit("m", 10, is_queued=True)
    second = asyncio.create_task(limiter.admit("m", 10, is_queued=True))
    await asyncio.sleep(0.05)
    assert not second.done()  # neither refused with the old cause, nor sent

    async def report(sent: Report) -> Directive:
        reports.append(sent)
        return closed

    limiter._report = report
    limiter.end(admitted, error_class=None)
    limiter.end(await asyncio.wait_for(second, 60), error_class=None)
    await limiter.close()
    assert [key for r in reports for key in r.worked] == ["auth"]


async def test_a_prober_without_a_try_of_its_own_may_try(make_limiter: MakeLimiter) -> None:
    """Another process had all tries of the unproven key, and this one was asked to probe: neither
    began."""
    told = Directive(breakers=[half_open(True)], unproven_starts=0)
    limiter, _ = make_limiter(told, is_proven=False)
    await asyncio.wait_for(call(limiter), 60)


async def test_calls_of_other_processes_wait_for_a_probe_and_hear_its_end(
    make_limiter: MakeLimiter,
) -> None:
    again = OpenBreaker(key="auth", error_class="auth", cause="still 401", retry_seconds=30)
    limiter, _ = make_limiter(Directive(breakers=[half_open(False)]), Directive(breakers=[again]))
    with pytest.raises(ModelError, match="still 401"):
        await asyncio.wait_for(limiter.admit("m", 10, is_queued=True), 60)


async def test_a_probe_of_which_nothing_is_heard_costs_no_attempt(
    make_limiter: MakeLimiter,
) -> None:
    limiter, _ = make_limiter(Directive(breakers=[half_open(False)]))
    with pytest.raises(ModelError) as seen:
        await limiter.admit("m", 10, is_queued=True, wait_max_seconds=0.2)
    assert seen.value.error_class == "rate_limit"
    assert seen.value.is_ours


@pytest.mark.parametrize(
    ("error_class", "cause", "key"),
    [
        ("auth", "401: wrong key", "auth"),
        ("refused", "HTTP 404: The model `x-1` does not exist", "refused:m:HTTP #: The model"),
        ("refused", "HTTP 404: 404 page not found", "refused:m:HTTP #: # page"),
        ("refused", "HTTP 400: Model llama is not loaded", "refused:m:HTTP #: Model llama"),
        ("refused", "HTTP 400: The model gpt-3 has been deprecated", "refused:m:HTTP #: The"),
        # Of one conversation: its schema, its messages, its tools, its length.
        ("refused", "HTTP 400: invalid schema for response_format", None),
        ("refused", "HTTP 400: Unexpected role 'user' after role 'tool'", None),
        ("refused", "HTTP 400: tool_call_ids did not have response messages: a", None),
        ("refused", "HTTP 400: Invalid 'messages[2].tool_calls[0].function.name'", None),
        ("refused", "HTTP 422: field required", None),
        ("refused", "HTTP 404: No endpoints found that support tool use", None),
        ("refused", "HTTP 400: the model x: image input is not supported", None),
        ("refused", "model refused: I cannot help with that", None),
        ("schema_violation", "HTTP 400: Failed to call a function", None),
        ("context_length", "HTTP 413: Request too large for model x", None),
        ("refused", "HTTP 400: content management policy", None),
        ("timeout", "no answer in time", None),
        (None, "", None),
    ],
)
def test_what_siblings_share(error_class: str | None, cause: str, key: str | None) -> None:
    found = breaker_key(error_class, "m", cause)
    assert (found or "").startswith(key or "")
    assert (found is None) == (key is None)
