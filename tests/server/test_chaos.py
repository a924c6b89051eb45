"""A small fixed part of `make chaos`: real runs, real processes, real kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.cases import random_case
from tests.chaos.soak import PARALLEL, soak
from tests.chaos.storm import Batch
from tests.chaos.sweep import sweep

SEED = int(os.environ.get("PLANLOOM_CHAOS_SEED", "7"))
RUNS = 5
KILLS = 8


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_done_twice_in_a_storm(tmp_path: Path) -> None:
    cases = [random_case(seed) for seed in range(SEED, SEED + RUNS)]
    report = await Batch(SEED, cases, tmp_path).run(KILLS)
    assert report.found == []
    assert report.done["tool calls"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["acts", "goal"])
async def test_a_worker_killed_after_some_events_and_while_it_continues_as_new(
    tmp_path: Path, name: str
) -> None:
    """Some points of `make crash-sweep`, and all around each continue-as-new."""
    rows = await sweep([name], every=40, folder=tmp_path)
    assert rows[name].found == []
    assert rows[name].points


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_many_runs_at_once_all_complete_and_the_endpoint_is_not_flooded(
    tmp_path: Path,
) -> None:
    """Two waves of `make soak`; its figures for memory and fairness are not for a busy machine."""
    seen = await soak(waves=2, runs=40, folder=tmp_path)
    assert seen.wrong == []
    assert seen.completed == seen.started == 80
    assert seen.most_calls <= PARALLEL
