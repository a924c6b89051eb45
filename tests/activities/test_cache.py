"""The result cache: one answer for equal questions, one run for those asked at once."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from planloom.activities.storage.backends import FolderBackend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache, cache_key
from planloom.planner.language.values import Stored, Usage
from tests.support.s3 import s3

KEY = cache_key("tool", "t", "1", {"a": 1}, mode="shared")


def entry(value: str = "v") -> CacheEntry:
    return CacheEntry(output=Stored(value=value), usage=Usage(usd_nano=5), name="t")


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(BlobStore(tmp_path / "blobs"), tmp_path / "locks")


def test_everything_a_result_depends_on_is_in_the_key() -> None:
    def key(**changed: object) -> str:
        given: dict[str, object] = {
            "kind": "tool", "name": "t", "version": "1", "args": {"a": 1, "b": 2},
            "mode": "run", "scope": "r1",
        } | changed  # fmt: skip
        kind, name, version, args = (given.pop(k) for k in ("kind", "name", "version", "args"))
        return cache_key(kind, name, version, args, **given)  # type: ignore[arg-type]

    same = key()
    assert same == key(args={"b": 2, "a": 1})
    for changed in (
        {"name": "u"}, {"version": "2"}, {"args": {"a": 1}}, {"scope": "r2"}, {"mode": "shared"},
        {"tenant": "x"}, {"depends_on": "file"}, {"kind": "ask"},
    ):  # fmt: skip
        assert key(**changed) != same, changed
    assert key(mode="shared") == key(mode="shared", scope="r2")


async def test_a_second_call_is_answered_without_running(cache: ResultCache) -> None:
    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        return entry()

    assert await cache.get_or_run(KEY, run) == (entry(), False)
    assert await cache.get_or_run(KEY, run) == (entry(), True)
    assert runs == 1


async def test_siblings_that_ask_at_once_run_once(cache: ResultCache) -> None:
    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.05)
        return entry()

    answers = await asyncio.gather(*(cache.get_or_run(KEY, run) for _ in range(20)))
    assert runs == 1
    assert sorted(was_there for _, was_there in answers) == [False] + [True] * 19


async def test_a_failure_is_its_own_callers_and_the_next_in_line_runs(cache: ResultCache) -> None:
    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        if runs == 1:
            raise ValueError("first")
        return entry()

    answers = await asyncio.gather(
        *(cache.get_or_run(KEY, run) for _ in range(3)), return_exceptions=True
    )
    assert runs == 2
    assert sum(isinstance(a, ValueError) for a in answers) == 1


async def test_a_cancelled_leader_leaves_the_flight_to_the_next(cache: ResultCache) -> None:
    async def endless() -> CacheEntry:
        await asyncio.sleep(60)
        return entry()

    async def quick() -> CacheEntry:
        return entry("next")

    leader = asyncio.create_task(cache.get_or_run(KEY, endless))
    await asyncio.sleep(0.02)
    follower = asyncio.create_task(cache.get_or_run(KEY, quick))
    await asyncio.sleep(0.02)
    leader.cancel()
    assert (await asyncio.wait_for(follower, 60))[0] == entry("next")


HOLDER = """
import asyncio, sys
from pathlib import Path
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache
from planloom.planner.language.values import Stored
root, key, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
cache = ResultCache(BlobStore(root / "blobs"), root / "locks")
async def run():
    print("running", flush=True)
    await asyncio.sleep(seconds)
    return CacheEntry(output=Stored(value="other process"))
