"""The joiner asks to see more of an output that was cut: a larger share of it, or a summary."""

from __future__ import annotations

import json

from tests.model_server import Reply, Seen
from tests.support.harness import Planloom

PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
SUMMARY = "A colleague must reach this goal"
FACT = "The code of the vault is 7-3-1."
TOOLS = f"""
from planloom import tool

@tool
def report(kilobytes: int) -> str:
    "A long report with one fact, near its end."
    line = "Nothing of interest was seen. "
    text = line * (kilobytes * 1_000 // len(line))
    return text[:-5_000] + "{FACT}" + text[-5_000:]

@tool
def small() -> str:
    "A short text."
    return "short"
"""
LOOK = json.dumps({"action": "look", "ids": ["a"], "question": "the vault's code"})


def finds(seen: Seen) -> str:
    """A joiner that finishes once it has seen the fact, and looks until then."""
    if FACT in seen.text:
        return json.dumps({"action": "finish", "answer": FACT})
    return LOOK


def sums_up(seen: Seen) -> str:
    return FACT if FACT in seen.text and "the vault's code" in seen.text else "nothing"


def script(planloom: Planloom, kilobytes: int) -> dict[str, str]:
    planloom.model.script(PLANNER, f"a = report(kilobytes={kilobytes})\nb = small()\njoin(a, b)")
    planloom.model.script(SUMMARY, sums_up)
    return {"PLANLOOM_TOOLS": planloom.tools(TOOLS)}


async def test_a_fact_late_in_60_kb_reaches_the_answer_by_a_summary(planloom: Planloom) -> None:
    tools = script(planloom, 60)
    planloom.model.script(JOINER, finds)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "Open the vault"})
        result = await planloom.result(handle)
        usage = await handle.query("usage")
    assert (result["status"], result["answer"]) == ("completed", FACT)
    first, second = planloom.model.seen(JOINER)
    assert (FACT in first.text, '"action": "look"' in first.text) == (False, True)
    assert f"<summary>\n{FACT}\n</summary>" in second.text
    assert "You asked to see more of a: the vault's code" in second.text
    assert "Open the vault" in planloom.model.seen(SUMMARY)[0].text
    assert usage["tokens"] == planloom.model.tokens_paid()
    assert usage["reserved"]["tokens"] == 0


async def test_what_a_larger_share_shows_whole_needs_no_summary(planloom: Planloom) -> None:
    tools = script(planloom, 30)
    planloom.model.script(JOINER, finds)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "Open the vault"})
    assert (result["status"], result["answer"]) == ("completed", FACT)
    assert planloom.model.calls(SUMMARY) == 0
    first, second = planloom.model.seen(JOINER)
    assert len(second.text) - len(first.text) > 20_000
    assert "finish or replan" in second.text  # nothing is left to look at


async def test_a_joiner_that_only_looks_ends_in_bounds(planloom: Planloom) -> None:
    tools = script(planloom, 60)
    planloom.model.script(JOINER, LOOK)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "Open the vault"})
    assert result["status"] == "partial"
    assert "no look is left" in result["reason"]
    assert result["answer"]["blob"]  # what the tasks gave, by id
    # Two looks, then a call that is tried twice and shows its problem twice each time.
    assert planloom.model.calls(JOINER) == 2 + 2 * 3
    assert planloom.model.calls(SUMMARY) == 1  # the second look finds it by content


async def test_ids_that_nobody_knows_and_outputs_shown_whole_go_back_with_those_that_were_cut(
    planloom: Planloom,
) -> None:
    tools = script(planloom, 60)
    wrong = [json.dumps({"action": "look", "ids": ids}) for ids in (["zz"], ["b"])]
    planloom.model.script(JOINER, *wrong, '{"action": "finish", "answer": "none"}')
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "Open the vault"})
    assert (result["status"], result["answer"]) == ("completed", "none")
    _, second, third = planloom.model.seen(JOINER)
    assert 'not cut: "zz"' in second.last
    assert 'not cut: "b"' in third.last
    assert "Outputs that were cut: a." in third.last


async def test_looks_and_summaries_are_reserved_before_they_are_made(planloom: Planloom) -> None:
    tools = script(planloom, 60)
    planloom.model.script(JOINER, Reply(text=LOOK, delay=0.2), finds)
    cap = 12_000
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "Open the vault", "budget": {"tokens": cap}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert "joiner needs" in (shown.detail or "")
        assert (planloom.model.calls(JOINER), planloom.model.calls(SUMMARY)) == (1, 0)
        await handle.execute_update("raise_budget", {"tokens": 90_000})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", FACT)
    assert result["usage"]["tokens"] == planloom.model.tokens_paid()
