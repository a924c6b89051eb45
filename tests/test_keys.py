"""Keys and what is sealed with them, by value."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from planloom.activities.storage.backends import FolderBackend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.storage.sealed import SealedBackend
from planloom.activities.storage.users import StoreUser, record_user, store_users
from planloom.activities.tools.trusted import trusted_places
from planloom.codec import EncryptionCodec
from planloom.keys import KeyRing, NoKey, NotGenuine, key_ring
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.settings import SettingsError, settings_from
from planloom.planner.language.values import Stored

OLD, NEW = bytes(range(32)), bytes(range(100, 132))
RING = KeyRing("new", {"old": OLD, "new": NEW})


def ring_of(keys: dict[str, Any], active: str = "a") -> KeyRing:
    settings = settings_from({}, {"encryption": {"active": active, "keys": keys}})
    found = key_ring(settings)
    assert found is not None
    return found


@given(st.binary(max_size=2000), st.text("0123456789abcdef", min_size=1, max_size=64))
def test_what_is_sealed_is_opened_under_its_name_and_no_other(content: bytes, name: str) -> None:
    sealed = RING.seal(content, name)
    assert len(sealed) == len(content) + RING.overhead_bytes
    assert RING.unseal(sealed, name) == content
    with pytest.raises(NotGenuine):
        RING.unseal(sealed, name + "x")


@given(st.binary(min_size=20, max_size=60), st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_is_found(content: bytes, at: int, change: int) -> None:
    sealed = bytearray(RING.seal(content, "n"))
    at = 4 + at % (len(sealed) - 4)
    sealed[at] ^= change
    with pytest.raises((NotGenuine, NoKey)):
        RING.unseal(bytes(sealed), "n")


@given(st.binary(max_size=100))
def test_what_begins_as_sealed_and_is_none_is_refused(rest: bytes) -> None:
    with pytest.raises((NotGenuine, NoKey)):
        RING.unseal(b"PLE1" + rest, "n")


def test_the_same_content_is_sealed_differently_each_time() -> None:
    assert RING.seal(b"x", "n") != RING.seal(b"x", "n")


def test_an_old_key_opens_and_the_active_one_seals() -> None:
    sealed = KeyRing("old", {"old": OLD}).seal(b"x", "n")
    assert RING.unseal(sealed, "n") == b"x"
    assert b"new" in RING.seal(b"x", "n")[:36]
    with pytest.raises(NoKey, match="old"):
        KeyRing("new", {"new": NEW}).unseal(sealed, "n")


@pytest.mark.parametrize(
    "content",
    [
        NEW,
        base64.b64encode(NEW) + b"\n",
        base64.urlsafe_b64encode(NEW),
        NEW.hex().encode(),
        b"  " + NEW.hex().upper().encode() + b"\r\n",
    ],
)
def test_a_key_is_read_raw_in_base64_and_in_hexadecimal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    ring = ring_of({"a": {"file": str(tmp_path / "key")}})
    assert KeyRing("a", {"a": NEW}).unseal(ring.seal(b"x", "n"), "n") == b"x"


def test_a_key_is_read_from_a_command() -> None:
    command = [sys.executable, "-c", f"print({NEW.hex()!r})"]
    sealed = ring_of({"a": {"command": command}}).seal(b"x", "n")
    assert KeyRing("a", {"a": NEW}).unseal(sealed, "n") == b"x"


def test_all_keys_that_cannot_be_read_are_named_and_none_is_printed(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("S3cret")
    (tmp_path / "long").write_text("S3cret" * 20)
    fails = "import sys; print('S3cret'); sys.exit('no such secret')"
    with pytest.raises(SettingsError) as seen:
        ring_of(
            {
                "a": {"file": str(tmp_path / "short")},
                "b": {"file": str(tmp_path / "long")},
                "c": {"file": str(tmp_path / "gone")},
                "d": {"command": [sys.executable, "-c", fails]},
                "e": {"command": ["no-such-program"]},
            }
        )
    assert [p.path.rpartition(".")[2] for p in seen.value.problems] == list("abcde")
    assert "S3cret" not in str(seen.value)
    assert "no such secret" in str(seen.value)
    assert "openssl rand" in seen.value.problems[0].hint


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("while true; do echo S3cretS3cretS3cretS3cret; done", "prints more than 4,096 bytes"),
        ("sleep 60; echo x", "has not ended after 1 s"),
        ("sleep 60 & exec 1>&- 2>&-; wait", "has not ended after 1 s"),
        ("while true; do echo complaint >&2; done", "has not ended after 1 s"),
    ],
)
def test_a_command_that_does_not_end_or_prints_on_and_on_is_told(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read into memory for half a minute, as fast as it wrote."""
    monkeypatch.setattr("planloom.keys.COMMAND_SECONDS", 1.0)
    with pytest.raises(SettingsError) as seen:
        ring_of({"a": {"command": ["sh", "-c", command]}})
    assert said in str(seen.value)
    assert "S3cret" not in str(seen.value)


