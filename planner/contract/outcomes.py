"""How a set of agents or teams ended: failure classes by text, outcome codes, aggregates. Pure.

For reports that people of the agents runtime know. Source: facts on it, §7 (its patterns are taken
over as they are, its oddities included); our own error classes are decided in `activities`, and
come before the words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from planloom.planner.contract.results import Aggregate, OutcomeCode

Pressure = Literal["rate_limit", "timeout", "capacity", "other"]
FailureClass = Literal["rate_limit", "capacity", "timeout", "quality", "transient", "permanent"]

_CLASSES: tuple[tuple[FailureClass, str], ...] = (
    ("rate_limit", r"status.?429|rate.?limit|too many requests"),
    ("capacity", r"capacity.?exceeded|overloaded|resource.?unavailable"),
    ("timeout", r"timeout|timed.?out"),
    ("quality", r"empty.?output|low-substance|intent.?only"),
    ("transient", r"temporarily.?unavailable|try.?again|service.?unavailable"),
)
_BY_CLASS: dict[str, tuple[OutcomeCode, bool]] = {
    "cancelled": ("CANCELLED", False),
    "timeout": ("TIMEOUT", True),
    "rate_limit": ("RETRYABLE_FAILURE", True),
    "capacity": ("RETRYABLE_FAILURE", True),
    "schema_violation": ("RETRYABLE_FAILURE", True),
    "auth": ("NONRETRYABLE_FAILURE", False),
    "refused": ("NONRETRYABLE_FAILURE", False),
    "context_length": ("NONRETRYABLE_FAILURE", False),
}
_CANCELLED = re.compile(r"aborted|cancelled|canceled|unhandled stop reason")
_TIMEOUT = re.compile(r"timed out|timeout")
_RETRYABLE = re.compile(
    r"\b429\b|\b5\d\d\b|empty output|rate limit|too many requests|temporarily unavailable|"
    r"service unavailable|try again|overloaded|capacity exceeded"
)


def pressure_class(text: str) -> Pressure:
    """Which pressure on a model endpoint a failure's text speaks of (§7a)."""
    low = text.lower()
    if "runtime limit reached" in low or "capacity" in low:
        return "capacity"
    if _TIMEOUT.search(low):
        return "timeout"
    if re.search(r"\b429\b|rate limit|too many requests", low):
        return "rate_limit"
    return "other"


def failure_class(text: str) -> FailureClass:
    """What kind of failure a text speaks of (§7b); the first that fits."""
    low = text.lower()
    return next((name for name, pattern in _CLASSES if re.search(pattern, low)), "permanent")


def outcome_of(text: str, error_class: str | None = None) -> tuple[OutcomeCode, bool]:
    """The outcome code of one failure, and whether another try is recommended (§7c).

    Our own error class decides; the words do where it says nothing of that, or there is none.
    """
    if error_class in _BY_CLASS:
        return _BY_CLASS[error_class]
    low = text.lower()
    if _CANCELLED.search(low):
        return "CANCELLED", False
    if _TIMEOUT.search(low):
        return "TIMEOUT", True
    if pressure_class(low) != "other" or _RETRYABLE.search(low):
        return "RETRYABLE_FAILURE", True
    return "NONRETRYABLE_FAILURE", False


def aggregate(
    failures: Mapping[str, str | None],
    partial: Mapping[str, Sequence[str]] | None = None,
    classes: Mapping[str, str | None] | None = None,
) -> Aggregate:
    """The outcome of many: `failures` maps each id to its failure's text, None for a good one.

    `partial` lists, of teams that have an answer, the members that failed (§7d). `classes` maps
    ids to the error classes of their failures, as far as they are known.
    """
    known = classes or {}
    failed = [name for name, text in failures.items() if text is not None]
    incomplete = {n: list(m) for n, m in (partial or {}).items() if m and n not in failed}
    is_retryable = any(outcome_of(failures[n] or "", known.get(n))[1] for n in failed)
    if not failed and not incomplete:
        return Aggregate(code="SUCCESS")
    if len(failed) < len(failures):
        code: OutcomeCode = "PARTIAL_SUCCESS"
    else:
        code = "RETRYABLE_FAILURE" if is_retryable else "NONRETRYABLE_FAILURE"
    return Aggregate(
        code=code,
        retry_recommended=is_retryable,
        failed=failed,
        partial=list(incomplete),
        failed_members=incomplete,
    )
