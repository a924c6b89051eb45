"""Garbage collection over a store: what is marked stays, what is new stays, the rest goes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planloom.activities.storage.backends import FolderBackend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache
from planloom.activities.storage.claims import ClaimStore, claim_id
from planloom.activities.storage.garbage import Garbage, Retained, names_in
from planloom.activities.storage.sealed import SealedBackend
from planloom.activities.storage.users import StoreUser, record_user, store_users
from planloom.keys import KeyRing, NotGenuine
from planloom.planner.contract.garbage import GarbageReport
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import Stored
from tests.support.s3 import s3

WEEK = 7 * 86_400.0
Age = Callable[[], None]


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[BlobStore, Age]]:
    """A store, and what makes everything in it a week older."""
    if request.param == "folder":

        def age() -> None:
            for path in (tmp_path / "blobs").rglob("*"):
                if path.is_file():
                    os.utime(path, (path.stat().st_mtime - WEEK,) * 2)

        yield BlobStore(tmp_path / "blobs"), age
        return
    times: dict[str, float] = {}

    def age_objects() -> None:
        times.update({path: at - WEEK for path, at in times.items()})

    with s3(monkeypatch, times):
        yield BlobStore("s3://bucket/runs"), age_objects


def collection(blobs: BlobStore, folder: Path) -> Garbage:
    return Garbage(blobs.backend, ResultCache(blobs, folder / "locks"), before=time.time() - 86_400)


async def blob_of(blobs: BlobStore, value: object) -> str:
    stored = await blobs.store_value(value, inline_max_bytes=0)  # type: ignore[arg-type]
    assert stored.blob is not None
    return stored.blob


def is_there(blobs: BlobStore, name: str) -> bool:
    return blobs.backend.size(name) is not None


async def test_what_a_run_refers_to_stays_with_what_that_refers_to(
    store: tuple[BlobStore, Age], tmp_path: Path
) -> None:
    blobs, age = store
    leaf = await blob_of(blobs, "leaf")
    bundle = await blob_of(blobs, {"a": {"blob": leaf}})
    plain = await blob_of(blobs, ["a", bundle])
    unused = await blob_of(blobs, {"unused": leaf})
    age()
    young = await blob_of(blobs, "young")
    garbage = collection(blobs, tmp_path)
    retained = Retained(names={plain, "f" * 64})
    dry = garbage.collect(retained, GarbageReport(is_dry_run=True))
    assert is_there(blobs, unused)
    done = garbage.collect(retained, GarbageReport(is_dry_run=False))
    assert dry.removed == done.removed
    assert {what: n.count for what, n in done.removed.items()} == {"blobs": 1}
    assert {what: n.count for what, n in done.kept.items()} == {
        "blob: a run refers to it": 3,
        "blob: it is too new": 1,
    }
    assert done.missing == 1
    assert [is_there(blobs, n) for n in (leaf, bundle, plain, young, unused)] == [True] * 4 + [
        False
    ]


async def test_a_value_that_is_stored_or_cached_again_while_it_is_collected_stays(
    store: tuple[BlobStore, Age], tmp_path: Path
) -> None:
    """1. The server is asked, and nothing refers to it. 2. A run stores the same value, or takes it
    from the cache; no blob is written, for it is there. 3. The collection comes to it."""
    blobs, age = store
    again = await blobs.store_value("again " * 1000)
    cached = await blobs.store_value("cached " * 1000)
    taken = await blobs.store_value("taken " * 1000)
    assert None not in (again.blob, cached.blob, taken.blob)
    cache = ResultCache(blobs, tmp_path / "locks")
    await cache.put("b" * 64, CacheEntry(output=taken))
    age()
    await cache.put("a" * 64, CacheEntry(output=cached))
    garbage = collection(blobs, tmp_path)
    assert (await blobs.store_value("again " * 1000)).blob == again.blob
    assert await cache.get("b" * 64)
    done = garbage.collect(Retained(), GarbageReport(is_dry_run=False))
    assert [is_there(blobs, n) for n in (again.blob, cached.blob, taken.blob)] == [True] * 3
    assert not done.removed
    age()
    assert await cache.get("a" * 64)
    done = collection(blobs, tmp_path).collect(Retained(), GarbageReport(is_dry_run=False))
    assert {what: n.count for what, n in done.removed.items()} == {"blobs": 2, "cached results": 1}
    assert is_there(blobs, cached.blob)
    assert await cache.get("b" * 64) is None


async def test_claims_stay_while_the_server_keeps_their_run(
    store: tuple[BlobStore, Age], tmp_path: Path
) -> None:
    blobs, age = store
    claims = ClaimStore(blobs.backend.within("claims"))
    result = await blob_of(blobs, "result")
    ids = {name: claim_id(name, "send", {}) for name in ("live", "old form", "gone", "new")}

    def act(name: str, execution: str, workflow: str = "") -> None:
        made = claims.claim(
            ids[name], tool="send", attempt=1, workflow=workflow, execution=execution
        )
        claims.finish(made, TaskOutput(output=Stored(blob=result, size_bytes=6)))

    act("live", "deleted-run-of-the-chain/1/t", "trip")
    act("old form", "run-2/1/t")
    act("gone", "run-9/1/t", "gone")
    age()
    act("new", "run-3/1/t", "started a moment ago")
    done = collection(blobs, tmp_path).collect(
        Retained(workflows={"trip"}, runs={"run-2"}), GarbageReport(is_dry_run=False)
    )
    assert done.removed["claims"].count == 2  # the claim and its result
    states = {name: claims.claim(id, tool="send", attempt=2).state for name, id in ids.items()}
    assert states == {"live": "done", "old form": "done", "gone": "unseen", "new": "done"}
    assert is_there(blobs, result)


async def test_a_write_that_was_never_finished_goes_when_it_is_old(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    name = await blob_of(blobs, "x")
    folder = tmp_path / "blobs" / name[:2]
    for part in (".old.part", ".new.part"):
        (folder / part).write_bytes(b"half")
    os.utime(folder / ".old.part", (time.time() - WEEK,) * 2)
    done = collection(blobs, tmp_path).collect(Retained(), GarbageReport(is_dry_run=False))
    assert done.removed["unfinished writes"].count == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted([".new.part", name])


async def test_a_value_kept_between_the_look_and_the_deletion_is_put_back(tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path)
    backend.put("ab" * 32, b"x")
    assert not backend.delete_older("ab" * 32, time.time() - 60)
    assert backend.get("ab" * 32) == b"x"
    os.utime(backend.path("ab" * 32), (1, 1))
    assert backend.keep("ab" * 32, 1)
    assert not backend.delete_older("ab" * 32, time.time() - 60)
    assert backend.delete_older("ab" * 32, time.time() + 60)
    assert not backend.keep("ab" * 32, 1)


def test_names_are_found_wherever_they_stand() -> None:
    name = "0123456789abcdef" * 4
    state = base64.b64encode(zlib.compress(json.dumps({"x": {"blob": name}}).encode())).decode()
    for text in (
        json.dumps({"blob": name}),
        f"see {name}.",
        name,
        json.dumps({"planloom_state": 1, "state": state}),
    ):
        assert names_in(text.encode()) == {name}
    assert names_in(f"{name}0".encode()) == set()
    assert names_in(b"eJ" + b"A" * 100) == set()


async def test_workers_say_whose_runs_use_the_store(store: tuple[BlobStore, Age]) -> None:
    blobs, _ = store
    users = [StoreUser(server="s", namespace=n, address="a:1") for n in ("default", "other")]
    await asyncio.gather(
        *(asyncio.to_thread(record_user, blobs.backend, u) for u in (*users, users[0]))
    )
    assert sorted(store_users(blobs.backend), key=lambda u: u.namespace) == users


async def test_a_value_that_cannot_be_read_ends_a_collection_before_it_removes_anything(
    tmp_path: Path,
) -> None:
    ring = KeyRing("old", {"old": b"o" * 32})
    sealed = BlobStore(SealedBackend(FolderBackend(tmp_path / "blobs"), ring))
    claims = ClaimStore(sealed.backend.within("claims"))
    claims.finish(claims.claim("c" * 64, tool="t", attempt=1), TaskOutput(output=Stored(value=1)))
    for path in (tmp_path / "blobs").rglob("*.*"):
        os.utime(path, (time.time() - WEEK,) * 2)
    name = await blob_of(sealed, "x")
    (tmp_path / "blobs" / name[:2] / name).write_bytes(ring.seal(b"x", "another name"))
    before = sorted((tmp_path / "blobs").rglob("*"))
    with pytest.raises(NotGenuine):
        collection(sealed, tmp_path).collect(Retained(), GarbageReport(is_dry_run=False))
    assert sorted((tmp_path / "blobs").rglob("*")) == before
