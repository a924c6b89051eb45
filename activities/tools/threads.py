"""Blocking functions of tools, each in its own thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in its own thread, with the caller's context variables.

    A daemon thread, unlike an executor's: a tool that never returns must keep neither the others
    waiting for a place nor the worker from stopping. Cancelled, the caller goes on at once and the
    thread's result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(outcome: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(cast(T, outcome))
        else:
            future.set_exception(error)

    def work() -> None:
        outcome: T | None = None
        error: BaseException | None = None
        try:
            outcome = context.run(function)
        except StopIteration as stop:  # a future cannot carry it
            error = RuntimeError(f"StopIteration: {stop}")
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, outcome, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    threading.Thread(target=work, name="planloom-tool", daemon=True).start()
    return await future


async def in_thread_to_the_end(function: Callable[[], T]) -> T:
    """As `in_thread`, but cancelled it waits for the function to end first.

    For what must be on record before the process stops; only for functions that end soon.
    """
    work = asyncio.ensure_future(in_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
