"""`planloom report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planloom.console.app import RUN, Json, RunId, app, call, errors, say, say_json
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client


@app.command(rich_help_panel=RUN)
def report(
    run: RunId,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="The file (default: RUN.html; - for stdout)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run as one HTML file: graph, timeline, cost, inputs and outputs, failures, decisions.

    The file loads nothing and runs nothing. It contains inputs and outputs of tasks, so think
    about who gets it.

    Example: planloom report trip -o trip.html
    """

    async def work(client: Client) -> str:
        from planloom.console.report.facts import facts_of
        from planloom.console.report.page import report_page

        return report_page(await facts_of(client, run))

    page = call(work)
    if output == "-":
        say(page)
        return
    path = Path(output or f"{run.replace('/', '-')}.html")
    with errors():
        write_text(path, page)
    if as_json:
        say_json({"file": str(path), "bytes": len(page.encode())})
    else:
        say(f"wrote {path}")


def write_text(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
