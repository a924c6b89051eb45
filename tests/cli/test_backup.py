"""Backup and restore of folders that are not like the one of the tutorial. No server."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from planloom.console.backup import BackupError, back_up, restore


def made(folder: Path) -> Path:
    """A data folder with a database of one row, and a blob."""
    (folder / "blobs" / "aa").mkdir(parents=True)
    (folder / "blobs" / "aa" / "aa1").write_text("value")
    with closing(sqlite3.connect(folder / "temporal.db")) as database, database:
        database.execute("create table runs(id)")
        database.execute("insert into runs values ('trip')")
    return folder


def runs(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "temporal.db")) as database:
        return [id for (id,) in database.execute("select id from runs")]


@pytest.mark.parametrize("name", ["C#", "what?", "50%25 off", "ümlaut ;a&b=c"])
def test_a_folder_of_any_name_is_backed_up_with_what_is_in_it(name: str, tmp_path: Path) -> None:
    """`#` and `?` ended the path: another database was made, empty, and that was backed up."""
    data = made(tmp_path / name / "data")
    assert back_up(data, tmp_path / "x.tar.gz") == 2
    assert restore(tmp_path / "x.tar.gz", tmp_path / "again") == 2
    assert runs(tmp_path / "again") == ["trip"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "again", "x.tar.gz"])


def test_a_restore_changes_nothing_else_in_the_folder(tmp_path: Path) -> None:
    back_up(made(tmp_path / "data"), tmp_path / "x.tar.gz")
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "run.sh").write_text("#!/bin/sh")
    (project / "run.sh").chmod(0o755)
    restore(tmp_path / "x.tar.gz", project)
    assert (project / "run.sh").stat().st_mode & 0o777 == 0o755
    assert project.stat().st_mode & 0o777 == 0o755
    assert (project / "temporal.db").stat().st_mode & 0o777 == 0o600
    assert (project / "blobs" / "aa").stat().st_mode & 0o777 == 0o700


def test_half_an_archive_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    back_up(made(tmp_path / "data"), tmp_path / "x.tar.gz")
    content = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(BackupError, match="cannot be restored"):
        restore(tmp_path / "x.tar.gz", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_restore_that_fails_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(made(tmp_path / "data"), tmp_path / "x.tar.gz")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tarfile.TarFile.extractall", full)
        with pytest.raises(BackupError, match="No space left"):
            restore(tmp_path / "x.tar.gz", tmp_path / "again")
    assert restore(tmp_path / "x.tar.gz", tmp_path / "again") == 2
    assert runs(tmp_path / "again") == ["trip"]


def test_a_link_is_backed_up_as_what_it_leads_to(tmp_path: Path) -> None:
    data = made(tmp_path / "data")
    (tmp_path / "elsewhere").write_text("other disk")
    os.symlink(tmp_path / "elsewhere", data / "blobs" / "aa" / "aa2")
    back_up(data, tmp_path / "x.tar.gz")
    restore(tmp_path / "x.tar.gz", tmp_path / "again")
    assert (tmp_path / "again" / "blobs" / "aa" / "aa2").read_text() == "other disk"


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "temporal.db").write_text("not a database " * 100)
    with pytest.raises(BackupError, match="file is not a database"):
        back_up(tmp_path, tmp_path / "x.tar.gz")
    assert not (tmp_path / "x.tar.gz").exists()
