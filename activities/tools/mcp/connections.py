"""Connections to MCP servers, each kept open and opened again when it broke.

They live on an event loop in a separate thread: the registry is filled before a worker's loop
runs, and the SDK wants a connection opened and closed by the same task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Tool
from pydantic import ValidationError

from planloom.activities.models.keys import without_key
from planloom.planner.contract.mcp import McpSettings

T = TypeVar("T")
PAGES_MAX = 50
CLOSE_SECONDS = 5.0


class McpUnreachable(Exception):
    """The server cannot be started, reached, or asked; nothing was done by this call."""


class _Connection:
    """One connection, held open by a separate task until nobody needs it."""

    def __init__(self, client: Client, keeper: asyncio.Task[None], end: asyncio.Event) -> None:
        self.client = client
        self.calls = 0
        self.is_left = False
        self._keeper = keeper
        self._end = end

    @property
    def is_open(self) -> bool:
        return not self._keeper.done()

    async def close(self) -> None:
        if self.is_open:
            self._end.set()
            with contextlib.suppress(TimeoutError, Exception):
                await asyncio.wait_for(self._keeper, CLOSE_SECONDS)


class McpServer:
    """One server: it is connected when it is first used."""

    def __init__(
        self, name: str, settings: McpSettings, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self._environment = os.environ if environment is None else environment
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()

    async def tools(self) -> list[Tool]:
        """The tools that the settings allow.

        Raises:
            McpUnreachable: with the cause.
        """
        client = (await self._connected()).client
        found: list[Tool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(self.settings.start_timeout):
                for _ in range(PAGES_MAX):
                    page = await client.list_tools(cursor=cursor)
                    found += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
        except Exception as error:
            await self.close()
            raise McpUnreachable(_cause(error)) from error
        return [tool for tool in found if self.settings.allows(tool.name)]

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """One call, on the open connection.

        Raises:
            McpUnreachable: there is no connection; nothing was done.
            MCPError: the server answered with an error.
            Exception: the call broke off; what it did is not known.
        """
        connection = await self._connected()
        connection.calls += 1
        try:
            return await connection.client.call_tool(tool, arguments)
        except Exception as error:
            if not (isinstance(error, MCPError) and error.error.code != CONNECTION_CLOSED):
                # It may be the connection: the next call makes a new one, which costs little. Calls
                # that are still at work on this one are left to end by themselves.
                connection.is_left = True
                if self._connection is connection:
                    self._connection = None
            raise
        finally:
            connection.calls -= 1
            if connection.is_left and not connection.calls:
                await connection.close()

    def without_secrets(self, text: str) -> str:
        """What it says, without the values that it was given: servers quote a token they refuse."""
        for variable in (*self.settings.env_from, *self.settings.headers_env.values()):
            text = without_key(text, self._environment.get(variable))
        return text

    async def close(self) -> None:
        """End the connection, and a server that was started for it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> _Connection:
        async with self._lock:
            if self._connection is not None and self._connection.is_open:
                return self._connection
            opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            end = asyncio.Event()
            keeper = asyncio.create_task(self._keep(opened, end))
            try:
                limit = self.settings.start_timeout
                client = await asyncio.wait_for(asyncio.shield(opened), limit)
            except asyncio.CancelledError:
                keeper.cancel()  # nobody knows of what it has started
                raise
            except Exception as error:
                keeper.cancel()
                raise McpUnreachable(_cause(error)) from error
            self._connection = _Connection(client, keeper, end)
            return self._connection

    async def _keep(self, opened: asyncio.Future[Client], end: asyncio.Event) -> None:
        """Hold the connection open until `end`; opened and closed by this one task."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = Client(await self._transport(stack))
                await stack.enter_async_context(client)
                opened.set_result(client)
                await end.wait()
        except Exception as error:
            if not opened.done():
                opened.set_exception(error)

    async def _transport(self, stack: contextlib.AsyncExitStack) -> Any:
        settings = self.settings
        if settings.command is not None:
            missing = [n for n in settings.env_from if n not in self._environment]
            if missing:
                raise McpUnreachable(f"{', '.join(missing)} is not set where the worker runs")
            passed = {name: self._environment[name] for name in settings.env_from}
            return StdioServerParameters(
                command=_program(settings), args=settings.args, env=settings.env | passed
            )
        headers = dict(settings.headers)
        for header, variable in settings.headers_env.items():
            if not self._environment.get(variable):
                raise McpUnreachable(f"no header {header}: {variable} is not set")
            headers[header] = self._environment[variable]
        # Without a timeout: each call has one.
        http = httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30.0, read=None))
        await stack.enter_async_context(http)
        return streamable_http_client(str(settings.url), http_client=http)


def _program(settings: McpSettings) -> str:
    """
    Raises:
        McpUnreachable: there is no such program.
    """
    command = str(settings.command)
    if shutil.which(command, path=settings.env.get("PATH")) is None:
        hint = ": the words after the program's name belong in args" if " " in command else ""
        raise McpUnreachable(f'there is no program "{command}"{hint}')
    return command


class Background:
    """An event loop in a thread, for as long as the process lives."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="planloom-mcp", daemon=True).start()

    def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result, waited for by this thread."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    async def result(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result, awaited; a cancel reaches the call."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), self._loop))


_background: Background | None = None
_lock = threading.Lock()


def background() -> Background:
    """The loop of this process on which all connections live."""
    global _background
    with _lock:
        if _background is None:
            _background = Background()
        return _background


def _cause(error: BaseException) -> str:
    """The innermost cause in a few words: task groups wrap what happened."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        return f"its answer does not follow the protocol: {where}: {first['msg']}"[:300]
    text = " ".join(str(error).split())[:300]
    is_plain = isinstance(error, McpUnreachable | MCPError)
    return text if is_plain else f"{type(error).__name__}: {text}"
