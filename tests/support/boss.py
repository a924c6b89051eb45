"""A workflow that is no part of Planloom and starts one of ours as its child."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from temporalio import workflow
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import ParentClosePolicy

from tests.support.harness import Handle, Planloom


@workflow.defn
class Boss:
    """Starts the child `<own id>/child` with these inputs, and waits for it."""

    @workflow.run
    async def run(self, kind: str, inputs: list[Any], queue: str) -> Any:
        return await workflow.execute_child_workflow(
            kind,
            args=inputs,
            id=f"{workflow.info().workflow_id}/child",
            task_queue=queue,
            parent_close_policy=ParentClosePolicy.ABANDON,
        )


@contextlib.asynccontextmanager
async def bosses(planloom: Planloom) -> AsyncIterator[str]:
    """The queue of a worker for them."""
    queue = f"{planloom.task_queue}-boss"
    runner = UnsandboxedWorkflowRunner()
    async with Worker(planloom.client, task_queue=queue, workflows=[Boss], workflow_runner=runner):
        yield queue


async def begin_child(
    planloom: Planloom, queue: str, id: str, kind: str, request: Any, **lineage: Any
) -> Handle:
    """The child, begun by a boss of this id that says this of it."""
    inputs = [request, {"parent": id, "root": id, **lineage}]
    await planloom.client.start_workflow(
        Boss.run, args=[kind, inputs, planloom.task_queue], id=id, task_queue=queue
    )
    handle = planloom.client.get_workflow_handle(f"{id}/child")
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(RPCError):
                await handle.describe()
                return handle
            await asyncio.sleep(0.01)
