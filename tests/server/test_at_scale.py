"""Widths that no plan of a person has: `pytest -m slow -s tests/server/test_at_scale.py`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from planloom.workflows.shell import runner
from tests.server.test_continue_as_new import runs_of
from tests.server.test_teams import JUDGE, TRUSTED, form, speaks, team
from tests.support.harness import Planloom

NOTING = """
import os
from planloom import tool

@tool(idempotent=False)
def note(n: int) -> int:
    "Note down that it was called."
    with open(os.environ["NOTED"], "a") as file:
        file.write(f"{n}\\n")
    return n
"""
ITEMS, SIGNALS, AT_ONCE = 20_000, 12_000, 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


@pytest.fixture(autouse=True)
def own_length() -> Iterator[None]:
    """Histories continue as new where they do for users."""
    before, runner.EVENTS_MAX = runner.EVENTS_MAX, 10_000
    yield
    runner.EVENTS_MAX = before


def told(what: str, began: float) -> None:
    print(f"\n{what}: {time.monotonic() - began:.0f} s", flush=True)


async def test_a_map_of_twenty_thousand_items_calls_its_tool_once_for_each(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = planloom.folder / "noted"
    monkeypatch.setenv("NOTED", str(noted))
    items = {"id": "items", "tool": "range_list", "args": {"count": ITEMS}}
    source = NOTING + (
        "\n@tool\ndef range_list(count: int) -> list:\n"
        '    "The numbers below count."\n    return list(range(count))\n'
    )
    task = {"id": "m", "map": "${items}", "tool": "note", "args": {"n": "${item}"}}
    answer = "${m | [length(@), @[0], @[-1], sum(@)]}"
    began = time.monotonic()
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(source)):
        request = {"plan": {"tasks": [items, task], "answer": answer}}
        handle = await planloom.start(request)
        result = await planloom.result(handle, timeout=1_100)
    told(f"a map of {ITEMS:,} items", began)
    assert (result["status"], result["answer"]) == (
        "completed",
        [ITEMS, 0, ITEMS - 1, sum(range(ITEMS))],
    ), result["reason"]
    assert result["tasks"]["m"]["items"] == {"succeeded": ITEMS}
    assert Counter(noted.read_text().split()) == Counter(map(str, range(ITEMS)))


async def test_a_run_takes_twelve_thousand_signals_and_goes_on(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one workflow run may have been sent."""
    noted = planloom.folder / "noted"
    monkeypatch.setenv("NOTED", str(noted))
    tasks = [
        {"id": "before", "tool": "note", "args": {"n": 1}},
        {"id": "q", "human": {"question": "Well?"}, "depends_on": ["before"]},
        {"id": "after", "tool": "note", "args": {"n": 2}, "depends_on": ["q"]},
    ]
    began = time.monotonic()
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(NOTING)):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${q} ${after}"}})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        for at in range(0, SIGNALS, AT_ONCE):
            await asyncio.gather(
                *(
                    handle.signal("complete_task", {"id": f"nobody {n}", "output": n})
                    for n in range(at, at + AT_ONCE)
                )
            )
        told(f"{SIGNALS:,} signals were sent", began)
        await handle.execute_update("complete_task", {"id": "q", "output": "red"})
        result = await planloom.result(handle, timeout=600)
        count = await runs_of(planloom, handle.id)
    told(f"a run that takes {SIGNALS:,} signals, as {count} workflow runs", began)
    assert (result["status"], result["answer"]) == ("completed", "red 2")
    assert noted.read_text().split() == ["1", "2"]
    assert count > 1


async def test_a_team_of_five_speaks_forty_rounds(planloom: Planloom) -> None:
    """`test_agents_continue.py` has the same with short histories."""
    planloom.model.script(JUDGE, TRUSTED)
    names = [f"m{n}" for n in range(5)]
    for name in names:
        speaks(planloom, name, form(f"{name} says so"))
    request = {"task": "Decide", "team": team(*names), "rounds": 40, "consensus": False}
    began = time.monotonic()
    async with planloom.worker():
        handle = await planloom.start(request, "TeamWorkflow")
        result = await planloom.result(handle, timeout=600)
    told("a team of 5 with 40 rounds", began)
    assert (result["status"], len(result["rounds"])) == ("completed", 41)
    assert planloom.model.calls_paid() == 5 * 41 + 1
