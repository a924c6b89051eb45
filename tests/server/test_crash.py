"""Any process may be killed at any time: nothing finished is done or paid for twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.s3 import s3
from tests.support.waiting import until

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"


def ended(calls: Calls) -> list[str]:
    return [c.removeprefix("end ") for c in calls() if c.startswith("end ")]


@pytest.mark.slow
async def test_a_worker_killed_twice_costs_no_finished_task(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks = [
        {
            "id": f"t{n}",
            "tool": "nap",
            "args": {"name": f"t{n}", "seconds": 0.4},
            "depends_on": [f"t{n - 1}"] if n else [],
        }
        for n in range(6)
    ]
    async with planloom.worker_process(**tools) as worker:
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${t5}"}})
        for kill_after in ("t0", "t2"):
            await planloom.until(handle, lambda p, t=kill_after: p.tasks.get(t) == "succeeded")
            await worker.kill()
            await worker.start()
        result = await planloom.result(handle, timeout=90)
    assert (result["status"], result["answer"]) == ("completed", "t5")
    counts = Counter(ended(calls))
    assert counts["t0"] == counts["t2"] == 1
    assert all(n == 1 for n in counts.values()), counts


async def test_a_killed_worker_pays_for_no_finished_model_call_again(planloom: Planloom) -> None:
    planloom.model.script("first", "one")
    planloom.model.script("second", Reply(text="two", delay=1.0), "two")
    tasks = [
        {"id": "a", "ask": "first"},
        {"id": "b", "ask": "second ${a}"},
    ]
    async with planloom.worker_process() as worker:
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await until(lambda: planloom.model.calls("second") == 1)
        await worker.kill()
        await worker.start()
        result = await planloom.result(handle, timeout=90)
    assert result["tasks"]["b"]["output"] == "two"
    assert planloom.model.calls_paid("first") == 1


async def test_a_planner_killed_after_three_of_eight_tasks_ends_with_one_plan(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    """The second attempt is given the accepted lines and goes on after them."""
    lines = [f't{n} = nap(name="t{n}")\n' for n in range(8)]
    slow = Reply(text=[*lines[:3], 60.0, *lines[3:], "join(t7)"], chunking="line")
    rest = "".join(lines[3:]) + 'join(answer="${t7}")'
    planloom.model.script(PLANNER, slow, rest)
    async with planloom.worker_process(**tools) as worker:
        handle = await planloom.start({"goal": "naps"})
        await planloom.until(handle, lambda p: len(p.tasks) == 3 and p.counts.get("succeeded") == 3)
        await asyncio.sleep(1.2)  # a heartbeat is sent once a second
        await worker.kill()
        await worker.start()
        result = await planloom.result(handle, timeout=90)
    assert (result["status"], result["answer"]) == ("completed", "t7")
    assert sorted(result["tasks"]) == [f"t{n}" for n in range(8)]
    assert all(n == 1 for n in Counter(ended(calls)).values())
    second = planloom.model.seen(PLANNER)[1].text
    assert 't2 = nap(name="t2")' in second
    assert result["planning"]["planner_attempts_lost"] == 1
    # What the killed attempt had paid for is told, and part of the usage.
    paid_twice = result["planning"]["wasted_tokens"]
    assert paid_twice > 500  # the prompt alone
    assert result["usage"]["tokens"] > paid_twice + 500


# Killed between an act and the report of its result

ACTING_TOOLS = """
import asyncio, os
from pathlib import Path
from planloom import tool, ToolError

def _lines(name):
    file = Path(os.environ[name])
    return file.read_text().split() if file.exists() else []

def _note(name, line):
    with open(os.environ[name], "a") as file:
        file.write(line + "\\n")
        file.flush()
        os.fsync(file.fileno())

async def _post(name, wait):
    pause = float(os.environ["PAUSE_SECONDS"])
    _note("BEGAN_FILE", name)
    if os.environ.get("REFUSE"):
        raise ToolError("too many requests", retry_after=5.0)
    if wait == "before":
        await asyncio.sleep(pause)
    _note("ACTED_FILE", name)
    if wait == "after":
        await asyncio.sleep(pause)
    return "posted " + name

def _found(context, args):
    return "found " + args["name"] if args["name"] in _lines("ACTED_FILE") else None

