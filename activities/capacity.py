"""A worker's side of the pools: its limiters, permits, and the server's rates."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import timedelta

from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    ListTaskQueuePartitionsRequest,
    UpdateTaskQueueConfigRequest,
)
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from planloom.activities.models.heartbeats import Heartbeat
from planloom.activities.models.pool_limiter import PoolLimiter, Reporter
from planloom.planner.contract.capacity import (
    CapacityRequest,
    Directive,
    PermitReply,
    PoolLoaded,
    PoolNotice,
    QueueRate,
    Release,
    Report,
    Reserve,
)
from planloom.planner.contract.jobs import PermitJob
from planloom.planner.contract.names import INVALID_REQUEST
from planloom.planner.contract.retries import penalised
from planloom.planner.contract.settings import Settings

log = logging.getLogger("planloom.capacity")

REASON = "planloom: "
"""Begins the reason of every limit set by us, so that a person sees who did it."""
RPC_TIMEOUT = timedelta(seconds=5)
PERMIT_ANSWER_SECONDS = 10.0
"""For one answer while a permit is waited for; then it asks again and keeps its place."""
PERMIT_RETRY_SECONDS = 0.2


class PoolLimiters:
    """The limiters of a worker process, one per pool, and their reports to `CapacityWorkflow`s."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.worker_queue = f"{settings.task_queue}-worker-{uuid.uuid4().hex[:12]}"
        """This process's own, for notices that cannot wait until it reports again."""
        classes = penalised(settings.retry_table)
        self._penalised = classes if classes != penalised() else None
        self._limiters: dict[str, PoolLimiter] = {}

    def limiter(self, pool: str) -> PoolLimiter | None:
        """The pool's limiter; None for a pool this worker does not have."""
        if pool not in self._limiters and pool in self._settings.pools:
            self._limiters[pool] = PoolLimiter(
                pool,
                self._settings.pools[pool],
                self._reporter(pool),
                worker=self._worker,
                task_queue=self._settings.llm_task_queue(pool),
                worker_queue=self.worker_queue,
                penalised=self._penalised,
            )
        return self._limiters.get(pool)

    async def start(self) -> None:
        """Join the pools that have limits, and those whose queue was left stopped."""
        for name, pool in self._settings.pools.items():
            limiter = self.limiter(name)
            if limiter is not None and (pool.is_metered or await self._is_stopped(name)):
                limiter.start_reporting()

    @activity.defn(name="notify_worker")
    async def notify_worker(self, notice: PoolNotice) -> None:
        """Notice of a pool's `CapacityWorkflow`; it arrives on this process's own task queue."""
        limiter = self.limiter(notice.pool)
        if limiter is not None:
            limiter.notify(notice.cool_seconds, report_now=notice.report_now)

    async def close(self) -> None:
        await asyncio.gather(*(limiter.close() for limiter in self._limiters.values()))

    def _reporter(self, pool: str) -> Reporter:
        id = self._settings.capacity_id(pool)
        queue = self._settings.task_queue

        async def report(report: Report) -> Directive:
            handle = self._client.get_workflow_handle(id)
            try:
                answer: Directive = await handle.execute_update(
                    "report", report, result_type=Directive, rpc_timeout=RPC_TIMEOUT
                )
                return answer
            except (RPCError, WorkflowUpdateFailedError) as error:
                # The workflow has ended, or is about to continue as new.
                if isinstance(error, RPCError) and error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                if report.is_leaving:
                    return Directive()
            whole = report.model_copy(
                update={
                    "settings": self._settings.pools[pool].limits(),
                    "task_queue": self._settings.llm_task_queue(pool),
                }
            )
            request = CapacityRequest(
                pool=pool, settings=whole.settings, task_queue=whole.task_queue
            )
            start: WithStartWorkflowOperation[object, object] = WithStartWorkflowOperation(
                "CapacityWorkflow",
                request,
                id=id,
                task_queue=queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"Capacity of the pool {pool}",
            )
            directive: Directive = await self._client.execute_update_with_start_workflow(
                "report",
                whole,
                start_workflow_operation=start,
                result_type=Directive,
                rpc_timeout=RPC_TIMEOUT,
            )
            return directive

        return report

    async def _is_stopped(self, pool: str) -> bool:
        return await has_our_limit(self._client, self._settings.llm_task_queue(pool))


async def has_our_limit(client: Client, task_queue: str) -> bool:
    """Whether the server limits this queue because Planloom asked it to."""
    try:
        described = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=task_queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                report_config=True,
            ),
            timeout=RPC_TIMEOUT,
        )
    except RPCError:
        return False
    limit = described.config.queue_rate_limit
    return limit.metadata.reason.startswith(REASON) and limit.HasField("rate_limit")


