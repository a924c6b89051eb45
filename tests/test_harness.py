"""The harness itself: what every other test of the whole system stands on."""

from __future__ import annotations

import os

import pytest

from tests.support.harness import Planloom

PLAN = {"tasks": [{"id": "sum", "tool": "calculate", "args": {"expression": "6 * 7"}}]}


def test_no_setting_of_the_developer_reaches_a_test() -> None:
    assert [n for n in os.environ if n.startswith(("OPENAI_", "PLANLOOM_", "OTEL_"))] == []
    assert "TEMPORAL_ADDRESS" not in os.environ


async def test_a_plan_runs_on_a_worker_in_this_process(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": PLAN})
        result = await planloom.result(handle)
        progress = await planloom.until(handle, lambda p: p.status == "completed")
    assert result["status"] == "completed", result
    assert result["tasks"]["sum"]["output"] == 42
    assert progress.tasks == {"sum": "succeeded"}
    assert (await planloom.history(handle)).events


async def test_a_plan_waits_for_a_worker_process_that_was_killed(planloom: Planloom) -> None:
    async with planloom.worker_process() as process:
        await process.kill()
        handle = await planloom.start({"plan": PLAN})
        with pytest.raises(AssertionError, match="has not ended"):
            await planloom.result(handle, timeout=0.5)
        await process.start()
        assert (await planloom.result(handle))["status"] == "completed"
