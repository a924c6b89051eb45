"""`planloom watch`, `result`, `progress` and `ps`: looking at runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from planloom import Client
from planloom.console.app import (
    EXIT_MISUSE,
    Json,
    RunId,
    app,
    call,
    err,
    fail,
    out,
    say_json,
)


@app.command()
def watch(run: RunId) -> None:
    """Follow a run until it ends. Example: planloom watch trip"""

    async def work(client: Client) -> None:
        from planloom.console.live import follow

        await follow(client.run(run), err)

    call(work)


@app.command()
def result(
    run: RunId,
    as_json: Json = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait.")] = None,
) -> None:
    """Wait for a run's end and print its answer. Example: planloom result trip"""

    async def work(client: Client) -> Any:
        return await client.run(run).result(timeout)

    from planloom.console.runs import print_result

    raise typer.Exit(print_result(call(work), as_json=as_json, err=err))


@app.command()
def progress(run: RunId, as_json: Json = False) -> None:
    """Where a run stands now. Example: planloom progress trip"""

    async def work(client: Client) -> Any:
        return await client.run(run).progress()

    shown = call(work)
    if as_json:
        say_json(shown.model_dump(mode="json"))
        return
    from planloom.console.views import progress_view

    out.print(progress_view(shown))


@app.command()
def ps(
    as_json: Json = False,
    status: Annotated[str | None, typer.Option(help="running, waiting, completed, …")] = None,
) -> None:
    """List runs, newest first. Example: planloom ps --status waiting"""
    from planloom.console.runs import STATUSES, WIDTH_MAX, list_runs, runs_table

    if status is not None and status not in STATUSES:
        raise fail(f'no status "{status}"', f"One of: {', '.join(STATUSES)}.", EXIT_MISUSE)

    async def work(client: Client) -> Any:
        return await list_runs(client, status)

    rows = call(work)
    if as_json:
        say_json(rows)
    else:
        out.width = WIDTH_MAX  # an id that was cut off is useless
        out.print(runs_table(rows))
