"""Follows a run until it ends: a live view on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.live import Live

from planloom import NoWorker, Refused, Run
from planloom.console.live_actions import act, key_words
from planloom.console.live_keys import Keys, can_read_keys
from planloom.console.live_view import Shown, live_view, plain_line, wait_lines
from planloom.console.safe import print_safely
from planloom.planner.contract.results import Progress
from planloom.planner.syntax.documents import read_plan

PROGRESS_POLL_SECONDS = 0.25
PROGRESS_POLL_MAX_SECONDS = 2.0
NO_WORKER_SECONDS = 20.0
"""Without a worker for so long, following gives up; the run itself waits."""
LEAVES = ("q", "\x03", "\x04")
ENDED = ("completed", "partial", "failed", "rejected", "cancelled")


async def watch(run: Run, out: Console, err: Console, *, as_json: bool = False) -> None:
    """`planloom watch`: on a terminal the live view; else lines, which are its output."""
    if as_json or (out.is_terminal and err.is_terminal and not err.is_dumb_terminal):
        await follow(run, err, as_json=as_json)
        return
    await _as_lines(run, to_stderr=False)
    if reason := (await run.progress()).reason:
        print_safely(f"reason: {reason}")


async def follow(
    run: Run, err: Console, *, is_quiet: bool = False, as_json: bool = False, has_keys: bool = True
) -> None:
    """Show progress until the run has ended. With keys, a person can decide meanwhile.

    Raises:
        NoWorker: nothing answered for `NO_WORKER_SECONDS`.
        KeyboardInterrupt: the person stopped watching.
    """
    if is_quiet:
        return
    if as_json:
        await _as_json(run)
    elif err.is_terminal and not err.is_dumb_terminal:
        if has_keys and can_read_keys():
            await _on_terminal(run, err)
        else:
            with _live(err) as live:
                async for shown in _states(run):
                    live.update(live_view(shown, err.width, err.height))
    else:
        await _as_lines(run, to_stderr=True)


def _live(err: Console) -> Live:
    return Live(console=err, refresh_per_second=8, transient=False, vertical_overflow="crop")


async def _on_terminal(run: Run, err: Console) -> None:
    """The live view, and a person's keys."""
    said, keys = "", Keys()
    states = _states(run)
    with contextlib.ExitStack() as stack:
        stack.enter_context(keys.reading())
        live = stack.enter_context(_live(err))
        async for shown in states:
            is_over = shown.progress.status in ENDED
            shown.keys, shown.said = [] if is_over else key_words(shown.progress), said
            live.update(live_view(shown, err.width, err.height))
            key = await keys.next(PROGRESS_POLL_SECONDS)
            if key in LEAVES:
                raise KeyboardInterrupt
            if key:
                # What it asks is asked on a plain terminal; then the view goes on.
                stack.close()
                said = await act(run, shown.progress, key)
                stack.enter_context(keys.reading())
                live = stack.enter_context(_live(err))


async def _as_lines(run: Run, *, to_stderr: bool) -> None:
    last, waits = "", list[str]()
    async for shown in _states(run):
        now = shown.progress
        line = plain_line(now, shown.caps)
        at = f"{now.seconds:6.1f}s"
        if line != last:
            last = line
            print_safely(f"{at} {line}", to_stderr=to_stderr)
        for each in wait_lines(run.id, now.waits):
            if each not in waits:
                print_safely(f"{at} {each}", to_stderr=to_stderr)
        waits = wait_lines(run.id, now.waits)


async def _as_json(run: Run) -> None:
    """One line of JSON each time that something but the time has changed."""
    last: object = None
    async for shown in _states(run):
        document = shown.progress.model_dump(mode="json")
        kept = {k: v for k, v in document.items() if k not in ("seconds", "running_seconds")}
        if kept != last:
            last = kept
            print_safely(json.dumps(document, ensure_ascii=False))


async def _states(run: Run) -> AsyncIterator[Shown]:
    """How the run stands, again and again; the last one is its end, if it tells."""
    pause, silent_since = PROGRESS_POLL_SECONDS, time.monotonic()
    shown: Shown | None = None
    while True:
        try:
            now = await run.progress()
            shown = await _with_more(run, now, shown)
        except NoWorker:
            if time.monotonic() - silent_since > NO_WORKER_SECONDS:
                raise
            await asyncio.sleep(1.0)
            continue
        except Refused:
            return  # the request itself was refused: the result says why
        silent_since = time.monotonic()
        yield shown
        if now.status in ENDED:
            return
        if await run.describe() != "RUNNING":
            with contextlib.suppress(NoWorker, Refused):  # its last word came after this one
                yield await _with_more(run, await run.progress(), shown)
            return
        await asyncio.sleep(pause)
        pause = min(PROGRESS_POLL_MAX_SECONDS, pause * 1.05)


async def _with_more(run: Run, now: Progress, before: Shown | None) -> Shown:
    """Progress with the plan and the caps, which are asked for only when they may have changed."""
    shown = Shown(run.id, now)
    is_new = before is None or before.progress.revision != now.revision
    was_raised = before is None or before.progress.notes != now.notes
    if not is_new and before is not None:
        shown.plan = before.plan
    elif now.revision:
        with contextlib.suppress(Refused):
            document = await run.query("plan")
            shown.plan = read_plan(document)[0] if document else None
    if was_raised:
        with contextlib.suppress(Refused):
            shown.caps = (await run.query("usage")).get("caps") or {}
    elif before is not None:
        shown.caps = before.caps
    return shown
