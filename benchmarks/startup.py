"""How long the command line takes beyond Python itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.report import Figure, Size, figure

BARE = ["-c", "pass"]
COMMANDS = {
    "planloom --help": ["-m", "planloom.cli", "--help"],
    "planloom plan --help": ["-m", "planloom.cli", "plan", "--help"],
    "planloom --version": ["-m", "planloom.cli", "--version"],
}


async def main(size: Size) -> list[Figure]:
    """Each command's seconds, and what it takes beyond `python -c pass`."""
    bare = list[float]()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(size.pick(1, 7, 15)):
        bare.append(_seconds(BARE))
        for name, arguments in COMMANDS.items():
            times[name].append(_seconds(arguments))
    figures = [figure("python -c pass", bare, "s")]
    for name, found in times.items():
        beyond = [f - b for f, b in zip(found, bare, strict=True)]
        figures.append(figure(f"{name}, beyond python -c pass", beyond, "s"))
    return figures


def _seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    )
    return time.perf_counter() - started
