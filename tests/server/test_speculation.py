"""Branches that run ahead of their condition: bounded, counted, and in nobody's way."""

from __future__ import annotations

from typing import Any

from tests.support.harness import Planloom

Tools = dict[str, str]


def nap(id: str, seconds: float = 0.05, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "nap", "args": {"name": id, "seconds": seconds}, **more}


def ahead(id: str, when: str = "cond.output == 'cond'", **more: Any) -> dict[str, Any]:
    return nap(id, when=when, speculate=True, **more)


async def test_branches_that_only_wait_leave_their_slots_to_what_they_wait_for(
    planloom: Planloom, tools: Tools
) -> None:
    """`cond` is ready only once a person has answered; by then every slot was taken, for ever."""
    tasks = [
        {"id": "q", "human": "Well?"},
        nap("cond", depends_on=["q"]),
        *(ahead(f"a{n}") for n in range(3)),
        ahead("lost", "cond.output == 'no'"),
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"parallel": 2}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "human")
        await handle.execute_update("complete_task", {"id": "q", "output": "yes"})
        result = await planloom.result(handle)
    assert shown.tasks["q"] == "running"
    assert [result["tasks"][f"a{n}"]["outcome"] for n in range(3)] == ["succeeded"] * 3
    assert result["tasks"]["lost"]["outcome"] == "skipped"
    assert result["speculation"]["won"] + result["speculation"]["lost"] >= 2
    assert result["status"] == "completed"


async def test_beyond_its_budget_a_branch_waits_for_its_condition(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [nap("cond", 0.8), *(ahead(f"a{n}") for n in range(12))]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    started = [result["tasks"][f"a{n}"]["times"]["started"] for n in range(12)]
    assert sum(s < 0.7 for s in started) == 8
    assert result["speculation"] == {"won": 8, "lost": 0}
    assert all(result["tasks"][f"a{n}"]["outcome"] == "succeeded" for n in range(12))
