"""Runs that continue as new in the middle of things: nothing is lost, and nothing done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planloom.workflows.shell import runner
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


@pytest.fixture(autouse=True)
def short_histories() -> Iterator[None]:
    """Every history continues as new after some thirty events."""
    before = runner.EVENTS_MAX
    runner.EVENTS_MAX = 30
    yield
    runner.EVENTS_MAX = before


async def runs_of(planloom: Planloom, id: str) -> int:
    """How many workflow runs the workflow has had."""
    query = f'WorkflowId = "{id}"'
    return len([w async for w in planloom.client.list_workflows(query)])


def chain(length: int) -> dict[str, Any]:
    tasks = [{"id": "t0", "tool": "nap", "args": {"name": "t0", "seconds": 0.01}}]
    for n in range(1, length):
        args = {"name": f"t{n}", "seconds": 0.01, "after": f"${{t{n - 1}}}"}
        tasks.append({"id": f"t{n}", "tool": "nap", "args": args})
    return {"tasks": tasks, "answer": f"${{t{length - 1}}}"}


async def test_a_chain_goes_on_over_several_runs(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": chain(30)})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", "t29")
    assert [c for c in calls() if c.startswith("start")] == [f"start t{n}" for n in range(30)]
    assert await runs_of(planloom, handle.id) > 2


async def test_a_map_goes_on_over_several_runs(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    plan = {
        "tasks": [
            {
                "id": "m",
                "map": list(range(120)),
                "tool": "echo",
                "args": {"value": "${item}"},
            }
        ],
        "answer": "${m}",
    }
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"parallel": 7}})
        result = await planloom.result(handle)
    assert result["answer"] == list(range(120))
    assert result["usage"]["tool_calls"] == 120
    assert await runs_of(planloom, handle.id) > 5


async def test_what_waits_for_people_survives(planloom: Planloom, tools: Tools) -> None:
    """A question, a held task and an early answer, with signals until the history is long."""
    plan = {
        "tasks": [
            {"id": "q", "human": {"question": "which?"}, "timeout": 60},
            {"id": "held", "tool": "echo", "args": {"value": 1}, "approval": True},
            {"id": "late", "human": {"question": "and?"}, "depends_on": ["q"]},
        ],
        "answer": ["${q}", "${held}", "${late}"],
    }
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.signal("complete_task", {"id": "late", "output": "early"})
        for n in range(60):
            await handle.signal("pause", {"by": f"p{n}"})
            await handle.signal("resume", {})
        await planloom.until(handle, lambda p: len(p.waits) == 2)
        assert await runs_of(planloom, handle.id) > 1
        await handle.execute_update("approve_task", {"id": "held"})
        await handle.execute_update("complete_task", {"id": "q", "output": "red"})
        result = await planloom.result(handle)
    assert result["answer"] == ["red", 1, "early"]


async def test_children_report_to_whichever_run_is_current(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    """A sub-plan that is at work while its parent continues as new, more than once."""
    inner = {
        "tasks": [{"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 3}}],
        "answer": "${slow}",
    }
    plan = chain(25)
    plan["tasks"].append({"id": "sub", "plan": inner})
    plan["answer"] = ["${t24}", "${sub}"]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", ["t24", "slow"]), result
    assert calls().count("start slow") == 1
    assert await runs_of(planloom, handle.id) > 2


async def test_a_child_is_cancelled_over_a_continue_as_new(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    inner = {"tasks": [{"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 60}}]}
    plan = chain(25)
    plan["tasks"].append({"id": "sub", "plan": inner})
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.tasks.get("t24") == "succeeded")
        assert await runs_of(planloom, handle.id) > 2
        await handle.execute_update("cancel_task", {"id": "sub"})
        result = await planloom.result(handle)
    assert result["tasks"]["sub"]["outcome"] == "cancelled"
    assert result["tasks"]["t24"]["outcome"] == "succeeded"


async def test_a_child_that_was_terminated_is_noticed(
    planloom: Planloom, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "planloom.workflows.machines.run.machine.CHILD_LOOK_SECONDS", 0.5, raising=True
    )
    inner = {"tasks": [{"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 60}}]}
    plan = chain(25)
    plan["tasks"].append({"id": "sub", "plan": inner})
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "retry_rounds": 0})
        await planloom.until(handle, lambda p: p.tasks.get("t24") == "succeeded")
        await planloom.client.get_workflow_handle(f"{handle.id}/sub").terminate()
        result = await planloom.result(handle)
    assert result["tasks"]["sub"]["outcome"] == "failed"
    assert "TERMINATED" in result["tasks"]["sub"]["error"]
