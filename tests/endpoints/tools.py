"""The tools that recorded exchanges use."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from planloom import tool

_STATUS = Counter[str]()
_FILES: dict[str, str] = {}
_WRITTEN: list[str] = []


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"seen {q}"


@tool
def f(x: int) -> str:
    """The f of a number."""
    return f"f{x}"


@tool
def g(y: int) -> str:
    """The g of a number."""
    return f"g{y}"


@tool(idempotent=False)
def job_status(id: str) -> str:
    """How a job stands."""
    _STATUS[id] += 1
    return "done: 42" if _STATUS[id] >= 3 else "running"


@tool(idempotent=False)
def fread(path: str) -> str:
    """Read a file."""
    return _FILES.get(path, "nothing yet")


@tool(idempotent=False, side_effects=True)
def fwrite(path: str, content: str) -> str:
    """Write a file."""
    _FILES[path] = content
    _WRITTEN.append(path)
    return "written"


@tool(idempotent=False)
async def slow(seconds: float) -> str:
    """Take some time."""
    await asyncio.sleep(seconds)
    return "slept"


@tool
def total(values: list[int]) -> int:
    """The sum of some numbers."""
    return sum(values)


@tool
def ping() -> str:
    """Answer."""
    return "pong"


@tool
def value() -> dict[str, int]:
    """A value."""
    return {"value": 7}


@tool
def anything(it: Any) -> Any:
    """Its argument."""
    return it


@tool
def words(count: int) -> str:
    """Many words."""
    return "word " * count


@tool
def half() -> str:
    """Text with half an emoji."""
    return "x\ud83d"


def written() -> list[str]:
    """Paths that `fwrite` was called with."""
    return list(_WRITTEN)
