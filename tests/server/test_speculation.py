"""Branches that start before their condition is known; that they never stand in others' way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


def branch(id: str, when: str, seconds: float = 0.02) -> dict[str, Any]:
    args = {"name": id, "seconds": seconds}
    return {"id": id, "tool": "nap", "args": args, "when": when, "speculate": True}


async def test_speculation_starts_a_branch_before_its_condition_is_known(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [
        {"id": "test", "tool": "nap", "args": {"name": "yes", "seconds": 1.0}},
        {
            "id": "won",
            "tool": "nap",
            "args": {"name": "won", "seconds": 1.0},
            "when": "test.output == 'yes'",
            "speculate": True,
        },
        {
            "id": "lost",
            "tool": "nap",
            "args": {"name": "lost", "seconds": 20},
            "when": "test.output == 'no'",
            "speculate": True,
        },
    ]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["seconds"] < 1.8  # one after the other it would be 2
    assert result["tasks"]["won"]["outcome"] == "succeeded"
    assert result["tasks"]["lost"]["outcome"] == "skipped"
    assert result["status"] == "completed"


async def test_a_branch_that_waits_for_its_condition_holds_no_slot(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    # Order that hung: the guess took the only slot, ended, and waited for `decide`, which never
    # got one.
    decide = {"id": "decide", "tool": "nap", "args": {"name": "yes"}, "depends_on": ["who"]}
    tasks = [{"id": "who", "human": "Go?"}, decide, branch("ahead", "decide.output == 'yes'")]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"parallel": 1}})
        await planloom.until(handle, lambda p: "end ahead" in calls())
        await handle.execute_update("complete_task", {"id": "who", "output": "go"})
        result = await planloom.result(handle)
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "who": "succeeded",
        "decide": "succeeded",
        "ahead": "succeeded",
    }


async def test_no_more_than_eight_branches_run_ahead_and_the_others_still_get_their_turn(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks = [
        {"id": "who", "human": "Go?"},
        *(
            branch(f"b{n}", "who.output == 'go'" if n % 2 else "who.output == 'stay'")
            for n in range(20)
        ),
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: sum(c.startswith("end") for c in calls()) == 8)
        assert len(calls()) == 16, "eight ran ahead, and none more"
        await handle.execute_update("complete_task", {"id": "who", "output": "go"})
        result = await planloom.result(handle)
    outcomes = [result["tasks"][f"b{n}"]["outcome"] for n in range(20)]
    assert outcomes == ["skipped", "succeeded"] * 10
    started = [c for c in calls() if c.startswith("start")]
    assert len(started) == len(set(started)), "each branch ran once"


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
