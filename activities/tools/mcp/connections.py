"""Connections to MCP servers, each kept open and opened again when it broke.

They live on an event loop in a separate thread: the registry is filled before a worker's loop
runs, and the SDK wants a connection opened and closed by the same task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Tool

from planloom.planner.contract.mcp import McpSettings

T = TypeVar("T")
PAGES_MAX = 50
CLOSE_SECONDS = 5.0


class McpUnreachable(Exception):
    """The server cannot be started, reached, or asked; nothing was done by this call."""


class McpServer:
    """One server: it is connected when it is first used."""

    def __init__(
        self, name: str, settings: McpSettings, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self._environment = os.environ if environment is None else environment
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._lock = asyncio.Lock()

    async def tools(self) -> list[Tool]:
        """The tools that the settings allow.

        Raises:
            McpUnreachable: with the cause.
        """
        client = await self._connected()
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
            Exception: the call broke off; what it did is not known.
        """
        client = await self._connected()
        try:
            return await client.call_tool(tool, arguments)
        except Exception:
            # It may be the connection: the next call makes a new one, which costs little.
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection, and a server that was started for it."""
        keeper, self._keeper, self._client = self._keeper, None, None
        if keeper is not None and not keeper.done():
            self._end.set()
            with contextlib.suppress(TimeoutError, Exception):
                await asyncio.wait_for(keeper, CLOSE_SECONDS)

    async def _connected(self) -> Client:
        async with self._lock:
            if self._client is not None and self._keeper is not None and not self._keeper.done():
                return self._client
            opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._end = asyncio.Event()
            self._keeper = asyncio.create_task(self._keep(opened, self._end))
            try:
                limit = self.settings.start_timeout
                self._client = await asyncio.wait_for(asyncio.shield(opened), limit)
            except Exception as error:
                self._keeper.cancel()
                self._keeper = None
                raise McpUnreachable(_cause(error)) from error
            return self._client

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
                command=settings.command, args=settings.args, env={**settings.env, **passed}
            )
        headers = dict(settings.headers)
        for header, variable in settings.headers_env.items():
            if not self._environment.get(variable):
                raise McpUnreachable(f"no header {header}: {variable} is not set")
            headers[header] = self._environment[variable]
        # No timeout of its own: each call has one.
        http = httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30.0, read=None))
        await stack.enter_async_context(http)
        return streamable_http_client(str(settings.url), http_client=http)


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
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, McpUnreachable) else f"{type(error).__name__}: {text}"
