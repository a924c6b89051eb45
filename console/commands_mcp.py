"""`planloom mcp`."""

from __future__ import annotations

from typing import Annotated

import typer

from planloom.console.app import SETUP, app, err, errors


@app.command(rich_help_panel=SETUP)
def mcp(
    http: Annotated[
        int | None,
        typer.Option("--http", metavar="PORT", help="Serve HTTP on this port of this machine."),
    ] = None,
) -> None:
    """An MCP server: a coding agent starts runs here, follows them, and passes decisions on.

    It speaks on standard input and output; with --http on http://127.0.0.1:PORT/mcp. The Temporal
    server is the one of your settings.

    Example: planloom mcp
    """
    import asyncio

    from planloom import Client
    from planloom.console.documents import settings_now
    from planloom.console.mcp_server import build_server

    with errors():
        settings = settings_now()
        server = build_server(lambda: Client.connect(settings))
        if http is None:
            asyncio.run(server.run_stdio_async())
        else:
            err.print(f"MCP server at http://127.0.0.1:{http}/mcp", markup=False)
            asyncio.run(server.run_streamable_http_async(host="127.0.0.1", port=http))
