"""How a peer's program talks to the benchmark: a line of JSON for each run, its seconds back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable


async def serve(run: Callable[[str, int], Awaitable[float]]) -> None:
    """Say that it is ready, then run one shape for each line of input."""
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        seconds = await run(order["shape"], order["count"])
        print(json.dumps({"seconds": seconds}), flush=True)
