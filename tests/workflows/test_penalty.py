"""The adaptive penalty: the worked examples of the source, and what is ours."""

from __future__ import annotations

import pytest

from planloom.workflows.machines.pool.penalty import (
    PENALTY_HISTORY_MAX,
    Decay,
    Penalty,
    PenaltyRule,
    apply_limit,
    decayed,
    lowered,
    next_decay,
    raised,
    scaled_rate,
)

LEGACY = PenaltyRule(mode="legacy", maximum=3, decay_seconds=10)


def rule(decay: Decay = "exponential", maximum: float = 5) -> PenaltyRule:
    return PenaltyRule(decay=decay, maximum=maximum, decay_seconds=10)


def at(value: float, updated: float = 0.0) -> Penalty:
    return Penalty(value=value, updated=updated)


@pytest.mark.parametrize(
    ("penalty", "limit"), [(0, 8), (0.5, 5), (1, 4), (1.5, 3), (2, 2), (3, 2), (4.5, 1)]
)
def test_example_of_the_source_limit_8_under_a_penalty(penalty: float, limit: int) -> None:
    assert apply_limit(at(penalty), rule(), 8) == limit
    assert apply_limit(at(penalty), rule(), 1) == 1


def test_example_of_the_source_enhanced_reasons_add_by_weight() -> None:
    penalty, seen, limits = Penalty(), [], []
    for reason in ("rate_limit", "capacity", "timeout", "schema_violation", "rate_limit"):
        penalty = raised(penalty, rule(), reason, 0.0)
        seen.append(penalty.value)
        limits.append(apply_limit(penalty, rule(), 12))
    assert seen == [2, 3.5, 4.5, 5, 5]
    assert limits == [4, 2, 2, 2, 2]
    assert penalty.reasons[-1].reason == "rate_limit"


def test_example_of_the_source_linear_decay_by_whole_steps() -> None:
    assert decayed(at(3), rule("linear"), 25).value == 1


def test_example_of_the_source_exponential_decay() -> None:
    assert decayed(at(4), rule(), 10).value == 2
    assert decayed(at(4), rule(), 20).value == 1


def test_example_of_the_source_hybrid_decay() -> None:
    hybrid = rule("hybrid", maximum=10)
    assert decayed(at(8), hybrid, 10).value == pytest.approx(5.6)
    assert decayed(at(8), hybrid, 20).value == pytest.approx(3.92)
    assert decayed(at(5), hybrid, 10).value == 4


def test_hybrid_decay_does_not_depend_on_how_often_it_is_read() -> None:
    hybrid = rule("hybrid", maximum=10)
    once = decayed(at(7), hybrid, 20)
    each = decayed(decayed(at(7), hybrid, 10), hybrid, 20)
    assert once.value == each.value == pytest.approx(3.9)


def test_legacy_goes_up_and_down_by_one_whatever_the_reason() -> None:
    penalty = Penalty()
    for reason in ("rate_limit", "timeout", "schema_violation", "rate_limit"):
        penalty = raised(penalty, LEGACY, reason, 0.0)
    assert penalty.value == 3
    assert lowered(penalty, LEGACY, 0.0).value == 2
    assert decayed(penalty, LEGACY, 10).value == 2
    assert lowered(Penalty(), LEGACY, 0.0).value == 0


def test_what_is_left_of_a_step_is_kept() -> None:
    penalty = at(4)
    for now in range(1, 41):  # read once a second
        penalty = decayed(penalty, rule("linear"), float(now))
    assert penalty.value == 0


def test_off_changes_nothing() -> None:
    off = PenaltyRule(mode="off")
    assert raised(Penalty(), off, "rate_limit", 0.0).value == 0
    assert apply_limit(at(4), off, 8) == 8
    assert scaled_rate(at(4), off, 10) == 10
    assert next_decay(at(4), off, 0.0) is None


def test_a_rate_shrinks_with_the_penalty_and_it_ends() -> None:
    assert scaled_rate(at(1), rule(), 10) == 5
    assert decayed(at(2), rule(), 60).value == 0  # 2 / 2**6 is nothing


def test_the_next_change_is_known() -> None:
    assert next_decay(at(2, 100), rule(), 104) == 110
    assert next_decay(at(0), rule(), 104) is None


def test_a_clock_that_is_set_back_means_no_time_has_passed() -> None:
    penalty = raised(Penalty(), rule(), "rate_limit", 1_000_000.0)
    back = decayed(penalty, rule(), 5.0)
    assert back.value == 2
    assert decayed(back, rule(), 15.0).value == 1


def test_the_history_of_reasons_is_bounded_and_unknown_reasons_do_nothing() -> None:
    penalty = Penalty()
    for n in range(PENALTY_HISTORY_MAX + 20):
        penalty = raised(penalty, rule(), "timeout", float(n))
    assert len(penalty.reasons) == PENALTY_HISTORY_MAX
    assert raised(Penalty(), rule(), "tool", 0.0) == Penalty()
