"""Backends: whole or not at all, created once, private; S3 by its own protocol over HTTP."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.storage.backends import Backend, BlobError, FolderBackend, open_backend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.patience import Patience
from tests.support.s3 import s3

NAME = "ab" * 32


@pytest.fixture(params=["folder", "s3"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    if request.param == "folder":
        yield open_backend(tmp_path / "blobs")
        return
    with s3(monkeypatch):
        yield open_backend("s3://bucket/runs/")


def test_what_was_put_is_read_replaced_and_deleted(backend: Backend) -> None:
    assert backend.get(NAME) is None
    assert backend.size(NAME) is None
    backend.delete(NAME)
    for content in (b"one", b"", b"three" * 100_000):
        backend.put(NAME, content)
        assert backend.get(NAME) == content
        assert backend.size(NAME) == len(content)
    backend.delete(NAME)
    assert backend.get(NAME) is None


def test_of_many_who_create_at_once_exactly_one_does(backend: Backend) -> None:
    contents = [bytes([n]) * 5_000 for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda content: backend.create(NAME, content), contents))
    assert won.count(True) == 1
    assert backend.get(NAME) == contents[won.index(True)]
    assert not backend.create(NAME, b"late")
    backend.delete(NAME)
    assert backend.create(NAME, b"again")


def test_what_lies_within_a_folder_of_a_backend_is_apart(backend: Backend) -> None:
    """Claims lie in the store of the blobs: same store, other names."""
    inside = backend.within("claims")
    assert inside.create(NAME, b"claim")
    assert backend.get(NAME) is None
    assert backend.create(NAME, b"blob")
    assert not inside.create(NAME, b"late")
    assert backend.within("claims").get(NAME) == b"claim"
    assert inside.place == f"{backend.place}/claims"


def test_a_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    """Values of runs may be private, and the umask of most systems lets everybody read."""
    before = os.umask(0o022)
    try:
        backend = FolderBackend(tmp_path / "data" / "blobs")
        backend.put(NAME, b"x")
        backend.within("claims").create("cd" * 32, b"x")
    finally:
        os.umask(before)
    found = {p.relative_to(tmp_path): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert {m for p, m in found.items() if len(p.name) == 64} == {0o600}
    assert {m for p, m in found.items() if len(p.name) == 2 or p.name in ("blobs", "claims")} == {
        0o700
    }
    assert len(found) == 7  # and nothing is left beside them


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FolderBackend(tmp_path)
    backend.put(NAME, b"whole")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (backend.put, backend.create):
        with pytest.raises(OSError, match="No space"):
            write(NAME, b"half")
    assert backend.get(NAME) == b"whole"
    assert [p.name for p in backend.path(NAME).parent.iterdir()] == [NAME]


def test_content_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a name without its content is worse than no name."""
    order: list[str] = []
    sync, replace, link = os.fsync, Path.replace, os.link

    def seen_sync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        order.append("sync folder" if is_folder else "sync file")
        sync(descriptor)

    def seen_replace(self: Path, target: Path) -> Path:
        order.append("name")
        return replace(self, target)

    def seen_link(*args: Any) -> None:
        order.append("name")
        link(*args)

    backend = FolderBackend(tmp_path)
    backend.put(NAME, b"x")  # makes the folders
    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    monkeypatch.setattr(os, "link", seen_link)
    backend.put(NAME, b"y")
    backend.create(NAME[:2] * 31 + "00", b"y")
    assert order == ["sync file", "name", "sync folder"] * 2


async def test_blobs_lie_in_a_bucket_under_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3(monkeypatch) as objects:
        blobs = BlobStore("s3://bucket/runs/")
        value = {"a": "x" * 3_000}
        stored = await blobs.store_value(value)
        assert stored.blob is not None
        assert list(objects) == [f"/bucket/runs/{stored.blob[:2]}/{stored.blob}"]
        assert await BlobStore("s3://bucket/runs").load(stored) == value
        assert await blobs.keep(stored)
        with pytest.raises(BlobError, match=r"is not in s3://bucket/runs"):
            await blobs.read_bytes("0" * 64)


async def test_a_bucket_that_does_not_answer_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with s3(monkeypatch):
        pass  # its port is closed again
    with pytest.raises(BlobError, match=r"cannot be written to s3://bucket"):
        await BlobStore("s3://bucket", patience=Patience(0.0, 0.0)).put_bytes(b"x")


@pytest.mark.parametrize("address", ["ftp://me:canary@host/x", "s3://?token=canary"])
def test_no_message_tells_what_may_be_a_secret_in_an_address(address: str) -> None:
    with pytest.raises(BlobError) as seen:
        open_backend(address)
    assert "canary" not in str(seen.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3:///x", "names no bucket"),
        ("ftp://host/x", "is not a place for blobs"),
        ("memory:///", "is not a place for blobs"),
        ("s3://bucket", "cannot be used"),
    ],
)
def test_places_that_cannot_be_used_are_told(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "no such way")
    with pytest.raises(BlobError, match=said):
        open_backend(address)
