"""Values encrypted where they lie: a backend in front of another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from planloom.activities.storage.backends import Backend, Entry


class Sealer(Protocol):
    """Encrypts a value for the name it is stored under, and decrypts it."""

    @property
    def overhead_bytes(self) -> int: ...

    @property
    def sealed_now(self) -> bytes:
        """What every value begins with that is sealed now, and none that another key sealed."""
        ...

    def seal(self, content: bytes, name: str) -> bytes: ...

    def unseal(self, content: bytes, name: str) -> bytes: ...


class SealedBackend:
    """What a backend holds, encrypted. Names are not: a blob's is the hash of its content."""

    def __init__(self, inner: Backend, sealer: Sealer) -> None:
        self._inner = inner
        self._sealer = sealer
        self.place = inner.place
        self.is_local = inner.is_local

    def within(self, folder: str, *, is_durable: bool = True) -> SealedBackend:
        return SealedBackend(self._inner.within(folder, is_durable=is_durable), self._sealer)

    def put(self, name: str, content: bytes) -> None:
        self._inner.put(name, self._sealer.seal(content, name))

    def create(self, name: str, content: bytes) -> bool:
        return self._inner.create(name, self._sealer.seal(content, name))

    def get(self, name: str) -> bytes | None:
        content = self._inner.get(name)
        return None if content is None else self._sealer.unseal(content, name)

    def beginning(self, name: str, count: int) -> bytes | None:
        content = self.get(name)
        return None if content is None else content[:count]

    def size(self, name: str) -> int | None:
        """Of the content. One that was written before there was a key seems too short: a value that
        is stored again is then encrypted."""
        size = self._inner.size(name)
        return None if size is None else max(0, size - self._sealer.overhead_bytes)

    def delete(self, name: str) -> None:
        self._inner.delete(name)

    def keep(self, name: str, size: int) -> bool:
        """Also whether it can be read for as long as what is sealed now: one that an older key
        sealed is written again, so that this key is not needed for it when the key is gone."""
        if not self._inner.keep(name, size + self._sealer.overhead_bytes):
            return False
        wanted = self._sealer.sealed_now
        return self._inner.beginning(name, len(wanted)) == wanted

    def entries(self) -> Iterator[Entry]:
        return self._inner.entries()

    def delete_older(self, name: str, before: float) -> bool:
        return self._inner.delete_older(name, before)
