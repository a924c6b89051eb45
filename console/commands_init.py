"""`planloom init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planloom.console.app import SETUP, app, err, fail, say

SUFFIX = ".tmpl"
NEXT = """
Try it without a server, then on one:
  {cd}pytest test_my_tools.py
  planloom dev                         in one terminal
  planloom run --plan plan.yaml        in another"""


@app.command(rich_help_panel=SETUP)
def init(
    folder: Annotated[Path, typer.Argument(help="Where to; made if it is not there.")] = Path(),
) -> None:
    """Begin a project: settings, a tool, a plan, tests of both, and .env.example.

    Files that are there already are left as they are.

    Example: planloom init my-project
    """
    from planloom import planner

    source = Path(planner.__file__).parent / "library" / "project"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template in sorted(source.glob(f"*{SUFFIX}")):
            _write(template, folder / template.name.removesuffix(SUFFIX))
    except OSError as error:
        raise fail(f"{folder} cannot be written: {error.strerror or error}", code=2) from None
    say(NEXT.format(cd="" if folder == Path() else f"cd {folder}; "))


def _write(template: Path, target: Path) -> None:
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(template.read_text(encoding="utf-8"))
    except FileExistsError:
        err.print(f"left    {target}: it is there already", markup=False)
    else:
        say(f"written {target}")
