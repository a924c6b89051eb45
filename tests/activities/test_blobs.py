"""Blobs: small values inline, large ones by hash, nothing lost, nothing shared by accident."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.json_values import ValueNotJsonError
from planloom.activities.storage.patience import Patience
from planloom.activities.storage.threads import READ_AT_ONCE_CHARS, computed
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    PREVIEW_MAX_CHARS,
    Bindings,
    JsonValue,
    Stored,
)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", patience=Patience(0.0, 0.0))


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 1.5, 2**80, "", "héllo", [], {}, {"a": [1, {"b": None}]}, "x" * 1_900],
)
async def test_a_small_value_travels_inline(blobs: BlobStore, value: JsonValue) -> None:
    stored = await blobs.store_value(value)
    assert stored.is_inline
    assert stored.value == value
    assert await blobs.load(stored) == value


@pytest.mark.parametrize("value", ["é" * 5_000, list(range(2_000)), {"k": "v" * 3_000}])
async def test_a_large_value_travels_as_hash_and_preview(
    blobs: BlobStore, tmp_path: Path, value: JsonValue
) -> None:
    stored = await blobs.store_value(value)
    assert stored.blob is not None
    assert stored.value is None
    assert stored.preview is not None
    assert len(stored.preview) <= PREVIEW_MAX_CHARS
    assert stored.preview.endswith(f"… ({stored.size_bytes:,} bytes)")
    content = (tmp_path / "blobs" / stored.blob[:2] / stored.blob).read_bytes()
    assert hashlib.sha256(content).hexdigest() == stored.blob
    assert stored.media == ("text" if isinstance(value, str) else "json")
    assert await BlobStore(tmp_path / "blobs").load(stored) == value


async def test_the_limit_counts_bytes_of_json(blobs: BlobStore) -> None:
    assert (await blobs.store_value("a" * (INLINE_MAX_BYTES - 2))).is_inline
    assert not (await blobs.store_value("a" * (INLINE_MAX_BYTES - 1))).is_inline
    assert not (await blobs.store_value("\x00" * 600)).is_inline  # \u0000 is six bytes


async def test_a_value_nested_too_deep_for_payload_parsers_is_a_blob(blobs: BlobStore) -> None:
    value: Any = []
    for _ in range(150):
        value = [value]
    stored = await blobs.store_value(value)
    assert stored.blob is not None
    assert await blobs.load(stored) == value


async def test_a_value_nested_without_end_is_no_json_and_no_crash(blobs: BlobStore) -> None:
    """An error of another kind would be tried again, and a tool's call paid again."""
    value: Any = []
    for _ in range(1_500):
        value = [value]
    with pytest.raises(ValueNotJsonError, match="nested too deep"):
        await blobs.store_value(value)


async def test_what_references_nest_too_deep_is_told(blobs: BlobStore) -> None:
    value: Any = 1
    for _ in range(430):
        value = [value]
    stored = await blobs.store_value(value)
    wrapped = " | " + "[" * 95 + "@" + "]" * 95
    bound = Bindings(inputs={"a": stored})
    with pytest.raises(ValueError, match="nested too deep"):
        await blobs.bind("${a" + wrapped + wrapped + "}", bound)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "it is nan"),
        ({"rows": [1.0, {"x": float("inf")}]}, r"rows\[1\].x is inf"),
        ([object()], r"\[0\] is of type object"),
    ],
)
async def test_what_is_no_json_is_told_with_its_place(
    blobs: BlobStore, value: Any, said: str
) -> None:
    with pytest.raises(ValueNotJsonError, match=said):
        await blobs.store_value(value)


async def test_lone_surrogates_do_not_reach_a_payload(blobs: BlobStore) -> None:
    for value in ("a\ud800b", {"k": "a\ud800b"}):
        stored = await blobs.store_value(value)
        stored.model_dump_json()
        assert await blobs.load(stored) in ("a\ufffdb", {"k": "a\ufffdb"})


async def test_a_missing_blob_names_hash_and_folder(blobs: BlobStore) -> None:
    digest = "0" * 64
    with pytest.raises(BlobError, match=f"{digest} is not in .*blobs"):
        await blobs.read_bytes(digest)


@pytest.mark.parametrize("name", ["../../etc/passwd", "abc", "A" * 64])
async def test_what_is_no_hash_is_no_path(blobs: BlobStore, name: str) -> None:
    with pytest.raises(BlobError, match="is not a blob"):
        await blobs.read_bytes(name)


