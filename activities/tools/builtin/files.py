"""`read_file`, `list_files`, `write_file`: inside the workspace only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from planloom.activities.tools.builtin.workspace import (
    computing,
    existing_file,
    existing_folder,
    inside,
    path_fingerprint,
    relative,
    walk,
)
from planloom.activities.tools.decorator import ToolContext, ToolError, tool

READ_MAX_BYTES = 20_000_000
LIST_MAX_FILES = 10_000
PATTERN_MAX_CHARS = 1_000
PATTERN_MAX_PARTS = 50


@tool(fingerprint=path_fingerprint, examples=['read_file(path="notes/today.md")'])
def read_file(path: str, context: ToolContext) -> str:
    """Read a text file of the workspace.

    Args:
        path: relative to the workspace
    """
    real = existing_file(context, path, tool="read_file")
    try:
        size = real.stat().st_size
        content = real.read_bytes() if size <= READ_MAX_BYTES else b""
    except OSError as error:
        raise ToolError(f'read_file: "{path}" cannot be read: {error.strerror}') from None
    if size > READ_MAX_BYTES:
        raise ToolError(
            f'read_file: "{path}" has {size:,} bytes, at most {READ_MAX_BYTES:,} are read. '
            "Use search_text, or query_sql for tables."
        )
    if b"\0" in content[:8192]:
        raise ToolError(
            f'read_file: "{path}" is binary, not text. For SQLite or Parquet use query_sql.'
        )
    return content.decode("utf-8-sig", "replace")


@tool(fingerprint=path_fingerprint, examples=['list_files(path="data", pattern="**/*.csv")'])
def list_files(context: ToolContext, path: str = ".", pattern: str = "**/*") -> list[str]:
    """List files of the workspace, as paths that the other file tools take.

    Args:
        path: the folder
        pattern: a glob such as *.csv (this folder) or **/*.csv (and those below)
    """
    folder = existing_folder(context, path, tool="list_files")
    parts = len(PurePosixPath(pattern).parts)
    if len(pattern) > PATTERN_MAX_CHARS or parts > PATTERN_MAX_PARTS:
        raise ToolError(
            f"list_files: the pattern has {len(pattern):,} characters and {parts} parts, at most "
            f"{PATTERN_MAX_CHARS:,} and {PATTERN_MAX_PARTS} are read"
        )
    if ".." in PurePosixPath(pattern).parts or PurePosixPath(pattern).is_absolute():
        raise ToolError(
            f'list_files: the pattern "{pattern}" leads out of the folder. '
            'Write it relative to `path`, such as "**/*.csv".'
        )
    hidden = any(part.startswith(".") for part in PurePosixPath(pattern).parts)
    matches = _glob_matcher(pattern)
    found: list[str] = []
    with computing(context, "list_files"):
        for file in walk(context, folder, hidden=hidden):
            if matches(file.relative_to(folder).parts):
                found.append(relative(context, file))
            if len(found) > LIST_MAX_FILES:
                raise ToolError(
                    f"list_files: more than {LIST_MAX_FILES:,} files. Narrow path or pattern."
                )
    return found


def _glob_matcher(pattern: str) -> Callable[[tuple[str, ...]], bool]:
    wanted = PurePosixPath(pattern).parts
    last = len(wanted) - 1

    def step(at: int, part: str) -> Iterator[int]:
        if at > last:
            return
        if wanted[at] == "**":
            yield at
        if (at == last) if wanted[at] == "**" else fnmatchcase(part, wanted[at]):
            yield at + 1

    def matches(parts: tuple[str, ...]) -> bool:
        # All places of the pattern that may have been reached: no pattern takes exponential time.
        reached = _with_gaps({0}, wanted)
        for part in parts:
            reached = _with_gaps({n for at in reached for n in step(at, part)}, wanted)
        return len(wanted) in reached

    return matches


def _with_gaps(reached: set[int], wanted: Sequence[str]) -> set[int]:
    """The places, and those behind a `**` that may stand for no name; the last stands for some."""
    for at, name in enumerate(wanted[:-1]):
        if at in reached and name == "**":
            reached.add(at + 1)
    return reached


def _was_written(context: ToolContext, args: dict[str, Any]) -> dict[str, Any] | None:
    real = inside(context, args["path"], tool="write_file", act="write")
    content = args["text"].encode("utf-8", "replace")
    is_same = real.is_file() and real.stat().st_size == len(content)
    if is_same and real.read_bytes() == content:
        return {"path": relative(context, real), "bytes": len(content)}
    return None


@tool(
    side_effects=True,
    check=_was_written,
    examples=['write_file(path="report.md", text=summary)'],
)
def write_file(path: str, text: str, context: ToolContext) -> dict[str, Any]:
    """Write a text file in the workspace, in place of what was there; gives path and bytes.

    Args:
        path: relative to the workspace; folders are made
        text: the whole content
    """
    real = inside(context, path, tool="write_file", act="write")
    if real.is_dir() or path.endswith("/"):
        raise ToolError(f'write_file: "{path}" is a folder: name a file in it')
    content = text.encode("utf-8", "replace")
    part = real.parent / f".planloom-{os.getpid()}-{threading.get_ident()}.part"
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(real)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ToolError(f'write_file: "{path}" cannot be written: {error.strerror}') from error
    return {"path": relative(context, real), "bytes": len(content)}
