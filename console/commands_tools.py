"""`planloom tools`, `templates` and `blob`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from planloom.console.app import PLANS, RUN, SETUP, Json, app, err, errors, fail, out, say_json


@app.command(rich_help_panel=SETUP)
def tools(as_json: Json = False) -> None:
    """List the tools that a worker here would have, those of PLANLOOM_TOOLS included.

    Example: planloom tools
    """
    from planloom.console.documents import tool_specs_now
    from planloom.console.views import tools_table

    with errors():
        specs = [spec.model_dump(mode="json") for spec in tool_specs_now()]
    if as_json:
        say_json(specs)
    else:
        out.print(tools_table(specs))


@app.command(rich_help_panel=PLANS)
def templates(as_json: Json = False) -> None:
    """List the templates, with their parameters.

    Example: planloom templates
    """
    from planloom.console.documents import templates_now, unused_templates

    with errors():
        by_name = templates_now()
    for problem in unused_templates():
        err.print(f"warning: {problem.line()}", markup=False, soft_wrap=True)
    if as_json:
        say_json(
            {
                name: {
                    "file": str(path),
                    "description": plan.description if plan else None,
                    "params": {k: p.model_dump(mode="json") for k, p in plan.params.items()}
                    if plan
                    else {},
                    "problems": [p.model_dump() for p in problems],
                }
                for name, (path, plan, problems) in by_name.items()
            }
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("template", no_wrap=True)
    table.add_column("what it does")
    table.add_column("parameters")
    for name, (_, plan, problems) in by_name.items():
        if plan is None:
            table.add_row(name, Text(f"not valid: {problems[0].line()}", style="red"), "")
            continue
        shown = [
            k if p.required and "default" not in p.model_fields_set else f"{k}={p.default}"
            for k, p in plan.params.items()
        ]
        table.add_row(name, plan.description, ", ".join(shown))
    out.print(table)


@app.command(rich_help_panel=RUN)
def blob(
    hash: Annotated[str, typer.Argument(help="A blob's SHA-256, or its beginning.")],
    as_json: Json = False,
) -> None:
    """Print a large value in full; with --json, an object with its hash and size.

    Example: planloom blob 9f86d081884c
    """
    from planloom.keys import NoKey, NotGenuine, key_ring

    if not re.fullmatch(r"[0-9a-f]{6,64}", hash):
        raise fail(
            f'"{hash}" is not the beginning of a SHA-256: 6 to 64 hexadecimal digits', code=2
        )
    from planloom.console.documents import settings_now

    with errors():
        settings = settings_now()
        folder, keys = Path(settings.blobs_place), key_ring(settings)
    paths = sorted((folder / hash[:2]).glob(f"{hash}*"))
    if not paths:
        hint = "PLANLOOM_DATA_DIR names the folder that the worker writes to."
        raise fail(f"no blob {hash} under {folder}", hint)
    if len(paths) > 1:
        raise fail(f"{hash} begins {len(paths)} blobs: give more digits", code=2)
    content = paths[0].read_bytes()
    try:
        content = keys.unseal(content, paths[0].name) if keys else content
    except (NoKey, NotGenuine) as error:
        raise fail(f"blob {hash} cannot be read: {error}") from None
    if as_json:
        say_json({"blob": paths[0].name, "bytes": len(content), "value": _value_of(content)})
        return
    if sys.stdout.isatty():
        from planloom.console.safe import print_safely

        print_safely(content.decode("utf-8", "replace"))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _value_of(content: bytes) -> Any:
    """A blob's value: JSON as it is, anything else as text."""
    from planloom.planner.syntax.json_text import json_or_text

    return json_or_text(content.decode("utf-8", "replace"))
