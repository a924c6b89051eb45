"""What a child run has from its parent: only its parent can say it, and it ends with its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from planloom.workflows.shell import children
from tests.support.boss import begin_child, bosses
from tests.support.harness import Planloom
from tests.support.waiting import until

Tools = dict[str, str]
PLAN = {"tasks": [{"id": "t", "tool": "echo", "args": {"value": 1}}], "answer": "${t}"}
AGENT = {"agent": {"id": "a", "system": "You help."}, "task": "go"}
TEAM = {"team": {"members": [{"id": "a", "role": "x"}]}, "task": "go"}
REQUESTS: dict[str, Any] = {
    "DagWorkflow": {"plan": PLAN},
    "AgentWorkflow": AGENT,
    "TeamWorkflow": TEAM,
}


async def test_who_starts_a_run_cannot_say_that_it_is_a_child(
    planloom: Planloom, tools: Tools
) -> None:
    """A request had a field `lineage`: a parent to be signalled, a grant, values of other runs."""
    lineage = {"parent": "another", "root": "another"}
    async with planloom.worker(**tools), bosses(planloom) as queue:
        for kind, request in REQUESTS.items():
            handle = await planloom.start({**request, "lineage": lineage}, kind)
            refused = await planloom.failure(handle)
            assert refused.type == "InvalidRequest"
            assert refused.message.startswith('lineage: no field "lineage"')
        id = f"{planloom.task_queue}-two"
        handle = await planloom.client.start_workflow(
            "DagWorkflow", args=[{"plan": PLAN}, lineage], id=id, task_queue=planloom.task_queue
        )
        assert "2 inputs were given" in (await planloom.failure(handle)).message
        id = f"{planloom.task_queue}-liar"
        handle = await begin_child(
            planloom, queue, id, "DagWorkflow", {"plan": PLAN}, parent="another"
        )
        assert f'the parent is "{id}"' in (await planloom.failure(handle)).message
        id = f"{planloom.task_queue}-true"
        handle = await begin_child(planloom, queue, id, "DagWorkflow", {"plan": PLAN})
        assert (await planloom.result(handle))["answer"] == 1


async def test_a_run_that_is_terminated_takes_all_below_it_along(
    planloom: Planloom,
    tools: Tools,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They went on, and were paid for. Another run has the parent's id by the time they look."""
    monkeypatch.setattr(children, "PARENT_LOOK_SECONDS", 0.5)
    nap = {"id": "n", "tool": "nap", "args": {"name": "n", "seconds": 60}}
    inner = {"tasks": [{"id": "inner", "plan": {"tasks": [nap]}}]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": [{"id": "sub", "plan": inner}]}})
        below = [
            planloom.client.get_workflow_handle(f"{handle.id}/{name}")
            for name in ("sub", "sub/inner")
        ]
        await until(lambda: "start n" in calls())
        await handle.terminate()
        again = await planloom.start({"plan": {"tasks": [nap]}}, id=handle.id)
        ended = await asyncio.gather(*(planloom.result(h) for h in below))
        assert [r["status"] for r in ended] == ["cancelled", "cancelled"]
        assert (await planloom.progress(again)).status == "running"
        await again.cancel()
