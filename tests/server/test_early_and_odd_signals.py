"""Decisions that come before their object, and signals that nobody can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle

from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]
Handle = WorkflowHandle[Any, Any]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
ASKS = {"tasks": [{"id": "q", "human": {"question": "which?"}}], "answer": "${q}"}
HELD = {"tasks": [{"id": "t", "tool": "nap", "args": {"name": "t"}, "approval": True}]}


def script(planloom: Planloom, *plans: str) -> None:
    planloom.model.script(PLANNER, *plans)
    planloom.model.script(JOINER, FINISH)


def encoded(value: Any, encoding: bytes = b"json/plain") -> Payload:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Payload(metadata={"encoding": encoding}, data=data)


async def test_an_approval_pasted_right_behind_the_start_counts(
    planloom: Planloom, tools: Tools
) -> None:
    """approve_plan {revision: 1} comes before there is a plan; it was dropped, and the run hung."""
    script(planloom, 'a = nap(name="a")\njoin(a)')
    request = {"goal": "x", "approval": "always"}
    handle = await planloom.start(
        request, start_signal="approve_plan", start_signal_args=[{"revision": 1, "by": "ops"}]
    )
    async with planloom.worker(**tools):
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert any("approved early" in n for n in result["notes"]), result["notes"]


async def test_a_rejection_pasted_right_behind_the_start_counts(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    script(planloom, 'a = nap(name="a")\njoin(a)')
    request = {"goal": "x", "approval": "plan"}
    rejection = {"revision": 1, "reason": "no", "by": "eve"}
    handle = await planloom.start(
        request, start_signal="reject_plan", start_signal_args=[rejection]
    )
    async with planloom.worker(**tools):
        result = await planloom.result(handle)
    assert (result["status"], calls()) == ("rejected", [])
    assert 'by "eve": no' in result["reason"]


async def test_an_early_decision_about_another_revision_is_refused_and_recorded(
    planloom: Planloom, tools: Tools
) -> None:
    script(planloom, 'a = nap(name="a")\njoin(a)')
    request = {"goal": "x", "approval": "plan"}
    handle = await planloom.start(
        request, start_signal="approve_plan", start_signal_args=[{"revision": 7}]
    )
    async with planloom.worker(**tools):
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("approve_plan", {"revision": 1})
        result = await planloom.result(handle)
    assert any("no revision 7" in n for n in result["notes"])


@pytest.mark.parametrize("early", [True, False])
async def test_an_answer_counts_early_or_late_and_is_checked_against_the_schema(
    planloom: Planloom, tools: Tools, early: bool
) -> None:
    schema = {"type": "string", "enum": ["red", "blue"]}
    plan = {
        "tasks": [
            {"id": "first", "tool": "nap", "args": {"name": "first", "seconds": 1}},
            {
                "id": "q",
                "human": {"question": "which?", "schema": schema},
                "depends_on": ["first"],
            },
        ],
        "answer": "${q}",
    }
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.tasks.get("first") == "running")
        if early:
            await handle.signal("complete_task", {"id": "q", "output": "green"})
            await handle.signal("complete_task", {"id": "q", "output": "red"})
        else:
            await planloom.until(handle, lambda p: p.awaiting == "human")
            await handle.signal("complete_task", {"id": "q", "output": "green"})
            await handle.signal("complete_task", {"id": "q", "output": "red"})
        result = await planloom.result(handle)
    assert result["answer"] == "red"
    assert any("ignored" in n for n in result["notes"]), result["notes"]


@pytest.mark.parametrize(("approve", "outcome"), [(True, "succeeded"), (False, "cancelled")])
async def test_an_early_approval_of_a_task_counts_when_it_comes_to_it(
    planloom: Planloom, tools: Tools, approve: bool, outcome: str
) -> None:
    plan = {
        "tasks": [
            {"id": "a", "tool": "nap", "args": {"name": "a", "seconds": 0.5}},
            {
                "id": "t",
                "tool": "nap",
                "args": {"name": "t"},
                "approval": True,
                "depends_on": ["a"],
            },
        ]
    }
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.tasks.get("a") == "running")
        await handle.execute_update("approve_task", {"id": "t", "approve": approve})
        result = await planloom.result(handle)
    assert result["tasks"]["t"]["outcome"] == outcome


ODD = {
    "two": [encoded({"id": "q", "output": 1}), encoded({"id": "q", "output": 2})],
    "three": [encoded(1), encoded(2), encoded(3)],
    "bytes": [encoded(b"\xff\xfe", b"binary/plain")],
    "unknown encoding": [encoded(b"?", b"martian/plain")],
    "no json": [encoded(b"{", b"json/plain")],
    "null": [encoded(None)],
    "a number": [encoded(7)],
    "deep": [encoded(b"[" * 5_000 + b"]" * 5_000)],
    "half an emoji": [encoded(b'{"id": "\\ud83d"}')],
}


@pytest.mark.parametrize("odd", list(ODD))
@pytest.mark.parametrize(
    "name",
    [
        "complete_task",
        "plan_written",
        "grant_wanted",
        "child_asks",
        "deadline_moved",
        "child_ended",
        "report_to_parent",
        "nobody_knows_me",
    ],
)
async def test_no_signal_fails_the_workflow_task(
    planloom: Planloom, tools: Tools, name: str, odd: str
) -> None:
    """Two payloads, bytes on a typed signal, an unknown encoding: each failed it forever."""
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": ASKS})
        await planloom.signal_raw(handle, name, *ODD[odd])
        await planloom.until(handle, lambda p: p.awaiting == "human")
        await handle.execute_update("complete_task", {"id": "q", "output": "x"})
        result = await planloom.result(handle)
    assert result["answer"] == "x"
    if name in ("complete_task", "nobody_knows_me"):
        assert any("ignored" in n for n in result["notes"]), result["notes"]


async def test_a_wait_names_the_command_that_answers_it(planloom: Planloom, tools: Tools) -> None:
    """Also while other tasks run: `awaiting` hid an open question then."""
    plan = {
        "tasks": [
            {"id": "q", "human": {"question": "which one's it?"}},
            {"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 2}},
            {"id": "t", "tool": "nap", "args": {"name": "t"}, "approval": True},
        ]
    }
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        shown = await planloom.until(handle, lambda p: len(p.waits) == 2)
        assert shown.tasks["slow"] == "running"
        assert shown.awaiting == "approval"
        kinds = {w.kind: w for w in shown.waits}
        assert f"--workflow-id {handle.id} --name approve_task" in kinds["approval"].command
        assert "--name complete_task" in kinds["human"].command
        assert "which one's it?" in kinds["human"].what
        again = await planloom.until(handle, lambda p: p.seconds > shown.seconds + 0.3)
        assert again.seconds > shown.seconds
        await handle.execute_update("approve_task", {"id": "t"})
        await handle.execute_update("complete_task", {"id": "q", "output": 1})
        assert (await planloom.result(handle))["status"] == "completed"


async def test_what_reads_a_refused_task_waits_for_its_repair(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    """`a = nap(nmae="A")` is refused and `b` reads it, in one batch: `b` ran with null."""
    script(
        planloom,
        'a = nap(nmae="A")\nb = nap(name="B-${a}")\njoin(b)',
        'a = nap(name="A")\njoin(b)',
    )
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert [c for c in calls() if c.startswith("start")] == ["start A", "start B-A"]
    assert (result["status"], result["planning"]["repairs"]) == ("completed", 1)


async def test_what_reads_a_refused_task_that_is_never_repaired_does_not_run(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    bad = 'c = nap(name="C")\na = nap(nmae="A")\nb = nap(name="B-${a}")\njoin(b)'
    script(planloom, bad, bad, bad)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert not any("B-" in c for c in calls())
    assert "b" not in result["tasks"], result["tasks"]


async def test_a_side_effect_that_ran_out_of_time_gets_no_other_round(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It acts, then is slow; the round repeated it under another key: it acted twice."""
    log = planloom.folder / "acts.txt"
    log.touch()
    monkeypatch.setenv("ACTS", str(log))
    module = planloom.tools(
        "import asyncio, os\nfrom pathlib import Path\nfrom planloom import tool\n\n"
        "@tool(side_effects=True)\nasync def act(name: str) -> str:\n"
        '    "Acts, and is slow then."\n'
        '    with Path(os.environ["ACTS"]).open("a") as file: file.write(name + "\\n")\n'
        "    await asyncio.sleep(30)\n    return name\n"
    )
    task = {
        "id": "t",
        "tool": "act",
        "args": {"name": "x"},
        "timeout": 1,
        "retry": {"max_attempts": 1},
        "fallback": "other",
    }
    async with planloom.worker(PLANLOOM_TOOLS=module):
        result = await planloom.run({"plan": {"tasks": [task]}, "retry_rounds": 3})
    assert log.read_text().splitlines() == ["x"]
    assert result["tasks"]["t"]["outcome"] == "unknown", result["tasks"]["t"]


