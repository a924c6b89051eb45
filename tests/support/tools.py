"""The source of a tool module that server tests load: it counts its calls in a file."""

from __future__ import annotations

SOURCE = """
import asyncio, os, time
from pathlib import Path
from planloom import tool, ToolError

LOG = Path(os.environ.get("COUNT_FILE", "calls.txt"))

def _note(name):
    with LOG.open("a") as file:
        file.write(name + "\\n")

@tool(idempotent=False)
async def nap(name: str, seconds: float = 0.05, after: object = None) -> str:
    "Sleep, then give the name back."
    _note("start " + name)
    await asyncio.sleep(seconds)
    _note("end " + name)
    return name

@tool(idempotent=False)
async def broken(name: str = "broken") -> str:
    "Fails for good."
    _note("start " + name)
    raise ToolError(f"{name} is out of order")

@tool(idempotent=False)
async def flaky(path: str, until: int = 2) -> int:
    "Fails until it was called often enough."
    file = Path(path)
    count = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(count))
    if count < until:
        raise ToolError(f"call {count} fails", retry=True)
    return count

@tool
def big(megabytes: int) -> str:
    "A long text."
    return "x" * (megabytes * 1_000_000)

@tool
def echo(value: object) -> object:
    "Its argument."
    return value

@tool
def odd(n: int) -> int:
    "Fails for even numbers."
    if n % 2 == 0:
        raise ToolError(f"{n} is even")
    return n
"""
