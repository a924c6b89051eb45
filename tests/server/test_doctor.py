"""`planloom doctor` on a real server: a line for each thing, and a way out of each mistake."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planloom.activities import self_check
from planloom.activities.storage.backends import FolderBackend
from planloom.console import doctor as console_doctor
from planloom.console.devserver import free_port
from planloom.console.doctor import examine
from planloom.planner.contract.findings import Finding
from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom


async def doctor(planloom: Planloom, **env: str) -> tuple[int, list[Finding]]:
    done = await planloom_cli(planloom, "doctor", "--json", **env)
    report = json.loads(done.out)
    findings = [Finding.model_validate(f) for f in report["findings"]]
    levels = [f.level for f in findings]
    assert report["counts"] == {level: levels.count(level) for level in ("ok", "warn", "fail")}
    return done.code, findings


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [f for f in findings if f.check == check]


async def test_where_all_is_well_every_line_is_ok_and_nothing_is_paid(planloom: Planloom) -> None:
    async with planloom.worker_process():
        code, findings = await doctor(planloom)
        text = await planloom_cli(planloom, "doctor")
    assert [f for f in findings if f.level != "ok"] == []
    assert (code, text.code) == (0, 0)
    assert {f.check for f in findings} >= {
        *("versions", "temporal program", "settings", "tools", "data folder", "disk", "workspace"),
        *("store", "pool default", "server", "namespace", "search attributes", "worker"),
    }
    assert planloom.model.calls() == 0
    code, _ = await doctor(planloom, PLANLOOM_TASK_QUEUE="nobody-polls")
    assert code == 1
    assert text.out.splitlines()[-1] == f"{len(findings)} ok, 0 warn, 0 fail"


Prepare = Callable[[Planloom], dict[str, str]]


def _no_server(_: Planloom) -> dict[str, str]:
    return {"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}


def _no_endpoint(_: Planloom) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1"}


def _bad_settings(planloom: Planloom) -> dict[str, str]:
    (planloom.folder / "planloom.toml").write_text("task_quene = 'x'\n")
    return {}


def _foreign_key(planloom: Planloom) -> dict[str, str]:
    (planloom.folder / "planloom.toml").write_text(
        f'[pools.default]\nbase_url = "{planloom.model.url}"\napi_key_env = "AWS_SECRET"\n'
    )
    return {"AWS_SECRET": "S3cret"}


def _no_encryption_key(planloom: Planloom) -> dict[str, str]:
    (planloom.folder / "planloom.toml").write_text(
        '[encryption]\nactive = "a"\nkeys = { a = { file = "gone.key" } }\n'
    )
    return {}


def _open_encryption_key(planloom: Planloom) -> dict[str, str]:
    (planloom.folder / "a.key").write_text(secrets.token_hex(32))
    (planloom.folder / "a.key").chmod(0o644)
    (planloom.folder / "planloom.toml").write_text(
        '[encryption]\nactive = "a"\nkeys = { a = { file = "a.key" } }\n'
    )
    return {}


def _open_folder(planloom: Planloom) -> dict[str, str]:
    planloom.data_dir.chmod(0o755)
    return {}


def _store_is_a_file(planloom: Planloom) -> dict[str, str]:
    (planloom.folder / "store").touch()
    return {"PLANLOOM_BLOB_URL": str(planloom.folder / "store")}


def _shadowed(planloom: Planloom) -> dict[str, str]:
    folder = planloom.workspace / ".claude" / "agents"
    folder.mkdir(parents=True)
    (folder / "researcher.md").write_text("---\nname: researcher\ndescription: x\n---\nWords.\n")
    return {}


@pytest.mark.parametrize(
    ("prepare", "check", "level", "told", "hint"),
    [
        (_no_server, "server", "fail", "no Temporal server", "planloom dev"),
        (lambda _: {"TEMPORAL_NAMESPACE": "gone"}, "namespace", "fail", "gone", "namespace create"),
        (lambda _: {"PLANLOOM_TASK_QUEUE": "q"}, "worker", "fail", "nobody polls", "TASK_QUEUE"),
        (_no_endpoint, "pool default", "fail", "no connection", "base_url"),
        (lambda _: {"OPENAI_API_KEY": ""}, "pool default", "ok", "", ""),
        (lambda _: {"PLANLOOM_MODEL": "no-such"}, "pool default", "warn", "no-such", "lists"),
        (lambda _: {"PLANLOOM_TOOLS": "no_such"}, "worker", "fail", "no_such", "Correct this"),
        (_bad_settings, "settings", "fail", "task_quene", ""),
        (_foreign_key, "keys", "fail", "AWS_SECRET", "PLANLOOM_KEY_VARIABLES"),
        (_no_encryption_key, "encryption", "fail", "gone.key", ""),
        (_open_encryption_key, "encryption", "warn", "a.key", "chmod 600"),
        (_open_folder, "data folder", "warn", "other users", "chmod 700"),
        (_store_is_a_file, "store", "fail", "cannot be used", "PLANLOOM_BLOB_URL"),
        (lambda _: {"PLANLOOM_WORKSPACE": "gone"}, "workspace", "fail", "gone", "WORKSPACE"),
        (lambda _: {"PLANLOOM_WORKSPACE": "/"}, "workspace", "warn", "/", "WORKSPACE"),
        (_shadowed, "definitions", "warn", "researcher", ""),
    ],
)
async def test_a_mistake_is_found_and_its_line_says_what_to_do(
    planloom: Planloom,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Prepare,
    check: str,
    level: str,
    told: str,
    hint: str,
) -> None:
    async with planloom.worker():
        for name, value in (planloom.env | prepare(planloom)).items():
            monkeypatch.setenv(name, value)
        findings = await examine()
    worst = [f for f in of(findings, check) if f.level == level]
    assert worst, findings
    assert told in worst[0].message
    assert hint in worst[0].hint
    assert "S3cret" not in str(findings)


def test_a_store_without_conditional_writes_is_found(tmp_path: Path) -> None:
    class Careless(FolderBackend):
        def create(self, name: str, content: bytes) -> bool:
            self.put(name, content)
            return True

    assert self_check.check_store(FolderBackend(tmp_path)).level == "ok"
    assert "conditional" in self_check.check_store(Careless(tmp_path)).message
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("date", "level"),
    [("Thu, 01 Jan 1998 00:00:00 GMT", "warn"), ("nonsense", None), (None, None)],
)
def test_a_clock_that_is_wrong_is_found(date: str | None, level: str | None) -> None:
    found = self_check._clock(date, "http://x/v1")
    assert [f.level for f in found] == ([level] if level else [])


def test_a_disk_that_is_nearly_full_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(free: int) -> Callable[[Any], Any]:
        return lambda _: type("Usage", (), {"free": free})

    for free, level in ((10**8, "fail"), (10**9, "warn"), (10**10, "ok")):
        monkeypatch.setattr(self_check.shutil, "disk_usage", usage(free))
        assert self_check._disk(tmp_path / "not" / "there").level == level


def test_a_hint_shows_no_password_of_an_address() -> None:
    finding = self_check._no_list("model", "http://me:canary@127.0.0.1:9/?token=canary")
    assert finding.hint.endswith("base_url = http://127.0.0.1:9/v1")
    assert "canary" not in finding.message


@pytest.mark.parametrize(
    "program", ["not a program", "#!/bin/sh\nexit 3", "#!/bin/sh\nexec sleep 60"]
)
def test_a_temporal_program_that_does_not_work_is_a_line_and_no_end(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "temporal"
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setattr(console_doctor, "PROGRAM_SECONDS", 0.5)
    monkeypatch.setattr(console_doctor.shutil, "which", lambda *_, **__: str(path))
    (finding,) = of(console_doctor.versions(), "temporal program")
    assert (finding.level, "does not work" in finding.message) == ("warn", True)
