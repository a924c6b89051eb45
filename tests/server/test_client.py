"""The client's errors, by status code and details; updates that a failed workflow task carried."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Detail
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import WorkflowNotReadyFailure
from temporalio.client import (
    Client as TemporalClient,
)
from temporalio.client import (
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    WorkflowUpdateHandle,
)
from temporalio.service import RPCError, RPCStatusCode

from planloom import Client, NoServer, NoSuchRun, NoWorker, Refused, Run, TaskId
from planloom.errors import UPDATE_ATTEMPTS, is_task_failing, is_unanswered, server_error
from planloom.workflows.shell.converter import data_converter
from tests.support.harness import Planloom

WAITS: dict[str, Any] = {"plan": {"tasks": [{"id": "h", "human": {"question": "?"}}]}}


def rpc_error(status: RPCStatusCode, *details: Any, message: str = "some words") -> RPCError:
    packed = []
    for each in details:
        packed.append(Detail())
        packed[-1].Pack(each)
    raw = GrpcStatus(code=status.value, message=message, details=packed)
    return RPCError(message, status, raw.SerializeToString())


async def waiting_run(planloom: Planloom) -> Run:
    run = await Client(planloom.client, planloom.task_queue).start(WAITS)
    await planloom.until(
        planloom.client.get_workflow_handle(run.id), lambda p: p.awaiting == "human"
    )
    return run


async def test_a_run_that_never_was_and_one_that_has_ended_are_told_apart(
    planloom: Planloom,
) -> None:
    """The server answers both with the same code and the same detail."""
    async with planloom.worker():
        run = await waiting_run(planloom)
        reply = await run.update("complete_task", {"id": "h", "output": 1})
        assert reply.accepted
        await run.result(10)
        for ask in (run.signal("pause"), run.update("pause")):
            with pytest.raises(Refused, match=f'run "{run.id}" has ended'):
                await ask
        never = Client(planloom.client, planloom.task_queue).run("never")
        for ask in (never.signal("pause"), never.update("pause"), never.query("progress")):
            with pytest.raises(NoSuchRun):
                await ask
        with pytest.raises(NoSuchRun):
            await never.result()


async def test_a_namespace_that_is_missing_is_no_missing_run(planloom: Planloom) -> None:
    elsewhere = await TemporalClient.connect(
        planloom.client.service_client.config.target_host, namespace="nowhere"
    )
    run = Client(elsewhere).run("any")
    for ask in (run.signal("pause"), run.query("progress"), run.describe()):
        with pytest.raises(Refused, match="Namespace nowhere is not found"):
            await ask
    with pytest.raises(Refused, match="Namespace nowhere is not found"):
        await Client(elsewhere).start(WAITS)


async def test_a_question_that_no_worker_answers_is_told_as_that(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planloom.client.run.ANSWER_SECONDS", 1.0)
    run = await Client(planloom.client, planloom.task_queue).start(WAITS)
    for ask in (run.query("progress"), run.update("pause")):
        with pytest.raises(NoWorker, match=planloom.task_queue):
            await ask


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (rpc_error(RPCStatusCode.UNAVAILABLE), NoServer),
        (rpc_error(RPCStatusCode.PERMISSION_DENIED), Refused),
        (rpc_error(RPCStatusCode.UNAUTHENTICATED), Refused),
        (rpc_error(RPCStatusCode.RESOURCE_EXHAUSTED), Refused),
    ],
)
def test_a_server_that_answered_is_not_told_as_absent(error: RPCError, kind: type) -> None:
    assert type(server_error("localhost:7233", error)) is kind


def test_a_failing_workflow_task_is_not_told_as_a_missing_worker() -> None:
    """Both come with the same code; a detail tells them apart, whatever the words are."""
    failing = rpc_error(RPCStatusCode.FAILED_PRECONDITION, WorkflowNotReadyFailure())
    nobody = rpc_error(RPCStatusCode.FAILED_PRECONDITION)
    assert (is_task_failing(failing), is_unanswered(failing)) == (True, False)
    assert (is_task_failing(nobody), is_unanswered(nobody)) == (False, True)


TASK_FAILED = rpc_error(RPCStatusCode.FAILED_PRECONDITION, WorkflowNotReadyFailure())
LOST = rpc_error(RPCStatusCode.NOT_FOUND)


class TaskFails(Interceptor, OutboundInterceptor):
    """The server fails the workflow task that carries an update, `times` times."""

    def __init__(self, times: int, *, after: bool = False, error: RPCError = TASK_FAILED) -> None:
        self.times = times
        self.error = error
        self.after = after
        """Whether the update was done all the same, and only its answer lost."""
        self.ids: list[str | None] = []

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        self.next = next
        return self

    async def start_workflow_update(
        self, input: StartWorkflowUpdateInput
    ) -> WorkflowUpdateHandle[Any]:
        self.ids.append(input.update_id)
        fails = len(self.ids) <= self.times
        if not fails or self.after:
            handle = await self.next.start_workflow_update(input)
        if fails:
            raise self.error
        return handle


async def client_through(planloom: Planloom, fails: TaskFails) -> Client:
    temporal = await TemporalClient.connect(
        planloom.client.service_client.config.target_host,
        data_converter=data_converter(),
        interceptors=[fails],
    )
    return Client(temporal, planloom.task_queue)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [TASK_FAILED, LOST], ids=["task failed", "lost"])
async def test_an_update_that_the_server_dropped_is_asked_for_again_and_done_once(
    planloom: Planloom, error: RPCError, after: bool
) -> None:
    """1. The update goes out with a workflow task. 2. An activity ends meanwhile: the server fails
    the task (UnhandledCommand) and drops the update; or the server is restarted and does not find
    it. 3. It is sent again under the same id."""
    fails = TaskFails(1 if after else 2, after=after, error=error)
    async with planloom.worker():
        run = await waiting_run(planloom)
        again = (await client_through(planloom, fails)).run(run.id)
        reply = await again.update("complete_task", {"id": "h", "output": "yes"})
        result = await run.result(10)
    assert reply.accepted  # a second update would be refused: the task is answered already
    assert result.tasks[TaskId("h")].output == "yes"
    assert len(fails.ids) == fails.times + 1
    assert len(set(fails.ids)) == 1


async def test_an_update_of_a_run_that_has_ended_is_asked_for_once_more_only(
    planloom: Planloom,
) -> None:
    fails = TaskFails(100, error=LOST)
    async with planloom.worker():
        run = await waiting_run(planloom)
        await run.cancel()
        await run.result(10)
        ended = (await client_through(planloom, fails)).run(run.id)
        with pytest.raises(Refused, match="has ended"):
            await ended.update("pause")
    assert len(fails.ids) == 2


async def test_an_update_whose_workflow_task_always_fails_is_given_up(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planloom.errors.UPDATE_AGAIN_SECONDS", 0.001)
    fails = TaskFails(100)
    async with planloom.worker():
        run = await waiting_run(planloom)
        again = (await client_through(planloom, fails)).run(run.id)
        with pytest.raises(Refused, match="its workflow task fails"):
            await asyncio.wait_for(again.update("pause"), 60)
        await run.cancel()
    assert len(fails.ids) == UPDATE_ATTEMPTS
