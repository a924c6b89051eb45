"""`python -m benchmarks [part …]`: the parts, and their figures as ratios.

engine     hop, chain of 30 and fan-out of 500 against bare Temporal; makespan over ideal
history    events and bytes of history a task
scheduler  makespan over ideal on shapes and 20 random graphs
planning   the same, streamed by a model; streamed against plan-then-run; what an early end saves
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks import engine, planning, scheduler

PARTS = {
    "engine": engine.main,
    "history": engine.history,
    "scheduler": scheduler.main,
    "planning": planning.main,
}
DEFAULT = ("engine", "history", "scheduler", "planning")


async def main(names: list[str]) -> None:
    unknown = [n for n in names if n not in PARTS]
    if unknown:
        raise SystemExit(f"no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    for name in names or DEFAULT:
        print(f"\n== {name}", flush=True)
        await PARTS[name]()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
