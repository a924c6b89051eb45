"""Agents and teams that continue as new in the middle of things: nothing is lost or paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from planloom.workflows.shell import runner
from tests.model_server import Reply
from tests.server.test_agents import agent, call
from tests.server.test_continue_as_new import runs_of
from tests.server.test_teams import JUDGE, TRUSTED, form, speaks, team
from tests.support.harness import Planloom

Tools = dict[str, str]


@pytest.fixture(autouse=True)
def short_histories() -> Iterator[None]:
    """Every history continues as new after some thirty events."""
    before = runner.EVENTS_MAX
    runner.EVENTS_MAX = 30
    yield
    runner.EVENTS_MAX = before


async def test_an_agent_goes_on_with_its_conversation_its_question_and_an_early_answer(
    planloom: Planloom, tools: Tools
) -> None:
    turns = [Reply(tool_calls=[call("echo", value=n)]) for n in range(8)]
    asks = [Reply(tool_calls=[call("ask_human", question=f"Number {n}?")]) for n in (1, 2)]
    planloom.model.script("", *turns, asks[0], *turns[:4], asks[1], "done")
    request = {"agent": agent(tools=["echo", "ask_human"]), "task": "go", "max_turns": 40}
    async with planloom.worker(**tools):
        handle = await planloom.start(request, "AgentWorkflow")
        await planloom.until(handle, lambda p: p.awaiting == "human")
        for _ in range(25):
            await handle.signal("pause", {})
            await handle.signal("resume", {})
        assert await runs_of(planloom, handle.id) > 2
        shown = await planloom.progress(handle)
        assert shown.detail == "helper: Number 1?"
        for n in (1, 2):
            await handle.signal("complete_task", {"id": "helper", "output": f"answer {n}"})
        result = await planloom.result(handle)
    assert (result["status"], result["output"]) == ("completed", "done")
    assert (result["turns"], result["tool_calls"]) == (15, 14)
    assert planloom.model.calls_paid() == 15
    told = [m["content"] for m in planloom.model.seen()[-1].messages if m["role"] == "tool"]
    assert [t for t in told if t.startswith("answer")] == ["answer 1", "answer 2"]


async def test_a_team_of_five_with_forty_rounds_completes(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    ids = [f"m{n}" for n in range(5)]
    for id in ids:
        speaks(planloom, id, form(f"{id} says so"))
    runner.EVENTS_MAX = 400
    async with planloom.worker():
        request = {"task": "Decide", "team": team(*ids), "rounds": 40, "consensus": False}
        handle = await planloom.start(request, "TeamWorkflow")
        result = await planloom.result(handle, timeout=110)
        assert await runs_of(planloom, handle.id) > 2
    assert result["status"] == "completed"
    assert [r["round"] for r in result["rounds"]] == list(range(41))
    assert planloom.model.calls_paid() == 5 * 41 + 1
    assert {m["attempts"] for m in result["members"].values()} == {41}


async def test_a_team_on_a_graph_keeps_the_member_that_speaks_while_it_continues(
    planloom: Planloom,
) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    members: list[dict[str, Any]] = [{"id": "slow", "role": "x", "task": "Take your time"}]
    members += [
        {"id": f"m{n}", "role": "x", "task": "Do it", "depends_on": [f"m{n - 1}"] if n else []}
        for n in range(8)
    ]
    speaks(planloom, "slow", Reply(text=form("slow is done"), delay=4))
    for n in range(8):
        speaks(planloom, f"m{n}", form(f"m{n} is done"))
    async with planloom.worker():
        handle = await planloom.start(
            {"team": {"members": members}, "task": "Build", "retry_rounds": 0}, "TeamWorkflow"
        )
        result = await planloom.result(handle, timeout=60)
        assert await runs_of(planloom, handle.id) > 2
    assert result["status"] == "completed", result
    assert {m: r["outcome"] for m, r in result["members"].items()} == dict.fromkeys(
        [m["id"] for m in members], "succeeded"
    )
    assert planloom.model.calls_paid("You are ") == 9
