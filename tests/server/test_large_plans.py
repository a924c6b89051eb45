"""Plans that are compiled by an activity and travel as blobs, and states that travel in parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract import large_plans
from planloom.workflows.machines.run import course
from planloom.workflows.shell import runner
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks are a large plan, 2,500 characters a long text, 50 events a long history."""
    monkeypatch.setattr(course, "INLINE_TASKS_MAX", 2)
    monkeypatch.setattr(large_plans, "PART_CHARS", 2_500)
    monkeypatch.setattr(runner, "EVENTS_MAX", 50)


def chain(length: int) -> dict[str, Any]:
    tasks = [{"id": "t0", "tool": "nap", "args": {"name": "t0", "seconds": 0.01}}]
    for n in range(1, length):
        args = {"name": f"t{n}", "seconds": 0.01, "after": f"${{t{n - 1}}}"}
        tasks.append({"id": f"t{n}", "tool": "nap", "args": args})
    return {"tasks": tasks, "answer": f"${{t{length - 1}}} ${{params.more}}"}


async def test_a_large_plan_runs_from_a_blob_and_over_several_runs(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    blobs = BlobStore(planloom.data_dir / "blobs")
    stored = await blobs.put_bytes(json.dumps(chain(24)).encode())
    bad = await blobs.put_bytes(json.dumps({"tasks": [{"id": "a", "tool": "none"}]}).encode())
    async with planloom.worker(**tools):
        # Given inline it goes the same way.
        for more in ({"plan_blob": stored}, {"plan": chain(24)}):
            handle = await planloom.start({**more, "params": {"more": "x"}})
            result = await planloom.result(handle)
            assert (result["status"], result["answer"]) == ("completed", "t23 x")
            assert set(result["tasks"]) == {f"t{n}" for n in range(24)}
            runs = [w async for w in planloom.client.list_workflows(f'WorkflowId = "{handle.id}"')]
            assert len(runs) > 1
        assert sum(c.startswith("start") for c in calls()) == 48
        tasks = await planloom.client.get_workflow_handle(handle.id).query(
            "tasks", {"ids": ["t3", "none"]}
        )
        assert [(t, row["attempts"]) for t, row in tasks.items()] == [("t3", 1)]
        for blob, kind, words in (
            (bad, "InvalidPlan", 'no tool "none"'),
            ("0" * 64, "InvalidRequest", "planloom plan store"),
        ):
            handle = await planloom.start({"plan_blob": blob})
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            cause: Any = failed.value.cause
            assert cause.type == kind
            assert words in f"{cause.message} {cause.details}"
