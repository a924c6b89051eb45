"""`planloom init`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from planloom.console.app import SETUP, DryRun, Json, app, err, fail, say, say_json

SUFFIX = ".tmpl"
NEXT = """
Try it without a server, then on one:
  {cd}pytest test_my_tools.py
  planloom dev                         in one terminal
  planloom run --plan plan.yaml        in another"""


@app.command(rich_help_panel=SETUP)
def init(
    folder: Annotated[
        Path, typer.Argument(help="The project's folder; created if needed.")
    ] = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Begin a project: settings, a tool, a plan, tests of both, and .env.example.

    Existing files are left as they are.

    Example: planloom init my-project
    """
    from planloom import planner

    source = Path(planner.__file__).parent / "library" / "project"
    try:
        targets = {t: folder / t.name.removesuffix(SUFFIX) for t in source.glob(f"*{SUFFIX}")}
        left = sorted(str(target) for target in targets.values() if target.exists())
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
            for template, target in targets.items():
                _write(template, target)
    except OSError as error:
        raise fail(f"{folder} cannot be written: {error.strerror or error}", code=2) from None
    written = sorted({str(target) for target in targets.values()} - set(left))
    if as_json:
        say_json({"written": written, "left": left, "dry_run": dry_run})
        return
    for path in left:
        err.print(f"left    {path}: it already exists", markup=False)
    for path in written:
        say(f"{'would write' if dry_run else 'written'} {path}")
    if dry_run:
        return
    say(NEXT.format(cd="" if folder == Path() else f"cd {folder}; "))


def _write(template: Path, target: Path) -> None:
    """The template's text into a file that is not there yet."""
    with contextlib.suppress(FileExistsError), target.open("x", encoding="utf-8") as file:
        file.write(template.read_text(encoding="utf-8"))
