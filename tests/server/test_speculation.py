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
