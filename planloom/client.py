"""A client of running plans, agents, teams and pools: the public contract, typed."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, get_args, overload

from pydantic import BaseModel
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue, TaskQueueStats
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client as TemporalClient,
)
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from planloom import requests
from planloom.codec import EncryptionCodec
from planloom.controls import Controls
from planloom.errors import (
    AlreadyRunning,
    NoServer,
    NoSuchRun,
    NoWorker,
    PlanloomError,
    Refused,
    RunFailed,
    answered,
    is_task_failing,
    is_unanswered,
    names_no_run,
    problems_in,
    server_error,
)
from planloom.keys import key_ring
from planloom.planner.contract.capacity import (
    CapacityRequest,
    CapacityState,
    PermitReply,
    Release,
    Renew,
    Reserve,
)
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.requests import (
    AgentRequest,
    RunRequest,
    TeamRequest,
)
from planloom.planner.contract.results import (
    RESULT_MODELS,
    Progress,
    RunResult,
    RunStatus,
)
from planloom.planner.contract.settings import Settings, settings_from
from planloom.planner.language.plan import Plan
from planloom.planner.language.references import shortened
from planloom.planner.language.values import PRIORITY_KEYS
from planloom.stream import RunEvent, changes, in_short

__all__ = [
    "AlreadyRunning",
    "Client",
    "NoServer",
    "NoSuchRun",
    "NoWorker",
    "PlanloomError",
    "Pool",
    "Refused",
    "Run",
    "RunFailed",
]

M = TypeVar("M", bound=BaseModel)

QUERY_SECONDS = 10.0
"""A query needs a worker: without one it would block until the caller gives up."""
PERMIT_AGAIN_SECONDS = 0.2
_KNOWN_QUERIES = re.compile(r"expected but not found, known queries: \[([^\]]*)\]")
LOOK_AGAIN_SECONDS = 0.05
"""Between two looks at a run that is streamed: what happens meanwhile comes in one."""
LEAVE_SECONDS = 0.05

# A thread of the SDK's core that still delivers a reply when Python ends aborts the whole program
# (temporalio/sdk-python#300). Measured: 10 of 40 short programs, and none of 40 after a pause.
atexit.register(time.sleep, LEAVE_SECONDS)


def _converter(settings: Settings) -> DataConverter:
    keys = key_ring(settings)
    if keys is None:
        return pydantic_data_converter
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


class Run(Controls):
    """A handle of one run, by workflow id: its result, its progress, and what people decide."""

    def __init__(self, client: Client, id: str, run_id: str | None = None) -> None:
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
            return await self._handle.query(name, rpc_timeout=timedelta(seconds=QUERY_SECONDS))
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
                    run = self._client.run(self.id)
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
        """What the parent run of a sub-plan told it beside the request; None for other runs."""
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
                    rpc_timeout=timedelta(seconds=QUERY_SECONDS),
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


class Pool:
    """A handle of one model endpoint's capacity: the contract of `CapacityWorkflow`, typed."""

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} at {self._client.address}>"

    def __init__(self, client: Client, name: str, settings: Settings) -> None:
        self.name = name
        self.id = settings.capacity_id(name)
        self._client = client
        self._queue = settings.llm_task_queue(name)
        self._run = client.run(self.id)

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
                update={"wait_seconds": left, "answer_seconds": min(left, QUERY_SECONDS / 2)}
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
        run = self._client.run(self.id)
        try:
            return await run.ask(name, payload)
        except (Refused, NoSuchRun):
            # It may have ended before it could answer: then it says why itself.
            ended = self._client.run(self.id, handle.first_execution_run_id)
            if await ended.describe() == "FAILED":
                try:
                    await ended.result_as(CapacityState)
                except RunFailed as failed:
                    raise Refused(str(failed), failed.type) from None
            raise


