"""Backup and restore of a data folder: the development database with all that its runs refer to.

The database is copied first, by SQLite's own backup, while the server may run. What lies in blobs
and claims is only ever added to, so the files that are copied after it hold all it refers to.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

DATABASE = "temporal.db"
PARTS = ("blobs", "tool_times.json", "endpoints.json")
_BESIDE = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")


class BackupError(Exception):
    """A backup that cannot be made or put back."""


def back_up(data: Path, target: Path) -> int:
    """Write the data folder to an archive; gives the number of its files. An old one is replaced.

    Raises:
        BackupError: there is nothing to back up.
    """
    if not (data / DATABASE).is_file():
        raise BackupError(f"there is no {DATABASE} in {data}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            copy = Path(folder) / DATABASE
            _copy_database(data / DATABASE, copy)
            part.touch(mode=0o600)
            # A link becomes what it leads to: what is restored must stand by itself.
            with tarfile.open(part, "w:gz", dereference=True) as archive:
                archive.add(copy, DATABASE)
                count = 1 + sum(_add(archive, data, path) for path in _files(data))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def _copy_database(source: Path, target: Path) -> None:
    with (
        # As an address, so that `#`, `?` and `%` in the path are signs of a name and nothing else.
        contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as db,
        contextlib.closing(sqlite3.connect(target)) as to,
    ):
        try:
            db.backup(to)
        except sqlite3.Error as error:
            raise BackupError(f"{source} cannot be read: {error}") from None


def _files(data: Path) -> Iterator[Path]:
    for name in PARTS:
        path = data / name
        yield from [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _add(archive: tarfile.TarFile, data: Path, path: Path) -> bool:
    if path.suffix in (".part", ".lock"):
        return False
    try:
        # Opened once: a file that is replaced meanwhile is taken as it was.
        with path.open("rb") as file:
            info = archive.gettarinfo(arcname=str(path.relative_to(data)), fileobj=file)
            archive.addfile(info, file)
    except FileNotFoundError:  # the cache was pruned meanwhile
        return False
    return True


def restore(source: Path, data: Path, *, dry: bool = False) -> int:
    """Put an archive into an empty data folder; gives the number of its files. `dry` only looks.

    Raises:
        BackupError: the folder is in use, or the archive is not a Planloom backup.
    """
    taken = [name for name in (*_BESIDE, *PARTS) if (data / name).exists()]
    if taken:
        raise BackupError(f"{data} holds {', '.join(taken)}: name an empty folder")
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = archive.getmembers()
            if DATABASE not in [m.name for m in members]:
                raise BackupError(f"{source} holds no {DATABASE}")
            if dry:
                return len(members)
            _put_back(archive, members, data)
    except (OSError, EOFError, tarfile.TarError) as error:  # EOFError: it was cut off
        raise BackupError(f"{source} cannot be restored to {data}: {error}") from None
    return len(members)


def _put_back(archive: tarfile.TarFile, members: list[tarfile.TarInfo], data: Path) -> None:
    """All or nothing: half of a backup would look like a whole one. What else lies in the folder is
    left alone."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=data) as folder:
        archive.extractall(folder, members, filter="data")
        put = [path for path in sorted(Path(folder).iterdir()) if path.name in (*PARTS, DATABASE)]
        for path in [*put, *(inner for each in put for inner in each.rglob("*"))]:
            path.chmod(0o700 if path.is_dir() else 0o600)
        # The database last: without it nobody takes the folder for a whole one.
        for path in sorted(put, key=lambda p: p.name == DATABASE):
            path.rename(data / path.name)