def test_a_key_file_without_an_end_is_told() -> None:
    with pytest.raises(SettingsError, match="longer than 4,096 bytes"):
        ring_of({"a": {"file": "/dev/zero"}})


@pytest.mark.parametrize(
    "encryption",
    [
        {"active": "b", "keys": {"a": {"file": "S3cret"}}},
        {"active": "a", "keys": {"a": {}}},
        {"active": "a", "keys": {"a": {"file": "S3cret", "command": ["y"]}}},
        {"active": "a", "keys": {"a": {"command": []}}},
        {"active": "a b", "keys": {"a b": {"file": "S3cret"}}},
        {"active": "a" * 33, "keys": {"a" * 33: {"file": "S3cret"}}},
        {"active": "a", "keys": {"a": "S3cret"}},
        {"active": "a", "keys": {}},
        {"active": "a"},
    ],
)
def test_settings_that_name_no_usable_key_are_refused(encryption: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as seen:
        settings_from({}, {"encryption": encryption})
    assert "S3cret" not in str(seen.value)


def test_key_files_and_programs_are_closed_to_tools(tmp_path: Path) -> None:
    for name in ("a.key", "give.sh", "vault.json"):
        (tmp_path / name).touch()
    keys = {
        "a": {"file": str(tmp_path / "a.key")},
        "b": {"command": [str(tmp_path / "give.sh"), "-C", ".", str(tmp_path / "vault.json")]},
    }
    settings = settings_from({}, {"encryption": {"active": "a", "keys": keys}})
    closed = trusted_places(settings, {}).closed
    assert {tmp_path / name for name in ("a.key", "give.sh", "vault.json")} <= set(closed)
    assert Path.cwd() not in closed


async def test_the_codec_leaves_what_it_cannot_open() -> None:
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'"x"')
    codec = EncryptionCodec(RING)
    (sealed,) = await codec.encode([plain])
    assert sealed.metadata["encryption-key-id"] == b"new"
    assert b'"x"' not in sealed.SerializeToString()
    assert await codec.decode([sealed, plain]) == [plain, plain]
    strange = EncryptionCodec(KeyRing("other", {"other": OLD}))
    assert await strange.decode([sealed]) == [sealed]
    wrong = EncryptionCodec(KeyRing("new", {"new": OLD}))
    assert await wrong.decode([sealed]) == [sealed]
    for data in (b"", b"short", sealed.data[:-1]):
        cut = Payload(metadata=dict(sealed.metadata), data=data)
        assert await codec.decode([cut]) == [cut]


async def test_blobs_claims_and_cached_results_are_sealed(tmp_path: Path) -> None:
    blobs = BlobStore(SealedBackend(FolderBackend(tmp_path / "blobs"), RING))
    stored = await blobs.store_value("canary " * 2000)
    claims = ClaimStore(blobs.backend.within("claims"))
    claim = claims.claim("c" * 64, tool="canary", attempt=1)
    claims.finish(claim, TaskOutput(output=Stored(value="canary", size_bytes=6)))
    cache = ResultCache(blobs, tmp_path / "locks")
    await cache.put("k" * 64, CacheEntry(output=Stored(value="canary", size_bytes=6)))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 4
    assert not [p for p in files if b"canary" in p.read_bytes()]
    assert await blobs.load(stored) == "canary " * 2000
    assert claims.claim("c" * 64, tool="canary", attempt=2).state == "done"
    assert (await cache.get("k" * 64)) is not None
    unkeyed = BlobStore(FolderBackend(tmp_path / "blobs"))
    assert await ResultCache(unkeyed, tmp_path / "locks").get("k" * 64) is None


async def test_values_from_before_there_was_a_key_are_read_and_sealed_when_stored_again(
    tmp_path: Path,
) -> None:
    text = "canary " * 2000
    plain = BlobStore(tmp_path)
    stored = await plain.store_value(text)
    sealed = BlobStore(SealedBackend(FolderBackend(tmp_path), RING))
    assert await sealed.load(stored) == text
    assert stored.blob is not None
    assert await sealed.keep(stored)
    assert await sealed.store_value(text) == stored
    (file,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert b"canary" not in file.read_bytes()


async def test_what_is_stored_again_after_a_change_of_the_key_needs_the_old_key_no_more(
    tmp_path: Path,
) -> None:
    """A run after the change has the same value as one before it. Its reader has the new key."""
    before = BlobStore(SealedBackend(FolderBackend(tmp_path), KeyRing("old", {"old": OLD})))
    stored = await before.store_value("canary " * 2000)
    kept = await before.store_value("kept " * 2000)
    user = StoreUser(server="s", namespace="default")
    record_user(before.backend, user)
    after = BlobStore(SealedBackend(FolderBackend(tmp_path), RING))
    assert await after.store_value("canary " * 2000) == stored
    assert await after.keep(kept)
    record_user(after.backend, user)
    reader = BlobStore(SealedBackend(FolderBackend(tmp_path), KeyRing("new", {"new": NEW})))
    assert await reader.load(stored) == "canary " * 2000
    assert await reader.load(kept) == "kept " * 2000
    assert store_users(reader.backend) == [user]
