"""Backup and restore: a run that is under way goes on from the copy, with its large values."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from temporalio.client import Client

from planloom.console.backup import BackupError, back_up, restore
from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer
from tests.support.harness import Planloom
from tests.support.tools import SOURCE

PLAN = {
    "tasks": [
        {"id": "large", "tool": "big", "args": {"megabytes": 1}},
        {"id": "side", "tool": "write_file", "args": {"path": "x.txt", "text": "y"}},
        {"id": "person", "human": {"question": "Go on?"}, "depends_on": ["large", "side"]},
        {"id": "end", "tool": "echo", "args": {"value": "${large | length(@)}"}},
    ],
    "answer": ["${end}", "${person}"],
}


async def test_a_run_goes_on_from_a_backup_that_was_made_while_it_ran(
    tmp_path: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "planloom"
    folder.mkdir()
    monkeypatch.chdir(folder)
    archive = tmp_path / "copy.tar.gz"
    with DevServer(data_dir=tmp_path / "data", headless=True, port=None) as server:
        client = await Client.connect(server.address, data_converter=data_converter())
        planloom = Planloom(client, model, folder)
        planloom.data_dir = tmp_path / "data"
        tools = planloom.tools(SOURCE)
        async with planloom.worker(PLANLOOM_TOOLS=tools):
            handle = await planloom.start({"plan": PLAN}, id="kept")
            await planloom.until(handle, lambda p: p.counts.get("succeeded", 0) >= 2, timeout=60)
            assert back_up(tmp_path / "data", archive) > 3
    assert restore(archive, tmp_path / "again") > 3
    assert (tmp_path / "again" / "temporal.db").stat().st_mode & 0o077 == 0
    with DevServer(data_dir=tmp_path / "again", headless=True, port=None) as server:
        client = await Client.connect(server.address, data_converter=data_converter())
        again = Planloom(client, model, folder)
        again.data_dir, again.task_queue = tmp_path / "again", planloom.task_queue
        async with again.worker(PLANLOOM_TOOLS=tools):
            handle = client.get_workflow_handle("kept")
            await handle.signal("complete_task", {"id": "person", "output": "yes"})
            result = await again.result(handle, 60)
    assert result["answer"] == [1_000_000, "yes"]


def test_a_backup_needs_a_database_and_a_restore_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"no temporal\.db"):
        back_up(tmp_path, tmp_path / "x.tar.gz")
    with tarfile.open(tmp_path / "foreign.tar.gz", "w:gz"):
        pass
    with pytest.raises(BackupError, match=r"holds no temporal\.db"):
        restore(tmp_path / "foreign.tar.gz", tmp_path / "new")
    (tmp_path / "data" / "blobs").mkdir(parents=True)
    with pytest.raises(BackupError, match="name an empty folder"):
        restore(tmp_path / "foreign.tar.gz", tmp_path / "data")
