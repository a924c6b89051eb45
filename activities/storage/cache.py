"""Results by content: the same question asked again is answered from the store, and asked at once
only once.

Entries lie in the store that all workers share, beside the blobs. A key is made of what was called,
its version and its arguments. Values are `Stored`, so an entry is small; large values are blobs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field

from planloom.activities.storage.backends import Entry, short_reason
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.json_values import json_text
from planloom.activities.storage.threads import in_storage_thread
from planloom.planner.contract.requests import CacheMode
from planloom.planner.language.values import JsonValue, Model, Stored, Usage

LOCK_WAIT_SECONDS = 300.0
"""How long a call waits for an equal one in flight before it is made all the same."""
LOCK_POLL_SECONDS = (0.01, 0.25)
"""First and longest pause between looks at another process's lock."""
PRUNE_EVERY = 1_000
MAX_BYTES = 256 * 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")

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
    """Entries in the folder `cache` of the blobs' store.

    `locks` is a folder for the locks of calls in flight, where the store is not a folder itself:
    equal calls of processes that do not see the same locks are made by each of them.
    """

    def __init__(
        self,
        blobs: BlobStore,
        locks: Path,
        *,
        wait_seconds: float = LOCK_WAIT_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._blobs = blobs
        self._backend = blobs.backend.within("cache", is_durable=False)
        self._locks = Path(self._backend.place) / "locks" if self._backend.is_local else locks
        self._wait_seconds = wait_seconds
        self._max_bytes = max_bytes
        self._flights: dict[str, tuple[asyncio.Lock, int]] = {}
        self._puts = 0

    async def get(self, key: str) -> CacheEntry | None:
        """The entry, or None if it is absent, unreadable, or its blob is gone."""
        try:
            content = await self._at_once_or_in_thread(self._backend.get, key)
            entry = _entry(content)
            if content is None or entry is None or not await self._blobs.keep(entry.output):
                return None
            # Used now: it is pruned last, and no garbage collection takes it.
            if not await self._at_once_or_in_thread(self._backend.keep, key, len(content)):
                await in_storage_thread(self._backend.put, key, content)
        except Exception as error:  # the store is away, or its key is gone: the call is made
            log.warning("no cached result from %s: %s", self._backend.place, short_reason(error))
            return None
        return entry

    async def put(self, key: str, entry: CacheEntry) -> None:
        """Store an entry.

        Raises:
            Exception: the store cannot be written.
        """
        content = json_text(entry.model_dump(mode="json")).encode()
        await in_storage_thread(self._backend.put, key, content)
        self._puts += 1
        if self._puts % PRUNE_EVERY == 0:
            try:
                await in_storage_thread(self._tidy)
            except OSError as error:  # another worker tidies too; what was put is there
                log.info("the cache in %s cannot be tidied: %s", self._backend.place, error)

    def _tidy(self) -> None:
        self._remove_old_locks()
        # A bucket has room, and is listed slowly: `planloom gc` removes what is old there.
        if self._backend.is_local:
            self.prune(self._max_bytes)

    async def _at_once_or_in_thread(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        # A small file takes less time than a thread's hand-over.
        if self._backend.is_local:
            return function(*args, **kwargs)
        return await in_storage_thread(function, *args, **kwargs)

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
            except Exception as error:  # a full disk: what was paid for is not lost with it
                reason = short_reason(error)
                log.warning("a result is not cached in %s: %s", self._backend.place, reason)
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
                _let_go(file_lock)
            if held:
                lock.release()
            _, waiting = self._flights[key]
            if waiting == 1:
                del self._flights[key]
            else:
                self._flights[key] = (lock, waiting - 1)

    async def _file_lock(self, key: str, deadline: float) -> FileLock | None:
        # The kernel lets go of it when its holder is killed. Polled, because flock has no await.
        path = self._locks / f"{key}.lock"
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
                log.warning("the cache cannot be locked in %s: %s", self._locks, error)
                return None
            else:
                return lock

    def entries(self) -> list[Entry]:
        """All entries, with when each was used last, to an hour."""
        return list(self._backend.entries())

    def output(self, key: str) -> Stored | None:
        """The value of an entry; None when it cannot be read.

        Raises:
            Exception: the store cannot be read.
        """
        entry = _entry(self._backend.get(key))
        return entry.output if entry else None

    def delete_older(self, key: str, before: float) -> bool:
        """Delete an entry unless it was used since `before`; whether it was deleted."""
        return self._backend.delete_older(key, before)

    def prune(self, max_bytes: int) -> int:
        """Delete the entries used least lately until the rest is small enough; how many went."""
        entries = sorted(self.entries(), key=lambda e: e.modified)
        total = sum(e.size for e in entries)
        gone = 0
        for entry in entries:
            if total <= max_bytes:
                break
            self._backend.delete(entry.name)
            total -= entry.size
            gone += 1
        return gone

    def _remove_old_locks(self) -> None:
        """Lock files that processes which were killed have left, for a day. A held one stays."""
        day_ago = time.time() - 86400
        for path in self._locks.glob("*.lock"):
            with suppress(OSError):
                if path.stat().st_mtime < day_ago:
                    lock = FileLock(path, thread_local=False)
                    lock.acquire(blocking=False)
                    _let_go(lock)


def _let_go(lock: FileLock) -> None:
    """Release a lock, and remove its file while it is held: whoever has opened the file meanwhile
    finds that it has no name, and tries again. A folder that fails costs no result."""
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    with suppress(OSError):
        lock.release()


def _entry(content: bytes | None) -> CacheEntry | None:
    try:
        return None if content is None else CacheEntry.model_validate_json(content)
    except ValueError:  # damaged: the call is made again
        return None
