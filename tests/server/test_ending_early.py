"""Ending early: as soon as enough is known, whatever came first; and what that saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
PACED = ['a = nap(name="a", seconds=0.1)\nslow = nap(name="slow", seconds=20)\n', 0.8]


async def streamed(planloom: Planloom, tools: Tools, last: str, **more: Any) -> dict[str, Any]:
    """A goal whose first two tasks run while the model still writes its last line."""
    planloom.model.script(PLANNER, Reply(text=[*PACED, last], chunking="line"))
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        return await planloom.run({"goal": "x", **more}, timeout=15)


async def test_a_requests_stop_when_ends_a_run_whose_plan_is_still_written(
    planloom: Planloom, tools: Tools
) -> None:
    result = await streamed(planloom, tools, "join(a, slow)\n", stop_when="a.output == 'a'")
    assert (result["status"], result["tasks"]["slow"]["outcome"]) == ("completed", "cancelled")
    assert result["seconds"] < 5


async def test_a_stop_when_that_is_true_while_the_planner_writes_calls_it_off(
    planloom: Planloom, tools: Tools
) -> None:
    """The planner would write for another 30 s, and its tasks would be cancelled."""
    lines = [PACED[0], 30, 'late = nap(name="late")\njoin(a, late)\n']
    planloom.model.script(PLANNER, Reply(text=lines, chunking="line"))
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x", "stop_when": "a.output == 'a'"}, timeout=15)
    assert (result["status"], result["answer"]) == ("completed", "done")
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "a": "succeeded",
        "slow": "cancelled",
    }
    assert result["seconds"] < 5
    called_off = next(n for n in result["notes"] if n.startswith("planner called off"))
    assert "stop_when: a.output == 'a'" in called_off
    assert result["usage"]["model_calls"] == 2
    assert result["usage"]["tokens"] > planloom.model.requests[1].paid_tokens


async def test_the_plans_stop_when_calls_off_a_replan_that_is_being_written(
    planloom: Planloom, tools: Tools
) -> None:
    first = 'a = nap(name="a", seconds=1.5)\nb = nap(name="b", seconds=20)\n'
    first += "stop_when(\"${a} == 'a'\")\njoin(a, b)\n"
    again = Reply(text=[30, 'c = nap(name="c")\njoin(c)\n'], chunking="line")
    planloom.model.script(PLANNER, first, again)
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x"})
        await planloom.until(handle, lambda p: p.revision == 1 and "a" in p.running)
        await handle.execute_update("request_replan", {"feedback": "other"})
        result = await planloom.result(handle, timeout=60)
    assert (result["status"], result["answer"], result["revision"]) == ("completed", "done", 1)
    assert any(n.startswith("replan not taken: stop_when") for n in result["notes"])


async def test_a_stop_when_that_is_true_when_the_plan_is_complete_ends_the_run(
    planloom: Planloom, tools: Tools
) -> None:
    last = "stop_when(\"${a} == 'a'\")\njoin(a, slow)\n"
    result = await streamed(planloom, tools, last)
    assert (result["status"], result["tasks"]["slow"]["outcome"]) == ("completed", "cancelled")
    assert result["seconds"] < 5


async def test_a_join_whose_tasks_have_ended_when_it_is_written_waits_for_nothing(
    planloom: Planloom, tools: Tools
) -> None:
    result = await streamed(planloom, tools, "join(a)\n")
    assert (result["status"], result["tasks"]["slow"]["outcome"]) == ("completed", "cancelled")
    assert result["seconds"] < 5


async def test_a_stop_when_that_does_not_fit_the_values_is_not_true_and_said_once(
    planloom: Planloom, tools: Tools
) -> None:
    """`length` of a number is an error of JMESPath: the workflow task failed with it for ever."""
    tasks = [{"id": t, "tool": "echo", "args": {"value": 3}, "cache": "off"} for t in "ab"]
    tasks[1]["depends_on"] = ["a"]
    async with planloom.worker(**tools):
        result = await planloom.run(
            {"plan": {"tasks": tasks, "stop_when": "length(a.output) > `1`"}}
        )
    assert (result["status"], result["tasks"]["b"]["output"]) == ("completed", 3)
    assert [n for n in result["notes"] if "stop_when" in n] == [
        'stop_when: "length(a.output) > `1`": length() needs string or array or object, found '
        "number; taken as not true"
    ]


async def test_a_goals_stop_when_that_does_not_fit_is_planned_again_and_bounded(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script(PLANNER, "a = echo(value=3)\njoin(a)")
    request = {"goal": "x", "stop_when": "length(a.output) > `3`", "replan": {"max_rounds": 1}}
    async with planloom.worker(**tools):
        result = await planloom.run(request)
    assert result["status"] == "partial"
    assert "stop_when is not met" in result["reason"]


@pytest.mark.parametrize("knows", range(0, 10, 2))
async def test_ten_sources_of_which_one_suffices_cost_what_was_asked_and_no_more(
    planloom: Planloom, knows: int
) -> None:
    """Asked in order of likelihood, two at once: by the tokens that the endpoint was paid."""
    usage = {"prompt_tokens": 100, "completion_tokens": 100}
    planloom.model.script(f"source {knows}?", Reply(text="found", usage=usage, delay=0.1))
    planloom.model.script("", Reply(text="nothing", usage=usage, delay=0.1))
    tasks: list[dict[str, Any]] = [
        {
            "id": f"s{n}",
            "ask": f"source {n}?",
            "depends_on": [f"s{n - 2}"] if n >= 2 else [],
            "estimate": {"tokens": 200},
        }
        for n in range(10)
    ]
    stop = f"s{knows}.output == 'found'"
    async with planloom.worker():
        whole = await planloom.run({"plan": {"tasks": tasks}})
        early = await planloom.run({"plan": {"tasks": tasks, "stop_when": stop}})
    assert (whole["usage"]["tokens"], early["status"]) == (2_000, "completed")
    spared = whole["usage"]["tokens"] - early["usage"]["tokens"]
    told = early["usage"]["saved"]["tokens"]
    assert spared >= (8 - knows) * 200  # all behind the pair that was asked last
    assert spared - 200 <= told <= spared + 200  # one may have been under way
    assert told / 2_000 >= 0.2 or knows > 6
