"""Paths inside the workspace: the only folder that file tools may touch, and not all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from planloom.activities.tools.closed import (
    ENVIRONMENT,
    ENVIRONMENT_MARKS,
    Act,
    file_closed,
    folded,
    folder_closed,
    place_closed,
    places_in,
)
from planloom.activities.tools.decorator import ToolContext, ToolError
from planloom.activities.tools.turns import COMPUTING, NoTurnError

SKIPPED_FOLDERS = ("node_modules",)
"""Not walked, though open: ten thousand files of others."""
WALK_MAX_FILES = 100_000
NAME_MAX_BYTES = 255
PATH_MAX_BYTES = 4_000


@contextmanager
def computing(context: ToolContext, tool: str) -> Iterator[None]:
    """A turn to compute in Python, so that no run's calls take the interpreter for themselves.

    Raises:
        ToolError: the call was cancelled while it waited.
    """
    try:
        with COMPUTING.turn(context.owner, context.cancelled):
            yield
    except NoTurnError as error:
        raise ToolError(f"{tool}: {error}", retry=True) from None


def inside(context: ToolContext, path: str, *, tool: str, act: Act = "read") -> Path:
    """The real path of `path` (relative to the workspace, or absolute within it).

    Raises:
        ToolError: it leads out of the workspace, through `..`, an absolute path or a symlink, or
            names what is closed to tools (`activities/tools/closed.py`).
    """
    root = context.workspace.resolve()
    if problem := _name_problem(path):
        raise ToolError(f"{tool}: {problem}")
    try:
        real = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):
        raise ToolError(f"{tool}: {path[:200]!r} is not a path") from None
    if real != root and root not in real.parents:
        raise ToolError(
            f'{tool}: "{path}" is outside the workspace. Give a path inside it, such as '
            '"data/table.csv"; list_files() shows what there is.'
        )
    try:
        why = _why_closed(context, root, real, act)
    except OSError as error:
        raise ToolError(f'{tool}: "{path}" cannot be opened: {error.strerror}') from None
    if why:
        raise ToolError(f'{tool}: "{path}" is closed to tools: {why}.')
    return real


def _name_problem(path: str) -> str | None:
    try:
        size = len(os.fsencode(path))
        longest = max(map(len, os.fsencode(path).split(b"/")))
    except UnicodeEncodeError:
        return f"{path[:200]!r} is not a path"
    if longest > NAME_MAX_BYTES or size > PATH_MAX_BYTES:
        return (
            f'the path "{path[:60]}…" is too long: a name has at most {NAME_MAX_BYTES} bytes, '
            f"a path {PATH_MAX_BYTES:,}"
        )
    return None


def _why_closed(context: ToolContext, root: Path, real: Path, act: Act) -> str | None:
    if real == root:
        return None
    parts = real.relative_to(root).parts
    is_folder = real.is_dir()
    in_environment = _is_environment(root)
    at = root
    for depth, name in enumerate(parts if is_folder else parts[:-1]):
        if why := folder_closed(name, is_top=depth == 0, in_environment=in_environment):
            return why
        at = at / name
        if _is_environment(at):
            return ENVIRONMENT
    if not is_folder and (why := file_closed(parts[-1], act)):
        return why
    return place_closed(str(real), places_in(context.trusted, root), act)


def _is_environment(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in ENVIRONMENT_MARKS)


def existing_file(context: ToolContext, path: str, *, tool: str) -> Path:
    """As `inside`, for a plain file that is there.

    Raises:
        ToolError: also when it is not there (with the nearest name), a folder, or no plain file.
    """
    real = inside(context, path, tool=tool)
    if real.is_dir():
        raise ToolError(f'{tool}: "{path}" is a folder: list_files(path="{path}") shows its files')
    if not real.exists():
        raise ToolError(f'{tool}: no file "{path}" in the workspace.{near(context, real)}')
    if not real.is_file():
        raise ToolError(f'{tool}: "{path}" is not a plain file')
    return real


def existing_folder(context: ToolContext, path: str, *, tool: str) -> Path:
    """As `inside`, for a folder that is there.

    Raises:
        ToolError: also when it is not there (with the nearest name), or a file.
    """
    real = inside(context, path, tool=tool)
    if not real.is_dir():
        what = "is a file, not a folder" if real.exists() else "is not in the workspace"
        raise ToolError(f'{tool}: "{path}" {what}.{"" if real.exists() else near(context, real)}')
    return real


def near(context: ToolContext, missing: Path) -> str:
    """A sentence with the nearest name, or nothing."""
    root = context.workspace.resolve()
    folder = missing.parent if missing.parent.is_dir() else root
    names = sorted(p.name for p in folder.iterdir() if not _why_closed(context, root, p, "read"))
    found = get_close_matches(missing.name, names, n=1, cutoff=0.7)
    if not found:
        wanted = missing.name
        found_paths = [
            p for _, p in zip(range(5_000), walk(context, root), strict=False) if p.name == wanted
        ]
        return f' Did you mean "{relative(context, found_paths[0])}"?' if found_paths else ""
    return f' Did you mean "{relative(context, folder / found[0])}"?'


def relative(context: ToolContext, real: Path) -> str:
    """The path as a plan writes it: relative to the workspace, with `/`."""
    return real.relative_to(context.workspace.resolve()).as_posix()


def walk(context: ToolContext, folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Plain files below an open folder that tools may read, in order of name.

    Hidden files only when asked for. Links are not followed out of the tree: a linked folder is
    left out, as in `os.walk`. It ends early when the call is cancelled.

    Raises:
        ToolError: more than `WALK_MAX_FILES`.
    """
    root = context.workspace.resolve()
    places = places_in(context.trusted, root)
    count = 0
    for where, folders, files in os.walk(folder):
        if context.is_cancelled:
            return
        below = _open_folders(where, folders, is_top=Path(where) == root)
        folders[:] = [f for f in below if not place_closed(f"{where}/{f}", places, "read")]
        for name in sorted(files):
            if (name.startswith(".") and not hidden) or file_closed(name, "read"):
                continue
            path = Path(where, name)
            if path.is_symlink() or not path.is_file() or place_closed(str(path), places, "read"):
                continue
            count += 1
            if count > WALK_MAX_FILES:
                raise ToolError(f"more than {WALK_MAX_FILES:,} files there: name a smaller folder")
            yield path


def _open_folders(where: str, folders: list[str], *, is_top: bool) -> list[str]:
    in_environment = is_top and _is_environment(Path(where))
    return sorted(
        name
        for name in folders
        if folded(name) not in SKIPPED_FOLDERS
        and not folder_closed(name, is_top=is_top, in_environment=in_environment)
        and not _is_environment(Path(where, name))
    )


def fingerprint_of(context: ToolContext, path: Path) -> str:
    """Changes when the file, or any file below the folder, does (size and time)."""
    if path.is_dir():
        with computing(context, "cache"):
            below = walk(context, path, hidden=True)
            return ";".join(f"{p}:{fingerprint_of(context, p)}" for p in below)
    try:
        stat = path.stat()
    except OSError:
        return "absent"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def path_fingerprint(context: ToolContext, args: dict[str, Any]) -> str:
    """Of the argument `path`, for tools that have one."""
    return fingerprint_of(context, inside(context, args.get("path", "."), tool="cache"))
