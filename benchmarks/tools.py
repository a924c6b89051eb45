"""Tools that do nothing, or nothing for a while."""

from __future__ import annotations

import asyncio

from planloom import tool


@tool(idempotent=False)
async def noop(n: int = 0) -> int:
    """Give back a number."""
    return n


@tool(idempotent=False)
async def nap(seconds: float) -> float:
    """Wait."""
    await asyncio.sleep(seconds)
    return seconds


@tool(local=True)
async def cheap(n: int = 0) -> int:
    """Give back a number, in no time."""
    return n
