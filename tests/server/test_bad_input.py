"""A caller's mistake fails at once with its type and all its problems; nothing hangs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from tests.support.harness import Planloom

TASK = {"id": "a", "tool": "calculate", "args": {"expression": "1"}}


def tasks(*changed: dict[str, Any]) -> dict[str, Any]:
    return {"plan": {"tasks": list(changed)}}


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (None, "InvalidRequest", "without input"),
        ("text", "InvalidRequest", "needs an object"),
        ([], "InvalidRequest", "needs an object"),
        ({}, "InvalidRequest", "exactly one of goal, plan, template"),
        ({"goal": " "}, "InvalidRequest", "goal is empty"),
        ({"goal": "x", "template": "y"}, "InvalidRequest", "exactly one of"),
        ({"goal": "x", "budget": {"tokens": -1}}, "InvalidRequest", "budget.tokens"),
        ({"goal": "x", "budget": -1}, "InvalidRequest", "budget"),
        ({"goal": "x", "aproval": "plan"}, "InvalidRequest", 'Did you mean "approval"'),
        ({"goal": "x", "priority": "hihg"}, "InvalidRequest", 'Did you mean "high"'),
        ({"goal": 3}, "InvalidRequest", "goal"),
        ({"template": "no-such"}, "InvalidPlan", 'no template "no-such"'),
        ({"plan": "not a plan"}, "InvalidPlan", "plan"),
        ({"plan": {"tasks": []}}, "InvalidPlan", "plan.tasks"),
        (tasks(TASK | {"depends_on": ["a"]}), "InvalidPlan", "refers to itself"),
        (tasks(TASK, TASK), "InvalidPlan", "used by tasks 1 and 2"),
        (tasks(TASK | {"tool": "calcluate"}), "InvalidPlan", 'Did you mean "calculate"'),
        (tasks(TASK | {"args": {}}), "InvalidPlan", '"expression" is missing'),
        (tasks(TASK | {"args": {"expression": "${b}"}}), "InvalidPlan", 'no task "b"'),
        (tasks(TASK | {"arg": {}}), "InvalidPlan", 'Did you mean "args"'),
        (tasks({"id": "a"}), "InvalidPlan", "exactly one of tool, ask"),
        (tasks(TASK | {"id": "params"}), "InvalidPlan", "reserved"),
        (tasks(TASK | {"when": "=="}), "InvalidPlan", "not a condition"),
        (tasks(TASK | {"requires": {"at_least": 3}}), "InvalidPlan", "has 0"),
        (tasks(TASK) | {"stop_when": "=="}, "InvalidRequest", "not a condition"),
        (tasks(TASK) | {"stop_when": "b.outcome == 'x'"}, "InvalidPlan", 'no task "b"'),
        (tasks(TASK) | {"tools": ["calculate", "serch"]}, "UnknownTool", "search_text"),
        ({"goal": "x", "tools": ["calcluate"]}, "UnknownTool", 'Did you mean "calculate"'),
        ({"goal": "x", "budget": {"usd": 1e300}}, "InvalidRequest", "budget.usd"),
        ({"goal": "x", "budget": {"tokens": 10**400}}, "InvalidRequest", "budget.tokens"),
        (tasks(TASK | {"estimate": {"usd": 1e300}}), "InvalidPlan", "estimate.usd"),
        ({"goal": "x", "context": "é" * 600_000}, "InvalidRequest", "more than 1,000,000 bytes"),
        ({"goal": "x", "tenant": "é" * 64}, "InvalidRequest", "more than 64 bytes"),
    ],
)
async def test_bad_input_is_refused_at_once(
    planloom: Planloom, request_: Any, kind: str, said: str
) -> None:
    async with planloom.worker():
        run = await planloom.start(request_)
        failure = await planloom.failure(run, timeout=10)
        shown = await run.query("progress")
    assert failure.type == kind, failure
    assert said in str(failure)
    assert (shown["status"], shown["reason"].partition(":")[0]) == ("failed", kind)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500 + "]" * 500,
        json.dumps({"goal": "x", "context": 0}).replace("0", '{"a":' * 250 + "1" + "}" * 250),
        r'{"goal": "half a pair: \ud800"}',
        json.dumps({"goal": "x", "context": 0}).replace("0", "9" * 5_000),
    ],
    ids=["deep list", "deep object", "lone surrogate", "thousands of digits"],
)
@pytest.mark.parametrize("workflow", ["DagWorkflow", "AgentWorkflow", "TeamWorkflow"])
async def test_what_is_no_json_for_python_is_refused_and_hangs_nothing(
    planloom: Planloom, text: str, workflow: str
) -> None:
    typed = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text.encode()))
    async with planloom.worker():
        handle = await planloom.client.start_workflow(
            workflow, typed, id=planloom.task_queue, task_queue=planloom.task_queue
        )
        failure = await planloom.failure(handle, timeout=10)
        shown = await handle.query("progress")
    assert failure.type == "InvalidRequest"
    assert "cannot be read" in str(failure)
    assert "cannot be read" in shown["reason"]


async def test_a_second_input_is_refused(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.client.start_workflow(
            "DagWorkflow",
            args=[tasks(TASK), {"goal": "x"}],
            id=planloom.task_queue,
            task_queue=planloom.task_queue,
        )
        failure = await planloom.failure(handle, timeout=10)
    assert failure.type == "InvalidRequest"
    assert "2 inputs were given" in str(failure)


async def test_a_template_that_uses_itself_ends(planloom: Planloom) -> None:
    folder = planloom.workspace / ".planloom" / "templates"
    folder.mkdir(parents=True)
    twice = "tasks: [{id: s, plan: loop}, {id: again, plan: loop}]"
    (folder / "loop.yaml").write_text(twice)
    (folder / "may-end.yaml").write_text("tasks: [{id: s, map: [1], plan: may-end}]")
    async with planloom.worker():
        failure = await planloom.failure(await planloom.start({"template": "loop"}))
        result = await planloom.run({"template": "may-end"})
    assert failure.type == "InvalidPlan"
    assert "contains itself, and nothing ends that: loop -> loop" in str(failure)
    assert result["status"] == "failed"
    assert "nested deeper than 5" in result["reason"]


async def test_an_agent_or_team_with_a_tool_nobody_knows_is_refused(planloom: Planloom) -> None:
    member = {"id": "m", "role": "reader", "tools": ["read_fiel"]}
    async with planloom.worker():
        for workflow, request in (
            ("AgentWorkflow", {"agent": {"system": "x"}, "task": "t", "tools": ["read_fiel"]}),
            ("AgentWorkflow", {"agent": {"system": "x", "tools": ["read_fiel"]}, "task": "t"}),
            ("TeamWorkflow", {"team": {"members": [member]}, "task": "t"}),
        ):
            failure = await planloom.failure(await planloom.start(request, workflow), timeout=10)
            assert failure.type == "UnknownTool"
            assert 'Did you mean "read_file"' in str(failure)


async def test_a_cycle_is_shown_with_its_path(planloom: Planloom) -> None:
    cycle = [
        TASK | {"id": "a", "depends_on": ["c"]},
        TASK | {"id": "b", "depends_on": ["a"]},
        TASK | {"id": "c", "depends_on": ["b"]},
    ]
    async with planloom.worker():
        failure = await planloom.failure(await planloom.start(tasks(*cycle)))
    assert "wait for each other" in str(failure)
    assert all(f"{x} -> " in str(failure) for x in "abc")


async def test_all_problems_come_at_once_each_with_path_and_remedy(planloom: Planloom) -> None:
    bad = [
        {"id": "a", "tool": "calcluate", "args": {"expression": "1"}},
        {"id": "b", "tool": "calculate", "args": {"expresion": "${z}"}},
        {"id": "b", "tool": "read_file", "args": {"path": 3}},
    ]
    async with planloom.worker():
        failure = await planloom.failure(await planloom.start(tasks(*bad)))
    details = failure.details[0]
    found = {(p["path"], p["code"]) for p in details}
    assert {
        ("tasks.a.tool", "unknown_tool"),
        ("tasks.b.args.expresion", "unknown_argument"),
        ("tasks.b.args.expresion", "missing_reference"),
        ("tasks.b.args.expression", "missing_argument"),
        ("tasks.b.args.path", "wrong_type"),
        ("tasks.b.id", "duplicate_id"),
    } <= found


async def test_a_tool_that_is_not_allowed_is_refused(planloom: Planloom) -> None:
    async with planloom.worker():
        failure = await planloom.failure(
            await planloom.start({**tasks(TASK), "tools": ["read_file"]})
        )
    assert "not allowed in this run" in str(failure)


async def test_a_plan_above_the_size_limit_is_refused_clearly(planloom: Planloom) -> None:
    many = {"plan": {"tasks": [TASK | {"id": f"t{n}"} for n in range(20_001)]}}
    async with planloom.worker():
        failure = await planloom.failure(await planloom.start(many))
    assert "20,001 tasks; at most 20,000" in str(failure)


async def test_the_temporal_program_alone_starts_signals_queries_and_reads(
    planloom: Planloom,
) -> None:
    """DESIGN §4 by hand, with no Planloom program but the worker."""
    temporal = shutil.which("temporal", path=str(Path(sys.executable).parent))
    assert temporal
    address = planloom.env["TEMPORAL_ADDRESS"]

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [temporal, "--address", address, "workflow", *arguments, "-o", "json"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return json.loads(done.stdout) if done.stdout.strip().startswith("{") else done.stdout

    request = json.dumps({"plan": {"tasks": [TASK]}, "approval": "always"})
    start = ("--type", "DagWorkflow", "--task-queue", planloom.task_queue, "--workflow-id")
    async with planloom.worker_process():
        run("start", *start, planloom.task_queue, "--input", request)
        handle = planloom.client.get_workflow_handle(planloom.task_queue)
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        asked = run("query", "--workflow-id", handle.id, "--type", "progress")
        assert asked["queryResult"][0]["status"] == "waiting"
        approval = json.dumps({"revision": 1, "by": "ops"})
        run("signal", "--workflow-id", handle.id, "--name", "approve_plan", "--input", approval)
        result = run("result", "--workflow-id", handle.id)
    assert result["status"] == "COMPLETED"
    assert result["result"]["status"] == "completed"


@pytest.mark.parametrize(
    ("encoding", "data"),
    [(b"binary/null", b"x"), (b"json/plain", b"{"), (b"json/protobuf", b"{}"), (b"x", b"y")],
)
async def test_a_payload_of_any_encoding_is_refused_and_recorded(
    planloom: Planloom, encoding: bytes, data: bytes
) -> None:
    """Found by fuzzing: `binary/null` with content was dropped without a word."""
    payload = RawValue(Payload(metadata={"encoding": encoding}, data=data))
    plan = {"tasks": [{"id": "ask", "human": {"question": "?"}}], "answer": "${ask}"}
    async with planloom.worker():
        started = await planloom.client.start_workflow(
            "DagWorkflow", payload, id=f"odd-{uuid.uuid4().hex}", task_queue=planloom.task_queue
        )
        assert getattr(await planloom.failure(started), "type", "") == "InvalidRequest"
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        await handle.signal("complete_task", payload)
        await handle.signal("complete_task", {"id": "ask", "output": 1})
        result = await planloom.result(handle)
    assert result["answer"] == 1
    assert any("complete_task: input" in note for note in result["notes"])
