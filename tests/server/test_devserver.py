"""The development server: described by a file, answers when started, gone when stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from planloom.console import devserver
from planloom.console.devserver import DevConfig, DevServer, DevServerError, config_path, free_port
from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from tests.support.process import CHECKOUT


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until_silent(port: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not _listens(port):
            return True
        time.sleep(0.05)
    return False


def _lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"


def test_the_file_names_the_search_attributes_of_the_contract() -> None:
    assert DevConfig.read().search_attributes == SEARCH_ATTRIBUTES


def test_the_file_has_the_usual_ports_and_an_own_database() -> None:
    config = DevConfig.read()
    assert (config.port, config.ui_port) == (7233, 8233)
    assert config.database
    assert config.sqlite_pragmas["journal_mode"] == "WAL"


def test_every_dynamic_setting_has_its_reason_beside_it() -> None:
    lines = config_path().read_text(encoding="utf-8").splitlines()
    start = lines.index("dynamic_config:")
    for name in DevConfig.read().dynamic_config:
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        assert any(line.strip().startswith("#") for line in lines[max(start, at - 3) : at]), name


async def test_a_started_server_answers_and_knows_the_search_attributes(
    temporal_server: DevServer, client: Client
) -> None:
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace="default")
    )
    assert set(SEARCH_ATTRIBUTES) <= set(listed.custom_attributes)
    with pytest.raises(RPCError, match="not found"):
        await client.get_workflow_handle("nobody").describe()


async def test_runs_outlive_a_crash_of_the_server(tmp_path: Path) -> None:
    server = DevServer(data_dir=tmp_path / "new" / "folder", headless=True, port=None)
    try:
        await asyncio.to_thread(server.start)
        address = server.address
        client = await Client.connect(address)
        await client.start_workflow("Nothing", id="kept", task_queue="none")
        server.kill()
        assert not server.is_running
        await asyncio.to_thread(server.start)
        assert server.address == address
        again = await Client.connect(address)
        assert (await again.get_workflow_handle("kept").describe()).id == "kept"
        assert server.database is not None
        assert server.database.read_bytes()[18:20] == b"\x02\x02", "the database is not in WAL mode"
    finally:
        server.stop()


def test_a_stopped_server_is_gone_and_may_be_stopped_again() -> None:
    with DevServer(in_memory=True, headless=True, port=None) as server:
        assert _listens(server.port)
    assert not _listens(server.port)
    server.stop()


def test_the_web_ui_answers_unless_headless() -> None:
    with DevServer(in_memory=True, port=None, ui_port=None) as server:
        assert server.ui_url == f"http://127.0.0.1:{server.ui_port}"
        assert _listens(server.ui_port)
    assert DevServer(in_memory=True, headless=True).ui_url is None


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_is_left_behind_by_an_owner_that_was_killed(sign: signal.Signals) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; from planloom.console.devserver import DevServer\n"
            # A suite that a shell runs in the background inherits an ignored SIGINT.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "server = DevServer(in_memory=True, headless=True, port=None).start()\n"
            "print(server.port, server.pid, flush=True); time.sleep(60)",
        ],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout is not None
    with owner:
        port, pid = (int(part) for part in owner.stdout.readline().split())
        try:
            assert _listens(port)
            os.kill(owner.pid, sign)
            owner.wait(10)
            assert _until_silent(port, 10)
        finally:
            if _lives(pid) and _listens(port):
                os.kill(pid, signal.SIGKILL)


def test_a_port_in_use_is_said_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DevServerError, match=f"port {port} on 127.0.0.1 is in use") as seen:
            DevServer(data_dir=tmp_path, headless=True, port=port).start()
    assert "another port" in seen.value.hint


def test_a_database_has_one_server_and_a_second_is_told_where_it_is(tmp_path: Path) -> None:
    """Two servers on one file took each other's shards, and both lost events."""
    first = DevServer(data_dir=tmp_path, headless=True, port=None)
    second = DevServer(data_dir=tmp_path, headless=True, port=None)
    with first:
        with pytest.raises(DevServerError, match=f"another server at {first.address} ") as seen:
            second.start()
        assert f"TEMPORAL_ADDRESS={first.address}" in seen.value.hint
    with second:
        assert second.is_running


def test_a_data_folder_that_cannot_be_used_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DevServerError, match="cannot be used: ") as seen:
            DevServer(data_dir=folder, headless=True, port=None).start()
        assert "PLANLOOM_DATA_DIR" in seen.value.hint


def test_a_full_disk_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2_500_000)
    server = DevServer(data_dir=tmp_path, headless=True, port=None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    assert server.space_warning() == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert f"2.5 MB are free for {tmp_path}" in server.space_warning()
    assert DevServer(in_memory=True, headless=True, port=None).space_warning() == ""


def test_a_missing_program_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevServerError, match="no program `temporal`") as seen:
        DevServer(in_memory=True, headless=True, port=None).start()
    assert "make setup" in seen.value.hint


def test_a_server_that_refuses_to_start_is_quoted() -> None:
    config = DevConfig.read().model_copy(update={"search_attributes": {"Odd": "Nonsense"}})
    with pytest.raises(DevServerError, match="Nonsense"):
        DevServer(config, in_memory=True, headless=True, port=None).start()


def test_a_file_that_is_no_description_is_refused_by_field(tmp_path: Path) -> None:
    path = tmp_path / "temporal-dev.yaml"
    path.write_text("port: many\n", encoding="utf-8")
    with pytest.raises(DevServerError, match=r"temporal-dev\.yaml: port"):
        DevConfig.read(path)
    path.write_text("port: [\n", encoding="utf-8")
    with pytest.raises(DevServerError, match="is not YAML"):
        DevConfig.read(path)


def test_the_program_beside_this_python_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("beside", "elsewhere"):
        program = tmp_path / folder / "temporal"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert devserver.temporal_program() == str(tmp_path / "beside" / "temporal")


def test_a_free_port_is_free() -> None:
    assert not _listens(free_port())
