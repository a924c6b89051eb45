"""Paths inside the workspace: the only folder that file tools may touch."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from planloom.activities.tools.decorator import ToolContext, ToolError

SECRET_PATTERNS = (".env", ".env.*", "*.pem", "id_rsa*", "id_ed25519*", ".netrc", ".pgpass")
"""Files whose content would put keys into the run's history."""
OWN_FOLDER = ".planloom"
"""Planloom's own: other runs' values, the results on record, templates that later runs trust."""
SKIPPED_FOLDERS = ("__pycache__", "node_modules", OWN_FOLDER)
WALK_MAX_FILES = 100_000


def inside(context: ToolContext, path: str, *, tool: str) -> Path:
    """The real path of `path` (relative to the workspace, or absolute within it).

    Raises:
        ToolError: it leads out of the workspace, through `..`, an absolute path or a symlink, or
            names a file that holds secrets or is Planloom's own.
    """
    root = context.workspace.resolve()
    try:
        real = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):
        raise ToolError(f'{tool}: "{path[:200]!r}" is no path') from None
    if real != root and root not in real.parents:
        raise ToolError(
            f'{tool}: "{path}" is outside the workspace. Give a path inside it, such as '
            '"data/table.csv"; list_files() shows what there is.'
        )
    if OWN_FOLDER in real.relative_to(root).parts:
        raise ToolError(f'{tool}: "{path}" is in {OWN_FOLDER}, which is closed to tools.')
    if is_secret(real.name):
        raise ToolError(f'{tool}: "{path}" may hold secrets and is not read by tools.')
    return real


def is_secret(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in SECRET_PATTERNS)


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
        raise ToolError(f'{tool}: "{path}" is no plain file')
    return real


def near(context: ToolContext, missing: Path) -> str:
    """A sentence with the nearest name, or nothing."""
    root = context.workspace.resolve()
    folder = missing.parent if missing.parent.is_dir() else root
    names = sorted(p.name for p in folder.iterdir() if not is_secret(p.name))
    found = get_close_matches(missing.name, names, n=1, cutoff=0.5)
    if not found:
        wanted = missing.name
        found_paths = [
            p for _, p in zip(range(5_000), walk(root), strict=False) if p.name == wanted
        ]
        return f' Did you mean "{relative(context, found_paths[0])}"?' if found_paths else ""
    return f' Did you mean "{relative(context, folder / found[0])}"?'


def relative(context: ToolContext, real: Path) -> str:
    """The path as a plan writes it: relative to the workspace, with `/`."""
    return real.relative_to(context.workspace.resolve()).as_posix()


def walk(folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Plain files below a folder, in order of name; hidden ones only when asked for.

    Links are not followed out of the tree: a linked folder is left out, as in `os.walk`.

    Raises:
        ToolError: more than `WALK_MAX_FILES`.
    """
    count = 0
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if f not in SKIPPED_FOLDERS and (hidden or not f.startswith("."))
        )
        for name in sorted(files):
            if (name.startswith(".") and not hidden) or is_secret(name):
                continue
            path = Path(where, name)
            if path.is_symlink() or not path.is_file():
                continue
            count += 1
            if count > WALK_MAX_FILES:
                raise ToolError(f"more than {WALK_MAX_FILES:,} files there: name a smaller folder")
            yield path


def fingerprint_of(path: Path) -> str:
    """Changes when the file, or any file below the folder, does (size and time)."""
    if path.is_dir():
        return ";".join(f"{p}:{fingerprint_of(p)}" for p in walk(path, hidden=True))
    try:
        stat = path.stat()
    except OSError:
        return "absent"
    return f"{stat.st_size}:{stat.st_mtime_ns}"
