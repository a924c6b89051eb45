"""`planloom watch`, `result`, `progress` and `ps`: looking at runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import (
    EXIT_MISUSE,
    RUN,
    Json,
    RunId,
    app,
    call,
    err,
    errors,
    fail,
    out,
    say,
    say_json,
)
from planloom.console.mistakes import UsageError, checked_port

ROW_MAX_COLUMNS = 400

if TYPE_CHECKING:
    from planloom import Client


@app.command(rich_help_panel=RUN)
def watch(
    run: RunId,
    web: Annotated[
        bool, typer.Option("--web", help="A page in the browser instead, with buttons to decide.")
    ] = False,
    port: Annotated[int, typer.Option(help="With --web: the port (default: a free one).")] = 0,
    browser: Annotated[bool, typer.Option(help="With --web: open it at once.")] = True,
    as_json: Json = False,
) -> None:
    """Follow a run until it ends, and answer what it asks.

    On a terminal, keys approve, reject, edit, answer, raise the budget and pause. In a pipe it
    prints lines; with --json, one object each time something changes.

    Example: planloom watch trip --web
    """

    async def work(client: Client) -> None:
        if web:
            from planloom.console.report.server import LivePage

            try:
                page = LivePage(client, run, port)
            except OSError as error:
                raise UsageError(f"port {port} cannot be used: {error.strerror}") from None
            await page.serve(lambda url: _open(url, browser=browser))
            return
        from planloom.console import live
        from planloom.console.this_run import ThisRun

        await live.watch(await ThisRun.of(client, run), out, err, as_json=as_json)

    with errors():
        checked_port("--port", port, lowest=0)
        if port and not web:
            raise UsageError(
                "--port goes with --web", hint=f"planloom watch {run} --web --port {port}"
            )
    call(work)


def _open(url: str, *, browser: bool) -> None:
    """Say where the page is; where there is a screen, show it."""
    import webbrowser

    say(url)
    err.print("Only this machine's own browser can open it. Ctrl-C ends the page, not the run.")
    if browser and out.is_terminal:
        webbrowser.open(url)


@app.command(rich_help_panel=RUN)
def result(
    run: RunId,
    as_json: Json = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait.")] = None,
) -> None:
    """Wait for a run's end and print its answer.

    Example: planloom result trip
    """

    async def work(client: Client) -> Any:
        handle = client.run(run)
        kind = await handle.workflow_type()
        if kind not in RESULT_MODELS:
            raise UsageError(f'"{run}" is a {kind}, not a run, agent or team')
        return await handle.result_as(RESULT_MODELS[kind], timeout)

    from planloom.console.results import print_any
    from planloom.planner.contract.results import RESULT_MODELS

    raise typer.Exit(print_any(call(work), as_json=as_json))


@app.command(rich_help_panel=RUN)
def progress(run: RunId, as_json: Json = False) -> None:
    """Show where a run stands now, and what it waits for.

    Example: planloom progress trip
    """

    async def work(client: Client) -> Any:
        return await client.run(run).progress()

    shown = call(work)
    if as_json:
        say_json(shown.model_dump(mode="json"))
        return
    from planloom.console.live_view import Shown, live_view

    out.print(live_view(Shown(run, shown), out.width, out.height), soft_wrap=False)


@app.command(rich_help_panel=RUN)
def ps(
    as_json: Json = False,
    status: Annotated[str | None, typer.Option(help="running, waiting, completed, …")] = None,
) -> None:
    """List runs, newest first.

    Example: planloom ps --status waiting
    """
    from planloom.console.runs import STATUSES, list_runs, runs_table

    if status is not None and status not in STATUSES:
        raise fail(f'no status "{status}"', f"One of: {', '.join(STATUSES)}.", EXIT_MISUSE)

    async def work(client: Client) -> Any:
        return await list_runs(client, status)

    rows = call(work)
    if as_json:
        say_json(rows)
    else:
        table = runs_table(rows, out.width)
        out.width = ROW_MAX_COLUMNS  # a terminal breaks a line that is too long; no id is cut
        out.print(table)
