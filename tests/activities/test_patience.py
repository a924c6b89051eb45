"""A store that fails for a moment costs time: no attempt, no second payment, no second act."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from planloom import tool
from planloom.activities.agent_turn import TurnActivities
from planloom.activities.models.client import ModelClient
from planloom.activities.storage.backends import BlobError, FolderBackend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.storage.patience import Patience
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.planner.contract.jobs import ToolJob, TurnJob
from planloom.planner.contract.settings import PoolSettings, Settings
from planloom.planner.language.values import Outcome, Stored
from tests.model_server import ModelServer

FULL = 3
"""Writes that fail before there is room again."""
LARGE = "large " * 1000


class Full(FolderBackend):
    """A disk that is full for some writes; `is_late`: it fails when all is written."""

    def __init__(self, folder: Path, is_late: bool = False) -> None:
        super().__init__(folder)
        self.tries: Counter[str] = Counter()
        self._is_late = is_late

    def _fails(self, name: str) -> bool:
        kind = name.rpartition(".")[2] if "." in name else "blob"
        self.tries[kind] += 1
        return self.tries[kind] <= FULL

    def put(self, name: str, content: bytes) -> None:
        if self._fails(name):
            raise OSError(errno.ENOSPC, "no space left on device")
        super().put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        fails = self._fails(name)
        is_made = (not fails or self._is_late) and super().create(name, content)
        if fails:
            raise OSError(errno.ENOSPC, "no space left on device")
        return is_made


class Late(FolderBackend):
    """A shared folder that shows a value some time after it was written."""

    looks = 0

    def get(self, name: str) -> bytes | None:
        self.looks += 1
        return super().get(name) if self.looks > FULL else None


async def test_a_value_is_stored_once_there_is_room(tmp_path: Path) -> None:
    blobs = BlobStore(Full(tmp_path))
    stored = await blobs.store_value(LARGE)
    assert await blobs.load(stored) == LARGE


async def test_a_value_that_is_shown_late_is_waited_for(tmp_path: Path) -> None:
    stored = await BlobStore(tmp_path).store_value(LARGE)
    assert await BlobStore(Late(tmp_path)).load(stored) == LARGE
    assert stored.blob is not None
    assert await BlobStore(Late(tmp_path)).read_bytes(stored.blob) == LARGE.encode()


async def test_patience_has_an_end(tmp_path: Path) -> None:
    store = Full(tmp_path)
    with pytest.raises(BlobError, match="no space left"):
        await BlobStore(store, patience=Patience(write_seconds=0.1)).store_value(LARGE)
    assert store.tries["blob"] == 2


async def test_what_is_damaged_is_not_waited_for(tmp_path: Path) -> None:
    stored = await BlobStore(tmp_path).store_value(LARGE)
    assert stored.blob is not None
    (tmp_path / stored.blob[:2] / stored.blob).write_bytes(b"else")
    store = Late(tmp_path)
    store.looks = FULL
    with pytest.raises(BlobError, match="is damaged"):
        await BlobStore(store).load(stored)
    assert store.looks == FULL + 1


async def test_a_turn_is_paid_once_while_the_disk_is_full(tmp_path: Path) -> None:
    """Chaos: a disk that was full for 4 s used up the three attempts of a turn, each paid for."""
    with ModelServer() as server:
        server.script("", "SUMMARY: s\nRESULT: the whole answer\nNEXT_STEP: none")
        pools = {"default": PoolSettings(base_url=server.url)}
        client = ModelClient(Settings(pools=pools), {})
        turns = TurnActivities(client, ToolRegistry([]), BlobStore(Full(tmp_path)))
        task = Stored(value="a task")
        job = TurnJob(name="a", spec=Stored(value={"id": "a"}), task=task, model="m", form="agent")
        reply = await ActivityEnvironment().run(turns.agent_turn, job)
        await client.close()
        assert reply.problems == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_side_effect_is_done_and_recorded_while_the_disk_is_full(
    tmp_path: Path, is_late: bool
) -> None:
    """Its claim is its own, also when the write that made it is said to have failed."""
    sent: list[str] = []

    @tool(side_effects=True)
    async def send(to: str) -> str:
        """Send."""
        sent.append(to)
        return to

    store = Full(tmp_path / "claims", is_late)
    blobs = BlobStore(tmp_path / "blobs")
    runner: Any = ToolRunner(
        ToolRegistry([send]), blobs, workspace=tmp_path, claims=ClaimStore(store)
    )
    job = ToolJob(task="t", tool="send", args={"to": "a"}, key="k")
    first = await runner.call(job)
    again = await runner.call(job, attempt=2)
    assert (first.outcome, again.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert sent == ["a"]
    assert (store.tries["claim"], store.tries["result"]) == (FULL + 1, FULL + 1)