asyncio.run(cache.get_or_run(key, run))
"""


def _hold(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), KEY, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert held.stdout is not None
    assert held.stdout.readline().strip() == "running"
    return held


async def test_processes_that_ask_at_once_run_once(cache: ResultCache, tmp_path: Path) -> None:
    async def run() -> CacheEntry:
        raise AssertionError("ran although another process was at it")

    with _hold(tmp_path, 0.5):
        found, was_there = await cache.get_or_run(KEY, run)
    assert was_there
    assert found.output.value == "other process"


async def test_a_killed_process_lets_go(cache: ResultCache, tmp_path: Path) -> None:
    async def run() -> CacheEntry:
        return entry("mine")

    with _hold(tmp_path, 60) as held:
        waiting = asyncio.create_task(cache.get_or_run(KEY, run))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        held.kill()
        assert (await asyncio.wait_for(waiting, 60))[0] == entry("mine")


async def test_waiting_has_an_end(tmp_path: Path) -> None:
    cache = ResultCache(BlobStore(tmp_path / "blobs"), tmp_path / "locks", wait_seconds=0.2)

    async def run() -> CacheEntry:
        return entry("mine")

    with _hold(tmp_path, 60) as held:
        assert (await asyncio.wait_for(cache.get_or_run(KEY, run), 5))[0] == entry("mine")
        held.kill()


async def test_an_entry_whose_blob_has_gone_or_that_is_torn_is_none(
    cache: ResultCache, tmp_path: Path
) -> None:
    gone = CacheEntry(output=Stored(blob="0" * 64, size_bytes=9))
    await cache.put(KEY, gone)
    assert await cache.get(KEY) is None
    (tmp_path / "blobs/cache" / KEY[:2] / KEY).write_text("{torn")
    assert await cache.get(KEY) is None


async def test_pruning_drops_what_was_used_least_lately(cache: ResultCache, tmp_path: Path) -> None:
    keys = [cache_key("tool", str(i), "1", {}, mode="shared") for i in range(4)]
    for age, key in enumerate(keys):
        await cache.put(key, entry())
        path = tmp_path / "blobs/cache" / key[:2] / key
        os.utime(path, (1_000_000 + age, 1_000_000 + age))
    size = path.stat().st_size
    await cache.get(keys[0])  # used now
    assert cache.prune(2 * size) == 2
    left = [k for k in keys if await cache.get(k)]
    assert left == [keys[0], keys[3]]


async def test_a_result_that_cannot_be_cached_is_not_lost_with_its_price(tmp_path: Path) -> None:
    """The disk is full, or a file lies where the folder should be: `run` is not called again."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/cache").write_text("no folder")
    cache = ResultCache(BlobStore(tmp_path / "blobs"), tmp_path / "locks")
    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        return entry("paid")

    made, was_there = await cache.get_or_run(KEY, run)
    assert (made.output.value, was_there, runs) == ("paid", False, 1)


@pytest.mark.parametrize("place", ["folder", "s3"])
async def test_workers_with_a_disk_each_share_results_through_their_store(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache was in each worker's own data folder, so each of them paid for the same call."""
    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        return entry()

    with s3(monkeypatch):
        store = str(tmp_path / "blobs") if place == "folder" else "s3://bucket/runs"
        one, other = (ResultCache(BlobStore(store), tmp_path / n / "locks") for n in "ab")
        assert await one.get_or_run(KEY, run) == (entry(), False)
        assert await other.get_or_run(KEY, run) == (entry(), True)
        assert runs == 1


async def test_a_store_that_is_away_costs_one_call_and_loses_no_result(tmp_path: Path) -> None:
    class Away(FolderBackend):
        def within(self, folder: str, *, is_durable: bool = True) -> Away:
            return Away(self.folder / folder)

        def get(self, name: str) -> bytes | None:
            raise RuntimeError("503 Slow Down")

        def put(self, name: str, content: bytes) -> None:
            raise RuntimeError("503 Slow Down")

    runs = 0

    async def run() -> CacheEntry:
        nonlocal runs
        runs += 1
        return entry("paid")

    cache = ResultCache(BlobStore(Away(tmp_path)), tmp_path / "locks")
    assert await cache.get_or_run(KEY, run) == (entry("paid"), False)
    assert runs == 1


async def test_a_lock_that_cannot_be_released_costs_no_result(
    cache: ResultCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network folder whose server is away for a moment."""

    def fail(self: FileLock, force: bool = False) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    async def run() -> CacheEntry:
        return entry("paid")

    monkeypatch.setattr(FileLock, "release", fail)
    assert await cache.get_or_run(KEY, run) == (entry("paid"), False)
    monkeypatch.undo()
    assert await asyncio.wait_for(cache.get_or_run(KEY, run), 5) == (entry("paid"), True)


@pytest.mark.parametrize("where", ["folder", "s3"])
async def test_no_lock_file_is_left_of_a_call_that_has_ended(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> CacheEntry:
        assert len(list(tmp_path.rglob("*.lock"))) == 1
        return entry()

    with s3(monkeypatch):
        store = tmp_path / "blobs" if where == "folder" else "s3://bucket/runs"
        cache = ResultCache(BlobStore(store), tmp_path / "locks")
        assert await cache.get_or_run(KEY, run) == (entry(), False)
    assert not list(tmp_path.rglob("*.lock"))


async def test_lock_files_of_killed_processes_go_and_those_that_are_held_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planloom.activities.storage.cache.PRUNE_EVERY", 1)
    locks = tmp_path / "locks"
    locks.mkdir()
    for name in ("left", "held"):
        (locks / f"{name}.lock").touch()
        os.utime(locks / f"{name}.lock", (1, 1))
    with s3(monkeypatch), FileLock(locks / "held.lock"):
        cache = ResultCache(BlobStore("s3://bucket/runs"), locks)
        await cache.put(KEY, entry())
        assert [p.name for p in locks.iterdir()] == ["held.lock"]
