"""Files that may have come with somebody's repository: which of them are looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

FILE_MAX_BYTES = 1_000_000


def plain_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files with these endings, in order of name.

    A pipe would never end. Names reach payloads and prompts: they are valid Unicode, in one line.
    """
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in suffixes and path.name.isprintable() and path.is_file():
                yield path


def why_not_read(path: Path, workspace: Path | None) -> str | None:
    """Why a file is not read: it is too large, or a link that leads out of the workspace, to what
    no tool may read; None when it is.

    Raises:
        OSError: it has gone.
    """
    if (
        workspace is not None
        and path.is_relative_to(workspace)
        and not (path.resolve().is_relative_to(workspace.resolve()))
    ):
        return "is a link that leads out of the workspace"
    if path.stat().st_size > FILE_MAX_BYTES:
        return f"is larger than {FILE_MAX_BYTES:,} bytes"
    return None