@tool(side_effects=True)
async def post(name: str, wait: str) -> str:
    "Act, and wait before or after it."
    return await _post(name, wait)

@tool(side_effects=True, check=_found)
async def post_checked(name: str, wait: str) -> str:
    "The same, and whether it acted can be looked up."
    return await _post(name, wait)
"""


class Acting:
    """Two workers one after the other, and the world outside Temporal, where their tool acts."""

    def __init__(self, planloom: Planloom, sharing: str) -> None:
        self._folder = planloom.folder
        self._common = {
            "PLANLOOM_TOOLS": planloom.tools(ACTING_TOOLS),
            "ACTED_FILE": str(self._folder / "acted"),
            "BEGAN_FILE": str(self._folder / "began"),
        }
        self._sharing = sharing

    def worker(self, number: int, pause_seconds: float) -> dict[str, str]:
        """The environment of the first or second worker."""
        data = 1 if self._sharing == "data folder" else number
        env = {"PLANLOOM_DATA_DIR": str(self._folder / f"data{data}")}
        if self._sharing == "object store":
            env["PLANLOOM_BLOB_URL"] = "s3://bucket/runs"
        return self._common | env | {"PAUSE_SECONDS": str(pause_seconds)}

    def began(self) -> list[str]:
        return self._lines("began")

    def acted(self) -> list[str]:
        return self._lines("acted")

    def _lines(self, name: str) -> list[str]:
        file = self._folder / name
        return sorted(file.read_text().split()) if file.exists() else []


@pytest.mark.parametrize("sharing", ["data folder", "object store", "nothing"])
async def test_a_side_effect_is_done_once_though_its_worker_dies_before_it_can_say_so(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch, sharing: str
) -> None:
    """Killed after the act, and before it with its claim written; with and without a `check`."""
    tasks = [
        {"id": f"{wait}_{tool}", "tool": tool, "args": {"name": f"{wait}_{tool}", "wait": wait}}
        for wait in ("before", "after")
        for tool in ("post", "post_checked")
    ]
    acting = Acting(planloom, sharing)
    with s3(monkeypatch):
        async with planloom.worker_process(**acting.worker(1, 600.0)) as first:
            handle = await planloom.start({"plan": {"tasks": tasks}})
            await until(lambda: len(acting.began()) == 4 and len(acting.acted()) == 2)
            await first.kill()
        assert acting.acted() == ["after_post", "after_post_checked"]
        async with planloom.worker_process(**acting.worker(2, 0.0)):
            result = await planloom.result(handle, timeout=90)
    ended = {id: (task["outcome"], task.get("output")) for id, task in result["tasks"].items()}
    assert ended == {
        "after_post": ("unknown", None),
        "after_post_checked": ("succeeded", "found after_post_checked"),
        "before_post": ("unknown", None),
        "before_post_checked": ("succeeded", "posted before_post_checked"),
    }
    assert acting.acted() == ["after_post", "after_post_checked", "before_post_checked"]
    # Who shares a store sees the claim; who does not is told that there may have been one.
    why = "left no claim" if sharing == "nothing" else "left no result"
    for id in ("after_post", "before_post"):
        assert why in result["tasks"][id]["reason"]


async def test_an_act_that_was_refused_is_done_by_a_worker_that_shares_nothing(
    planloom: Planloom,
) -> None:
    """That nothing was done travels with the retry: it needs no claim to be seen."""
    acting = Acting(planloom, "nothing")
    task = {"id": "t", "tool": "post", "args": {"name": "t", "wait": "no"}}
    async with planloom.worker_process(**acting.worker(1, 0.0), REFUSE="yes") as first:
        handle = await planloom.start({"plan": {"tasks": [task]}})

        async def is_refused() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return any(a.attempt == 2 for a in pending)

        for _ in range(1000):
            if await is_refused():
                break
            await asyncio.sleep(0.02)
        await first.kill()
    assert acting.began() == ["t"]
    assert acting.acted() == []
    async with planloom.worker_process(**acting.worker(2, 0.0)):
        result = await planloom.result(handle, timeout=60)
    assert (result["status"], result["answer"]) == ("completed", {"t": "posted t"})
    assert acting.acted() == ["t"]
