"""Thousands of whole runs: nothing that must hold is broken."""

from __future__ import annotations

import os

import pytest

from tests.simulation.cases import random_case
from tests.simulation.runner import Found, report, run_case, run_seeds

RUNS = int(os.environ.get("PLANLOOM_SIMULATED_RUNS", "2000"))
SEED = 1
PARTS = 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_simulated_run_breaks_a_rule(part: int) -> None:
    """In parts, so that they run side by side. `make simulate` runs more."""
    events, found = run_seeds((SEED + part * (RUNS // PARTS), RUNS // PARTS))
    assert not found, report(found[0])
    assert events > RUNS // PARTS


def test_equal_cases_go_equally() -> None:
    """A violation can be repeated from its seed."""
    for seed in range(20):
        one, two = run_case(random_case(seed)), run_case(random_case(seed))
        assert not isinstance(one, Found)
        assert not isinstance(two, Found)
        assert repr(one.story) == repr(two.story)
        assert one.root.state == two.root.state
