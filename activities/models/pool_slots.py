"""Activity slots that follow a pool's limiter: the server keeps the calls that do not fit."""

from __future__ import annotations

import asyncio
import threading

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

from planloom.activities.models.pool_limiter import PoolLimiter


class PoolSlots(CustomSlotSupplier):
    """As many activities of the pool's queue as its limiter allows.

    The others wait on the server, in the order of their priority.
    """

    def __init__(self, limiter: PoolLimiter, maximum: int) -> None:
        self._limiter, self._maximum = limiter, maximum
        self._taken = 0
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        limiter.on_change(self._wake)

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.append(entry)
        try:
            while (permit := self.try_reserve_slot(ctx)) is None:
                await event.wait()
                event.clear()
            return permit
        finally:
            with self._lock:
                self._waiting.remove(entry)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        room = self._limiter.slots
        limit = self._maximum if room is None else min(room, self._maximum)
        with self._lock:
            if self._taken >= limit:
                return None
            self._taken += 1
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """A slot counts from its reservation on."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        with self._lock:
            self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        # Called from threads of the SDK's core as well.
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)
