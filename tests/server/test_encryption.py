"""Encrypted runs on a real server with a database file: nothing readable lies on a disk."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowUpdateFailedError

from planloom import Client
from planloom.codec import EncryptionCodec
from planloom.console.codec_server import CodecServer
from planloom.console.devserver import DevServer
from planloom.console.documents import settings_now
from planloom.keys import KeyRing, key_ring
from tests.model_server import ModelServer, Reply
from tests.support.harness import Planloom
from tests.support.tools import SOURCE

CANARY = "Zq7canary"
LARGE = f"{CANARY}-large " * 1000
FORM = f"SUMMARY: s\nCLAIM: {CANARY}-claim\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: a whole answer\n"


def write_settings(folder: Path, active: str, **keys: str) -> None:
    for id in keys:
        if not (folder / f"{id}.key").exists():
            (folder / f"{id}.key").write_bytes(base64.b64encode(secrets.token_bytes(32)) + b"\n")
    lines = [f'[encryption]\nactive = "{active}"\n[encryption.keys]']
    lines += [f"{id} = {source}" for id, source in keys.items()]
    (folder / "planloom.toml").write_text("\n".join(lines) + "\n")


def from_file(id: str) -> str:
    return f'{{ file = "{id}.key" }}'


@pytest.fixture
def database_server(tmp_path: Path) -> Iterator[DevServer]:
    with DevServer(data_dir=tmp_path / "data", headless=True, port=None) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "planloom"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


async def house(
    server: DevServer, folder: Path, model: ModelServer
) -> tuple[Planloom, dict[str, str]]:
    """Planloom with a client that has the keys of `planloom.toml`; the worker is a process."""
    client = await Client.connect(settings_now({}), target_host=server.address)
    planloom = Planloom(client.temporal, model, folder)
    planloom.data_dir = server.data_dir
    tools = {"PLANLOOM_TOOLS": planloom.tools(SOURCE), "COUNT_FILE": str(folder / "calls.txt")}
    return planloom, tools


async def everything(planloom: Planloom) -> list[str]:
    """Runs that carry the canary in all that people, models and tools say. Gives their ids."""
    model = planloom.model
    model.script("Write the plan", f'a = ask(prompt="{CANARY}-asked")\njoin(a)')
    model.script("decide whether", json.dumps({"action": "finish", "answer": f"{CANARY}-answer"}))
    model.script("You judge", f'{{"verdict": "trusted", "reason": "{CANARY}-reason"}}')
    echo = {"id": "c1", "name": "echo", "arguments": {"value": f"{CANARY}-argument"}}
    model.script(f"{CANARY}-task", Reply(tool_calls=[echo]), LARGE)
    model.script(f"{CANARY}-decide", FORM + "NEXT_STEP: none")
    model.script("", f"{CANARY}-reply")
    agent = {"id": "helper", "system": f"{CANARY}-system", "tools": ["echo"]}
    team = {"members": [{"id": i, "role": f"{CANARY}-role"} for i in ("ann", "bob")]}
    plan = {
        "goal": f"{CANARY}-goal",
        "tasks": [
            {"id": "small", "tool": "echo", "args": {"value": f"{CANARY}-small"}},
            {"id": "large", "tool": "echo", "args": {"value": LARGE}},
            {"id": "again", "tool": "echo", "args": {"value": "${large} and more"}},
            {
                "id": "side",
                "tool": "write_file",
                "args": {"path": "out.txt", "text": f"{CANARY}-written"},
                "description": f"{CANARY}-described",
            },
            {"id": "bad", "tool": "broken", "args": {"name": f"{CANARY}-broken"}, "fallback": "x"},
            {"id": "asked", "ask": f"{CANARY}-prompt"},
            {"id": "agent", "agent": agent, "args": {"task": f"{CANARY}-task"}},
            {"id": "team", "team": team, "args": {"task": f"{CANARY}-decide"}},
            {
                "id": "sub",
                "plan": {"tasks": [{"id": "in", "tool": "echo", "args": {"value": CANARY}}]},
            },
            {"id": "person", "human": {"question": f"{CANARY}-question"}},
            {
                "id": "each",
                "tool": "echo",
                "args": {"value": "${item}"},
                "map": [f"{CANARY}-item", LARGE],
            },
        ],
        "answer": {
            "person": "${person}",
            "lengths": [f"${{{id} | length(to_string(@))}}" for id in ("large", "again", "each")],
            "rest": [f"${{{id} | to_string(@)}}" for id in ("small", "bad", "asked", "sub")],
            "sides": ["${side | type(@)}", "${agent | type(@)}", "${team | type(@)}"],
        },
    }
    runs = {
        "planned": {"plan": plan, "approval": "always", "cache": "shared", "context": CANARY},
        "goal": {"goal": f"{CANARY}-wish", "context": f"{CANARY}-context"},
        "refused": {"plan": {"tasks": [{"id": "x", "tool": f"{CANARY}-tool"}]}},
    }
    handles = {
        id: await planloom.start(request, id=id, static_summary=f"{CANARY}-summary")
        for id, request in runs.items()
    }
    planned = handles["planned"]
    await planloom.until(planned, lambda p: p.awaiting == "approval")
    await planned.signal("approve_plan", {"revision": 1, "note": f"{CANARY}-note"})
    await planned.signal("request_nothing", {"text": f"{CANARY}-unknown"})
    await planloom.until(planned, lambda p: p.awaiting == "human")
    done = {"id": "person", "output": f"{CANARY}-person"}
    await planned.execute_update("complete_task", done)
    result = await planloom.result(planned, 60)
    assert result["status"] == "completed", result
    assert isinstance(result["answer"], dict), str(result)[:6000]
    assert result["answer"]["person"] == f"{CANARY}-person"
    assert (await planloom.result(handles["goal"]))["answer"] == f"{CANARY}-answer"
    failure = await planloom.failure(handles["refused"])
    assert CANARY in str(failure)
    return list(runs)


def readable(folder: Path) -> dict[str, int]:
    """How often the canary lies in each file, as text or in base64."""
    word = CANARY.encode()
    # In base64 the middle of a word looks the same wherever it begins, but for three shifts.
    shifted = [base64.b64encode(b"x" * n + word)[-(-n * 4 // 3) + 1 : -4] for n in range(3)]
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if count := sum(content.count(each) for each in (word, *shifted)):
                found[str(path.relative_to(folder))] = count
    return found


async def temporal(planloom: Planloom, line: str, endpoint: str | None, *more: str) -> str:
    words = [str(Path(sys.executable).parent / "temporal"), *shlex.split(line)]
    words += ["--codec-endpoint", endpoint, *more] if endpoint else []
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **planloom.env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out.decode()


async def test_an_encrypted_run_leaves_nothing_readable_in_the_database_and_in_blobs(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    write_settings(folder, "new", new=from_file("new"))
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        await everything(planloom)
        assert readable(database_server.data_dir) == {}
    database_server.stop()
    assert readable(database_server.data_dir) == {}
    blobs = [p for p in (planloom.data_dir / "blobs").rglob("*") if p.is_file()]
    assert len(blobs) > 5
    assert all(b"new" in p.read_bytes()[:8] for p in blobs)


async def test_without_keys_the_same_runs_are_found_by_the_same_search(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    """What the search above is worth."""
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        await everything(planloom)
    database_server.stop()
    found = readable(database_server.data_dir)
    assert found["temporal.db"] > 100
    assert [name for name in found if name.startswith("blobs/cache/")]
    claims = [name for name in found if name.startswith("blobs/claims/")]
    assert len([name for name in found if name.startswith("blobs/")]) > len(claims)


async def test_an_encrypted_run_is_read_through_the_codec_server(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    write_settings(folder, "new", new=from_file("new"))
    keys = key_ring(settings_now({}))
    assert keys is not None
    codec = CodecServer(EncryptionCodec(keys), token="open sesame").start()
    auth = ("--codec-auth", "Bearer open sesame")
    try:
        planloom, tools = await house(database_server, folder, model)
        async with planloom.worker_process(**tools):
            await everything(planloom)
            for line in (
                "workflow result --workflow-id goal",
                "workflow query --workflow-id planned --type plan",
                "workflow show --workflow-id planned --detailed",
                "workflow describe --workflow-id planned --output json",
            ):
                assert CANARY not in await temporal(planloom, line, None), line
                assert CANARY in await temporal(planloom, line, codec.address, *auth), line
            start = f"workflow start --type DagWorkflow --task-queue {planloom.task_queue} "
            request = {"goal": f"{CANARY}-typed", "approval": "always"}
            start += f"--workflow-id typed --input {shlex.quote(json.dumps(request))}"
            await temporal(planloom, start, codec.address, *auth)
            typed = planloom.client.get_workflow_handle("typed")
            await planloom.until(typed, lambda p: p.awaiting == "approval")
            note = json.dumps({"revision": 1, "note": f"{CANARY}-by-hand"})
            signal = "workflow signal --workflow-id typed --name approve_plan --input "
            await temporal(planloom, signal + shlex.quote(note), codec.address, *auth)
            assert (await planloom.result(typed))["status"] == "completed"
        assert readable(database_server.data_dir) == {}
    finally:
        codec.stop()


async def test_the_command_line_reads_encrypted_runs_and_blobs(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    from tests.cli.test_cli import planloom_cli

    write_settings(folder, "new", new=from_file("new"))
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        await everything(planloom)
        shown = await planloom_cli(planloom, "result", "planned", "--json")
        tasks = json.loads(shown.out)["tasks"]
        assert tasks["person"]["output"] == f"{CANARY}-person"
        whole = await planloom_cli(planloom, "blob", tasks["again"]["blob"])
        assert whole.out == LARGE + " and more"
        run = await planloom_cli(planloom, "run", f"{CANARY}-cli", "--json")
        assert json.loads(run.out)["answer"] == f"{CANARY}-answer"
    assert readable(database_server.data_dir) == {}


async def test_after_a_rotation_old_runs_and_blobs_are_read_and_new_ones_use_the_new_key(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    request = {
        "plan": {
            "tasks": [
                {"id": "large", "tool": "echo", "args": {"value": LARGE}},
                {"id": "person", "human": {"question": "Go on?"}},
                {"id": "last", "tool": "echo", "args": {"value": "${large} ${person}"}},
            ],
            "answer": "${last | length(@)}",
        }
    }
    write_settings(folder, "old", old=from_file("old"))
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        handle = await planloom.start(request, id="rotated")
        await planloom.until(handle, lambda p: p.awaiting == "human")
    printed = f'{{ command = ["{sys.executable}", "-c", "print(open(\'new.key\').read())"] }}'
    (folder / "new.key").write_bytes(secrets.token_hex(32).encode())
    write_settings(folder, "new", old=from_file("old"), new=printed)
    again, tools = await house(database_server, folder, model)
    again.task_queue = planloom.task_queue
    async with again.worker_process(**tools):
        handle = again.client.get_workflow_handle("rotated")
        await handle.signal("complete_task", {"id": "person", "output": "yes"})
        assert (await again.result(handle))["answer"] == len(LARGE) + len(" yes")
        history = await handle.fetch_history()
    ids = {p.metadata["encryption-key-id"] for p in _payloads(history.events)}
    assert ids == {b"old", b"new"}


def _payloads(events: Any) -> list[Payload]:
    inputs = [e.activity_task_scheduled_event_attributes.input.payloads for e in events]
    return [payload for payloads in inputs for payload in payloads]


async def test_what_cannot_be_decrypted_is_refused_and_never_hangs_a_run(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    """Anybody who may send a signal may send one that nobody can read."""
    write_settings(folder, "new", new=from_file("new"))
    keys = key_ring(settings_now({}))
    assert keys is not None
    strange = EncryptionCodec(KeyRing("other", {"other": secrets.token_bytes(32)}))
    forged = EncryptionCodec(KeyRing("new", {"new": secrets.token_bytes(32)}))
    plan = {"tasks": [{"id": "person", "human": {"question": "Go on?"}}], "answer": "${person}"}
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        handle = await planloom.start({"plan": plan})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        for codec in (strange, forged):
            config = planloom.client.config()
            converter = config["data_converter"]
            config["data_converter"] = _with_codec(converter, codec)
            stranger = type(planloom.client)(**config)
            sent = {"id": "person", "output": "x"}
            there = stranger.get_workflow_handle(handle.id)
            await there.signal("complete_task", sent)
            await there.signal("child_ended", sent)
            await there.signal("plan_written", sent)
            await there.signal("nobody_knows", sent)
            with pytest.raises((WorkflowUpdateFailedError, KeyError)):
                await there.execute_update("complete_task", sent)
            other = await stranger.start_workflow(
                "DagWorkflow",
                {"plan": plan},
                id=f"refused-{secrets.token_hex(4)}",
                task_queue=planloom.task_queue,
            )
            failed = await planloom.failure(planloom.client.get_workflow_handle(other.id))
            assert "encrypted with the key" in str(failed.__cause__ or failed) + str(
                getattr(failed, "details", "")
            )
        await handle.execute_update("complete_task", {"id": "person", "output": "yes"})
        result = await planloom.result(handle)
    assert result["answer"] == "yes"
    assert len([n for n in result["notes"] if "encrypted with the key" in n]) >= 2
    assert len([n for n in result["notes"] if "no signal nobody_knows" in n]) == 2


def _with_codec(converter: Any, codec: EncryptionCodec) -> Any:
    import dataclasses

    return dataclasses.replace(converter, payload_codec=codec)


async def test_a_worker_without_a_key_waits_with_a_continued_run_and_does_not_fail_it(
    database_server: DevServer, folder: Path, model: ModelServer
) -> None:
    write_settings(folder, "new", new=from_file("new"))
    plan = {"tasks": [{"id": "person", "human": {"question": "Go on?"}}], "answer": "${person}"}
    planloom, tools = await house(database_server, folder, model)
    async with planloom.worker_process(**tools):
        handle = await planloom.start({"plan": plan}, id="kept")
        await planloom.until(handle, lambda p: p.awaiting == "human")
    (folder / "planloom.toml").unlink()
    async with planloom.worker_process(**tools):
        await handle.signal("complete_task", {"id": "person", "output": "yes"})
        async with asyncio.timeout(20):
            while not await _has_failed_task(handle):  # noqa: ASYNC110 - the server changes it
                await asyncio.sleep(0.05)
    write_settings(folder, "new", new=from_file("new"))
    async with planloom.worker_process(**tools):
        assert (await planloom.result(handle))["answer"] == "yes"


async def _has_failed_task(handle: Any) -> bool:
    events = (await handle.fetch_history()).events
    return any(e.HasField("workflow_task_failed_event_attributes") for e in events)