async def test_a_damaged_blob_is_not_used(blobs: BlobStore, tmp_path: Path) -> None:
    digest = await blobs.put_bytes(b"x" * 5_000)
    (tmp_path / "blobs" / digest[:2] / digest).write_bytes(b"torn")
    with pytest.raises(BlobError, match="damaged"):
        await blobs.read_bytes(digest)
    assert await blobs.put_bytes(b"x" * 5_000) == digest  # storing it again mends it
    assert await blobs.read_bytes(digest) == b"x" * 5_000


async def test_a_loaded_value_is_the_callers_own(blobs: BlobStore) -> None:
    stored = await blobs.store_value([[3, 2, 1]] * 1_000)
    first: Any = await blobs.load(stored)
    first[0].sort()
    again: Any = await blobs.load(stored)
    assert again[0] == [3, 2, 1]
    bound: Any = await blobs.bind("${a}", Bindings(inputs={"a": stored}))
    bound[0].sort()
    assert (await blobs.bind("${a[0]}", Bindings(inputs={"a": stored}))) == [3, 2, 1]


async def test_only_blobs_that_are_referred_to_are_read(blobs: BlobStore) -> None:
    inputs = {"small": Stored(value={"n": 2}), "lost": Stored(blob="1" * 64, size_bytes=9)}
    assert await blobs.bind({"x": "${small.n}"}, Bindings(inputs=inputs)) == {"x": 2}
    with pytest.raises(BlobError):
        await blobs.bind({"x": "${lost}"}, Bindings(inputs=inputs))


async def test_an_item_is_picked_from_a_list_behind_a_blob(blobs: BlobStore) -> None:
    items = await blobs.store_value([{"n": i, "pad": "x" * 50} for i in range(200)])
    bindings = Bindings(item=items, is_item_of_list=True, index=7)
    assert await blobs.bind(["${item.n}", "${index}", "#${index}"], bindings) == [7, 7, "#7"]
    own = Bindings(item=Stored(value="a"), index=3)
    assert await blobs.bind("${item}${index}", own) == "a3"


async def test_packed_bindings_bind_like_loose_ones(blobs: BlobStore) -> None:
    large = await blobs.store_value("y" * 10_000)
    loose = Bindings(inputs={"a": Stored(value=1), "b": large}, index=4)
    packed = await blobs.pack(loose)
    assert packed.inputs == {}
    assert packed.bundle is not None
    assert packed.bundle.blob is not None
    value: JsonValue = ["${a}", "${b}", "${index}"]
    assert await blobs.bind(value, packed) == await blobs.bind(value, loose)
    again = await blobs.pack(packed.model_copy(update={"inputs": {"c": Stored(value=3)}}))
    assert await blobs.bind(["${a}", "${c}"], again) == [1, 3]


async def test_five_megabytes_through_three_hands_take_under_a_second(blobs: BlobStore) -> None:
    began = time.process_time()
    stored = await blobs.store_value("0123456789" * 500_000)
    for _ in range(3):
        value = await blobs.bind("${a}", Bindings(inputs={"a": stored}))
        stored = await blobs.store_value(value)
    assert time.process_time() - began < 1
    assert stored.preview is not None
    assert stored.preview.endswith("… (5,000,000 bytes)")


async def test_a_tool_that_fills_the_threads_of_asyncio_holds_up_no_blob(blobs: BlobStore) -> None:
    is_over = threading.Event()
    filling = [asyncio.create_task(asyncio.to_thread(is_over.wait)) for _ in range(100)]
    try:
        async with asyncio.timeout(30):
            stored = await blobs.store_value("x" * 500_000)
            assert await blobs.load(stored) == "x" * 500_000
            built = await blobs.bind("${a | [@, @]}", Bindings(inputs={"a": Stored(value=1)}))
        assert built == [1, 1]
    finally:
        is_over.set()
        await asyncio.gather(*filling)


async def test_a_long_text_is_read_beside_the_event_loop() -> None:
    """A joiner's answer of a million brackets held all runs of a worker up for five seconds."""
    here = threading.get_ident()
    assert await computed(READ_AT_ONCE_CHARS, threading.get_ident) == here
    assert await computed(READ_AT_ONCE_CHARS + 1, threading.get_ident) != here


async def test_a_damaged_blob_is_written_whole_by_who_stores_its_value_again(
    tmp_path: Path,
) -> None:
    """As the message of a damaged one says: run its task again."""
    blobs = BlobStore(tmp_path)
    stored = await blobs.store_value("value " * 1000)
    (file,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    file.write_bytes(b"\0" * file.stat().st_size)
    assert not await blobs.keep(stored)
    assert await blobs.store_value("value " * 1000) == stored
    assert await blobs.load(stored) == "value " * 1000
