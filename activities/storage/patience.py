"""Waiting for a store that fails for a moment: a disk that is full, a network that is away.

A result that is paid for is in memory only until it is stored. An attempt that gave up at the first
failure would have the next one pay for it again, and three seconds would use up three attempts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from planloom.activities.storage.backends import PassingError

T = TypeVar("T")

PAUSE_SECONDS = (0.05, 1.0)
"""First and longest pause between two tries."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one attempt waits for its store."""

    write_seconds: float = 30.0
    read_seconds: float = 5.0
    """Less: nothing is lost with it but time, and a value that is gone for good is said sooner."""


async def patiently(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `work` gives. It is tried again while the store says that it cannot serve now.

    Raises:
        PassingError: still, after so many seconds.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    pause, longest = PAUSE_SECONDS
    while True:
        try:
            return await work()
        except PassingError:
            if loop.time() + pause > ends:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)
