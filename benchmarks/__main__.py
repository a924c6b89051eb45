"""`python -m benchmarks [part …]`: measure, print a table for each part, and write a JSON.

engine     chain of 20 and fan-outs of 300 and 1,000 against bare Temporal, with an activity for
           each task and fused; what one hop costs
history    events and bytes of history a task, and of a task with a result of 1 MB
goals      goal to answer over the ideal: workloads of LLMCompiler, streamed; and its own method
scheduler  makespan over the ideal: 20 random graphs of tasks of 0.2 to 2 s, one at a time
pools      how close a pool comes to its rate on a server with stock settings
workers    throughput of model calls with 1, 2 and 4 worker processes
together   200 runs that start at once through the Python client, against bare workflows
peers      the same graphs on DBOS, LangGraph and Prefect
scale      a map of 100,000 items against one of 1,000: time an item, memory of the worker
steps      what one event costs the run's machine at 1,000 and at 100,000 tasks
hops       where the time goes: each hop of a step, and of a streamed goal
planning   streamed planning against plan-then-run, and what an early end saves
teams      one piece of work by static roles and as a graph of subtasks: seconds and tokens
startup    what `planloom --help` takes beyond `python -c pass`

`--size quick` takes ten minutes for all, `--size full` an hour: it measures what the limits are
stated for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts import PARTS
from benchmarks.report import (
    CHECKOUT,
    Figure,
    PartRun,
    Size,
    in_words,
    machine,
    table,
    versions,
    write,
)
from planloom.worker import run_loop


def measure(names: Sequence[str], size: Size, path: Path, seconds: float | None) -> bool:
    """Run parts one after another; whether all of them came to their end in that time."""
    is_whole = True
    until = None if seconds is None else time.monotonic() + seconds
    for name in names:
        left = None if until is None else until - time.monotonic()
        print(f"\n== {name} ({size})", flush=True)
        if left is not None and left <= 0:
            print("not measured: the time is over", flush=True)
            is_whole = False
            continue
        run = PartRun(name, size)
        figures: list[Figure] = []
        error = ""
        try:
            figures = run_loop(_part(name, size, left))
        except Exception as problem:  # the other parts are still worth measuring
            traceback.print_exc()
            why = str(problem) or "its time is over"
            error, is_whole = f"{type(problem).__name__}: {why}"[:500], False
        document = run.document(figures, error)
        write(path, name, document)
        print(table(document["figures"]) if figures else f"error: {error}")
        before, after = document["load_average"]
        print(f"{document['seconds']:.0f} s, load average {before} to {after}", flush=True)
    print(f"\n{in_words(machine(), versions())}")
    print(f"written: {path}")
    return is_whole


async def _part(name: str, size: Size, seconds: float | None) -> list[Figure]:
    async with asyncio.timeout(seconds):
        return await PARTS[name](size)


def main() -> None:
    summary, _, listed = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=summary,
        epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="all by default")
    parser.add_argument("--size", type=Size, choices=list(Size), default=Size.QUICK)
    parser.add_argument("--json", type=Path, help="by default build/bench-SIZE.json")
    parser.add_argument("--minutes", type=float, help="what is not measured by then is left out")
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    path = given.json or CHECKOUT / "build" / f"bench-{given.size}.json"
    began = time.monotonic()
    seconds = None if given.minutes is None else given.minutes * 60
    is_whole = measure(given.parts or list(PARTS), given.size, path, seconds)
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(0 if is_whole else 1)


if __name__ == "__main__":
    main()
