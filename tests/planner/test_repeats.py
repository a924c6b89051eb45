"""An agent that repeats itself is told, then asked for its answer; one that polls is not."""

from __future__ import annotations

from planloom.planner.contract.jobs import AgentCall, CallResult
from planloom.planner.contract.repeats import (
    REPEATS_MAX,
    REPEATS_TOLD,
    Repeats,
    count_repeats,
    with_repeat_note,
)
from planloom.planner.language.values import Stored


def turns(*made: tuple[str, str, str]) -> list[str]:
    """What follows from each turn of one call: (name, arguments, result)."""
    state, verdicts = Repeats(), []
    for n, (name, arguments, value) in enumerate(made):
        call = AgentCall(id=f"c{n}", name=name, fingerprint=f"{name} {arguments}")
        result = CallResult(id=f"c{n}", output=Stored(value=value))
        state, verdict = count_repeats(state, [call], [result])
        assert Repeats.model_validate_json(state.model_dump_json()) == state
        verdicts.append(verdict)
    return verdicts


def test_the_same_call_with_the_same_result_is_told_and_then_ends_in_an_answer() -> None:
    verdicts = turns(*[("look", "x", "nothing")] * REPEATS_MAX)
    assert verdicts[: REPEATS_TOLD - 1] == ["go_on"] * (REPEATS_TOLD - 1)
    assert verdicts[REPEATS_TOLD - 1 : -1] == ["tell"] * (REPEATS_MAX - REPEATS_TOLD)
    assert verdicts[-1] == "answer"


def test_polling_a_job_whose_state_changes_is_no_repeat() -> None:
    states = ["queued", "running", "running", "done: 42"]
    assert set(turns(*(("job_status", "7", state) for state in states))) == {"go_on"}


def test_reading_a_file_again_after_an_edit_is_no_repeat() -> None:
    made = [("read", "a", "1"), ("write", "a", "ok")] * REPEATS_MAX
    assert set(turns(*made)) == {"go_on"}


def test_an_error_that_comes_again_is_a_repeat_and_one_that_differs_is_not() -> None:
    call = AgentCall(id="c", name="f", fingerprint="f 1")
    state = Repeats()
    for _ in range(REPEATS_MAX):
        state, verdict = count_repeats(state, [call], [CallResult(id="c", error="no room")])
    assert verdict == "answer"
    _, verdict = count_repeats(state, [call], [CallResult(id="c", error="another")])
    assert verdict == "go_on"


def test_calls_of_one_turn_count_together_in_any_order() -> None:
    a, b = (AgentCall(id=i, name=i, fingerprint=i) for i in "ab")
    results = [CallResult(id=i, output=Stored(blob=i * 64)) for i in "ab"]
    state, _ = count_repeats(Repeats(), [a, b], results)
    state, _ = count_repeats(state, [b, a], results[::-1])
    assert state.count == 2
    state, _ = count_repeats(state, [a], results[:1])
    assert state.count == 1


def test_the_model_is_told_with_its_last_result() -> None:
    results = [CallResult(id="a", error="x"), CallResult(id="b", error="x")]
    told = with_repeat_note(results, 3)
    assert [r.note is not None for r in told] == [False, True]
    assert "3 times in a row" in str(told[1].note)
    assert with_repeat_note([], 3) == []
