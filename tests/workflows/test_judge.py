"""The judge's formula: rows A to G of facts/agents.md §2d, and what a model may change."""

from __future__ import annotations

import pytest

from planloom.workflows.machines.team.judge import Diagnostics, judge, lowered

D = Diagnostics
FAILED = D(is_failed=True, confidence=0.0)
ROWS = {
    "A": ([D(False, 0.9, 3), D(False, 0.8, 2), D(False, 0.7, 1)], (0.0520, 0.0457, 0.0394)),
    "B": ([D(False, 0.9, 3, 0, 1), D(False, 0.5, 0, 1, 1), FAILED], (0.4520, 0.6195, 0.4869)),
    "C": ([D(), D(), D()], (0.3300, 0.1000, 0.1835)),
    "D": ([D(), D(), FAILED], (0.5000, 0.2987, 0.3962)),
    "E": ([D(False, 0.9, 1), FAILED, FAILED], (0.5687, 0.4376, 0.5424)),
    "F": ([D(False, 0.0, 0, 1, 1), D(False, 1.0, 0, 1, 1)], (0.4900, 0.8000, 0.5005)),
    "G": ([], (1.0, 1.0, 1.0)),
}
OUTCOMES = {
    "A": ("trusted", 0.9764, ()),
    "B": (
        "partial",
        0.5131,
        ("high_inter_disagreement", "teammate_failures", "insufficient_evidence"),
    ),
    "C": ("trusted", 0.8899, ("insufficient_evidence",)),
    "D": ("partial", 0.6038, ("teammate_failures", "insufficient_evidence")),
    "E": (
        "partial",
        0.4576,
        ("high_intra_uncertainty", "teammate_failures", "insufficient_evidence"),
    ),
    "F": ("trusted", 0.6997, ("high_inter_disagreement", "insufficient_evidence")),
    "G": ("uncertain", 0.1, ("no_successful_output",)),
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    members, numbers = ROWS[row]
    found = judge(members)
    assert (round(found.u_intra, 4), round(found.u_inter, 4), round(found.u_sys, 4)) == numbers
    assert (found.verdict, round(found.confidence, 4), found.signals) == OUTCOMES[row]


def test_all_failed_is_like_no_members() -> None:
    assert judge([FAILED, FAILED]) == judge([])


def test_a_model_may_lower_verdict_and_confidence_and_never_raise_them() -> None:
    formula = judge(ROWS["D"][0])
    assert lowered(formula, "trusted", 1.0, "fine").verdict == "partial"
    assert lowered(formula, "trusted", 1.0, "fine").confidence == formula.confidence
    down = lowered(formula, "untrusted", 0.2, "thin")
    assert (down.verdict, down.confidence) == ("uncertain", 0.2)
    assert "thin" in down.reason
    assert lowered(formula, "splendid", 0.0, "x") == formula
