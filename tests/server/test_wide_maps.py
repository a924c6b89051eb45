"""Maps of more than a thousand items: in batches, each a child run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planloom.workflows.machines.run import batches
from planloom.workflows.shell import runner
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


def wide(items: Any, **fields: Any) -> dict[str, Any]:
    args = {"value": {"i": "${index}", "item": "${item}", "by": "${params.by}"}}
    return {
        "tasks": [{"id": "m", "map": items, "tool": "echo", "args": args, **fields}],
        "answer": "${m | [length(@), @[0], @[30], @[-1]]}",
    }


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of more than ten items go in batches of ten."""
    monkeypatch.setattr(batches, "BATCHED_FROM", 10)
    monkeypatch.setattr(batches, "BATCH_ITEMS", 10)


@pytest.mark.usefixtures("short_batches")
async def test_a_wide_map_keeps_order_index_and_params(planloom: Planloom, tools: Tools) -> None:
    plan = wide([n * 2 for n in range(41)])
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "params": {"by": "x" * 3_000}})
        result = await planloom.result(handle)
        history = await planloom.client.get_workflow_handle(handle.id).fetch_history()
    assert result["status"] == "completed", result["reason"]
    by = "x" * 3_000
    assert result["answer"] == [
        41,
        {"i": 0, "item": 0, "by": by},
        {"i": 30, "item": 60, "by": by},
        {"i": 40, "item": 80, "by": by},
    ]
    assert result["tasks"]["m"]["items"] == {"succeeded": 41}
    assert result["usage"]["tasks"] == 41
    assert len(history.events) < 100


@pytest.mark.usefixtures("short_batches")
async def test_items_that_fail_are_holes_of_their_own(planloom: Planloom, tools: Tools) -> None:
    """`odd` fails for even numbers; a whole batch of them is a row of nulls."""
    items = [1, 2, 3, *range(5, 35, 2), *[2] * 14]
    task = {"id": "m", "map": items, "tool": "odd", "args": {"n": "${item}"}}
    plan = {"tasks": [{**task, "retry": {"max_attempts": 1}}], "answer": "${m}"}
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": plan, "retry_rounds": 0})
    assert result["status"] == "partial"
    assert result["answer"] == [n if n % 2 else None for n in items]
    good = sum(n % 2 for n in items)
    assert result["tasks"]["m"]["items"] == {"succeeded": good, "failed": len(items) - good}
    assert result["tasks"]["m"]["error"]


@pytest.mark.usefixtures("short_batches")
async def test_a_wide_map_goes_on_over_several_runs_and_no_item_runs_twice(
    planloom: Planloom, tools: Tools, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "EVENTS_MAX", 30)
    args = {"name": "n${item}", "seconds": 0.01}
    task = {"id": "m", "map": "${first}", "tool": "nap", "args": args}
    first = {"id": "first", "tool": "echo", "args": {"value": [str(n) for n in range(85)]}}
    plan = {"tasks": [first, task], "answer": "${m}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"parallel": 8}})
        result = await planloom.result(handle)
    assert result["answer"] == [f"n{n}" for n in range(85)], result["reason"]
    assert sorted(c for c in calls() if c.startswith("start")) == sorted(
        f"start n{n}" for n in range(85)
    )


@pytest.mark.usefixtures("short_batches")
async def test_a_wide_map_is_cancelled_and_stops_its_batches(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    args = {"name": "n${item}", "seconds": 60}
    task = {"id": "m", "map": list(range(40)), "tool": "nap", "args": args}
    plan = {"tasks": [task, {"id": "b", "tool": "echo", "args": {"value": 1}}]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"parallel": 4}})
        await planloom.until(handle, lambda p: "start n0" in calls() and p.tasks["b"] != "running")
        await handle.execute_update("cancel_task", {"id": "m"})
        result = await planloom.result(handle)
    outcomes = {t: r["outcome"] for t, r in result["tasks"].items()}
    assert outcomes == {"m": "cancelled", "b": "succeeded"}
    assert len([c for c in calls() if c.startswith("start")]) <= 8
