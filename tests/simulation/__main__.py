"""`python -m tests.simulation --runs 100000 --seed 1`: many runs, on all processors.

Exit code 0: no rule was broken; 1: one was, and its report is on stdout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.runner import Found, report, run_many

SHOWN_MAX = 3
"""Reports in full; the rest are counted."""


def main() -> int:
    """Simulate; tell how many runs, events and seconds, and report what broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000, help="how many runs (default: 5000)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first (default: 1)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default: 2)")
    asked = parser.parse_args()
    began = time.monotonic()
    events, found = 0, list[Found]()
    for some_events, some_found in run_many(asked.seed, asked.runs, asked.processes):
        events += some_events
        found += some_found
    seconds = time.monotonic() - began
    print(
        f"{asked.runs:,} runs from seed {asked.seed}, {events:,} events, {seconds:.0f} s: "
        f"{len(found)} violations",
        file=sys.stderr,
    )
    for rule, count in Counter(f.rule for f in found).most_common():
        seeds = ", ".join(str(f.case.seed) for f in found if f.rule == rule)
        print(f"{count:6} {rule}: seeds {seeds[:200]}", file=sys.stderr)
    for one in found[:SHOWN_MAX]:
        print(report(one))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
