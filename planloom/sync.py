"""The client without `async`: the same names, each call waiting for its end.

    from planloom.sync import Client

    with Client.connect() as client:
        print(client.run(goal="Compare the populations of France and Spain").answer)

It works in scripts, in notebooks and in threads: a separate event loop runs in the background.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from functools import wraps
from types import TracebackType
from typing import Any, Self, TypeVar

from planloom import client as asynchronous
from planloom.errors import PlanloomError

T = TypeVar("T")
_END = object()


class _Loop:
    """An event loop in its own thread, as long as somebody uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="planloom-sync", daemon=True
        )
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine. Ctrl-C cancels it.

        Raises:
            PlanloomError: the client is closed, or is closed meanwhile.
        """
        if self._loop.is_closed():
            work.close()
            raise _closed()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError:
            raise _closed() from None

    def iterate(self, events: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> Any:
            return await anext(events, _END)

        try:
            while (event := self.wait(following())) is not _END:
                yield event
        finally:
            if isinstance(events, AsyncGenerator) and not self._loop.is_closed():
                self.wait(events.aclose())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        # Whoever waits in another thread must not wait for a loop that has stopped.
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _closed() -> PlanloomError:
    return PlanloomError("the client is closed; the run continues. Use a new one: Client.connect()")


class _Waiting:
    """An object whose coroutines are waited for, and whose streams are plain iterators."""

    def __init__(self, loop: _Loop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._method(value) if callable(value) else value

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._plain(method(*args, **kwargs))

        return call

    def _plain(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._plain(self._loop.wait(value))
        if isinstance(value, AsyncIterator):
            return self._loop.iterate(value)
        if isinstance(value, asynchronous.Run):
            return Run(self._loop, value)
        if isinstance(value, asynchronous.Pool):
            return Pool(self._loop, value)
        return value

    def __repr__(self) -> str:
        return repr(self._inner)

    def __dir__(self) -> list[str]:
        return dir(self._inner)


class Run(_Waiting):
    """A handle of one run: every method of `planloom.Run`, without `await`."""


class Pool(_Waiting):
    """A handle of one model endpoint's capacity, without `await`."""


class Client(_Waiting):
    """Every method of `planloom.Client`, without `await`."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect with Temporal's own environment settings and profiles.

        Raises:
            NoServer: nothing answers at the address.
        """
        loop = _Loop()
        try:
            return cls(loop, loop.wait(asynchronous.Client.connect(*args, **kwargs)))
        except BaseException:
            loop.close()
            raise

    def close(self) -> None:
        """End the event loop in the background. Runs continue without it."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
