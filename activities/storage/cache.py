"""Results by content: the same question asked again is answered from disk, asked at once only once.

A key is made of what was called, its version and its arguments. Values are `Stored`, so an entry is
small; large values stay in the blob store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import Field

from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.json_values import json_text
from planloom.activities.storage.sealed import Sealer
from planloom.activities.storage.threads import in_storage_thread
from planloom.planner.contract.requests import CacheMode
from planloom.planner.language.values import JsonValue, Model, Stored, Usage

LOCK_WAIT_SECONDS = 300.0
"""How long a call waits for an equal one in flight before it is made all the same."""
LOCK_POLL_SECONDS = (0.01, 0.25)
"""First and longest pause between looks at another process's lock."""
PRUNE_EVERY = 1_000
MAX_BYTES = 256 * 1024 * 1024


log = logging.getLogger(__name__)


class CacheEntry(Model):
    """One result, and what it cost when it was made."""

    output: Stored
    usage: Usage = Field(default_factory=Usage)
    seconds: float = 0.0
    name: str = ""


def cache_key(
    kind: str,
    name: str,
    version: str,
    args: JsonValue,
    *,
    mode: CacheMode,
    scope: str = "",
    tenant: str | None = None,
    depends_on: str = "",
) -> str:
    """SHA-256 of everything that a result depends on.

    `scope` counts under `run` only. `tenant` always counts: tenants share no results. `depends_on`
    is what else the result stands on (the workspace, a file's time).
    """
    parts = [kind, name, version, args, scope if mode == "run" else "", tenant or "", depends_on]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(f"{mode}:{text}".encode()).hexdigest()


class ResultCache:
    """Entries under `folder`, one small JSON file each, least lately used pruned first."""

    def __init__(
        self,
        folder: Path,
        blobs: BlobStore,
        *,
        sealer: Sealer | None = None,
        wait_seconds: float = LOCK_WAIT_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._sealer = sealer
        self._folder = folder
        self._blobs = blobs
        self._wait_seconds = wait_seconds
        self._max_bytes = max_bytes
        self._flights: dict[str, tuple[asyncio.Lock, int]] = {}
        self._puts = 0

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    async def get(self, key: str) -> CacheEntry | None:
        """The entry, or None if it is absent, unreadable, or its blob is gone."""
        path = self._path(key)
        try:
            entry = self._read(key, path.read_bytes())
        except OSError:
            return None
        if entry is None:
            return None
        if not await self._blobs.keep(entry.output):
            return None
        try:
            os.utime(path)  # used now: pruned last
        except OSError:
            return entry
        return entry

    async def put(self, key: str, entry: CacheEntry) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        content = json_text(entry.model_dump(mode="json")).encode()
        part.write_bytes(self._sealer.seal(content, key) if self._sealer else content)
        part.replace(path)
        self._puts += 1
        if self._puts % PRUNE_EVERY == 0:
            await in_storage_thread(self.prune, self._max_bytes)

    def _read(self, key: str, content: bytes) -> CacheEntry | None:
        try:
            text = self._sealer.unseal(content, key) if self._sealer else content
            return CacheEntry.model_validate_json(text)
        except Exception:  # damaged, or its key has gone: the call is made again
            return None

    async def get_or_run(
        self, key: str, run: Callable[[], Awaitable[CacheEntry]]
    ) -> tuple[CacheEntry, bool]:
        """The entry and whether it was there; if not, `run` makes it, once among all who ask.

        A failure of `run` is raised to its own caller only; the next in line runs again.
        """
        if entry := await self.get(key):
            return entry, True
        async with self._flight(key):
            if entry := await self.get(key):
                return entry, True
            entry = await run()
            try:
                await self.put(key, entry)
            except OSError as error:  # a full disk: what was paid for is not lost with it
                log.warning("a result is not cached in %s: %s", self._folder, error)
            return entry, False

    @asynccontextmanager
    async def _flight(self, key: str) -> AsyncIterator[None]:
        """Held by one at a time per key, over tasks and processes; given up after `wait_seconds`.

        Given up means that the caller goes on without it: an equal call twice is waste, a call
        that waits forever is a hung run.
        """
        deadline = time.monotonic() + self._wait_seconds
        lock, waiting = self._flights.get(key, (asyncio.Lock(), 0))
        self._flights[key] = (lock, waiting + 1)
        held = False
        file_lock: FileLock | None = None
        try:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await lock.acquire()
                held = True
            except TimeoutError:
                held = False
            if held:
                file_lock = await self._file_lock(key, deadline)
            yield
        finally:
            if file_lock is not None:
                file_lock.release()
            if held:
                lock.release()
            _, waiting = self._flights[key]
            if waiting == 1:
                del self._flights[key]
            else:
                self._flights[key] = (lock, waiting - 1)

    async def _file_lock(self, key: str, deadline: float) -> FileLock | None:
        # The kernel lets go of it when its holder is killed. Polled, because flock has no await.
        path = self._folder / "locks" / f"{key}.lock"
        lock = FileLock(path, thread_local=False)
        pause, longest = LOCK_POLL_SECONDS
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(blocking=False)
            except Timeout:  # an OSError too: held by somebody
                if time.monotonic() + pause > deadline:
                    return None
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            except OSError as error:
                log.warning("the cache in %s cannot be locked: %s", self._folder, error)
                return None
            else:
                return lock

    def outputs(self) -> Iterator[tuple[Path, float, Stored | None]]:
        """Each entry's file, when it was used last, and its value; None when it cannot be read."""
        for path in self._folder.glob("??/*.json"):
            try:
                used, content = path.stat().st_mtime, path.read_bytes()
            except OSError:
                continue
            entry = self._read(path.stem, content)
            yield path, used, entry.output if entry else None

    def prune(self, max_bytes: int) -> int:
        """Delete the entries used least lately until the rest is small enough; how many went.

        Lock files unused for a day go too: an hour-long call must keep its own.
        """
        entries = []
        for path in self._folder.glob("??/*.json"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another worker prunes too
            entries.append((stat.st_mtime, stat.st_size, path))
        entries.sort(key=lambda e: e[0])
        total = sum(size for _, size, _ in entries)
        gone = 0
        for _, size, path in entries:
            if total <= max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            gone += 1
        day_ago = time.time() - 86400
        for path in (self._folder / "locks").glob("*.lock"):
            if path.stat().st_mtime < day_ago:
                path.unlink(missing_ok=True)
        return gone
