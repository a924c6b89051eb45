"""Show that the simulator finds bugs: plant one at a time, and run cases until one breaks a rule.

`python -m tests.simulation.planted` prints a table of all; with names, of these. Exit code 0: each
was found; 1: one was not, or fits its file no more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from tests.simulation.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
RUNS = 5_000
SECONDS = 600.0
"""The longest that is looked for one bug."""


def fits(bug: Bug) -> bool:
    """Whether the text that the bug changes stands in its file, once."""
    path = ROOT / bug.file
    return path.is_file() and path.read_text(encoding="utf-8").count(bug.good) == 1


def plant(bug: Bug) -> None:
    """From now on the bug's module is imported with it."""
    path = ROOT / bug.file
    planted = path.read_text(encoding="utf-8").replace(bug.good, bug.bad)
    get_code: Callable[..., Any] = SourceFileLoader.get_code

    def get_planted(self: SourceFileLoader, name: str) -> Any:
        if Path(self.path).resolve() == path:
            return compile(planted, str(path), "exec", dont_inherit=True)
        return get_code(self, name)

    SourceFileLoader.get_code = get_planted  # type: ignore[method-assign, assignment]


def find(bug: Bug, runs: int) -> str:
    """Runs needed, and the rule that was broken; only for a process that has no machine yet."""
    plant(bug)
    from tests.simulation.cases import random_case
    from tests.simulation.runner import Found, run_case

    for seed in range(1, runs + 1):
        found = run_case(random_case(seed))
        if isinstance(found, Found):
            return f"{seed:,} | {found.rule}"
    return ""


def row_of(bug: Bug, runs: int) -> tuple[str, bool]:
    """The bug's row of the table, found by a process that imports the machines with it."""
    if not fits(bug):
        return f"| {bug.name} | its text is not in `{bug.file}` any more | |", False
    command = [sys.executable, "-m", "tests.simulation.planted", bug.name, "--here"]
    command += ["--runs", str(runs)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"| {bug.name} | not found in {SECONDS:g} s | |", False
    if ended.returncode:
        return f"| {bug.name} | {ended.stderr[-500:]} | |", False
    told = ended.stdout.strip()
    return f"| {bug.name} | {told or f'not found in {runs:,} |'} |", bool(told)


def main() -> int:
    """Plant the bugs that are asked for; a table on stdout, a row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("names", nargs="*", help="bugs (default: all)")
    parser.add_argument("--runs", type=int, default=RUNS, help="cases a bug (default: 5000)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default: 2)")
    parser.add_argument("--here", action="store_true", help="one bug, in this process")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {b.name for b in BUGS}:
        parser.error(f"there is no bug called {', '.join(sorted(unknown))}")
    bugs = [b for b in BUGS if not asked.names or b.name in asked.names]
    if asked.here:
        print(find(bugs[0], asked.runs))
        return 0
    print("| bug | found in run | rule |\n|---|---:|---|")
    missed = 0
    with ThreadPoolExecutor(asked.processes) as pool:
        for row, is_found in pool.map(lambda b: row_of(b, asked.runs), bugs):
            print(row, flush=True)
            missed += not is_found
    print(f"{len(bugs) - missed} of {len(bugs)} bugs were found", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
