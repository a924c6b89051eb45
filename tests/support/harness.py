"""`Planloom`: what a test of the whole system needs, against a real server and a scripted model."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowQueryFailedError,
)
from temporalio.exceptions import FailureError
from temporalio.service import RPCError, RPCStatusCode

from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from planloom.planner.contract.results import Progress
from tests.model_server import ModelServer
from tests.support.process import WorkerProcess

Handle = WorkflowHandle[Any, Any]
POLL_SECONDS = 0.02


class Planloom:
    """One test's Planloom: queues, folders and ids of its own on the shared server.

        async def test_…(planloom):
            planloom.model.script("capital of France", "Paris")
            async with planloom.worker():
                handle = await planloom.start({"plan": {…}})
                assert (await planloom.result(handle))["status"] == "completed"

    The test runs in `folder`: tool modules written there are found by PLANLOOM_TOOLS.
    """

    def __init__(self, client: Client, model: ModelServer, folder: Path) -> None:
        self.client = client
        self.model = model
        self.folder = folder
        self.workspace = folder / "workspace"
        self.data_dir = folder / "data"
        self.task_queue = f"planloom-{uuid.uuid4().hex[:12]}"
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """The environment of this test's workers and clients."""
        return {
            "TEMPORAL_ADDRESS": self.client.service_client.config.target_host,
            "TEMPORAL_NAMESPACE": self.client.namespace,
            "PLANLOOM_TASK_QUEUE": self.task_queue,
            "PLANLOOM_DATA_DIR": str(self.data_dir),
            "PLANLOOM_WORKSPACE": str(self.workspace),
            "PLANLOOM_MODEL": "test-model",
            "OPENAI_BASE_URL": self.model.url,
            "OPENAI_API_KEY": "test-key",
        }

    def tools(self, source: str) -> str:
        """Write a tool module; the name is for `worker(PLANLOOM_TOOLS=…)`."""
        name = f"test_tools_{uuid.uuid4().hex[:8]}"
        (self.folder / f"{name}.py").write_text(inspect.cleandoc(source) + "\n", encoding="utf-8")
        return name

    @contextlib.asynccontextmanager
    async def worker(self, **env: str) -> AsyncIterator[Any]:
        """Workers of all queues in this process, built by `worker.build_workers`; gives `Parts`."""
        from planloom import (
            worker,  # the composition root is imported by nothing but tests of the whole
        )

        environment = {**os.environ, **self.env, **env}
        settings = worker.read_settings(environment)
        data = Path(settings.data_dir)
        parts = worker.Parts(
            settings,
            worker.tools_from(settings),
            worker.open_blobs(settings, None),
            worker.ModelClient(settings, environment, worker.Prices(settings)),
            worker.ToolTimes(data / "tool_times.json"),
            list(SEARCH_ATTRIBUTES),
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(parts.models.close)
            for each in worker.build_workers(self.client, parts):
                await stack.enter_async_context(each)
            assert parts.limiters is not None
            await parts.limiters.start()
            stack.push_async_callback(parts.limiters.close)
            yield parts

    @contextlib.asynccontextmanager
    async def worker_process(self, **env: str) -> AsyncIterator[WorkerProcess]:
        """`python worker.py`, polling. `kill()` and `start()` it as the test needs."""
        process = WorkerProcess({**self.env, **env}, self.folder)
        await process.start()
        try:
            yield process
        finally:
            await process.stop()

    async def start(
        self,
        request: dict[str, Any],
        workflow: str = "DagWorkflow",
        id: str | None = None,
        **options: Any,
    ) -> Handle:
        """Start a run from plain JSON, as the `temporal` program does."""
        return await self.client.start_workflow(
            workflow,
            request,
            id=id or f"run-{uuid.uuid4().hex[:12]}",
            task_queue=self.task_queue,
            **options,
        )

    async def result(self, handle: Handle, timeout: float = 30.0) -> dict[str, Any]:
        """The result as plain JSON; when it takes too long, the error says where the run is.

        Raises:
            WorkflowFailureError: the run ended as a failure.
        """
        try:
            return dict(await asyncio.wait_for(handle.result(), timeout))
        except TimeoutError:
            raise AssertionError(
                f"{handle.id} has not ended after {timeout} s: {await self._state_of(handle)}"
            ) from None

    async def failure(self, handle: Handle, timeout: float = 30.0) -> FailureError:
        """The failure that the run ended with; `.type` and `.details` are the contract's."""
        with pytest.raises(WorkflowFailureError) as seen:
            await self.result(handle, timeout)
        assert isinstance(seen.value.cause, FailureError)
        return seen.value.cause

    async def run(
        self, request: dict[str, Any], workflow: str = "DagWorkflow", timeout: float = 30.0
    ) -> dict[str, Any]:
        """Start and wait."""
        return await self.result(await self.start(request, workflow), timeout)

    async def progress(self, handle: Handle) -> Progress:
        return Progress.model_validate(await handle.query("progress"))

    async def until(
        self, handle: Handle, predicate: Callable[[Progress], bool], timeout: float = 15.0
    ) -> Progress:
        """Ask for the progress until it is as wanted; the error shows the last one seen."""
        deadline = time.monotonic() + timeout
        last: object = "no answer"
        while time.monotonic() < deadline:
            try:
                progress = await asyncio.wait_for(
                    self.progress(handle), max(0.1, deadline - time.monotonic())
                )
            except (RPCError, WorkflowQueryFailedError, TimeoutError) as error:
                if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                    raise
                last = repr(error)
            else:
                if predicate(progress):
                    return progress
                last = progress
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(
            f"{handle.id} is not as wanted after {timeout} s; last progress: {last}; "
            f"{await self._state_of(handle)}"
        )

    async def signal_raw(self, handle: Handle, name: str, *payloads: Payload) -> None:
        """Send a signal with these payloads, whatever they are."""
        await self.client.workflow_service.signal_workflow_execution(
            SignalWorkflowExecutionRequest(
                namespace=self.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=handle.id),
                signal_name=name,
                input=Payloads(payloads=payloads),
            )
        )

    async def history(self, handle: Handle) -> WorkflowHistory:
        """The history so far: `.events`, `.to_json()`."""
        return await handle.fetch_history()

    async def _state_of(self, handle: Handle) -> str:
        """What a developer would look up first: failing workflow tasks and activities."""
        description = await handle.describe()
        events = (await self.history(handle)).events
        pending = [
            f"{a.activity_type.name} ({a.activity_id}) attempt {a.attempt}: "
            f"{a.last_failure.message or 'no failure'}"
            for a in description.raw_description.pending_activities
        ]
        failed = [
            e.workflow_task_failed_event_attributes.failure
            for e in events
            if e.HasField("workflow_task_failed_event_attributes")
        ]
        task = f"{failed[-1].message}\n{failed[-1].stack_trace}" if failed else "none"
        return f"{len(events)} events, pending activities: {pending}, failing workflow task: {task}"
