"""Tools that do nothing, or nothing for a while.

`PLANLOOM_TOOLS=benchmarks.tools` gives them to a worker process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from planloom import tool


@tool(idempotent=False)
async def noop(n: int = 0) -> int:
    """Give back a number; in an activity for each task."""
    return n


@tool(idempotent=False)
async def nap(seconds: float) -> float:
    """Wait."""
    await asyncio.sleep(seconds)
    return seconds


@tool(local=True)
async def cheap(n: int = 0) -> int:
    """Give back a number, in no time; tasks of it are fused."""
    return n


@tool(idempotent=False)
async def numbers(count: int) -> list[int]:
    """Give back so many numbers."""
    return list(range(count))


@tool(idempotent=False)
async def large(size: int) -> str:
    """Give back so many characters."""
    return "x" * size


@tool(idempotent=False)
async def search(query: str, seconds: float) -> str:
    """Find something, in the given time."""
    await asyncio.sleep(seconds)
    return f"found {len(query)}"


@tool(idempotent=False)
async def math(problem: str, seconds: float) -> str:
    """Work something out, in the given time."""
    await asyncio.sleep(seconds)
    return f"is {len(problem)}"


TOOLS: list[Any] = [noop, nap, cheap, numbers, large, search, math]
