"""What starts runs, and finds those that were started."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from typing import Any, overload

from temporalio.common import Priority, WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from planloom import requests
from planloom.client.connection import Connection
from planloom.client.pool import Pool
from planloom.client.run import Run
from planloom.errors import AlreadyRunning, server_error
from planloom.planner.contract.requests import (
    AgentRequest,
    RunRequest,
    TeamRequest,
)
from planloom.planner.contract.results import RunResult
from planloom.planner.contract.settings import Settings
from planloom.planner.language.values import PRIORITY_KEYS


class Client(Connection):
    """A client of Planloom runs: the public contract, typed."""

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
