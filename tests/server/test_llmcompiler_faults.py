"""Where the original hangs, loses tasks, waits, pastes text twice or cuts answers, we end right.

Each test names a fault of facts/llmcompiler.md §1.2, §2.1, §2.3 or §3.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.tools import SOURCE

Tools = dict[str, str]
MORE = (
    SOURCE
    + """
@tool
def sum_of(a: str, b: int) -> str:
    "Both."
    return f"{a}+{b}"

@tool(idempotent=False)
def block(name: str) -> str:
    "A plain function that takes its time."
    time.sleep(1.5)
    return name
"""
)
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
        '1. calculate("$2")\n2. calculate("1")\n3. join()',  # forward: called with the text "$2"
    ],
)
async def test_a_line_that_cannot_run_is_told_to_the_planner_and_mended(
    planloom: Planloom, tools: Tools, fault: str, stream: bool
) -> None:
    result = await goal(planloom, tools, fault, MEND, stream=stream)
    assert result["status"] == "completed"
    assert result["tasks"]["9"]["output"] == 9
    assert result["planning"]["repairs"] == 1


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        pytest.param('1) echo("a")\n2.echo("$1 b")\n3. join()', {"2": "a b"}, id="punctuation"),
        pytest.param('1. echo("a")\n2. Join()', {"1": "a"}, id="join in capitals"),
        pytest.param('2. echo("b")\n1. echo("a")\n3. join()', {"1": "a", "2": "b"}, id="falling"),
        pytest.param('1. echo("a")\n2. sum_of($1, 5)\n3. join()', {"2": "a+5"}, id="mixed"),
        pytest.param("1. echo('it's')\n2. join()", {"1": "it's"}, id="a quote inside quotes"),
        pytest.param('1. echo("a") 2. echo("b")\n3. join()', {"1": "a", "2": "b"}, id="one line"),
        pytest.param('1. echo("a") # b (of two)\n2. join()', {"1": "a"}, id="comment"),
        pytest.param('1. echo("a\nb")\n2. join()', {"1": "a\nb"}, id="newline in a string"),
        pytest.param('  - 1. echo("a")\n  - 2. join()', {"1": "a"}, id="indented and bulleted"),
        pytest.param(
            'Thought: maybe 2. echo("no") later\n\n1. echo("a")\n2. join()',
            {"1": "a"},
            id="a call inside a thought",
        ),
        pytest.param('1. echo("a")\n2. join()\n3. echo("b")', {"1": "a"}, id="text after join"),
        pytest.param("$1 = echo('a')\n$2 = finish()", {"1": "a"}, id="the paper's notation"),
    ],
)
async def test_a_line_that_the_original_drops_or_glues_is_read_as_it_was_meant(
    planloom: Planloom, tools: Tools, text: str, outputs: dict[str, Any]
) -> None:
    result = await goal(planloom, tools | {"PLANLOOM_TOOLS": planloom.tools(MORE)}, text)
    assert result["status"] == "completed", result["reason"]
    found = {t: r["output"] for t, r in result["tasks"].items()}
    assert found | outputs == found
    assert result["planning"]["repairs"] == 0
    assert all(f"## {t}: succeeded" in joiner_saw(planloom) for t in outputs)


async def test_tools_that_are_plain_functions_hold_nobody_up(
    planloom: Planloom, tools: Tools
) -> None:
    """The original runs its `math` calls one after another, and the plan's text waits as well."""
    lines = [f'{n}. block("{n}")\n' for n in range(1, 6)]
    text = [*lines, 0.3, '6. echo("late")\n', "7. join()"]
    more = tools | {"PLANLOOM_TOOLS": planloom.tools(MORE)}
    result = await goal(planloom, more, Reply(text=text, chunking="line"))
    times = [result["tasks"][str(n)]["times"] for n in range(1, 7)]
    assert max(t["started"] for t in times[:5]) < min(t["ended"] for t in times[:5])
    assert times[5]["ended"] < min(t["ended"] for t in times[:5])


async def test_a_tool_that_hangs_times_out_and_the_joiner_is_told(
    planloom: Planloom, tools: Tools
) -> None:
    text = 'h = nap(name="h", seconds=60, _timeout="0.5s", _retry=1)\nb = nap(name="b")\njoin(h, b)'
    result = await goal(planloom, tools, text, replan={"max_rounds": 0}, retry_rounds=0)
    assert (result["status"], result["answer"]) == ("partial", "done")
    assert result["tasks"]["h"]["error_class"] == "timeout"
    assert "## h: failed" in joiner_saw(planloom)
    assert result["seconds"] < 10


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
    """`$15` is no `$1` with a 5 behind it; `$$` is a dollar where `$1` would be a task's value."""
    text = '1. echo("x")\n2. echo("$15, $900, $1.50, $$1 and $1; ${1")\n3. join()'
    result = await goal(planloom, tools, text)
    assert result["tasks"]["2"]["output"] == "$15, $900, x.50, $1 and x; ${1"


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
        ("Action: Finish(12.5", "12.5"),
        ("Thought: t\nAction: Finish(two\nlines)", "two\nlines"),
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


async def test_an_overruled_replan_is_no_answer(planloom: Planloom) -> None:
    """In its last round the original takes the reason in the brackets for the answer."""
    planloom.model.script(PLANNER, '1. calculate("6 * 7")\n2. join()')
    planloom.model.script(JOINER, "Action: Replan(need the 2020 figure)")
    async with planloom.worker():
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 0}})
    assert (result["status"], result["answer"]) == ("partial", {"1": 42})
    assert "need the 2020 figure" in result["reason"]


async def test_what_the_joiner_and_planner_are_told_does_not_grow_with_the_rounds(
    planloom: Planloom, tools: Tools
) -> None:
    """Large outputs are told by their beginning, however often a plan is written."""
    plans = [f't{n} = echo(value="{"x" * 2_000}{n}")\njoin(t{n})' for n in range(5)]
    planloom.model.script(PLANNER, *plans)
    planloom.model.script(JOINER, *["Action: Replan(more)"] * 4, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 4}})
    assert (result["status"], result["rounds"]) == ("completed", 4)
    sizes = [len(seen.text) for seen in planloom.model.seen(PLANNER)]
    assert max(b - a for a, b in itertools.pairwise(sizes[1:])) < 1_000


async def test_a_joiner_without_an_action_is_asked_again_and_never_an_empty_success(
    planloom: Planloom,
) -> None:
    planloom.model.script(PLANNER, '1. calculate("1")\n2. join()')
    planloom.model.script(JOINER, "Well.", FINISH)
    async with planloom.worker():
        result = await planloom.run({"goal": "x"})
    assert result["answer"] == "done"
    assert planloom.model.calls_paid(JOINER) == 2
