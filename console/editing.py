"""A run's plan in the person's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planloom.console.app import call, errors
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client


def edited_plan(run: str) -> tuple[int, Any]:
    """The revision that was edited, and the plan as the editor left it."""
    from planloom.console.documents import yaml_text

    async def work(client: Client) -> tuple[int, Any]:
        handle = client.run(run)
        return (await handle.progress()).revision, await handle.query("plan")

    with errors():
        if not _editor():
            hint = "Set EDITOR, or give --plan FILE or --patch FILE."
            raise UsageError("no editor: give --plan or --patch", hint=hint)
    revision, document = call(work)
    with errors():
        if not document:
            raise UsageError(f"run {run} has no plan yet")
        return revision, edited(yaml_text(document), run)


def edited(text: str, name: str) -> Any:
    """What the editor made of a document.

    Raises:
        UsageError: nothing was changed, the editor failed, or the text is no document.
    """
    from planloom.console.documents import read_document

    with tempfile.TemporaryDirectory(prefix="planloom-edit-") as folder:
        path = Path(folder) / f"{_file_name(name)}.yaml"
        path.write_text(text + "\n", encoding="utf-8")
        if not _editor():
            raise UsageError("no editor: set EDITOR, or use planloom edit with --plan or --patch")
        try:
            done = subprocess.run([*shlex.split(_editor()), str(path)], check=False)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            message = f"the editor {_editor()} cannot be started: {why}; nothing is sent"
            raise UsageError(message, hint="EDITOR names it.") from None
        if done.returncode:
            raise UsageError(f"the editor ended with exit code {done.returncode}; nothing is sent")
        if path.read_text(encoding="utf-8") == text + "\n":
            raise UsageError("the plan was not changed; nothing is sent")
        return read_document(str(path))


def _editor() -> str:
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""


def _file_name(run: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in run)[:60] or "plan"
