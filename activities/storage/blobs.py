"""Large values outside history: blobs addressed by the SHA-256 of their content (DESIGN §6).

A value is stored once as its own bytes (a string as UTF-8, anything else as JSON) and travels as
`Stored`. References are resolved here, in `bind`, because only activities may read blobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from planloom.activities.storage.backends import (
    Backend,
    BlobError,
    PassingError,
    open_backend,
    short_reason,
)
from planloom.activities.storage.json_values import (
    ValueNotJsonError,
    copied,
    depth_of,
    json_text,
    preview_of,
)
from planloom.activities.storage.patience import Patience, patiently
from planloom.activities.storage.threads import in_computing_thread, in_storage_thread
from planloom.planner.language.clean_text import clean_value
from planloom.planner.language.expressions import IN_ACTIVITY, BadPathError, Meter
from planloom.planner.language.references import builds, resolve, roots_of
from planloom.planner.language.values import INLINE_MAX_BYTES, Bindings, JsonValue, Stored

__all__ = ["BlobError", "BlobStore"]

_HASH = re.compile(r"^[0-9a-f]{64}$")
THREAD_MIN_BYTES = 256 * 1024
"""Below this, reading a file takes less time than a thread's hand-over is worth."""
PARSED_MAX_BYTES = 64 * 1024 * 1024
INLINE_MAX_DEPTH = 64
"""Parsers of payloads stop at about 200 levels; a workflow that cannot read its result hangs."""


