"""Threads for storage, apart from those that a user's tools may fill.

`asyncio.to_thread` shares a handful of threads with everything in the process. A tool that keeps
them busy would hold up the claims, blobs and cached results of all runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STORAGE_THREADS = 32
"""They wait for a disk or a network."""
COMPUTING_THREADS = 4
"""They compute: more would only take turns."""
READ_AT_ONCE_CHARS = 20_000
"""No reader takes more than a tenth of a second for it."""
_STORAGE = ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="planloom-storage")
_COMPUTING = ThreadPoolExecutor(COMPUTING_THREADS, thread_name_prefix="planloom-computing")


async def in_storage_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that reads or writes."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_STORAGE, lambda: function(*args, **kwargs))


async def in_computing_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that may compute for seconds."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_COMPUTING, lambda: function(*args, **kwargs))


async def computed(chars: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function makes of a text of so many characters. Of a long one it takes seconds, and
    the event loop serves all runs of a worker meanwhile.
    """
    if chars <= READ_AT_ONCE_CHARS:
        return function(*args, **kwargs)
    return await in_computing_thread(function, *args, **kwargs)
