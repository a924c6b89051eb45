"""Readers of untrusted text take time in proportion to its length."""

from __future__ import annotations

import time
from collections.abc import Callable

RATIO_MAX = 2.5
TRIES_MAX = 40
"""A busy machine disturbs measurements; the shortest of several are compared."""
SHORT_SECONDS = 0.05
"""Below this the clock says nothing about the shape."""


def assert_linear(read: Callable[[str], object], text_of: Callable[[int], str], chars: int) -> None:
    """Reading `2 * chars` characters takes at most 2.5 times as long as reading `chars`."""
    short, long = text_of(chars), text_of(2 * chars)
    read(short[: chars // 4])  # what is compiled and cached once
    once = twice = float("inf")
    ratio = 0.0
    for _ in range(TRIES_MAX):
        once, twice = min(once, _seconds(read, short)), min(twice, _seconds(read, long))
        ratio = twice / max(once, SHORT_SECONDS)
        if ratio <= RATIO_MAX:
            return
    raise AssertionError(f"{chars:,} characters more took {ratio:.1f} times as long")


def _seconds(read: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    read(text)
    return time.process_time() - began


def repeated(unit: str) -> Callable[[int], str]:
    """Texts made of one unit, again and again."""
    return lambda chars: unit * (chars // len(unit))
