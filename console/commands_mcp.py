"""`planloom mcp`."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Annotated

import typer

from planloom.console.app import SETUP, app, err, errors
from planloom.console.mistakes import checked_port


@app.command(rich_help_panel=SETUP)
def mcp(
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            help="Serve HTTP on this port of this machine; 0 means a free one.",
        ),
    ] = None,
) -> None:
    """Serve MCP: a coding agent starts runs, follows them, and passes your decisions on.

    It uses standard input and output or, with --http, http://127.0.0.1:PORT/mcp. It connects to the
    Temporal server of your settings.

    Example: planloom mcp
    """
    import asyncio

    from planloom import Client
    from planloom.console.documents import settings_now
    from planloom.console.mcp_server import build_server, serve_http

    with errors():
        if http is not None:
            checked_port("--http", http, lowest=0)
        settings = settings_now()
        server = build_server(lambda: Client.connect(settings))
        with contextlib.suppress(KeyboardInterrupt):
            if http is None:
                asyncio.run(server.run_stdio_async())
            else:
                say_where = partial(err.print, markup=False, soft_wrap=True)
                asyncio.run(serve_http(server, http, say_where))
