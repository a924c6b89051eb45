"""`python -m benchmarks [part …]`: the parts, and their figures as ratios.

engine     hop, chain of 20, fan-outs of 300 and 1,000 against bare Temporal, an activity for each
           task and fused; makespan over ideal
history    events and bytes of history a task
scheduler  what an event costs the machine in a plan of 100,000 tasks against one of 1,000;
           makespan over ideal on shapes and 20 random graphs, planned and streamed
planning   streamed planning against plan-then-run, and what an early end saves
pools      how close pools come to their rate, with 1, 2 and 4 workers
teams      one piece of work by static roles and as a graph of subtasks: seconds and tokens
startup    what `planloom --help` takes beyond `python -c pass`
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks import engine, planning, pools, scheduler, startup, teams

PARTS = {
    "engine": engine.main,
    "history": engine.history,
    "scheduler": scheduler.main,
    "planning": planning.main,
    "pools": pools.main,
    "teams": teams.main,
    "startup": startup.main,
}
DEFAULT = ("engine", "history", "scheduler", "planning", "pools", "teams", "startup")


async def main(names: list[str]) -> None:
    unknown = [n for n in names if n not in PARTS]
    if unknown:
        raise SystemExit(f"no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    for name in names or DEFAULT:
        print(f"\n== {name}", flush=True)
        await PARTS[name]()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
