"""What one part leaves behind when another ends, is cancelled, or speaks at the wrong moment."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.model_server import Reply
from tests.server.test_agents import agent, call
from tests.server.test_team_plans import MEMBERS, MODELS, script
from tests.server.test_teams import JUDGE, form, speaks, team
from tests.support.boss import begin_child, bosses
from tests.support.harness import Planloom
from tests.support.waiting import until

Tools = dict[str, str]
QUESTION = Reply(tool_calls=[call("ask_human", question="Which colour?")])


async def test_a_team_cancelled_while_its_judge_is_asked_ends(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, Reply(text="late", delay=20))
    for id in ("ann", "bob"):
        speaks(planloom, id, form(f"{id} says yes"))
    async with planloom.worker():
        request = {"team": team("ann", "bob"), "task": "Decide", "rounds": 0}
        handle = await planloom.start(request, "TeamWorkflow")
        await until(lambda: planloom.model.calls(JUDGE) == 1)
        await handle.cancel()
        result = await planloom.result(handle)
    assert (result["status"], result["reason"]) == ("cancelled", "the run was cancelled")
    assert result["members"]["ann"]["outcome"] == "succeeded"


@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
async def test_a_team_cancelled_while_its_members_speak_asks_nobody_more(
    planloom: Planloom, strategy: str
) -> None:
    """The members' own ends as cancelled must not hide that the team is."""
    planloom.model.script(JUDGE, '{"verdict": "trusted", "reason": "fine"}')
    speaks(planloom, "ann", Reply(text=form("late"), delay=20))
    speaks(planloom, "bob", Reply(text=form("bob says yes"), delay=1))
    async with planloom.worker():
        request = {"team": team("ann", "bob"), "task": "Decide", "strategy": strategy}
        handle = await planloom.start(request, "TeamWorkflow")
        await until(lambda: planloom.model.calls("You are ann,") == 1)
        await handle.cancel()
        result = await planloom.result(handle)
    assert (result["status"], result["reason"]) == ("cancelled", "the run was cancelled")
    assert result["members"]["ann"]["outcome"] == "cancelled"
    assert planloom.model.calls(JUDGE) == 0
    assert planloom.model.calls("You are bob,") == (1 if strategy == "parallel" else 0)


