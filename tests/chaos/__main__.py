"""`python -m tests.chaos --runs 40 --seed 1`: see docs/how-to/chaos.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.cases import random_case
from tests.chaos.storm import Batch, Report

BATCH = 10
"""Runs that are under way at once."""
KILLS = 2.2
"""Kills a run."""


async def main(runs: int, seed: int, batch: int, skip: int) -> int:
    total, began = Report(), time.monotonic()
    first = seed * 100_000 + skip
    for start in range(first, first + runs, batch):
        cases = [random_case(n) for n in range(start, min(start + batch, first + runs))]
        with tempfile.TemporaryDirectory(prefix="planloom-chaos-") as folder:
            report = await Batch(start, cases, Path(folder)).run(round(len(cases) * KILLS))
        total.add(report)
        print(
            f"{total.runs}/{runs} runs, {total.done['worker killed']} kills, "
            f"{len(total.found)} violations, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for line in report.found:
            print(f"VIOLATION {line}", flush=True)
    print(f"\nseed {seed}: {total.runs} runs, {len(total.found)} violations")
    for name, count in sorted(total.done.items()):
        print(f"  {name:20} {count:6}")
    return len(total.found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=BATCH, help="runs at once")
    parser.add_argument("--skip", type=int, default=0, help="the runs before these were made")
    parser.add_argument("--verbose", action="store_true", help="say what is done, and when")
    given = parser.parse_args()
    level = logging.DEBUG if given.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("planloom.chaos").setLevel(level)
    sys.exit(bool(asyncio.run(main(given.runs, given.seed, given.batch, given.skip))))
