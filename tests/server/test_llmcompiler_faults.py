"""Where the original hangs, loses tasks, waits, pastes text twice or cuts answers, we end right.

Each test names a fault of facts/llmcompiler.md §1.2, §2.1, §2.3 or §3.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom

Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = "Thought: enough\nAction: Finish(done)<END_OF_RESPONSE>"
MEND = '9. calculate("9")\n10. join()'


async def goal(planloom: Planloom, tools: Tools, *plans: Any, **more: Any) -> dict[str, Any]:
    planloom.model.script(PLANNER, *plans)
    planloom.model.script(JOINER, FINISH)
    async with planloom.worker(**tools):
        return await planloom.run({"goal": "a goal", **more}, timeout=20)


def joiner_saw(planloom: Planloom) -> str:
    return planloom.model.seen(JOINER)[-1].text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        '1. calculate("1"\n2. join()',  # no closing bracket
        '1. no-tool("x")\n2. join()',  # a name with a hyphen
        '1. lookup("x")\n2. join()',  # an unknown tool: the original hangs when it streams
        '1. calculate("$2")\n2. join()',  # a missing dependency: KeyError after others ran
        '1. calculate("$1")\n2. join()',  # a self reference: the tool is called with "$1"
        "Thought: nothing to do",  # nothing parseable: the joiner answers from memory
    ],
)
async def test_a_line_that_cannot_run_is_told_to_the_planner_and_mended(
    planloom: Planloom, tools: Tools, fault: str, stream: bool
) -> None:
    result = await goal(planloom, tools, fault, MEND, stream=stream)
    assert result["status"] == "completed"
    assert result["tasks"]["9"]["output"] == 9
    assert result["planning"]["repairs"] == 1


async def test_a_tool_that_raises_or_gets_wrong_arguments_ends_and_the_joiner_is_told(
    planloom: Planloom, tools: Tools
) -> None:
    text = '1. broken("Pump")\n2. odd(2)\n3. calculate("3")\n4. join()'
    result = await goal(planloom, tools, text, replan={"max_rounds": 0})
    assert result["status"] == "partial"
    assert result["tasks"]["3"]["output"] == 3
    assert "Pump is out of order" in joiner_saw(planloom)
    assert "2 is even" in joiner_saw(planloom)


async def test_a_plain_function_is_a_tool_like_any_other(planloom: Planloom, tools: Tools) -> None:
    result = await goal(planloom, tools, "1. odd(3)\n2. join()")
    assert result["tasks"]["1"]["output"] == 3


async def test_gaps_and_any_first_number_are_fine(planloom: Planloom, tools: Tools) -> None:
    result = await goal(planloom, tools, '5. calculate("5")\n9. calculate("$5 + 1")\n12. join()')
    assert result["tasks"]["9"]["output"] == 6


async def test_a_repeated_number_is_an_error_and_both_lines_are_named(
    planloom: Planloom, tools: Tools
) -> None:
    fault = '1. calculate("1")\n1. calculate("2")\n2. join()'
    result = await goal(planloom, tools, fault, MEND)
    assert result["status"] == "completed"
    assert "lines 1 and 2" in planloom.model.seen(PLANNER)[1].text


@pytest.mark.parametrize("value", ["null", "0", "false", '""'])
async def test_a_result_of_nothing_is_a_value(planloom: Planloom, tools: Tools, value: str) -> None:
    text = f'a = echo(value={value})\nb = echo(value={{"got": a}})\njoin(b)'
    result = await goal(planloom, tools, text)
    assert list(result["tasks"]["b"]["output"]) == ["got"]
    assert result["tasks"]["b"]["output"]["got"] == result["tasks"]["a"]["output"]


async def test_numbers_and_prices_in_text_are_not_mistaken_for_references(
    planloom: Planloom, tools: Tools
) -> None:
    text = '1. echo("x")\n2. echo("$15, $1.50 and $1")\n3. join()'
    result = await goal(planloom, tools, text)
    assert result["tasks"]["2"]["output"] in ("$15, x.50 and x", "$15, $1.50 and x")


async def test_a_result_with_a_reference_in_it_is_never_replaced_again(
    planloom: Planloom, tools: Tools
) -> None:
    plan = 'a = echo(value="secret")\nb = echo(value="pay $${a}")\nc = echo(value=[a, b])\njoin(c)'
    result = await goal(planloom, tools, plan)
    assert result["tasks"]["c"]["output"] == ["secret", "pay ${a}"]


async def test_references_in_objects_are_replaced_and_one_list_stays_one_argument(
    planloom: Planloom, tools: Tools
) -> None:
    text = '1. echo([1, 2])\n2. echo({"x": "$1"})\n3. join()'
    result = await goal(planloom, tools, text)
    assert result["tasks"]["1"]["output"] == [1, 2]
    assert result["tasks"]["2"]["output"] == {"x": [1, 2]}


@pytest.mark.parametrize("chunking", ["2 lines", "whole", "char", 7])
async def test_however_a_provider_cuts_its_chunks_no_task_is_lost(
    planloom: Planloom, tools: Tools, chunking: str | int
) -> None:
    text = '1. echo("New York")\n2. echo("b")\n3. echo("c")\n4. echo("$1 $2 $3")\n5. join()'
    result = await goal(planloom, tools, Reply(text=text, chunking=chunking))
    assert result["tasks"]["4"]["output"] == "New York b c"


async def test_a_provider_that_does_not_stream_loses_nothing(
    planloom: Planloom, tools: Tools
) -> None:
    text = '1. echo("a")\n2. join()'
    result = await goal(planloom, tools, Reply(text=text, fault="ignore_stream"))
    assert result["tasks"]["1"]["output"] == "a"


async def test_a_planner_call_that_fails_ends_the_run_with_its_cause(
    planloom: Planloom, tools: Tools
) -> None:
    result = await goal(planloom, tools, Reply(status=404, body={"error": {"message": "no model"}}))
    assert result["status"] == "failed"
    assert "no model" in result["reason"]


async def test_a_plan_without_a_join_line_is_told_or_joined_but_never_lost(
    planloom: Planloom, tools: Tools
) -> None:
    result = await goal(planloom, tools, '1. echo("a")', "2. join()")
    assert result["status"] == "completed"
    assert result["tasks"]["1"]["output"] == "a"


async def test_the_joiner_does_not_wait_for_what_the_answer_does_not_need(
    planloom: Planloom, tools: Tools
) -> None:
    text = 'a = nap(name="a")\nslow = nap(name="slow", seconds=15)\njoin(answer="${a}")'
    result = await goal(planloom, tools, text)
    assert result["answer"] == "a"
    assert result["seconds"] < 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "Action: Finish(Mission: Impossible (1996 film))",
            "Mission: Impossible (1996 film)",
        ),
        ("Action: Finish(f(x)=2)", "f(x)=2"),
        ("Action: Finish(Replan the trip)", "Replan the trip"),
        ("  **Action:** Finish(12.5)", "12.5"),
    ],
)
async def test_the_joiners_answer_is_never_cut_nor_mistaken(
    planloom: Planloom, text: str, answer: str
) -> None:
    planloom.model.script(PLANNER, '1. calculate("1")\n2. join()')
    planloom.model.script(JOINER, text)
    async with planloom.worker():
        result = await planloom.run({"goal": "x"})
    assert result["answer"] == answer


async def test_the_reason_of_a_replan_reaches_the_planner_and_ids_go_on(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script(PLANNER, '1. echo("a")\n2. join()', '3. echo("$1 again")\n4. join()')
    planloom.model.script(JOINER, "Thought: t\nAction: Replan(say it twice)", FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert result["tasks"]["3"]["output"] == "a again"
    assert "say it twice" in planloom.model.seen(PLANNER)[1].text


async def test_a_joiner_without_an_action_is_asked_again_and_never_an_empty_success(
    planloom: Planloom,
) -> None:
    planloom.model.script(PLANNER, '1. calculate("1")\n2. join()')
    planloom.model.script(JOINER, "Well.", FINISH)
    async with planloom.worker():
        result = await planloom.run({"goal": "x"})
    assert result["answer"] == "done"
    assert planloom.model.calls_paid(JOINER) == 2