async def test_an_agent_cancelled_while_its_tool_runs_asks_no_more(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", Reply(tool_calls=[call("nap", name="n", seconds=20)]), "done")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["nap"]), "task": "go"}
        handle = await planloom.start(request, "AgentWorkflow")
        await until(lambda: planloom.model.calls() == 1)
        await asyncio.sleep(0.5)
        await handle.cancel()
        result = await planloom.result(handle)
    assert (result["status"], result["turns"]) == ("cancelled", 1)
    assert planloom.model.calls() == 1


async def test_a_stray_word_of_a_child_does_not_end_a_team(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, '{"verdict": "trusted", "reason": "fine"}')
    speaks(planloom, "ann", Reply(text=form("ann says yes"), delay=0.5))
    async with planloom.worker():
        handle = await planloom.start({"team": team("ann"), "task": "Decide"}, "TeamWorkflow")
        await until(lambda: planloom.model.calls("You are ann,") == 1)
        await handle.signal("grant_wanted", {"child": "x", "name": "x", "tokens": 1})
        await handle.signal("child_asks", {"child": "x", "name": "x", "key": "x"})
        await handle.signal("plan_written", {"call": 1, "attempt": 1, "seq": 0, "tasks": []})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert len([n for n in result["notes"] if "signal ignored" in n]) == 3


async def test_nobody_is_asked_for_an_agent_that_is_gone(planloom: Planloom, tools: Tools) -> None:
    """The agent asks; it is cancelled; the run goes on, and waits for nobody."""
    planloom.model.script("", QUESTION)
    asks = {"id": "a", "agent": agent(tools=["ask_human"]), "args": {"task": "paint"}}
    held = {"id": "held", "tool": "nap", "args": {"name": "h", "seconds": 3}}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": [asks, held]}})
        await until(lambda: planloom.model.calls() == 1)
        child = planloom.client.get_workflow_handle(f"{handle.id}/a")
        await planloom.until(child, lambda p: p.awaiting == "human")
        await handle.execute_update("cancel_task", {"id": "a"})
        shown = await planloom.until(handle, lambda p: p.tasks["a"] == "cancelled")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update("complete_task", {"id": "a", "output": "blue"})
        assert "does not wait for a person" in str(refused.value.cause)
        assert (shown.awaiting, shown.status) == (None, "running")
        result = await planloom.result(handle)
    assert result["tasks"]["held"]["outcome"] == "succeeded"


async def test_a_grant_that_comes_while_it_is_asked_for_is_seen(planloom: Planloom) -> None:
    """The agent's turn lacks tokens; it asks its parent; the parent's answer is there before the
    asking is known to have arrived."""
    planloom.model.script("", "done")
    request = {"agent": agent(), "task": "go"}
    async with planloom.worker(), bosses(planloom) as queue:

        async def one(delay: float) -> str:
            id = f"boss-{uuid.uuid4().hex[:12]}"
            handle = await begin_child(
                planloom, queue, id, "AgentWorkflow", request, grant={"tokens": 10}
            )
            await asyncio.sleep(delay)
            await handle.signal("raise_budget", {"tokens": 100_000, "by": "parent"})
            return str((await planloom.result(handle, 60))["status"])

        ended = [await one(n * 0.002) for n in range(30)]
    assert ended == ["completed"] * 30


async def test_an_agent_cancelled_as_it_begins_or_parks_ends(planloom: Planloom) -> None:
    """A cancellation that comes together with what the agent waits for was lost."""
    planloom.model.script("", "done")
    request = {"agent": agent(), "task": "go"}
    async with planloom.worker(), bosses(planloom) as queue:

        async def one(delay: float) -> str:
            id = f"boss-{uuid.uuid4().hex[:12]}"
            handle = await begin_child(
                planloom, queue, id, "AgentWorkflow", request, grant={"tokens": 10}
            )
            await asyncio.sleep(delay)
            await handle.cancel()
            return str((await planloom.result(handle, 60))["status"])

        ended = [await one(n * 0.002) for n in range(20)]
    assert ended == ["cancelled"] * 20


async def test_a_team_whose_new_subtasks_are_rejected_stops_what_runs(planloom: Planloom) -> None:
    """A person asks for another plan while a member works, and then rejects what came."""
    script(planloom, "p", 'again = agent("look", task="Check it")\njoin(again)')
    speaks(planloom, "look", form("look says yes"))
    speaks(planloom, "build", Reply(text=form("late"), delay=20))
    request = {"team": {"members": MEMBERS}, "task": "Replace the cache", "model": MODELS}
    request |= {"replan": {"max_rounds": 2}, "approval": "replan"}
    async with planloom.worker():
        handle = await planloom.start(request, "TeamWorkflow")
        await planloom.until(handle, lambda p: p.tasks.get("build") == "running", timeout=30)
        await handle.execute_update("request_replan", {"feedback": "look again"})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval", timeout=30)
        await handle.execute_update("reject_plan", {"revision": shown.revision})
        result = await planloom.result(handle)
        child = planloom.client.get_workflow_handle(f"{handle.id}/build")
        status = (await child.describe()).status
    assert result["status"] == "rejected"
    assert result["tasks"]["build"]["outcome"] == "cancelled"
    assert status is not None
    assert status.name == "COMPLETED"  # it was told, and has said what it had come to


async def test_a_cancelled_run_closes_at_its_first_tries_though_results_stream_in(
    planloom: Planloom, tools: Tools
) -> None:
    """The server refuses to close a workflow with events that it has not seen: 12 s were lost."""
    body = {"tool": "nap", "args": {"name": "${index}", "seconds": 0.2}}
    plan = {"tasks": [{"id": "m", "map": list(range(1000)), **body}]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"parallel": 100}})
        await planloom.until(handle, lambda p: p.usage.tool_calls > 200, 60)
        await handle.cancel()
        result = await planloom.result(handle, 60)
    assert result["status"] == "cancelled"
    events = (await planloom.history(handle)).events
    failed = [e for e in events if e.HasField("workflow_task_failed_event_attributes")]
    assert len(failed) <= 1, failed  # a very slow machine may still send one late
