"""Patterns: linear, unanchored, with the look-aheads that people write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.patterns import PatternError, matcher

PASSWORD = r"^(?=.*[A-Z])(?=.*\d)(?!.*\s)[^|]{4,}$"
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
"""What pydantic writes for a Decimal."""


@pytest.mark.parametrize(
    "pattern",
    [PASSWORD, DECIMAL, r"^(?=[)(]a)\W.$", r"^(?!a|b)[a-z]+", "b+", "^$", "^a|b$", r"\(\|\)"],
)
@given(text=st.text("aAb1.+-| ()", max_size=6))
def test_a_pattern_finds_what_re_finds(pattern: str, text: str) -> None:
    assert matcher(pattern).is_found_in(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    "pattern",
    [r"(?<!a)b", r"a(?=b)", "^(?=a)b|c", "^(?=(?=a)b)", r"(.)\1", "[", "x" * 1_001],
)
def test_what_needs_backtracking_or_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        matcher(pattern)


def test_a_pattern_ends_at_the_end_of_the_text() -> None:
    assert not matcher("^a$").is_found_in("a\n")  # as in ECMA 262, not as in Python