async def test_speculations_in_vain_count_as_tasks(planloom: Planloom, tools: Tools) -> None:
    """`tasks: 3`, one condition, four losers that were started ahead: four started, two counted."""
    tasks: list[dict[str, Any]] = [
        {"id": "c", "tool": "nap", "args": {"name": "c", "seconds": 0.6}}
    ]
    tasks += [
        {
            "id": f"s{n}",
            "tool": "echo",
            "args": {"value": n},
            "speculate": True,
            "when": "c.output == 'never'",
        }
        for n in range(4)
    ]
    request = {"plan": {"tasks": tasks}, "budget": {"tasks": 3, "on_budget": "partial"}}
    async with planloom.worker(**tools):
        result = await planloom.run(request)
    started = [t for t, r in result["tasks"].items() if r["times"]["started"] is not None]
    assert result["usage"]["tasks"] == len(started) <= 3, result


async def test_a_child_whose_time_is_over_takes_its_own_children_along(
    planloom: Planloom, tools: Tools
) -> None:
    """The server's time-out ended the child and left its children running."""
    inner = {"tasks": [{"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 60}}]}
    middle = {"tasks": [{"id": "inner", "plan": inner}]}
    plan = {"tasks": [{"id": "sub", "plan": middle, "timeout": 1.5}]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "retry_rounds": 0})
        result = await planloom.result(handle)
        grandchild = planloom.client.get_workflow_handle(f"{handle.id}/sub/inner")
        ended = await grandchild.result()
    assert result["tasks"]["sub"]["outcome"] == "failed"
    assert result["tasks"]["sub"]["error_class"] == "timeout"
    assert ended["status"] == "cancelled"
