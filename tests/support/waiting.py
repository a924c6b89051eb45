"""Waiting for a state, not for a time: a busy machine is slow, not wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when the condition holds.

    Raises:
        TimeoutError: it does not, after that long.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another task, thread or process changes it
            await asyncio.sleep(0.01)
