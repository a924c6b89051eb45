"""Bytes by name, in this process only: for runs that are not durable."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from planloom.activities.storage.backends import Entry


class MemoryBackend:
    """A `Backend` whose values are gone with the process."""

    place = "memory"
    is_local = True

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._within: dict[str, MemoryBackend] = {}
        self._lock = threading.Lock()

    def within(self, folder: str, *, is_durable: bool = True) -> MemoryBackend:
        return self._within.setdefault(folder, MemoryBackend())

    def put(self, name: str, content: bytes) -> None:
        self._values[name] = content

    def create(self, name: str, content: bytes) -> bool:
        with self._lock:
            is_first = name not in self._values
            self._values.setdefault(name, content)
        return is_first

    def get(self, name: str) -> bytes | None:
        return self._values.get(name)

    def beginning(self, name: str, count: int) -> bytes | None:
        return self._values[name][:count] if name in self._values else None

    def size(self, name: str) -> int | None:
        return len(self._values[name]) if name in self._values else None

    def delete(self, name: str) -> None:
        self._values.pop(name, None)

    def keep(self, name: str, size: int) -> bool:
        return self.size(name) == size

    def entries(self) -> Iterator[Entry]:
        return iter(())  # it goes with its process: there is nothing to collect

    def delete_older(self, name: str, before: float) -> bool:
        return False
