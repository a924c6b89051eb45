"""Groups on a real server: one activity for many tasks, and a run that looks like any other."""

from __future__ import annotations

from typing import Any

from tests.support.harness import Planloom
from tests.support.waiting import until

SOURCE = """
import asyncio, os
from planloom import tool, ToolError

@tool(local=True)
async def cheap(value: object = None) -> object:
    "Its argument."
    return value

@tool(local=True)
def long(n: int) -> str:
    "A long text."
    return "x" * n

@tool(local=True)
async def odd(n: int) -> int:
    "Fails for even numbers."
    if n % 2 == 0:
        raise ToolError(f"{n} is even")
    return n

@tool(local=True)
async def busy(path: str) -> int:
    "Works at the second call."
    with open(path, "a+") as calls:
        calls.write("x")
        calls.seek(0)
        count = len(calls.read())
    if count < 2:
        raise ToolError("busy", retry=True)
    return 2

@tool(local=True)
async def fatal(path: str) -> str:
    "Ends the worker, the first time."
    if not os.path.exists(path):
        await asyncio.sleep(1.6)
        open(path, "w").close()
        os._exit(1)
    return "alive"

@tool(local=True)
async def count(path: str) -> str:
    "Leaves a mark."
    with open(path, "a") as file:
        file.write("x")
    return "done"
"""


def cheap(id: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "cheap", "args": {"value": value}, **more}


async def activities(planloom: Planloom, handle: Any) -> list[str]:
    """The types of the activities that a run scheduled, in order."""
    events = (await planloom.history(handle)).events
    found = [e.activity_task_scheduled_event_attributes for e in events]
    return [a.activity_type.name for a in found if a.activity_type.name]


async def test_a_fan_out_with_its_end_is_one_activity(planloom: Planloom) -> None:
    tasks = [cheap(f"t{n}", n) for n in range(300)]
    tasks.append(cheap("all", [f"${{t{n}}}" for n in range(300)]))
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(SOURCE)):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${all}"}})
        result = await planloom.result(handle)
        groups = await activities(planloom, handle)
        assert set(groups) == {"run_group"}  # a second one where the first took over a second
        assert result["answer"] == list(range(300))
        assert result["usage"]["tool_calls"] == 301
        events = (await planloom.history(handle)).events
        assert len(events) <= 16 + 8 * len(groups)
        assert any(b"301 tasks: t0, t1, t2" in e.user_metadata.summary.data for e in events)
    times = result["tasks"]["t7"]["times"]
    assert times["ready"] <= times["started"] <= times["ended"] <= result["seconds"]


async def test_a_chain_passes_large_values_along(planloom: Planloom) -> None:
    tasks: list[dict[str, Any]] = [{"id": "a", "tool": "long", "args": {"n": 1_000_000}}]
    tasks += [cheap("b", "${a}"), cheap("c", "${b | length(@)}", when="length(${b}) > `10`")]
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(SOURCE)):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${c}"}})
        result = await planloom.result(handle)
        assert set(await activities(planloom, handle)) == {"run_group"}
        history = (await planloom.history(handle)).to_json()
    assert result["answer"] == 1_000_000
    assert result["tasks"]["a"]["blob"] == result["tasks"]["b"]["blob"]
    assert len(history) < 40_000


async def test_items_of_a_map_share_activities(planloom: Planloom) -> None:
    tasks = [
        {"id": "rows", "tool": "odd", "args": {"n": "${item}"}, "map": list(range(200))},
        cheap("sum", "${rows | length(@)}"),
    ]
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(SOURCE)):
        handle = await planloom.start({"plan": {"tasks": tasks}})
        result = await planloom.result(handle)
        assert set(await activities(planloom, handle)) == {"run_group"}
    assert result["tasks"]["rows"]["output"] == [n if n % 2 else None for n in range(200)]
    assert result["tasks"]["rows"]["items"] == {"succeeded": 100, "failed": 100}
    assert result["tasks"]["sum"]["output"] == 200


async def test_a_failed_attempt_is_repeated_and_counted(planloom: Planloom) -> None:
    path = str(planloom.folder / "busy.txt")
    retry = {"max_attempts": 2, "initial_seconds": 0.05}
    tasks = [
        {"id": "b", "tool": "busy", "args": {"path": path}, "retry": retry},
        cheap("c"),
        cheap("d", "${b}"),
    ]
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(SOURCE)):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["status"] == "completed"
    assert (result["tasks"]["b"]["attempts"], result["tasks"]["d"]["output"]) == (2, 2)
    assert (planloom.folder / "busy.txt").read_text() == "xx"


async def test_fuse_false_runs_each_task_alone(planloom: Planloom) -> None:
    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(SOURCE)):
        handle = await planloom.start({"plan": {"tasks": [cheap("a"), cheap("b")]}, "fuse": False})
        result = await planloom.result(handle)
        assert await activities(planloom, handle) == []  # local activities
        tasks = [cheap("a", 1, fuse=True), cheap("b", 2, fuse=True), cheap("c", 3)]
        handle = await planloom.start({"plan": {"tasks": tasks}, "fuse": False})
        assert (await planloom.result(handle))["status"] == "completed"
        assert set(await activities(planloom, handle)) == {"run_group"}
    assert result["status"] == "completed"


async def test_a_worker_that_dies_in_a_group_repeats_only_what_was_not_told(
    planloom: Planloom,
) -> None:
    """What had ended by the last heartbeat is not run once more."""
    counted, fatal = planloom.folder / "counted.txt", planloom.folder / "fatal.txt"
    tasks = [
        {"id": "c", "tool": "count", "args": {"path": str(counted)}},
        {"id": "f", "tool": "fatal", "args": {"path": str(fatal)}},
        cheap("end", ["${c}", "${f}"]),
    ]
    async with planloom.worker_process(PLANLOOM_TOOLS=planloom.tools(SOURCE)) as process:
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${end}"}})
        await until(fatal.exists)
        await process.kill()
        await process.start()
        result = await planloom.result(handle, timeout=60)
        assert set(await activities(planloom, handle)) == {"run_group"}
    assert (result["status"], result["answer"]) == ("completed", ["done", "alive"])
    assert counted.read_text() == "x"
