"""What planners write when they go wrong: each ends bounded, with a message that says why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom

Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
CYCLE = (
    '{"tasks": [{"id": "a", "tool": "echo", "args": {"value": "${b}"}}, '
    '{"id": "b", "tool": "echo", "args": {"value": "${a}"}}]}'
)


async def goal(planloom: Planloom, tools: Tools, text: Any, **more: Any) -> dict[str, Any]:
    """A planner that always writes the same."""
    planloom.model.script(PLANNER, text)
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        return await planloom.run({"goal": "x", **more}, timeout=220)


@pytest.mark.parametrize(
    ("text", "said", "more"),
    [
        pytest.param(CYCLE, "wait for each other", {"syntax": "json"}, id="a cycle"),
        pytest.param("a = echo(value=b)\nb = ech(value=1)", "written later", {}, id="forward"),
        pytest.param('a = lokup(q="x")', 'no tool "lokup"', {}, id="unknown tool"),
        pytest.param('a = echo(value="x', "not closed", {}, id="half a line"),
        pytest.param("I would first look at the data.", "no tasks", {}, id="prose"),
        pytest.param("まず、データを検索します。", "no tasks", {}, id="another language"),
        pytest.param(
            "def main():\n    for x in y:\n        print(x)", "stands under", {}, id="code"
        ),
        pytest.param("", "no tasks", {}, id="nothing"),
    ],
)
async def test_a_planner_that_never_mends_its_plan_ends_after_three_answers(
    planloom: Planloom, tools: Tools, text: str, said: str, more: dict[str, Any]
) -> None:
    result = await goal(planloom, tools, text, **more)
    assert result["status"] in ("failed", "partial")
    assert said in result["reason"]
    assert planloom.model.calls_paid(PLANNER) == 3


@pytest.mark.timeout(240)
async def test_a_thousand_tasks_are_a_plan(planloom: Planloom, tools: Tools) -> None:
    lines = [f"e{n} = echo(value={n})\n" for n in range(1_000)]
    names = ", ".join(f"e{n}" for n in range(1_000))
    text = Reply(text=[*lines, f"join({names})"], chunking="200 lines")
    result = await goal(planloom, tools, text)
    assert (result["status"], len(result["tasks"])) == ("completed", 1_000)


async def test_more_tasks_than_a_run_can_hold_are_left_out_and_told(
    planloom: Planloom, tools: Tools
) -> None:
    lines = "".join(f"e{n} = echo(value={n})\n" for n in range(2_100))
    text = Reply(text=f"{lines}join(e0)", chunking="whole", obeys_limit=False)
    result = await goal(planloom, tools, text, stream=False)
    assert any("more than 2,000 tasks" in n for n in result["notes"])
    assert result["status"] == "completed"
    assert planloom.model.calls_paid(PLANNER) == 3


async def test_a_plan_of_megabytes_is_cut_where_history_could_not_hold_it(
    planloom: Planloom, tools: Tools
) -> None:
    """1.8 MB, where a payload holds 2 MiB: more than that is no answer any more."""
    lines = "".join(f'e{n} = echo(value="{"x" * 3_000}{n}")\n' for n in range(600))
    text = Reply(text=f"{lines}join(e0)", chunking="whole", obeys_limit=False)
    result = await goal(planloom, tools, text, stream=False)
    assert any("bytes of tasks; at most 400,000" in n for n in result["notes"]), result["notes"]
    assert result["tasks"]["e0"]["outcome"] == "succeeded"
    assert planloom.model.calls_paid(PLANNER) == 3


async def test_the_same_call_ten_times_is_made_once_and_all_names_read_it(
    planloom: Planloom, tools: Tools
) -> None:
    lines = "".join(f'a{n} = echo(value="same")\n' for n in range(10))
    result = await goal(planloom, tools, f"{lines}b = echo(value=[a0, a9])\njoin(b)")
    assert result["tasks"]["b"]["output"] == ["same", "same"]
    assert result["usage"]["tool_calls"] == 2
