"""`planloom mcp`: an MCP server by which a coding agent hands a job to Planloom and follows it.

It is a client of the public contract like the command line. Each tool answers with plain JSON.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from planloom import Client, PlanloomError, Run, RunFailed
from planloom.console.mistakes import UsageError
from planloom.console.run_report import report_of
from planloom.planner.contract.requests import ApprovalMode
from planloom.planner.contract.results import Progress
from planloom.planner.language.plain_errors import problem_of

INSTRUCTIONS = (
    "Planloom runs plans durably: a goal in words, or a plan as a graph of tasks. Start a run with "
    "`start`, then call `result` until it has ended; it waits a while each time. When `progress` "
    "or `result` shows `waits`, a person must decide: show them what waits, and pass their "
    "decision on with `approve`, `reject` or `answer`. Never approve by yourself unless you were "
    "told to. A run continues when you are gone; find it again by its id."
)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)
DECIDES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)
WAIT_MAX_SECONDS = 300.0
HOST = "127.0.0.1"
STOP_SECONDS = 2
"""How long a call that still waits for a run may hold back the end of the server."""

T = TypeVar("T")

RunId = Annotated[str, Field(description="The run's id, as `start` gave it.", min_length=1)]
By = Annotated[str | None, Field(description="Who decided; the run records it.")]


class _Server(MCPServer):
    """What is wrong with arguments is said in plain words, all of it at once."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Any = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            lines = [_argument(entry) for entry in error.__cause__.errors()]
            raise ToolError(f"{name}: {'; '.join(lines)}") from None


def _argument(entry: Any) -> str:
    path = ".".join(str(step) for step in entry["loc"])
    return problem_of(entry, entry["loc"], path, BaseModel).line()


def build_server(connect: Callable[[], Awaitable[Client]]) -> MCPServer:
    """The server; `connect` is called when the first tool is."""
    server = _Server("planloom", instructions=INSTRUCTIONS, log_level="WARNING")
    jobs = Jobs(connect)

    @server.tool(annotations=STARTS)
    async def start(
        goal: Annotated[str | None, Field(description="What is wanted, in words.")] = None,
        plan: Annotated[
            dict[str, Any] | None, Field(description="A plan instead: {tasks: […], answer: …}.")
        ] = None,
        template: Annotated[str | None, Field(description="A template's name instead.")] = None,
        params: Annotated[dict[str, Any] | None, Field(description="Of the template.")] = None,
        tools: Annotated[list[str] | None, Field(description="The only tools it may use.")] = None,
        context: Annotated[str | None, Field(description="Background for the planner.")] = None,
        approval: Annotated[
            ApprovalMode, Field(description="When a person must approve before it goes on.")
        ] = "plan",
        budget_usd: Annotated[float | None, Field(description="Cap in dollars.")] = None,
        budget_tokens: Annotated[int | None, Field(description="Cap in tokens.")] = None,
        id: Annotated[str | None, Field(description="An id of your own for the run.")] = None,
    ) -> dict[str, Any]:
        """Start a run: give exactly one of goal, plan and template. Gives its id at once."""
        budget = {"usd": budget_usd, "tokens": budget_tokens}
        given = {
            "goal": goal,
            "plan": plan,
            "template": template,
            "params": params,
            "tools": tools,
            "context": context,
            "approval": approval,
            "budget": {k: v for k, v in budget.items() if v is not None} or None,
        }
        return await jobs.start({k: v for k, v in given.items() if v is not None}, id)

    @server.tool(annotations=READS)
    async def progress(run: RunId) -> dict[str, Any]:
        """How a run stands: status, states of its tasks, usage, and what it waits for."""
        return await jobs.look(run)

    @server.tool(annotations=READS)
    async def result(
        run: RunId,
        wait_seconds: Annotated[
            float, Field(ge=0, le=WAIT_MAX_SECONDS, description="How long to wait for the end.")
        ] = 30.0,
    ) -> dict[str, Any]:
        """The result of a run; its progress, if it has not ended or waits for a person."""
        return await jobs.result(run, wait_seconds)

    @server.tool(annotations=DECIDES)
    async def approve(
        run: RunId,
        revision: Annotated[
            int | None, Field(description="Of the plan that was looked at.")
        ] = None,
        task: Annotated[str | None, Field(description="One task instead of the plan.")] = None,
        by: By = None,
        note: str | None = None,
    ) -> dict[str, Any]:
        """Approve the plan that waits, or one task. Only on a person's word."""
        return await jobs.decide(run, lambda r: r.approve(revision, task=task, by=by, note=note))

    @server.tool(annotations=DECIDES)
    async def reject(
        run: RunId,
        reason: str | None = None,
        revision: int | None = None,
        task: Annotated[str | None, Field(description="One task instead of the plan.")] = None,
        by: By = None,
    ) -> dict[str, Any]:
        """Reject the plan that waits, or one task."""
        return await jobs.decide(
            run, lambda r: r.reject(reason, revision=revision, task=task, by=by)
        )

    @server.tool(annotations=DECIDES)
    async def answer(
        run: RunId,
        output: Annotated[Any, Field(description="The answer: text, or any JSON value.")],
        task: Annotated[str | None, Field(description="Which question, if several wait.")] = None,
        by: By = None,
    ) -> dict[str, Any]:
        """Answer a question that a run asks a person."""
        return await jobs.decide(run, lambda r: r.answer(output, task=task, by=by))

    @server.tool(annotations=DECIDES)
    async def raise_budget(
        run: RunId,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | None = None,
        tasks: int | None = None,
        by: By = None,
    ) -> dict[str, Any]:
        """New caps for a run that is parked; they are totals. Only on a person's word."""
        return await jobs.decide(
            run,
            lambda r: r.raise_budget(tokens=tokens, usd=usd, seconds=seconds, tasks=tasks, by=by),
        )

    @server.tool(annotations=STOPS)
    async def cancel(run: RunId) -> dict[str, Any]:
        """Cancel a run. What has finished is kept in its result."""
        return await jobs.cancel(run)

    @server.tool(annotations=READS, structured_output=False)
    async def report(run: RunId) -> str:
        """The run for people, as Markdown: answer, graph, tasks, cost, failures, who approved."""
        return await jobs.report(run)

    return server


