"""A small fixed part of `make chaos`: real runs, real processes, real kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.cases import random_case
from tests.chaos.storm import Batch

SEED = int(os.environ.get("PLANLOOM_CHAOS_SEED", "7"))
RUNS = 5
KILLS = 8


@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_done_twice_in_a_storm(tmp_path: Path) -> None:
    cases = [random_case(seed) for seed in range(SEED, SEED + RUNS)]
    report = await Batch(SEED, cases, tmp_path).run(KILLS)
    assert report.found == []
    assert report.done["tool calls"] > 0
