"""How long the event loop of a test, and of the worker in it, worked without a pause."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio.events import Handle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Turns:
    """In seconds of the thread's own processor time: a busy machine does not lengthen them."""

    longest_seconds: float = 0.0
    longest: str = ""


@contextmanager
def measured_turns() -> Iterator[Turns]:
    """Measure each callback that this thread's event loop runs."""
    found, own, run = Turns(), threading.get_ident(), Handle._run  # type: ignore[attr-defined]

    def measured(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        taken = time.thread_time() - began
        if threading.get_ident() == own and taken > found.longest_seconds:
            found.longest_seconds, found.longest = taken, repr(handle)[:300]

    Handle._run = measured  # type: ignore[attr-defined]
    try:
        asyncio.get_running_loop().slow_callback_duration = float("inf")
        yield found
    finally:
        Handle._run = run  # type: ignore[attr-defined]
