"""While runs do their worst, all at once and on one worker, a run of three quick tasks goes on.

How long it takes depends on the machine, and is printed. What does not depend on it is checked: the
event loop of the worker, which all runs share, never works long without a pause, no workflow task
fails, and the hostile runs that can still be busy are. Queries, pages and long arithmetic have
processes of their own: `test_hostile_tools.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload

from tests.model_server import Reply
from tests.support.failed_tasks import failed_task
from tests.support.harness import Handle, Planloom
from tests.support.turns_of_loop import measured_turns
from tests.support.waiting import until

TURN_MAX_SECONDS = 1.0
"""Of processor time for one callback: what was found took 6 to 47 s, an ordinary one 0.05 s."""
QUICK = {
    "plan": {
        "tasks": [
            {"id": "sum", "tool": "calculate", "args": {"expression": "1 + 2"}},
            {"id": "act", "tool": "write_file", "args": {"path": "q.txt", "text": "x" * 9_000}},
            {"id": "read", "tool": "read_file", "args": {"path": "q.txt"}, "depends_on": ["act"]},
        ],
        "answer": {"sum": "${sum}", "read": "${read | length(@)}"},
    }
}
FIRST = {"id": "a", "tool": "calculate", "args": {"expression": "1"}}
DOUBLES = "${a" + " | [@, @]" * 80 + "}"
WAITS = {"plan": {"tasks": [{"id": "q", "human": "?"}], "answer": "${q}"}}
COPIES = [{"op": "copy", "from": "/tasks", "path": f"/tasks/0/args/x{n}"} for n in range(39)]
HALF = "\ud83d"


async def quick_run_beside(planloom: Planloom, what: str) -> None:
    """The run of three quick tasks, and how long it took."""
    began, worked = time.monotonic(), time.process_time()
    result = await planloom.run(QUICK, timeout=100)
    took, worked = time.monotonic() - began, time.process_time() - worked
    print(f"beside {what}: {took:.1f} s, of which this process worked {worked:.1f} s")
    assert result["status"] == "completed"
    assert result["answer"] == {"sum": 3, "read": 9_000}


async def check_tasks(planloom: Planloom, handles: Sequence[Handle]) -> None:
    """No workflow task of these runs failed."""
    for handle in handles:
        for event in (await planloom.history(handle)).events:
            assert failed_task(event) is None, handle.id


async def test_what_models_answer_stops_no_other_run(planloom: Planloom) -> None:
    """Quadratic readers: 200,000 braces, a line without end, a million characters of thought."""
    held: float = 60.0  # until then the answer goes on
    ending = {
        "BRACES": Reply(text="{" * 200_000, chunking=50_000),
        "ENDLESS": Reply(fault="endless_line"),
        "WHOLE": Reply(text="{" * 200_000, fault="ignore_stream"),
        "JOIN": Reply(text='Action: Finish({"a": ' * 8_000, chunking=50_000),
    }
    going_on = {
        "THOUGHTS": Reply(text=["<think>" * 140_000, held], chunking=50_000),
        "PLAN": Reply(text=["a = find(" * 20_000, held], chunking=50_000),
        "JSON": Reply(
            text=['{"tasks": [' + '{"id": "a", "args": [' * 9_000, held], chunking=50_000
        ),
    }
    for name, reply in {**ending, **going_on}.items():
        planloom.model.script(f"{name}-CASE", replace(reply, obeys_limit=False))
    requests: dict[str, dict[str, Any]] = {
        "JOIN": {"plan": {"goal": "JOIN-CASE", "tasks": [FIRST]}, "joiner": True},
        "PLAN": {"goal": "PLAN-CASE"},
        "JSON": {"goal": "JSON-CASE", "syntax": "json"},
    }
    for name in ("BRACES", "ENDLESS", "WHOLE", "THOUGHTS"):
        ask = {"prompt": f"{name}-CASE", "output_schema": {"type": "object"}}
        task = {"id": "a", "ask": ask, "retry": {"max_attempts": 1}}
        requests[name] = {"plan": {"tasks": [task], "answer": "x"}, "retry_rounds": 0}
    async with planloom.worker():
        with measured_turns() as turns:
            first = [await planloom.start(requests[name]) for name in ending]
            await quick_run_beside(planloom, "answers that are read when they have ended")
            ends = [(await planloom.result(handle, 90))["status"] for handle in first]
            second = [await planloom.start(requests[name]) for name in going_on]
            await until(lambda: all(planloom.model.calls(f"{name}-CASE") for name in going_on), 60)
            await quick_run_beside(planloom, "answers that are read while they come")
            still = [(await planloom.progress(handle)).status for handle in second]
        assert ends == ["failed", "failed", "failed", "completed"]
        assert still == ["running", "planning", "planning"]
        assert turns.longest_seconds < TURN_MAX_SECONDS, turns
        for handle in second:
            await handle.cancel()
            assert (await planloom.result(handle))["status"] == "cancelled"
        await check_tasks(planloom, [*first, *second])
    print(f"longest turn of the event loop: {turns.longest_seconds:.2f} s")


async def test_what_runs_are_told_stops_no_other_run(planloom: Planloom) -> None:
    """Expressions and patches that double, halves of characters, payloads nobody can read."""
    calls = [{"id": HALF, "name": f"calculate{HALF}", "arguments": {"expression": HALF}}]
    labelled = f"SUMMARY: {HALF}\nRESULT: {HALF} done\nNEXT_STEP: none"
    planloom.model.script("AGENT-CASE", Reply(tool_calls=calls), labelled)
    planloom.model.script("PLAN-CASE", f'a = calculate(expression="1 {HALF}")\nReplan({HALF})')
    use = {"depends_on": ["a"], "tool": "calculate"}
    plans: list[dict[str, Any]] = [
        {"tasks": [FIRST], "answer": DOUBLES},
        {"tasks": [FIRST, {"id": "b", **use, "args": {"expression": DOUBLES}}]},
        {"tasks": [FIRST, {"id": "b", **use, "args": {"expression": "1"}, "map": DOUBLES}]},
        {"tasks": [FIRST, {"id": "b", "ask": f"what is {DOUBLES}?"}]},
        {"tasks": [FIRST, {"id": "b", "human": f"what is {DOUBLES}?", "timeout": "1s"}]},
        {"tasks": [FIRST, {"id": "b", "plan": {"tasks": [FIRST]}, "args": {"x": DOUBLES}}]},
    ]
    odd = [Payload(metadata={"encoding": b"binary/plain"}, data=b"\xff\xfe")]
    twice = [Payload(metadata={"encoding": b"json/plain"}, data=b"{}")] * 2
    async with planloom.worker():
        with measured_turns() as turns:
            waiting = [await planloom.start(WAITS) for _ in range(2)]
            hostile = [await planloom.start({"plan": p, "retry_rounds": 0}) for p in plans]
            agent = {"agent": {"system": "x", "tools": ["calculate"]}, "task": "AGENT-CASE"}
            hostile.append(await planloom.start(agent, "AgentWorkflow"))
            hostile.append(await planloom.start({"goal": "PLAN-CASE", "replan": {"max_rounds": 0}}))
            for handle in waiting:
                await planloom.until(handle, lambda progress: progress.awaiting == "human")
            large = {"id": "x", "tool": "write_file", "args": {"path": "a", "text": "y" * 2_000}}
            patch = [{"op": "add", "path": "/tasks/0", "value": large}, *COPIES]
            await waiting[0].signal("edit_plan", {"revision": 1, "patch": patch})
            for name in ("approve_plan", "edit_plan", "complete_task", "raise_budget", "pause"):
                await planloom.signal_raw(waiting[1], name, *twice)
                await planloom.signal_raw(waiting[1], name, *odd)
            await quick_run_beside(planloom, "expressions, patches, halves and payloads")
        assert turns.longest_seconds < TURN_MAX_SECONDS, turns
        for handle in waiting:  # they go on, whatever they were told
            await handle.signal("complete_task", {"id": "q", "output": "yes"})
            assert (await planloom.result(handle))["answer"] == "yes"
        for handle in hostile:
            json.dumps(await planloom.result(handle)).encode()
        await check_tasks(planloom, [*waiting, *hostile])
    assert planloom.model.calls_paid("AGENT-CASE") == 2  # the call, and the answer
    print(f"longest turn of the event loop: {turns.longest_seconds:.2f} s")
