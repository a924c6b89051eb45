"""Failure classes and outcome codes: the tables of facts/agents.md §7c and §7d."""

from __future__ import annotations

import pytest

from planloom.planner.contract.outcomes import (
    aggregate,
    failure_class,
    outcome_of,
    pressure_class,
)

EMPTY = "agent team member returned empty output"
THIN = "agent team member low-substance output: too short (5 chars)"
TABLE_7C = [
    ("429 Too Many Requests", "rate_limit", "rate_limit", "RETRYABLE_FAILURE"),
    ("rate-limit hit", "other", "rate_limit", "NONRETRYABLE_FAILURE"),
    ("capacity exceeded", "capacity", "capacity", "RETRYABLE_FAILURE"),
    ("runtime limit reached", "capacity", "permanent", "RETRYABLE_FAILURE"),
    ("model overloaded", "other", "capacity", "RETRYABLE_FAILURE"),
    ("503 service unavailable", "other", "transient", "RETRYABLE_FAILURE"),
    ("500 internal error", "other", "permanent", "RETRYABLE_FAILURE"),
    ("request timed out", "timeout", "timeout", "TIMEOUT"),
    ("aborted: timeout", "timeout", "timeout", "CANCELLED"),
    (THIN, "other", "quality", "NONRETRYABLE_FAILURE"),
    (EMPTY, "other", "quality", "RETRYABLE_FAILURE"),
    ("invalid api key", "other", "permanent", "NONRETRYABLE_FAILURE"),
    ("HTTP 429 timeout while waiting", "timeout", "timeout", "TIMEOUT"),
]


@pytest.mark.parametrize(("text", "pressure", "kind", "code"), TABLE_7C)
def test_table_7c(text: str, pressure: str, kind: str, code: str) -> None:
    assert pressure_class(text) == pressure
    assert failure_class(text) == kind
    assert outcome_of(text)[0] == code


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


@pytest.mark.parametrize(
    ("text", "error_class", "code"),
    [
        ("the endpoint did not answer within 30 s", "timeout", "RETRYABLE_FAILURE"),
        ("HTTP 402", "rate_limit", "RETRYABLE_FAILURE"),
        ("the answer has no CLAIM", "schema_violation", "RETRYABLE_FAILURE"),
        ("the key timed out of use", "auth", "NONRETRYABLE_FAILURE"),
        ("cancelled by a person, try again later", "cancelled", "NONRETRYABLE_FAILURE"),
        ("503 service unavailable", "tool", "RETRYABLE_FAILURE"),
        ("no such page", "tool", "NONRETRYABLE_FAILURE"),
    ],
)
def test_the_error_class_decides_before_the_words(text: str, error_class: str, code: str) -> None:
    """A time-out whose text does not say so was a NONRETRYABLE_FAILURE."""
    found = aggregate({"a": text}, classes={"a": error_class})
    assert found.code == code
    assert found.retry_recommended is (code == "RETRYABLE_FAILURE")


def test_a_team_with_failed_members_counts_as_partial() -> None:
    found = aggregate({"x": None, "y": None}, {"x": ["m1"], "y": []})
    assert (found.code, found.partial) == ("PARTIAL_SUCCESS", ["x"])
    assert found.failed_members == {"x": ["m1"]}
