"""Follows a run until it ends: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time

from rich.console import Console
from rich.live import Live

from planloom import NoWorker, Refused, Run
from planloom.console.views import progress_line, progress_view
from planloom.planner.contract.results import Progress

PROGRESS_POLL_SECONDS = 0.25
PROGRESS_POLL_MAX_SECONDS = 2.0
NO_WORKER_SECONDS = 20.0
"""Without a worker for so long, following gives up; the run itself waits."""


async def follow(run: Run, err: Console, *, is_quiet: bool = False) -> None:
    """Show progress until the run has ended.

    Raises:
        NoWorker: nothing answered for `NO_WORKER_SECONDS`.
    """
    if is_quiet:
        return
    if err.is_terminal and not err.is_dumb_terminal:
        with Live(console=err, refresh_per_second=8, transient=False) as live:
            await _poll(run, lambda shown: live.update(progress_view(shown)))
        return
    last = ""

    def show(shown: Progress) -> None:
        nonlocal last
        line = progress_line(shown)
        if line.split("s ", 1)[-1] != last:
            last = line.split("s ", 1)[-1]
            print(line, file=sys.stderr, flush=True)

    await _poll(run, show)


async def _poll(run: Run, show: object) -> None:
    pause, silent_since = PROGRESS_POLL_SECONDS, time.monotonic()
    while True:
        try:
            shown = await run.progress()
        except NoWorker:
            if time.monotonic() - silent_since > NO_WORKER_SECONDS:
                raise
            await asyncio.sleep(1.0)
            continue
        except Refused:
            return  # the request itself was refused: the result says why
        silent_since = time.monotonic()
        show(shown)  # type: ignore[operator]
        if shown.status in ("completed", "partial", "failed", "rejected", "cancelled"):
            return
        if await run.describe() != "RUNNING":
            return
        await asyncio.sleep(pause)
        pause = min(PROGRESS_POLL_MAX_SECONDS, pause * 1.05)
