"""Signals that come while a query has closed a workflow task and its local activity ends."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from planloom.workflows.shell.runner import InOrder
from tests.server.test_random_runs import replays
from tests.support.harness import Planloom

RUNS = 20


async def test_runs_replay_whatever_is_asked_while_they_are_prepared(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chaos run 300022: `resume` was applied after the result of `prepare_run`, and by the replay
    before it, so the run failed its workflow task for ever."""
    loop = asyncio.get_running_loop()
    plain = InOrder.__call__

    async def resume(id: str) -> None:
        await planloom.client.get_workflow_handle(id).signal("resume", {"by": "test"})

    def resumed_meanwhile(run: InOrder, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """A signal comes during each run's first workflow task."""
        if not act.is_replaying and act.jobs[0].HasField("initialize_workflow"):
            id = act.jobs[0].initialize_workflow.workflow_id
            asyncio.run_coroutine_threadsafe(resume(id), loop).result(30)
        return plain(run, act)

    monkeypatch.setattr(InOrder, "__call__", resumed_meanwhile)
    task = {"id": "a", "tool": "calculate", "args": {"expression": "6 * 7"}}
    request = {"plan": {"tasks": [task], "answer": "${a}"}}
    handles = [await planloom.start(request) for _ in range(RUNS)]
    for handle in handles:
        await handle.signal("pause", {"by": "test"})
    # Without a worker, queries wait for the first workflow task, and come with it.
    queries = [asyncio.create_task(handle.query("progress")) for handle in handles]
    async with planloom.worker():
        results = await asyncio.gather(*(planloom.result(handle) for handle in handles))
        await asyncio.gather(*queries, return_exceptions=True)
    assert [r["answer"] for r in results] == [42] * RUNS
    for handle in handles:
        await replays(planloom, handle)