async def partitions_of(client: Client, task_queue: str) -> int:
    """Into how many parts the server divides the queue; 1 where it does not say."""
    try:
        found = await client.workflow_service.list_task_queue_partitions(
            ListTaskQueuePartitionsRequest(
                namespace=client.namespace, task_queue=TaskQueue(name=task_queue)
            ),
            timeout=RPC_TIMEOUT,
        )
    except RPCError:
        return 1
    return max(1, len(found.activity_task_queue_partitions))


class CapacityActivities:
    """What `CapacityWorkflow` lets a worker do."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._settings = client, settings

    @activity.defn(name="set_queue_rate")
    async def set_queue_rate(self, job: QueueRate) -> str:
        """Tell the server how fast the pool's queue may dispatch. "" when done, else why not.

        A limit that somebody else set is not taken away. A server divides a queue's rate equally
        over its partitions although calls do not lie in them equally: the last of them would wait
        in the fullest one at a fraction of the rate. So each partition gets the whole rate, and
        the workers' even pace keeps the sum.
        """
        is_free = job.per_second is None and not job.weights and not job.unset
        if is_free and not await has_our_limit(self._client, job.task_queue):
            return ""
        limit = UpdateTaskQueueConfigRequest.RateLimitUpdate(reason=f"{REASON}{job.reason}"[:200])
        if job.per_second is not None:
            parts = await partitions_of(self._client, job.task_queue)
            limit.rate_limit.CopyFrom(RateLimit(requests_per_second=job.per_second * parts))
        request = UpdateTaskQueueConfigRequest(
            namespace=self._client.namespace,
            identity=self._client.identity,
            task_queue=job.task_queue,
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            update_queue_rate_limit=limit,
            set_fairness_weight_overrides=job.weights,
            unset_fairness_weight_overrides=job.unset,
        )
        try:
            await self._client.workflow_service.update_task_queue_config(
                request, timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            log.warning("the rate of %s cannot be set: %s", job.task_queue, error.message)
            return error.message[:300]
        return ""

    @activity.defn(name="take_permit")
    async def take_permit(self, job: PermitJob) -> None:
        """Wait until the holder has its permit.

        Raises:
            ApplicationError: `InvalidRequest`: it asks for more than the pool can ever give.
        """
        wish = Reserve(
            holder=job.holder,
            requests=job.requests,
            calls=job.calls,
            wait_seconds=3600,
            answer_seconds=PERMIT_ANSWER_SECONDS,
            ttl_seconds=job.ttl_seconds,
            priority=job.priority,
            tenant=job.tenant,
        )
        async with Heartbeat():
            try:
                while not (reply := await self._reserve(job, wish)).allowed:
                    if not reply.waiting:
                        text = f"pool {job.pool}: {'; '.join(reply.reasons)}"
                        raise ApplicationError(text, type=INVALID_REQUEST, non_retryable=True)
                    await asyncio.sleep(PERMIT_RETRY_SECONDS)
            except asyncio.CancelledError:
                handle = self._client.get_workflow_handle(job.capacity_id)
                with contextlib.suppress(RPCError):
                    await handle.signal("release", Release(holder=job.holder))
                raise

    async def _reserve(self, job: PermitJob, wish: Reserve) -> PermitReply:
        settings = self._settings.pools.get(job.pool)
        start: WithStartWorkflowOperation[object, object] = WithStartWorkflowOperation(
            "CapacityWorkflow",
            CapacityRequest(
                pool=job.pool,
                settings=settings.limits() if settings is not None else None,
                task_queue=self._settings.llm_task_queue(job.pool),
            ),
            id=job.capacity_id,
            task_queue=self._settings.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"Capacity of the pool {job.pool}",
        )
        try:
            reply: PermitReply = await self._client.execute_update_with_start_workflow(
                "reserve",
                wish,
                start_workflow_operation=start,
                result_type=PermitReply,
                rpc_timeout=timedelta(seconds=PERMIT_ANSWER_SECONDS * 2),
            )
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            # The SDK says so of both; a cancel of this activity is one too.
            task = asyncio.current_task()
            if activity.is_cancelled() or (task is not None and task.cancelling()):
                raise asyncio.CancelledError from None
            return PermitReply(allowed=False, waiting=True)
        return reply

    @activity.defn(name="load_pool")
    async def load_pool(self, pool: str) -> PoolLoaded:
        """This worker's settings of a pool: without them a capacity workflow rules over nothing."""
        pools: Mapping[str, object] = self._settings.pools
        if pool not in pools:
            names = ", ".join(pools)
            return PoolLoaded(problem=f'no pool "{pool}". Pools of this worker: {names}')
        return PoolLoaded(
            settings=self._settings.pools[pool].limits(),
            task_queue=self._settings.llm_task_queue(pool),
        )
