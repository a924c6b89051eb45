"""`search_text`: lines of text files that contain a text or match a regular expression."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planloom.activities.tools.builtin.workspace import (
    computing,
    existing_folder,
    inside,
    path_fingerprint,
    relative,
    walk,
)
from planloom.activities.tools.decorator import ToolContext, ToolError, tool
from planloom.activities.tools.processes.pool import POOL, JobError

MATCHES_MAX = 200
FILE_MAX_BYTES = 5_000_000
"""Larger files are not searched, but named."""
TOTAL_MAX_BYTES = 1_000_000_000
LINE_MAX_CHARS = 500
QUERY_MAX_CHARS = 1_000

_REGEX_SIGNS = re.compile(r"[\\^$|()\[\]{}*+?]")


@tool(
    fingerprint=path_fingerprint,
    examples=[
        'search_text(query="TODO", path="src")',
        'search_text("def test_\\\\w+", regex=True)',
    ],
)
def search_text(
    query: str, context: ToolContext, path: str = ".", regex: bool | None = None
) -> list[dict[str, Any]]:
    """Find lines that contain a text; gives file, line number and the line. Case is ignored.

    Args:
        query: the text, or with regex=true a regular expression (RE2)
        path: a folder or one file
        regex: read the query as a regular expression; left out, only if the text is not found
    """
    if not query:
        raise ToolError("search_text: the query is empty")
    if len(query) > QUERY_MAX_CHARS:
        raise ToolError(
            f"search_text: the query has {len(query):,} characters, at most {QUERY_MAX_CHARS:,}"
        )
    real = inside(context, path, tool="search_text")
    if not real.is_file():
        existing_folder(context, path, tool="search_text")
    with computing(context, "search_text"):
        files, too_large = _files(context, real)
    if regex:
        return _marked(_matching(context, files, query), too_large)
    found = _containing(context, files, query)
    if not found and regex is None and _REGEX_SIGNS.search(query):
        try:
            found = _matching(context, files, query)
        except _NotAnExpression:
            found = []  # it was plain text after all
    return _marked(found, too_large)


class _NotAnExpression(ToolError):
    """The regular expression cannot be read."""


def _files(context: ToolContext, real: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Files to search with their shown names, and the names of those too large."""
    files: list[tuple[Path, str]] = []
    too_large: list[str] = []
    total = 0
    for file in [real] if real.is_file() else walk(context, real):
        try:
            size = file.stat().st_size
        except OSError:
            continue  # it has gone
        total += min(size, FILE_MAX_BYTES)
        if total > TOTAL_MAX_BYTES:
            raise ToolError(
                f"search_text: more than {TOTAL_MAX_BYTES:,} bytes to search: name a smaller folder"
            )
        if size > FILE_MAX_BYTES:
            too_large.append(relative(context, file))
        else:
            files.append((file, relative(context, file)))
    return files, too_large


def _marked(found: list[dict[str, Any]], too_large: list[str]) -> list[dict[str, Any]]:
    """Matches with lines cut, and what else the reader must know."""
    marks = [
        {"file": name, "line": 0, "text": "… (too large, not searched)"}
        for name in too_large[:MATCHES_MAX]
    ]
    if len(found) > MATCHES_MAX:
        mark = f"… (the first {MATCHES_MAX} matches: narrow query or path for more)"
        marks.append({"file": "", "line": 0, "text": mark})
    cut = [{**each, "text": _clipped(each["text"])} for each in found[:MATCHES_MAX]]
    return [*cut, *marks]


def _clipped(line: str) -> str:
    line = line.rstrip("\r")
    return line if len(line) <= LINE_MAX_CHARS else line[:LINE_MAX_CHARS] + "… (cut)"


def _containing(
    context: ToolContext, files: list[tuple[Path, str]], query: str
) -> list[dict[str, Any]]:
    """Matches of plain text, one more than are shown at most."""
    found: list[dict[str, Any]] = []
    for file, name in files:
        if context.is_cancelled or len(found) > MATCHES_MAX:
            break
        try:
            content = file.read_bytes()
        except OSError:
            continue  # it has gone, or may not be read
        if b"\0" in content[:8192]:
            continue
        with computing(context, "search_text"):
            lines = _lines_with(query.casefold(), content.decode("utf-8", "replace"))
            room = MATCHES_MAX + 1 - len(found)
            found += [
                {"file": name, "line": number, "text": line}
                for number, line in itertools.islice(lines, room)
            ]
    return found


def _lines_with(wanted: str, text: str) -> Iterator[tuple[int, str]]:
    if wanted not in text.casefold():
        return
    for number, line in enumerate(text.split("\n"), 1):
        if wanted in line.casefold():
            yield number, line


def _matching(
    context: ToolContext, files: list[tuple[Path, str]], pattern: str
) -> list[dict[str, Any]]:
    """Matches of a regular expression, in a process that can be stopped.

    Raises:
        ToolError: it cannot be read, or takes too long.
    """
    named = [[str(file), name] for file, name in files]
    try:
        found: list[dict[str, Any]] = POOL.run(
            {"kind": "search", "pattern": pattern, "files": named, "limit": MATCHES_MAX + 1},
            owner=context.owner,
            cancelled=context.cancelled,
        )
    except JobError as error:
        if error.reason == "refused":
            raise _NotAnExpression(
                f"search_text: {error}. Leave out regex=true to look for plain text."
            ) from None
        raise ToolError(f"search_text: {error}", retry=error.reason == "cancelled") from None
    return found
