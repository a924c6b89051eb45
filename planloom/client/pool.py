"""A handle of one model endpoint's capacity."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic import BaseModel
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue, TaskQueueStats
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from planloom.client.connection import ANSWER_SECONDS, Connection
from planloom.client.run import Run
from planloom.errors import NoSuchRun, Refused, RunFailed, server_error
from planloom.planner.contract.capacity import (
    CapacityRequest,
    CapacityState,
    PermitReply,
    Release,
    Renew,
    Reserve,
)
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.settings import Settings
from planloom.planner.language.values import PRIORITY_KEYS

PERMIT_AGAIN_SECONDS = 0.2


class Pool:
    """A handle of one model endpoint's capacity: the contract of `CapacityWorkflow`, typed."""

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} at {self._client.address}>"

    def __init__(self, client: Connection, name: str, settings: Settings) -> None:
        self.name = name
        self.id = settings.capacity_id(name)
        self._client = client
        self._queue = settings.llm_task_queue(name)
        self._run = Run(client, self.id)

    async def state(self) -> CapacityState | None:
        """The state now; None while nobody has used the pool."""
        try:
            found = await self._run.query("state")
        except NoSuchRun:
            return None
        return CapacityState.model_validate(found) if found else None

    async def waiting(self) -> dict[str, int]:
        """Calls that wait in the pool's queue on the server, by priority."""
        stats = await self._stats()
        return {level: s.approximate_backlog_count for level, s in stats.items()}

    async def oldest_seconds(self) -> dict[str, float]:
        """How long the first in line has waited there, by priority."""
        stats = await self._stats()
        return {
            level: round(s.approximate_backlog_age.ToTimedelta().total_seconds(), 1)
            for level, s in stats.items()
        }

    async def _stats(self) -> dict[str, TaskQueueStats]:
        request = DescribeTaskQueueRequest(
            namespace=self._client.temporal.namespace,
            task_queue=TaskQueue(name=self._queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
        try:
            found = await self._client.temporal.workflow_service.describe_task_queue(request)
        except RPCError as error:
            raise server_error(self._client.address, error) from None
        levels = {key: name for name, key in PRIORITY_KEYS.items()}
        return {
            str(levels.get(key, key)): stats
            for key, stats in sorted(found.stats_by_priority_key.items())
            if stats.approximate_backlog_count
        }

    async def change(self, name: str, payload: BaseModel | dict[str, Any]) -> Reply:
        """`set`, `drain` or `resume`; starts the pool's workflow if it does not run yet.

        Raises:
            Refused: with the reason, for example a pool that the worker does not know.
        """
        return Reply.model_validate(await self._ask(name, payload))

    async def permit(self, name: str, payload: Reserve | Renew | Release) -> PermitReply:
        """`reserve`, `renew` or `release`; `reserve` waits for a permit as long as it says."""
        if not isinstance(payload, Reserve):
            return PermitReply.model_validate(await self._ask(name, payload))
        until = time.monotonic() + payload.wait_seconds
        while True:
            # One answer takes no longer than a call may; asked again, it keeps its place.
            left = max(0.0, until - time.monotonic())
            wish = payload.model_copy(
                update={"wait_seconds": left, "answer_seconds": min(left, ANSWER_SECONDS / 2)}
            )
            reply = PermitReply.model_validate(await self._ask(name, wish))
            if not reply.waiting or not left:
                return reply
            await asyncio.sleep(PERMIT_AGAIN_SECONDS)

    async def _ask(self, name: str, payload: BaseModel | dict[str, Any]) -> Any:
        try:
            handle = await self._client.temporal.start_workflow(
                "CapacityWorkflow",
                CapacityRequest(pool=self.name),
                id=self.id,
                task_queue=self._client.task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"Capacity of the pool {self.name}",
            )
        except RPCError as error:
            raise server_error(self._client.address, error) from None
        run = Run(self._client, self.id)
        try:
            return await run.ask(name, payload)
        except (Refused, NoSuchRun):
            # It may have ended before it could answer: then it says why itself.
            ended = Run(self._client, self.id, handle.first_execution_run_id)
            if await ended.describe() == "FAILED":
                try:
                    await ended.result_as(CapacityState)
                except RunFailed as failed:
                    raise Refused(str(failed), failed.type) from None
            raise
