"""A short part of `make fuzz`: every reader on random input, and a server on random requests."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.large import TEXT_READERS, UNITS, check_large, check_linear
from tests.fuzz.readers import READERS
from tests.fuzz.server import fuzz_runs
from tests.support.harness import Planloom


@pytest.mark.parametrize("name", READERS)
@given(random=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_a_reader_refuses_what_it_cannot_read_and_does_not_care_where_it_is_cut(
    name: str, random: Random
) -> None:
    READERS[name](random)


@pytest.mark.parametrize("name", TEXT_READERS)
def test_no_reader_is_slower_than_linear(name: str) -> None:
    check_linear(name, UNITS[::12])


@pytest.mark.parametrize("name", TEXT_READERS)
def test_a_long_text_is_read_or_refused(name: str) -> None:
    check_large(name, 500_000)


async def test_random_requests_and_signals_fail_no_workflow_task_and_hang_no_run(
    planloom: Planloom,
) -> None:
    planloom.model.script("", "words")
    async with planloom.worker():
        fuzzed = await fuzz_runs(planloom, 50, first=1)
    assert fuzzed.wrong == []
    assert fuzzed.runs > 5
