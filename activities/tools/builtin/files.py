"""`read_file`, `list_files`, `search_text`, `write_file`: inside the workspace only."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from planloom.activities.tools.builtin.workspace import (
    existing_file,
    fingerprint_of,
    inside,
    near,
    relative,
    walk,
)
from planloom.activities.tools.decorator import ToolContext, ToolError, tool

READ_MAX_BYTES = 20_000_000
LIST_MAX_FILES = 10_000
SEARCH_MAX_MATCHES = 200
SEARCH_MAX_BYTES = 5_000_000
"""Larger files are not searched, but named."""
LINE_MAX_CHARS = 500

_Finder = Callable[[str], Iterable[tuple[int, str]]]
_REGEX_SIGNS = re.compile(r"[\\^$|()\[\]{}*+?]")


def _path_fingerprint(context: ToolContext, args: dict[str, Any]) -> str:
    return fingerprint_of(inside(context, args.get("path", "."), tool="cache"))


@tool(fingerprint=_path_fingerprint, examples=['read_file(path="notes/today.md")'])
def read_file(path: str, context: ToolContext) -> str:
    """Read a text file of the workspace.

    Args:
        path: relative to the workspace
    """
    real = existing_file(context, path, tool="read_file")
    size = real.stat().st_size
    if size > READ_MAX_BYTES:
        raise ToolError(
            f'read_file: "{path}" has {size:,} bytes, at most {READ_MAX_BYTES:,} are read. '
            "Use search_text, or query_sql for tables."
        )
    content = real.read_bytes()
    if b"\0" in content[:8192]:
        raise ToolError(
            f'read_file: "{path}" is binary, not text. For SQLite or Parquet use query_sql.'
        )
    return content.decode("utf-8-sig", "replace")


@tool(fingerprint=_path_fingerprint, examples=['list_files(path="data", pattern="**/*.csv")'])
def list_files(context: ToolContext, path: str = ".", pattern: str = "**/*") -> list[str]:
    """List files of the workspace, as paths that the other file tools take.

    Args:
        path: the folder
        pattern: a glob such as *.csv (this folder) or **/*.csv (and those below)
    """
    folder = _folder(context, path, tool="list_files")
    if ".." in PurePosixPath(pattern).parts or PurePosixPath(pattern).is_absolute():
        raise ToolError(
            f'list_files: the pattern "{pattern}" leads out of the folder. '
            'Write it relative to `path`, such as "**/*.csv".'
        )
    hidden = any(part.startswith(".") for part in PurePosixPath(pattern).parts)
    matches = _glob_matcher(pattern)
    found: list[str] = []
    for file in walk(folder, hidden=hidden):
        if matches(file.relative_to(folder).parts):
            found.append(relative(context, file))
        if len(found) > LIST_MAX_FILES:
            raise ToolError(
                f"list_files: more than {LIST_MAX_FILES:,} files. Narrow path or pattern."
            )
    return found


def _glob_matcher(pattern: str) -> Any:
    from fnmatch import fnmatchcase

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


@tool(
    fingerprint=_path_fingerprint,
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
    real = inside(context, path, tool="search_text")
    if not real.is_file():
        _folder(context, path, tool="search_text")
    if regex:
        return _search(context, real, _regex_finder(query))
    found = _search(context, real, _plain_finder(query))
    if not found and regex is None and _REGEX_SIGNS.search(query):
        with contextlib.suppress(ToolError):  # it was plain text after all
            return _search(context, real, _regex_finder(query))
    return found


def _search(context: ToolContext, real: Path, find: _Finder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in [real] if real.is_file() else walk(real):
        if context.is_cancelled:
            break
        name = relative(context, file)
        if file.stat().st_size > SEARCH_MAX_BYTES:
            found.append({"file": name, "line": 0, "text": "… (too large, not searched)"})
            continue
        content = file.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in find(content.decode("utf-8", "replace")):
            found.append({"file": name, "line": number, "text": _clipped(line)})
            if len(found) >= SEARCH_MAX_MATCHES:
                mark = f"… (the first {SEARCH_MAX_MATCHES} matches: narrow query or path for more)"
                return [*found, {"file": "", "line": 0, "text": mark}]
    return found


def _clipped(line: str) -> str:
    line = line.rstrip("\r")
    return line if len(line) <= LINE_MAX_CHARS else line[:LINE_MAX_CHARS] + "… (cut)"


def _plain_finder(query: str) -> _Finder:
    wanted = query.casefold()

    def find(text: str) -> Iterator[tuple[int, str]]:
        if wanted not in text.casefold():
            return
        for number, line in enumerate(text.split("\n"), 1):
            if wanted in line.casefold():
                yield number, line

    return find


def _regex_finder(pattern: str) -> _Finder:
    # DuckDB's RE2 takes linear time and lets other threads run; Python's `re` holds the lock, and
    # one bad pattern would stop the whole worker.
    import duckdb

    connection = duckdb.connect()
    try:
        connection.execute("SELECT regexp_matches('', ?, 'i')", [pattern]).fetchall()
    except duckdb.Error as error:
        said = str(error).partition("\n")[0][:200]
        raise ToolError(
            f"search_text: the regular expression cannot be read: {said}. "
            "Leave out regex=true to look for plain text."
        ) from None

    def find(text: str) -> list[tuple[int, str]]:
        rows: list[tuple[int, str]] = connection.execute(
            "SELECT number, line FROM (SELECT unnest(string_split($1, chr(10))) AS line, "
            "generate_subscripts(string_split($1, chr(10)), 1) AS number) "
            "WHERE regexp_matches(line, $2, 'i') ORDER BY number",
            [text, pattern],
        ).fetchall()
        return rows

    return find


def _folder(context: ToolContext, path: str, *, tool: str) -> Path:
    real = inside(context, path, tool=tool)
    if not real.is_dir():
        what = "is a file, not a folder" if real.exists() else "is not in the workspace"
        raise ToolError(f'{tool}: "{path}" {what}.{"" if real.exists() else near(context, real)}')
    return real


def _was_written(context: ToolContext, args: dict[str, Any]) -> dict[str, Any] | None:
    real = inside(context, args["path"], tool="write_file")
    content = args["text"].encode("utf-8", "replace")
    if real.is_file() and real.read_bytes() == content:
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
    real = inside(context, path, tool="write_file")
    if real.is_dir() or path.endswith("/"):
        raise ToolError(f'write_file: "{path}" is a folder: name a file in it')
    if ".git" in real.parts:  # a hook written there would run with the rights of whoever commits
        raise ToolError(f'write_file: "{path}" is in .git, which tools do not change')
    content = text.encode("utf-8", "replace")
    part = real.parent / f".{real.name}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(real)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ToolError(f'write_file: "{path}" cannot be written: {error.strerror}') from error
    return {"path": relative(context, real), "bytes": len(content)}
