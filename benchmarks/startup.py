"""How long the command line takes beyond Python itself."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "planloom --help": ["-m", "planloom.cli", "--help"],
    "planloom plan --help": ["-m", "planloom.cli", "plan", "--help"],
    "planloom --version": ["-m", "planloom.cli", "--version"],
}


async def main() -> None:
    """Print each command's median, and what it takes beyond `python -c pass`."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(_seconds(arguments))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<22} {median:.3f} s, {median - bare:+.3f} s, {median / bare:.1f} times")


def _seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    )
    return time.perf_counter() - started