class Client:
    """A client of Planloom runs: the public contract, typed."""

    def __init__(
        self,
        temporal: TemporalClient,
        task_queue: str = "planloom",
        settings: Settings | None = None,
    ) -> None:
        self.temporal = temporal
        self.settings = settings or settings_from(os.environ)
        """Where the blobs of large plans go: the same place as the workers'."""
        self.task_queue = task_queue
        self.address = temporal.service_client.config.target_host

    @classmethod
    async def connect(cls, settings: Settings | None = None, **overrides: Any) -> Client:
        """Connect by Temporal's own environment settings and profiles, with the settings' keys.

        Raises:
            SettingsError: a key cannot be read.
            NoServer: nothing answers at the address.
        """
        config: dict[str, Any] = {**ClientConfig.load_client_connect_config(), **overrides}
        config.setdefault("target_host", "localhost:7233")
        config.setdefault("data_converter", _converter(settings or Settings()))
        try:
            temporal = await TemporalClient.connect(**config)
        except (RuntimeError, RPCError) as error:
            raise NoServer(config["target_host"], str(error).split("\n")[0][:500]) from None
        return cls(temporal, (settings or Settings()).task_queue, settings)

    def __repr__(self) -> str:
        namespace = self.temporal.namespace
        return f"<Client of {self.address}, namespace {namespace!r}, queue {self.task_queue!r}>"

    async def start(
        self,
        request: RunRequest | AgentRequest | TeamRequest | dict[str, Any] | None = None,
        *,
        id: str | None = None,
        workflow: str | None = None,
        summary: str | None = None,
        **fields: Any,
    ) -> Run:
        """Start a run: of a request, or of its fields by name.

            run = await client.start(goal="Compare …", approval="plan", budget={"usd": 0.5})
            run = await client.start(agent="researcher", task="Which files define the budget?")

        Raises:
            AlreadyRunning: a run of that id has not ended.
            Refused: it is too large. A large plan goes as a blob, and does not count.
            TypeError: no request has a field of that name, or something in it is not JSON.
        """
        document = requests.document_of(request, fields)
        requests.check_json("the request", document)
        workflow = workflow or requests.workflow_of(request, document)
        requests.check_names(workflow, fields)
        requests.check_text("id", id or "")
        id = id or f"{workflow.removesuffix('Workflow').lower()}-{uuid.uuid4().hex[:10]}"
        summary = summary or requests.title_of(document)
        from planloom.store import fitted  # the storage libraries load when they are needed

        document = await fitted(document, self.settings)
        try:
            handle = await self.temporal.start_workflow(
                workflow,
                document,
                id=id,
                task_queue=self.task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=summary,
                priority=Priority(
                    priority_key=PRIORITY_KEYS.get(document.get("priority", "normal"), 3),
                    fairness_key=document.get("tenant"),
                ),
            )
        except WorkflowAlreadyStartedError:
            raise AlreadyRunning(id) from None
        except RPCError as error:
            raise server_error(self.address, error) from None
        return self._handle_of(id, handle.result_run_id)

    @overload
    def run(self, id: str, /, run_id: str | None = None) -> Run: ...

    @overload
    def run(
        self,
        *,
        request: RunRequest | dict[str, Any] | None = None,
        id: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Coroutine[Any, Any, RunResult]: ...

    def run(self, *given: Any, **more: Any) -> Any:
        """`await client.run(goal=…)` starts a run and gives its result; `client.run(id)` is the
        handle of a run that was started before.

        The fields are those of `RunRequest`; `id` and `timeout` (seconds) go beside them. A run
        whose time is over here goes on; so does one whose program ends.

        Raises:
            RunFailed: the run ended as a failure, with the contract's error type.
            TimeoutError: it has not ended within `timeout` seconds.
        """
        if given or set(more) <= {"id", "run_id"}:
            return self._handle_of(*given, **more)
        return self._run_to_its_end(**more)

    def _handle_of(self, id: str, run_id: str | None = None) -> Run:
        requests.check_text("id", id)
        return Run(self, id, run_id)

    async def _run_to_its_end(
        self, *, request: Any = None, timeout: float | None = None, **more: Any
    ) -> RunResult:
        requests.check_seconds(timeout)
        return await (await self.start(request, **more)).result(timeout)

    def pool(self, name: str = "default", settings: Settings | None = None) -> Pool:
        return Pool(self, name, settings or Settings(task_queue=self.task_queue))