class _Parsed:
    """Values read lately, the least lately used dropped first; bounded by their bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._total = 0
        self._values: OrderedDict[tuple[str, str], tuple[JsonValue, int]] = OrderedDict()

    def get(self, key: tuple[str, str]) -> tuple[JsonValue, int] | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: tuple[str, str], value: JsonValue, size: int) -> None:
        if size > self._max or key in self._values:
            return
        self._values[key] = (value, size)
        self._total += size
        while self._total > self._max:
            _, (_, dropped) = self._values.popitem(last=False)
            self._total -= dropped


class BlobStore:
    """Stores values, loads them, and binds references to them."""

    def __init__(
        self,
        location: str | Path | Backend,
        *,
        parsed_max_bytes: int = PARSED_MAX_BYTES,
        patience: Patience | None = None,
    ) -> None:
        self._backend = open_backend(location) if isinstance(location, str | Path) else location
        self._patience = patience or Patience()
        self._parsed = _Parsed(parsed_max_bytes)

    @property
    def place(self) -> str:
        return self._backend.place

    @property
    def backend(self) -> Backend:
        """Where they lie: what else all workers share lies in a folder within."""
        return self._backend

    async def store_value(
        self, value: JsonValue, inline_max_bytes: int | None = INLINE_MAX_BYTES
    ) -> Stored:
        """The value as history carries it: inline when its JSON is short, else as a blob.

        Raises:
            ValueNotJsonError: NaN, Infinity, or something that is not JSON.
            BlobError: the blob cannot be written.
        """
        limit = INLINE_MAX_BYTES if inline_max_bytes is None else inline_max_bytes
        try:
            value = clean_value(value)  # a tool may give half of a character back
        except ValueError as error:
            raise ValueNotJsonError(str(error)) from None
        if isinstance(value, str):
            content = value.encode()
            if len(content) <= limit and len(json.dumps(value)) <= limit:
                return Stored(value=content.decode(), size_bytes=len(content), media="text")
            stored = await self._store(content, "text", preview_of(value, len(content)))
        else:
            text = json_text(value)
            content = text.encode()
            if len(content) <= limit and depth_of(value) <= INLINE_MAX_DEPTH:
                return Stored(value=json.loads(content), size_bytes=len(content))
            stored = await self._store(content, "json", preview_of(text, len(content)))
        return stored

    async def _store(self, content: bytes, media: Literal["json", "text"], preview: str) -> Stored:
        digest = await self.put_bytes(content)
        return Stored(blob=digest, size_bytes=len(content), media=media, preview=preview)

    async def put_bytes(self, content: bytes) -> str:
        """Store bytes; returns their SHA-256 in hex. A store that fails is tried for a while."""

        async def put() -> str:
            # In a thread however short: writing waits for the disk.
            return await in_storage_thread(self._put, content)

        return await patiently(put, self._patience.write_seconds)

    def _put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        try:
            if not self._backend.keep(digest, len(content)) or not self._is_whole(digest):
                self._backend.put(digest, content)
        except Exception as error:
            raise PassingError(
                f"blob {digest[:12]}… ({len(content):,} bytes) cannot be written to {self.place}: "
                f"{short_reason(error)}"
            ) from error
        return digest

    async def read_bytes(self, blob: str) -> bytes:
        """The content of a blob, checked against its hash. One that is not there is waited for.

        Raises:
            BlobError: it is not there, or is not what its hash says.
        """

        async def read() -> bytes:
            return await in_storage_thread(self.read_bytes_now, blob)

        return await patiently(read, self._patience.read_seconds)

    def read_bytes_now(self, blob: str) -> bytes:
        """As `read_bytes`, at once, for callers without an event loop."""
        if not _HASH.match(blob):
            raise BlobError(f'"{blob[:80]}" is not a blob: its name is a SHA-256, 64 hex digits')
        try:
            content = self._backend.get(blob)
        except Exception as error:
            raise PassingError(
                f"blob {blob} cannot be read from {self.place}: {short_reason(error)}"
            ) from error
        if content is None:
            raise PassingError(
                f"blob {blob} is not in {self.place}: was the folder cleared, or does this worker "
                "use another PLANLOOM_DATA_DIR (or blob_url) than the one that stored it?"
            )
        if hashlib.sha256(content).hexdigest() != blob:
            raise BlobError(
                f"blob {blob} in {self.place} is damaged: its content has another hash "
                f"({len(content):,} bytes read). Restore it, or run its task again."
            )
        return content

    async def keep(self, stored: Stored) -> bool:
        """Whether the value is there, and stays for a while though nothing refers to it yet."""
        if stored.blob is None:
            return True
        if self._backend.is_local and stored.size_bytes < THREAD_MIN_BYTES:
            return self._keep(stored.blob, stored.size_bytes)
        return await in_storage_thread(self._keep, stored.blob, stored.size_bytes)

    def _is_whole(self, blob: str) -> bool:
        """Whether what lies there is its value. A disk may have damaged it; object storage checks
        what it holds, and reading it again would cost as much as writing it."""
        if not self._backend.is_local:
            return True
        try:
            content = self._backend.get(blob)
        except Exception:  # sealed by a key of the same id that is another one, or damaged
            return False
        return content is not None and hashlib.sha256(content).hexdigest() == blob

    def _keep(self, blob: str, size: int) -> bool:
        try:
            if self._backend.keep(blob, size):
                return self._is_whole(blob)
            content = self._backend.get(blob)
            if content is None or hashlib.sha256(content).hexdigest() != blob:
                return False
            self._backend.put(blob, content)  # its time is that of now
        except Exception:  # a store that cannot be asked keeps nothing
            return False
        return True

    async def load(self, stored: Stored) -> JsonValue:
        """The value itself, the caller's own to change.

        Raises:
            BlobError: as `read_bytes`.
        """
        value = await self._load_shared(stored)
        # Parsed blobs are shared: a tool that sorts its list must not sort another's.
        return value if stored.is_inline else copied(value)

    async def _load_shared(self, stored: Stored) -> JsonValue:
        if stored.blob is None:
            return stored.value
        key = (stored.blob, stored.media)
        if (known := self._parsed.get(key)) is not None:
            return known[0]

        async def read() -> JsonValue:
            # Read only as large as it was said to be small: a known size saves the thread.
            if stored.size_bytes < THREAD_MIN_BYTES and self._backend.is_local:
                return self._read_value(stored)
            return await in_storage_thread(self._read_value, stored)

        value = await patiently(read, self._patience.read_seconds)
        self._parsed.put(key, value, stored.size_bytes)
        return value

    def _read_value(self, stored: Stored) -> JsonValue:
        assert stored.blob is not None
        content = self.read_bytes_now(stored.blob)
        if stored.media == "text":
            return content.decode("utf-8", "replace")
        value: JsonValue = json.loads(content)
        return value

    async def bind(self, value: JsonValue, bindings: Bindings) -> JsonValue:
        """`value` with its references replaced; loads only the blobs that are referred to.

        A reference that cannot be resolved raises what `planner.references.resolve` does. The
        result is the caller's own to change.
        """
        scope = await self.scope(bindings, roots_of(value))
        if builds(value):  # bounded, but up to seconds: other activities go on meanwhile
            return await in_computing_thread(_resolved, value, scope)
        return _resolved(value, scope)

    async def scope(self, bindings: Bindings, names: Iterable[str]) -> Mapping[str, JsonValue]:
        """Values by first name, for those of `names` that are bound. Shared: not to be changed."""
        wanted = set(names)
        inputs = dict(bindings.inputs)
        if bindings.bundle is not None and wanted - set(inputs) - {"item", "index"}:
            inputs = await self._bundled(bindings.bundle) | inputs
        scope: dict[str, JsonValue] = {
            name: stored.value if stored.is_inline else await self._load_shared(stored)
            for name, stored in inputs.items()
            if name in wanted
        }
        if bindings.index is not None:
            scope["index"] = bindings.index + bindings.first_index
        if bindings.item is not None and "item" in wanted:
            item = await self._load_shared(bindings.item)
            if bindings.is_item_of_list:
                item = _item_of(item, bindings.index)
            scope["item"] = item
        return scope

    async def pack(self, bindings: Bindings) -> Bindings:
        """The same bindings with all `inputs` behind one reference, `bundle`."""
        inputs = (await self.unpack(bindings)).inputs
        packed: JsonValue = {name: stored.model_dump() for name, stored in inputs.items()}
        # Kept out of history however small: that is what packing is for.
        stored = await self.store_value(packed, inline_max_bytes=0)
        return bindings.model_copy(update={"inputs": {}, "bundle": stored})

    async def unpack(self, bindings: Bindings) -> Bindings:
        """The same bindings without a bundle: all names in `inputs`."""
        if bindings.bundle is None:
            return bindings
        inputs = await self._bundled(bindings.bundle) | bindings.inputs
        return bindings.model_copy(update={"inputs": inputs, "bundle": None})

    async def _bundled(self, bundle: Stored) -> dict[str, Stored]:
        packed = await self._load_shared(bundle)
        assert isinstance(packed, dict)
        return {name: Stored.model_validate(stored) for name, stored in packed.items()}


def _resolved(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    found = resolve(value, scope, Meter(IN_ACTIVITY))
    try:
        bound: JsonValue = copied(found)
    except RecursionError:
        raise BadPathError("what the references make is nested too deep") from None
    return bound


def _item_of(items: JsonValue, index: int | None) -> JsonValue:
    if not isinstance(items, list) or index is None or not 0 <= index < len(items):
        count = len(items) if isinstance(items, list) else "no"
        raise BlobError(f"item {index} of a map over {count} items is not there")
    return items[index]
