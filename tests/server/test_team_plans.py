"""A team on a graph as a plan: approved, planned again after a round, within its budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.model_server import Reply
from tests.server.test_teams import JUDGE, TRUSTED, form, speaks
from tests.support.harness import Planloom

FINISH = '{"action": "finish", "answer": "all is done"}'
MODELS = {"planner": "p", "joiner": "j", "judge": "g", "worker": "w"}
MEMBERS = [
    {"id": "look", "role": "Researcher", "task": "Find the facts"},
    {"id": "build", "role": "Builder", "task": "Build it", "depends_on": ["look"]},
]


def script(planloom: Planloom, model: str, *replies: Any) -> None:
    planloom.model.script("", *replies, model=model)


def request(**more: Any) -> dict[str, Any]:
    return {"team": {"members": MEMBERS}, "task": "Replace the cache", "model": MODELS, **more}


@pytest.fixture
def team(planloom: Planloom) -> Planloom:
    planloom.model.script(JUDGE, TRUSTED)
    speaks(planloom, "look", form("look says yes"), form("look is sure"))
    speaks(planloom, "build", form("build says yes"))
    return planloom


async def test_subtasks_are_planned_again_after_a_round_once_a_person_approves(
    team: Planloom,
) -> None:
    script(team, "j", '{"action": "replan", "feedback": "check it once more"}', FINISH)
    script(team, "p", 'again = agent("look", task="Check it", context=build)\njoin(again)')
    async with team.worker():
        handle = await team.start(
            request(replan={"max_rounds": 2}, approval="replan"), "TeamWorkflow"
        )
        shown = await team.until(handle, lambda p: p.awaiting == "approval", timeout=30)
        assert (shown.revision, shown.tasks["build"]) == (2, "succeeded")
        assert "again" in " ".join(await handle.query("diff"))
        await handle.signal("approve_plan", {"revision": 1})  # stale, and noted
        await handle.signal("approve_plan", {"revision": 2, "by": "ops"})
        result = await team.result(handle)
    assert (result["status"], result["answer"], result["revision"]) == (
        "completed",
        "all is done",
        2,
    )
    assert [(r["kind"], r["members"]) for r in result["rounds"]] == [
        ("initial", ["look", "build"]),
        ("replan", ["look"]),
    ]
    assert result["members"]["look"]["fields"]["CLAIM"] == "look is sure"
    assert set(result["tasks"]) == {"look", "build", "again"}
    assert any("revision 1" in n for n in result["notes"])
    offered = next(s for s in team.model.seen() if s.model == "p").text
    assert "look - Researcher" in offered
    second = next(s for s in team.model.seen("# Task\nCheck it") if s.model == "w")
    assert "build says yes" in second.text
    assert (second.model, result["judge"]["verdict"]) == ("w", "trusted")


async def test_nothing_of_a_rejected_team_runs(team: Planloom) -> None:
    async with team.worker():
        handle = await team.start(request(approval="plan"), "TeamWorkflow")
        await team.until(handle, lambda p: p.awaiting == "approval", timeout=30)
        await handle.execute_update("reject_plan", {"revision": 1, "reason": "not now"})
        result = await team.result(handle)
    assert result["status"] == "rejected"
    assert "not now" in result["reason"]
    assert team.model.calls_paid() == 0


async def test_the_planner_writes_the_subtasks_and_a_person_edits_them(team: Planloom) -> None:
    written = 'a = agent("look", task="Find")\nb = agent("build", task="Build", context=a)\njoin(b)'
    script(team, "p", written)
    script(team, "j", FINISH)
    async with team.worker():
        handle = await team.start(request(subtasks="plan", approval="plan"), "TeamWorkflow")
        await team.until(handle, lambda p: p.awaiting == "approval", timeout=30)
        patch = [{"op": "replace", "path": "/tasks/0/args/task", "value": "Find it all"}]
        await handle.execute_update("edit_plan", {"revision": 1, "patch": patch})
        await handle.execute_update("approve_plan", {"revision": 2})
        result = await team.result(handle)
    assert result["status"] == "completed"
    assert team.model.calls("Find it all") == 1


async def test_a_named_team_gets_subtasks_from_the_request(team: Planloom) -> None:
    subtasks = [
        {"id": "s1", "member": "lead", "task": "Say what"},
        {"id": "s2", "member": "builder", "task": "Say how", "depends_on": ["s1"]},
    ]
    team.model.script("", form("as told"))
    async with team.worker():
        result = await team.run(
            {"team": "core-delivery", "task": "Ship it", "subtasks": subtasks}, "TeamWorkflow"
        )
    assert result["status"] == "completed", result["reason"]
    assert result["members"]["checker"]["outcome"] == "skipped"
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "s1": "succeeded",
        "s2": "succeeded",
    }
    assert "as told" in team.model.seen("Say how")[0].text


async def test_a_team_parks_at_its_budget_and_goes_on_when_it_is_raised(team: Planloom) -> None:
    for id in ("one", "two", "three"):
        speaks(team, id, form("yes"))
    members = [{"id": i, "role": "x"} for i in ("one", "two", "three")]
    body = {"team": {"members": members}, "task": "go", "rounds": 0, "budget": {"tokens": 700}}
    async with team.worker():
        handle = await team.start(body, "TeamWorkflow")
        shown = await team.until(handle, lambda p: p.awaiting == "budget", timeout=30)
        assert "raise_budget" in (shown.detail or "")
        assert shown.usage.tokens <= 700
        await handle.signal("raise_budget", {"tokens": 50_000, "by": "ops"})
        result = await team.result(handle)
    assert result["status"] == "completed"
    assert any('budget raised by "ops"' in n for n in result["notes"])


async def test_a_paused_run_pauses_its_agents_and_teams(planloom: Planloom) -> None:
    call = {"id": "c", "name": "calculate", "arguments": {"expression": "1 + 1"}}
    # Long enough for the pause to arrive before the answer, on a busy machine too.
    planloom.model.script("", Reply(tool_calls=[call], delay=5.0), "two")
    spec = {"id": "helper", "system": "Help.", "tools": ["calculate"]}
    plan = {"tasks": [{"id": "a", "agent": spec, "args": {"task": "add"}}]}
    async with planloom.worker():
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: planloom.model.calls() == 1)
        await handle.execute_update("pause")
        child = planloom.client.get_workflow_handle(f"{handle.id}/a")
        for _ in range(3_000):
            shown = await child.query("progress")
            if shown["status"] == "paused" and planloom.model.calls_paid() == 1:
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.6)
        assert planloom.model.calls_paid() == 1
        await handle.signal("resume")
        result = await planloom.result(handle)
    assert result["status"] == "completed"


async def test_an_agent_asks_its_run_for_more_budget(planloom: Planloom) -> None:
    usage = {"prompt_tokens": 400, "completion_tokens": 100}
    calls = [
        Reply(
            tool_calls=[{"id": "c", "name": "calculate", "arguments": {"expression": f"{n}"}}],
            usage=usage,
        )
        for n in range(4)
    ]
    planloom.model.script("", *calls, Reply(text="done", usage=usage))
    spec = {"id": "helper", "system": "Help.", "tools": ["calculate"]}
    task = {"id": "a", "agent": spec, "args": {"task": "add"}, "estimate": {"tokens": 1_000}}
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": [task]}, "budget": {"tokens": 20_000}})
    assert result["status"] == "completed", result
    assert result["usage"]["tokens"] == 2_500


async def test_a_question_of_an_agent_is_shown_and_answered_at_the_run(planloom: Planloom) -> None:
    question = {"id": "c", "name": "ask_human", "arguments": {"question": "Which colour?"}}
    planloom.model.script("", Reply(tool_calls=[question]), "blue it is")
    spec = {"id": "helper", "system": "Help.", "tools": ["ask_human"]}
    inner = {"tasks": [{"id": "paint", "agent": spec, "args": {"task": "paint"}}]}
    plan = {"tasks": [{"id": "sub", "plan": inner}], "answer": "${sub}"}
    async with planloom.worker():
        handle = await planloom.start({"plan": plan})
        shown = await planloom.until(handle, lambda p: p.awaiting == "human")
        assert shown.detail == "sub.paint: Which colour?"
        await handle.signal("complete_task", {"id": "sub.paint", "output": "blue"})
        result = await planloom.result(handle)
    assert result["answer"] == {"paint": "blue it is"}
    told = [m["content"] for m in planloom.model.seen()[-1].messages if m["role"] == "tool"]
    assert told == ["blue"]


async def test_money_parks_an_agent_and_is_never_passed(planloom: Planloom) -> None:
    (planloom.folder / "planloom.toml").write_text(
        "[prices.test-model]\ninput_usd_per_million = 100\noutput_usd_per_million = 1000\n"
    )
    calls = [
        Reply(tool_calls=[{"id": "c", "name": "calculate", "arguments": {"expression": f"{n}"}}])
        for n in range(30)
    ]
    planloom.model.script("", *calls, "done")
    spec = {"id": "helper", "system": "Help.", "tools": ["calculate"]}
    request = {"agent": spec, "task": "add", "budget": {"usd": 0.2}, "max_turns": 40}
    async with planloom.worker():
        handle = await planloom.start(request, "AgentWorkflow")
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget", timeout=30)
        assert "$" in (shown.detail or "")
        assert 0 < shown.usage.usd <= 0.2
        await handle.execute_update("raise_budget", {"usd": 50})
        result = await planloom.result(handle)
    assert result["status"] == "completed"


async def test_a_killed_worker_costs_a_team_on_a_graph_no_second_call(team: Planloom) -> None:
    script(team, "j", FINISH)
    speaks(team, "slow", Reply(text=form("slow is done"), delay=1.0))
    slow = {"id": "slow", "role": "x", "task": "Take your time", "depends_on": ["build"]}
    body = request(replan={"max_rounds": 1}) | {"team": {"members": [*MEMBERS, slow]}}
    async with team.worker_process() as worker:
        handle = await team.start(body, "TeamWorkflow")
        await team.until(handle, lambda p: p.tasks.get("slow") == "running", timeout=30)
        await asyncio.sleep(0.4)
        await worker.kill()
        await worker.start()
        result = await team.result(handle, timeout=90)
    assert result["status"] == "completed"
    assert [team.model.calls_paid(f"You are {m},") for m in ("look", "build")] == [1, 1]


async def test_a_cancelled_team_on_a_graph_keeps_what_was_said(team: Planloom) -> None:
    speaks(team, "slow", Reply(text="late", delay=20))
    slow = {"id": "slow", "role": "x", "task": "Wait", "depends_on": ["look"]}
    body = request(replan={"max_rounds": 1}) | {"team": {"members": [MEMBERS[0], slow]}}
    async with team.worker():
        handle = await team.start(body, "TeamWorkflow")
        await team.until(handle, lambda p: p.tasks.get("slow") == "running", timeout=30)
        await handle.cancel()
        result = await team.result(handle)
    assert (result["status"], result["reason"]) == ("cancelled", "the run was cancelled")
    assert result["tasks"]["look"]["outcome"] == "succeeded"
