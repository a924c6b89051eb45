"""Any process may be killed at any time: nothing finished is done or paid for twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.waiting import until

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"


def ended(calls: Calls) -> list[str]:
    return [c.removeprefix("end ") for c in calls() if c.startswith("end ")]


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


async def test_a_side_effect_is_done_once_though_its_worker_dies(planloom: Planloom) -> None:
    task = {"id": "w", "tool": "write_file", "args": {"path": "out.txt", "text": "hello"}}
    after = {"id": "n", "tool": "calculate", "args": {"expression": "1"}, "depends_on": ["w"]}
    async with planloom.worker_process() as worker:
        handle = await planloom.start({"plan": {"tasks": [task, after]}})
        await planloom.until(handle, lambda p: p.tasks.get("w") == "succeeded")
        await worker.kill()
        await worker.start()
        result = await planloom.result(handle, timeout=60)
    assert result["status"] == "completed"
    assert (planloom.workspace / "out.txt").read_text() == "hello"
