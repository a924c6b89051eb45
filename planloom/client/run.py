"""A handle of one run: its result, its progress, and what people decide."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from planloom import requests
from planloom.client.connection import ANSWER_SECONDS, Connection
from planloom.controls import Controls
from planloom.errors import (
    NoSuchRun,
    NoWorker,
    Refused,
    RunFailed,
    answered,
    is_task_failing,
    is_unanswered,
    names_no_run,
    problems_in,
    server_error,
)
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.results import RESULT_MODELS, Progress, RunResult, RunStatus
from planloom.planner.language.plan import Plan
from planloom.planner.language.references import shortened
from planloom.stream import RunEvent, changes, in_short

M = TypeVar("M", bound=BaseModel)

LOOK_AGAIN_SECONDS = 0.05
"""Between two looks at a run that is streamed: what happens meanwhile comes in one."""
_KNOWN_QUERIES = re.compile(r"expected but not found, known queries: \[([^\]]*)\]")


class Run(Controls):
    """A handle of one run, by workflow id: its result, its progress, and what people decide."""

    def __init__(self, client: Connection, id: str, run_id: str | None = None) -> None:
        self.id = id
        self.run_id = run_id
        self._client = client
        self._last: Progress | None = None
        self._handle = client.temporal.get_workflow_handle(id, run_id=run_id)

    def __repr__(self) -> str:
        seen = in_short(self._last)
        return f"<Run {self.id!r}{f': {seen}' if seen else ''}>"

    def __await__(self) -> NoReturn:
        raise TypeError(
            f'client.run("{shortened(self.id)}") is the handle of a run with that id: await its '
            '.result(). To start a run of a goal: await client.run(goal="…")'
        )

    async def result(self, timeout: float | None = None) -> RunResult:
        """Wait for the end.

        Raises:
            RunFailed: the run ended as a failure, with the contract's error type.
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return await self.result_as(RunResult, timeout)

    async def result_as(self, model: type[M], timeout: float | None = None) -> M:
        requests.check_seconds(timeout)
        try:
            value = await asyncio.wait_for(self._handle.result(), timeout)
        except TimeoutError:
            raise requests.not_ended(self.id, timeout) from None
        except WorkflowFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError):
                raise RunFailed(
                    str(cause.message), cause.type or "", problems_in(cause.details)
                ) from None
            raise RunFailed(str(cause), type(cause).__name__, []) from None
        except RPCError as error:
            raise (await self._translated(error)) from error
        return model.model_validate(value)

    async def query(self, name: str) -> Any:
        """The answer of a query as plain JSON.

        Raises:
            NoWorker: nothing answered within seconds.
            NoSuchRun: no run of that id.
        """
        try:
            return await self._handle.query(name, rpc_timeout=timedelta(seconds=ANSWER_SECONDS))
        except WorkflowQueryFailedError as error:
            if known := _KNOWN_QUERIES.search(str(error)):
                kind = (await self.workflow_type()).removesuffix("Workflow").lower()
                answers = ", ".join(q for q in known[1].split() if not q.startswith("__"))
                raise Refused(
                    f'"{self.id}" ({kind}) has no "{name}"; it answers {answers}', "InvalidRequest"
                ) from None
            raise Refused(f"query {name}: {error}") from None
        except RPCError as error:
            raise (await self._translated(error, asks_worker=True)) from error

    async def progress(self) -> Progress:
        """How the run stands. What was seen last is in the run's `repr`."""
        self._last = Progress.model_validate(await self.query("progress"))
        return self._last

    async def stream(self) -> AsyncIterator[RunEvent]:
        """What happens, as it happens; the first events say how the run stands now.

        The last event is `end`, with the result. A run that ends as a failure ends the stream with
        the exception that `result` would raise.

        Raises:
            NoWorker: no worker answers; the run itself waits.
            NoSuchRun: no run of that id.
        """
        before: Progress | None = None
        run: Run = self
        grown = asyncio.Event()
        grown.set()
        watch = asyncio.create_task(run._watch(grown))
        try:
            while True:
                await grown.wait()
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                grown.clear()
                described = await run._described()
                if described.status is WorkflowExecutionStatus.CONTINUED_AS_NEW:
                    watch.cancel()
                    run = Run(self._client, self.id)
                    watch = asyncio.create_task(run._watch(grown))
                    continue
                with contextlib.suppress(Refused):  # a refused request has no progress
                    self._last = now = await run.progress()
                    for event in changes(before, now):
                        yield event
                    before = now
                is_over = before is not None and before.status in get_args(RunStatus)
                if is_over or described.status is not WorkflowExecutionStatus.RUNNING:
                    break
                if watch.done():
                    watch.result()
        finally:
            watch.cancel()
        model = RESULT_MODELS.get(described.workflow_type or "", RunResult)
        result: Any = await self.result_as(model)
        yield RunEvent("end", result.seconds, state=result.status, result=result)

    async def _watch(self, grown: asyncio.Event) -> None:
        """Set `grown` whenever this run's history has grown; a long poll, no timer."""
        try:
            async for _ in self._handle.fetch_history_events(wait_new_event=True):
                grown.set()
        except RPCError as error:
            raise (await self._translated(error)) from error
        finally:
            grown.set()

    async def plan(self) -> Plan:
        return Plan.model_validate(await self.query("plan"))

    async def request(self) -> Any:
        """What the run was started with, as plain JSON, from its history.

        Raises:
            NoSuchRun: no run of that id.
        """
        inputs = await self._inputs()
        return inputs[0] if inputs else None

    async def lineage(self) -> Any:
        """What the parent run of a sub-plan told it besides the request; None for other runs."""
        inputs = await self._inputs()
        return inputs[1] if len(inputs) > 1 else None

    async def _inputs(self) -> list[Any]:
        try:
            async for event in self._handle.fetch_history_events(page_size=1):
                started = event.workflow_execution_started_event_attributes
                return await self._client.temporal.data_converter.decode(started.input.payloads)
        except RPCError as error:
            raise (await self._translated(error)) from error
        return []

    async def signal(self, name: str, payload: BaseModel | dict[str, Any] | None = None) -> None:
        requests.check_json(f"what {name} is given", payload)
        try:
            await (self._handle.signal(name, payload) if payload else self._handle.signal(name))
        except RPCError as error:
            raise (await self._translated(error)) from error

    async def update(self, name: str, payload: BaseModel | dict[str, Any] | None = None) -> Reply:
        """Ask and get an answer at once.

        Raises:
            Refused: with the reason, for example a revision that was replaced.
        """
        return Reply.model_validate(await self.ask(name, payload))

    async def ask(self, name: str, payload: BaseModel | dict[str, Any] | None = None) -> Any:
        """An update's answer as plain JSON.

        Raises:
            Refused: with the reason.
            NoWorker: nobody answered within seconds; a worker that comes soon may still take it.
        """
        id = uuid.uuid4().hex
        requests.check_json(f"what {name} is given", payload)
        try:
            return await answered(
                lambda: self._handle.execute_update(
                    name,
                    *([payload] if payload is not None else []),
                    id=id,
                    rpc_timeout=timedelta(seconds=ANSWER_SECONDS),
                ),
                self._is_running,
            )
        except WorkflowUpdateFailedError as error:
            kind = error.cause.type if isinstance(error.cause, ApplicationError) else ""
            told = error.cause.message if isinstance(error.cause, ApplicationError) else error.cause
            raise Refused(str(told), kind or "") from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise NoWorker(self._client.task_queue) from None
        except RPCError as error:
            raise (await self._translated(error, asks_worker=True)) from error

    async def describe(self) -> str:
        """The server's word for the run's state: RUNNING, COMPLETED, FAILED …"""
        return ((await self._described()).status or WorkflowExecutionStatus.RUNNING).name

    async def _described(self) -> WorkflowExecutionDescription:
        try:
            return await self._handle.describe()
        except RPCError as error:
            raise (await self._translated(error)) from error

    async def workflow_type(self) -> str:
        """`DagWorkflow`, `AgentWorkflow` or `TeamWorkflow`.

        Raises:
            NoSuchRun: no run of that id.
        """
        try:
            return (await self._handle.describe()).workflow_type
        except RPCError as error:
            raise (await self._translated(error)) from error

    async def cancel(self) -> None:
        """Cancel the run; what has finished is kept in its result. Refused if it has ended."""
        if await self._status() not in (None, WorkflowExecutionStatus.RUNNING):
            raise Refused(f'run "{self.id}" has ended')  # the server would take it silently
        try:
            await self._handle.cancel()
        except RPCError as error:
            raise (await self._translated(error)) from error

    async def _translated(self, error: RPCError, *, asks_worker: bool = False) -> Exception:
        """What the server's refusal means for this run."""
        if names_no_run(error):
            # The server says the same of a run that has ended and of one that never was.
            return (
                Refused(f'run "{self.id}" has ended')
                if await self._status() is not None
                else NoSuchRun(self.id)
            )
        if asks_worker and is_unanswered(error):
            return NoWorker(self._client.task_queue)
        if is_task_failing(error):
            return Refused(
                f'run "{self.id}" cannot answer now, its workflow task fails: {error.message}',
                error.status.name,
            )
        return server_error(self._client.address, error)

    async def _status(self) -> WorkflowExecutionStatus | None:
        """None when the server knows no such run."""
        try:
            return (await self._handle.describe()).status
        except RPCError:
            return None

    async def _is_running(self) -> bool:
        return await self._status() is WorkflowExecutionStatus.RUNNING
