"""`planloom gc` beside a live run: what a run refers to stays, what a deleted run left goes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest

from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.users import StoreUser, record_user
from planloom.collecting import collect_garbage
from planloom.planner.contract.garbage import GarbageJob
from planloom.planner.contract.settings import settings_from
from planloom.workflows.machines.run import batches
from planloom.workflows.shell import runner
from tests.cli.test_cli import planloom_cli
from tests.model_server import Reply
from tests.server.test_agents import call
from tests.support.harness import Handle, Planloom

TOOLS = """
from planloom import tool

@tool
def text(name: str) -> str:
    return f"{name} " * 2_000

@tool(side_effects=True)
def send(name: str) -> str:
    return f"sent {name} " * 1_000
"""
MONTH = 30 * 86_400.0


def task(id: str, tool: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, "args": {"name": id}, **fields}


def plan_of(*ids: str) -> dict[str, Any]:
    return {
        "plan": {"tasks": [task(id, "text") for id in ids], "answer": [f"${{{id}}}" for id in ids]}
    }


AGENT = {"system": "Look.", "tools": ["text", "ask_human"]}
LIVE: dict[str, Any] = {
    "tasks": [
        task("large", "text"),
        task("sent", "send"),
        {"id": "m", "map": list(range(21)), "tool": "text", "args": {"name": "m${item}"}},
        {"id": "sub", "plan": {"tasks": [task("inner", "text")], "answer": "${inner}"}},
        {
            "id": "look",
            "agent": {"system": "Look.", "tools": ["text", "ask_human"]},
            "args": {"task": "Look"},
        },
        {
            "id": "person",
            "human": {"question": "Go on?"},
            "depends_on": ["large", "sent", "m", "sub"],
        },
        {
            "id": "all",
            "tool": "echo_lengths",
            "args": {"values": ["${large}", "${sent}", "${m}", "${sub}", "${look}"]},
            "depends_on": ["person"],
        },
    ],
    "answer": "${all}",
}
LENGTHS = """
@tool
def echo_lengths(values: list[object]) -> list[int]:
    return [len(v) for v in values]
"""


def make_old(folder: Path) -> None:
    at = time.time() - MONTH
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            os.utime(path, (at, at))


async def delete(planloom: Planloom, handle: Handle) -> None:
    """As an operator does, or the namespace's retention."""
    client = planloom.client
    query = f'WorkflowId = "{handle.id}"'
    async for run in client.list_workflows(query):
        await client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=run.id, run_id=run.run_id),
            )
        )
    async with asyncio.timeout(60):
        while (await client.count_workflows(query)).count:  # noqa: ASYNC110 - on the server
            await asyncio.sleep(0.1)


async def test_what_a_run_refers_to_stays_and_what_a_deleted_run_left_goes(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live run that has continued as new, with batches, a sub-plan and an agent; a retained one;
    a fork of a deleted one; and a deleted one."""
    monkeypatch.setattr(runner, "EVENTS_MAX", 30)
    monkeypatch.setattr(batches, "BATCHED_FROM", 10)
    monkeypatch.setattr(batches, "BATCH_ITEMS", 10)
    planloom.model.script(
        "",
        Reply(tool_calls=[call("text", name="seen")]),
        Reply(tool_calls=[call("ask_human", question="Enough?")]),
        "SUMMARY: s\nRESULT: looked\nNEXT_STEP: none",
    )
    blobs = BlobStore(planloom.data_dir / "blobs")

    monkeypatch.setenv("TEMPORAL_ADDRESS", planloom.env["TEMPORAL_ADDRESS"])
    settings = settings_from(planloom.env, {})

    async with planloom.worker(PLANLOOM_TOOLS=planloom.tools(TOOLS + LENGTHS)):
        live = await planloom.start({"plan": LIVE})
        asked = await planloom.until(live, lambda p: len(p.waits) == 2, 60)
        kept = await planloom.start(plan_of("kept"), id=f"{live.id}-kept")
        kept_result = await planloom.result(kept, 60)
        original = await planloom.start(plan_of("forked", "more"), id=f"{live.id}-original")
        await planloom.result(original, 60)
        fork = await planloom_cli(
            planloom, "fork", original.id, "--from", "more", "--id", f"{live.id}-fork"
        )
        assert fork.code == 0, fork
        gone = await planloom.start(
            {"plan": {"tasks": [task("gone", "text"), task("lost", "send")]}}
        )
        gone_result = await planloom.result(gone, 60)
        await delete(planloom, original)
        await delete(planloom, gone)
        make_old(planloom.data_dir)
        dry = await collect_garbage(settings, GarbageJob(is_dry_run=True))
        done = await collect_garbage(settings, GarbageJob(is_dry_run=False))
        assert dry.removed == done.removed
        assert done.removed["blobs"].count >= 2
        assert done.removed["claims"].count == 2
        assert done.kept["claim: it belongs to a run that the server keeps"].count == 2
        for id in ("gone", "lost"):
            name = gone_result["tasks"][id]["blob"]
            assert blobs.backend.size(name) is None
        fork_result = await planloom.client.get_workflow_handle(f"{live.id}-fork").result()
        for result, id in ((kept_result, "kept"), (fork_result, "forked"), (fork_result, "more")):
            assert await blobs.read_bytes(result["tasks"][id]["blob"])
        for wait in asked.waits:
            await live.signal("complete_task", {"id": wait.task, "output": "yes"})
        result = await planloom.result(live, 60)
    assert result["answer"] == [12_000, 10_000, 21, 12_000, 41]
    assert "seen seen" in planloom.model.seen("Enough?")[-1].text


@pytest.mark.slow
async def test_a_store_that_other_servers_use_is_left_alone(planloom: Planloom) -> None:
    blobs = BlobStore(planloom.data_dir / "blobs")
    name = await blobs.put_bytes(b"theirs")
    record_user(blobs.backend, StoreUser(server="x", namespace="theirs", address="far:7233"))
    make_old(planloom.data_dir)
    done = await planloom_cli(planloom, "gc", "--older-than", "2h")
    assert done.code != 0
    assert "far:7233 (theirs)" in done.err
    assert await blobs.read_bytes(name)
    assert (await planloom_cli(planloom, "gc", "--older-than", "1h")).code == 2
    assert (await planloom_cli(planloom, "gc", "--forget-servers")).code == 0
    assert blobs.backend.size(name) is None
