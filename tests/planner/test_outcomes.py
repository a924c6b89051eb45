"""Failure classes and outcome codes: the tables of facts/agents.md §7c and §7d."""

from __future__ import annotations

import pytest

from planloom.planner.contract.outcomes import (
    aggregate,
    failure_class,
    is_asked_again,
    outcome_of,
    pressure_class,
)

EMPTY = "agent team member returned empty output"
THIN = "agent team member low-substance output: too short (5 chars)"
TABLE_7C = [
    ("429 Too Many Requests", "rate_limit", "rate_limit", "RETRYABLE_FAILURE", False),
    ("rate-limit hit", "other", "rate_limit", "NONRETRYABLE_FAILURE", False),
    ("capacity exceeded", "capacity", "capacity", "RETRYABLE_FAILURE", False),
    ("runtime limit reached", "capacity", "permanent", "RETRYABLE_FAILURE", False),
    ("model overloaded", "other", "capacity", "RETRYABLE_FAILURE", False),
    ("503 service unavailable", "other", "transient", "RETRYABLE_FAILURE", True),
    ("500 internal error", "other", "permanent", "RETRYABLE_FAILURE", False),
    ("request timed out", "timeout", "timeout", "TIMEOUT", True),
    ("aborted: timeout", "timeout", "timeout", "CANCELLED", True),
    (THIN, "other", "quality", "NONRETRYABLE_FAILURE", True),
    (EMPTY, "other", "quality", "RETRYABLE_FAILURE", True),
    ("invalid api key", "other", "permanent", "NONRETRYABLE_FAILURE", False),
    ("HTTP 429 timeout while waiting", "timeout", "timeout", "TIMEOUT", True),
]


@pytest.mark.parametrize(("text", "pressure", "kind", "code", "again"), TABLE_7C)
def test_table_7c(text: str, pressure: str, kind: str, code: str, again: bool) -> None:
    assert pressure_class(text) == pressure
    assert failure_class(text) == kind
    assert outcome_of(text)[0] == code
    assert is_asked_again(text, 1) is again
    assert not is_asked_again(text, 2)  # its second round is always empty


@pytest.mark.parametrize(
    ("failures", "code", "retry"),
    [
        ([None, None], "SUCCESS", False),
        ([None, "invalid api key"], "PARTIAL_SUCCESS", False),
        ([None, "request timed out"], "PARTIAL_SUCCESS", True),
        (["request timed out", "invalid api key"], "RETRYABLE_FAILURE", True),
        (["invalid api key", "invalid api key"], "NONRETRYABLE_FAILURE", False),
    ],
)
def test_aggregates_of_7d(failures: list[str | None], code: str, retry: bool) -> None:
    found = aggregate({f"a{n}": text for n, text in enumerate(failures)})
    assert (found.code, found.retry_recommended) == (code, retry)
    assert found.failed == [f"a{n}" for n, text in enumerate(failures) if text]


def test_a_team_with_failed_members_counts_as_partial() -> None:
    found = aggregate({"x": None, "y": None}, {"x": ["m1"], "y": []})
    assert (found.code, found.partial) == ("PARTIAL_SUCCESS", ["x"])
    assert found.failed_members == {"x": ["m1"]}
