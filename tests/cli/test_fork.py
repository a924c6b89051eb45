"""Forks and reruns by command: what is reused, what is carried over, and forks of forks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom
from tests.support.tools import SOURCE

PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"


@pytest.fixture
def tools(planloom: Planloom, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    count = planloom.folder / "calls.txt"
    count.touch()
    monkeypatch.setenv("COUNT_FILE", str(count))
    return {"PLANLOOM_TOOLS": planloom.tools(SOURCE), "COUNT_FILE": str(count)}


@pytest.fixture
def calls(planloom: Planloom) -> Callable[[], list[str]]:
    return lambda: (planloom.folder / "calls.txt").read_text().splitlines()


async def forked(planloom: Planloom, *arguments: str) -> dict[str, Any]:
    done = await planloom_cli(planloom, *arguments, "--json")
    assert done.out, done
    return dict(json.loads(done.out))


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {t: r["outcome"] for t, r in result["tasks"].items()}


async def test_a_fork_of_a_fork_reuses_maps_sub_plans_agents_and_large_values(
    planloom: Planloom, tools: dict[str, str], calls: Callable[[], list[str]]
) -> None:
    planloom.model.script("", "SUMMARY: s\nRESULT: looked\nNEXT_STEP: none")
    inner = {
        "tasks": [{"id": "in", "tool": "nap", "args": {"name": "${params.n}"}}],
        "answer": "${in}",
    }
    tasks = [
        {"id": "big", "tool": "big", "args": {"megabytes": 1}},
        {"id": "m", "tool": "nap", "args": {"name": "m${item}"}, "map": [1, 2]},
        {"id": "sub", "plan": inner, "args": {"n": "inner"}},
        {"id": "look", "agent": "researcher", "args": {"task": "look"}},
        {
            "id": "end",
            "tool": "echo",
            "args": {"value": ["${m}", "${sub}", "${look}", "${big}", "x"]},
        },
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}}, id="first")
        first = await planloom.result(handle)
        again = await forked(planloom, "fork", "first", "--id", "second", "--from", "end")
        third = await forked(
            planloom, "fork", "second", "--set", 'end.args.value=["${m}", "${sub}", "y"]'
        )
    reused = dict.fromkeys(("big", "m", "sub", "look"), "cached")
    assert outcomes(again) == outcomes(third) == {**reused, "end": "succeeded"}
    assert again["tasks"]["end"]["size_bytes"] == first["tasks"]["end"]["size_bytes"] > 1_000_000
    assert third["tasks"]["end"]["output"] == [["m1", "m2"], "inner", "y"]
    assert sorted(c for c in calls() if c.startswith("end")) == ["end inner", "end m1", "end m2"]
    assert planloom.model.calls() == 1


async def test_a_fork_of_a_template_keeps_its_parameters_and_may_change_one(
    planloom: Planloom, tools: dict[str, str]
) -> None:
    folder = planloom.workspace / ".planloom" / "templates"
    folder.mkdir(parents=True)
    (folder / "pair.yaml").write_text(
        "params: {a: {type: integer}, b: {type: integer, default: 5}}\n"
        "tasks:\n  - {id: x, tool: echo, args: {value: '${params.a}'}}\n"
        "  - {id: y, tool: echo, args: {value: '${params.b}'}}\nanswer: ['${x}', '${y}']\n"
    )
    async with planloom.worker(**tools):
        request = {"template": "pair", "params": {"a": 1}, "tenant": "acme"}
        await planloom.result(await planloom.start(request, id="first"))
        same = await forked(planloom, "fork", "first", "--id", "second", "--from", "y")
        other = await forked(planloom, "fork", "second", "--set", "params.a=7")
    assert (same["answer"], outcomes(same)["x"]) == ([1, 5], "cached")
    assert (other["answer"], outcomes(other)) == ([7, 5], {"x": "succeeded", "y": "cached"})


async def test_a_fork_of_a_goal_keeps_its_joiner_tools_and_budget(
    planloom: Planloom, tools: dict[str, str]
) -> None:
    planloom.model.script(PLANNER, 'a = nap(name="a")\nb = broken(name="b")\njoin(a, b)')
    planloom.model.script(
        JOINER,
        '{"action": "finish", "answer": "without b"}',
        '{"action": "finish", "answer": "with b"}',
    )
    async with planloom.worker(**tools):
        request = {
            "goal": "x",
            "tools": ["nap", "broken"],
            "budget": {"tokens": 50_000},
            "approval": "plan",
            "replan": {"max_rounds": 0},
        }
        handle = await planloom.start(request, id="first")
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("approve_plan", {"revision": 1})
        assert (await planloom.result(handle))["answer"] == "without b"
        again = await forked(planloom, "rerun", "first", "--failed", "--id", "second")
        usage = await planloom.client.get_workflow_handle("second").query("usage")
        wrong = await planloom_cli(planloom, "fork", "first", "--set", 'a.tool="calculate"')
    assert (again["answer"], outcomes(again)) == ("with b", {"a": "cached", "b": "failed"})
    assert usage["caps"]["tokens"] == 50_000
    assert "not allowed in this run" in wrong.err
