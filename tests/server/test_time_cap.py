"""`budget.seconds` over the whole tree: when the time is over nothing new starts, anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Handle, Planloom
from tests.support.waiting import until

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
FORM = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: said at length\nNEXT_STEP: none"


def nap(id: str, *after: str, seconds: float = 0.02, **more: Any) -> dict[str, Any]:
    args = {"name": id, "seconds": seconds}
    return {"id": id, "tool": "nap", "args": args, "depends_on": list(after), **more}


def child_of(planloom: Planloom, handle: Handle, task: str) -> Handle:
    return planloom.client.get_workflow_handle(f"{handle.id}/{task}")


async def parked(planloom: Planloom, handle: Handle) -> str:
    """Wait until the run is parked and nothing of it runs on; gives the detail."""
    shown = await planloom.until(
        handle, lambda p: p.awaiting == "budget" and p.status == "waiting" and not p.running
    )
    return shown.detail or ""


async def test_tasks_that_are_written_after_the_time_do_not_start_until_there_is_more(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    text = ['a = nap(name="a")\n', 1.2, 'b = nap(name="b")\n', "join(a, b)\n"]
    planloom.model.script(PLANNER, Reply(text=text, chunking="line"))
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x", "budget": {"seconds": 0.8}})
        await planloom.until(handle, lambda p: p.revision == 1)
        assert "its 0.8 s are over" in await parked(planloom, handle)
        assert "start b" not in calls()
        await handle.execute_update("raise_budget", {"seconds": 60})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", "done")
    assert calls().count("start b") == 1


async def test_planner_and_joiner_are_not_called_after_the_time(
    planloom: Planloom, tools: Tools
) -> None:
    """What does not compile would go back to the model; then the joiner would be asked."""
    planloom.model.script(PLANNER, Reply(text="prose", delay=0.8), "a = nap(name='a')\njoin(a)")
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x", "budget": {"seconds": 0.5}})
        await planloom.until(handle, lambda p: p.usage.model_calls == 1)
        await parked(planloom, handle)
        assert planloom.model.calls() == 1
        await handle.execute_update("raise_budget", {"seconds": 60})
        result = await planloom.result(handle)
    assert (result["status"], planloom.model.calls()) == ("completed", 3)


async def test_a_run_that_ends_with_its_time_waits_for_no_planner(
    planloom: Planloom, tools: Tools
) -> None:
    text = ['a = nap(name="a")\n', 20, "join(a)\n"]
    planloom.model.script(PLANNER, Reply(text=text, chunking="line"))
    budget = {"seconds": 1, "on_budget": "partial"}
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x", "budget": budget}, timeout=10)
        assert (result["status"], result["answer"]) == ("partial", {"a": "a"})
        asked = {"goal": "y", "approval": "plan", "budget": budget}
        nothing = await planloom.run(asked, timeout=10)
    assert result["reason"] == "budget: its 1 s are over"
    assert (nothing["status"], nothing["reason"]) == ("partial", "budget: its 1 s are over")
    assert max(result["seconds"], nothing["seconds"]) < 5
    assert planloom.model.calls(JOINER) == 0


async def test_a_sub_plan_starts_nothing_after_its_parents_time(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    inner = {"tasks": [nap("i0", seconds=1.2), nap("i1", "i0")], "answer": "${i1}"}
    plan = {"tasks": [{"id": "sub", "plan": inner}, nap("z", "sub")], "answer": "${sub}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"seconds": 0.8}})
        child = child_of(planloom, handle, "sub")
        await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert "run that it is part of" in await parked(planloom, child)
        await handle.execute_update("pause")  # a person's pause and resume give no time
        await handle.execute_update("resume")
        await child.execute_update("resume")
        await parked(planloom, child)
        assert "start i1" not in calls()
        await handle.execute_update("raise_budget", {"seconds": 60})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", "i1")


async def test_more_time_does_not_undo_a_persons_pause_of_a_child(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    inner = {"tasks": [nap("i0", seconds=1.0), nap("i1", "i0")], "answer": "${i1}"}
    plan = {"tasks": [{"id": "sub", "plan": inner}], "answer": "${sub}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"seconds": 0.6}})
        child = child_of(planloom, handle, "sub")
        await planloom.until(handle, lambda p: p.awaiting == "budget")
        await child.execute_update("pause")
        await parked(planloom, child)
        await handle.execute_update("raise_budget", {"seconds": 60})
        shown = await planloom.until(child, lambda p: p.awaiting is None)
        assert (shown.status, "start i1" in calls()) == ("paused", False)
        await child.execute_update("resume")
        assert (await planloom.result(handle))["answer"] == "i1"


@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_agents_and_teams_call_no_model_after_their_parents_time(
    planloom: Planloom, tools: Tools, kind: str
) -> None:
    """The first turn calls a tool that outlives the time; the next one waits for more."""
    nap_call = [{"id": "c1", "name": "nap", "arguments": {"name": "t", "seconds": 1.2}}]
    planloom.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    planloom.model.script("", Reply(tool_calls=nap_call), FORM)
    helper = {"id": "helper", "system": "Help.", "tools": ["nap"]}
    team = {"members": [{"id": "helper", "role": "x", "tools": ["nap"]}]}
    body: dict[str, Any] = {"agent": helper} if kind == "agent" else {"team": team}
    plan = {"tasks": [{"id": "who", **body, "args": {"task": "go"}}], "answer": "${who}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"seconds": 0.8}})
        child = child_of(planloom, handle, "who")
        await planloom.until(handle, lambda p: p.awaiting == "budget")
        await _awaits_budget(planloom, child)
        assert planloom.model.calls() == 1
        await handle.execute_update("raise_budget", {"seconds": 60})
        result = await planloom.result(handle)
    assert result["status"] == "completed", result["reason"]
    assert planloom.model.calls() > 1


async def _awaits_budget(planloom: Planloom, handle: Handle) -> None:
    for _ in range(300):
        if (await handle.query("progress"))["awaiting"] == "budget":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await handle.query("progress"))


async def test_a_fallback_waits_for_time_as_it_does_for_budget(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", "ok")
    late = {"name": "late", "seconds": 30}
    task = {"id": "a", "tool": "nap", "args": late, "timeout": 1, "retry": {"max_attempts": 1}}
    plan = {"tasks": [{**task, "fallback": {"ask": "instead"}}], "answer": "${a}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"seconds": 0.5}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget" and "a" in p.running)
        await planloom.until(handle, lambda p: p.status == "waiting")
        assert ("its 0.5 s are over" in (shown.detail or ""), planloom.model.calls()) == (True, 0)
        await handle.execute_update("raise_budget", {"seconds": 60})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", "ok")


async def test_a_cap_that_is_set_while_the_run_goes_on_counts_too(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    inner = {"tasks": [nap("i0", seconds=1.5), nap("i1", "i0")]}
    plan = {"tasks": [{"id": "sub", "plan": inner}]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        child = child_of(planloom, handle, "sub")
        await until(lambda: "start i0" in calls())
        passed = (await planloom.progress(handle)).seconds
        await handle.execute_update("raise_budget", {"seconds": passed + 0.5})
        await parked(planloom, child)
        assert "start i1" not in calls()
        await handle.execute_update("raise_budget", {"seconds": 60})
        assert (await planloom.result(handle))["status"] == "completed"