async def serve_http(server: MCPServer, port: int, ready: Callable[[str], None]) -> None:
    """Serve HTTP on this machine until SIGINT or SIGTERM; `ready` is called with the address.

    Raises:
        UsageError: the port cannot be listened on.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise UsageError(f"port {port} cannot be used: {error.strerror}") from None
        ready(f"MCP server at http://{HOST}:{listener.getsockname()[1]}/mcp")
        app = server.streamable_http_app(host=HOST)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS)
        await uvicorn.Server(config).serve(sockets=[listener])


class Jobs:
    """What the tools do, on one connection to the server."""

    def __init__(self, connect: Callable[[], Awaitable[Client]]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def start(self, request: dict[str, Any], id: str | None) -> dict[str, Any]:
        async def work(client: Client) -> dict[str, Any]:
            run = await client.start(request, id=id)
            return {"run": run.id, "next": "call `result` with this run; it waits for the end"}

        return await self._told(work)

    async def look(self, run: str) -> dict[str, Any]:
        return await self._told(lambda client: _look(client.run(run)))

    async def result(self, run: str, seconds: float) -> dict[str, Any]:
        async def work(client: Client) -> dict[str, Any]:
            handle = client.run(run)
            try:
                async with asyncio.timeout(seconds):
                    async for event in handle.stream():
                        if event.kind == "end":
                            return _plain(event.result) | {"run": run, "has_ended": True}
                        if event.kind == "wait":
                            break
            except TimeoutError:
                pass
            return await _look(handle)

        return await self._told(work)

    async def decide(self, run: str, how: Callable[[Run], Awaitable[Any]]) -> dict[str, Any]:
        async def work(client: Client) -> dict[str, Any]:
            return _plain(await how(client.run(run)))

        return await self._told(work)

    async def cancel(self, run: str) -> dict[str, Any]:
        async def work(client: Client) -> dict[str, Any]:
            await client.run(run).cancel()
            return {"run": run, "message": "it is being cancelled"}

        return await self._told(work)

    async def report(self, run: str) -> str:
        async def work(client: Client) -> str:
            return await report_of(client.run(run))

        return await self._told(work)

    async def _told(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """What the work gives; what a person can do something about becomes the tool's error.

        Raises:
            ToolError: with the reason, its problems, and what to do next.
        """
        try:
            async with self._lock:
                self._client = self._client or await self._connect()
            return await work(self._client)
        except RunFailed as error:
            lines = [f"{error.type}: the run was refused", *(p.line() for p in error.problems)]
            raise ToolError("\n".join(lines) if error.problems else str(error)) from None
        except PlanloomError as error:
            said = str(error).rstrip(".")
            raise ToolError(f"{said}. {error.hint}".rstrip(". ") + ".") from None
        except (TypeError, ValueError) as error:  # half a character, which no server takes
            raise ToolError(f"this cannot be sent: {str(error)[:300]}") from None


async def _look(run: Run) -> dict[str, Any]:
    shown: Progress = await run.progress()
    found = _plain(shown)
    for wait in found.get("waits", []):
        for name in ("command", "update"):  # a tool answers it here
            wait.pop(name, None)
    return found | {"run": run.id, "has_ended": False}


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(mode="json", exclude_defaults=True)
    return found
