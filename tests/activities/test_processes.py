"""Child processes for SQL and regular expressions: bounded, stopped, replaced, without keys."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planloom.activities.tools.processes.pool import (
    Child,
    ChildPool,
    JobError,
    remove_left_folders,
)
from planloom.activities.tools.threads import in_thread

NAP = {"kind": "nap"}
LIVE = threading.Event()


@pytest.fixture
def pool() -> Iterator[ChildPool]:
    made = ChildPool(size=3)
    yield made
    made.close()


def _query(sql: str) -> dict[str, object]:
    return {"kind": "query", "sql": sql, "files": []}


def test_a_job_that_takes_too_long_is_stopped_with_its_process() -> None:
    child = Child()
    with pytest.raises(JobError, match=r"longer than 0\.5 s") as caught:
        child.ask(NAP, 0.5, LIVE)
    assert caught.value.reason == "limit"
    assert not child.is_usable
    child.close()
    assert child.process.returncode == -signal.SIGKILL
    assert not child.folder.exists()


def test_a_process_is_used_again_until_a_job_went_wrong(pool: ChildPool) -> None:
    ask = {"owner": "run", "cancelled": LIVE}
    assert pool.run(_query("SELECT 1 AS a"), **ask) == [{"a": 1}]  # type: ignore[arg-type]
    first = pool._idle[0].process.pid
    with pytest.raises(JobError, match="one statement"):  # the model's mistake, not the process's
        pool.run(_query("SELECT 1; SELECT 2"), **ask)  # type: ignore[arg-type]
    assert pool._idle[0].process.pid == first
    with pytest.raises(JobError, match="memory"):
        pool.run(_query("SELECT range(300000000)[1] AS n"), **ask)  # type: ignore[arg-type]
    assert pool._idle == []
    assert pool.run(_query("SELECT 2 AS a"), **ask) == [{"a": 2}]  # type: ignore[arg-type]


def test_a_process_that_was_killed_from_outside_is_replaced(pool: ChildPool) -> None:
    pool.run(_query("SELECT 1"), owner="run", cancelled=LIVE)
    os.kill(pool._idle[0].process.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert pool.run(_query("SELECT 3 AS a"), owner="run", cancelled=LIVE) == [{"a": 3}]


def test_a_process_that_ends_in_a_job_is_told_as_such() -> None:
    child = Child()
    threading.Timer(0.5, child.process.kill).start()
    with pytest.raises(JobError, match=r"its process ended \(code -9\)"):
        child.ask(NAP, 10, LIVE)
    child.close()


async def test_one_run_never_takes_all_processes(pool: ChildPool) -> None:
    """Eight slow queries of one run stopped the queries, claims and values of all others."""
    greedy = threading.Event()
    slow = [
        asyncio.create_task(in_thread(lambda: pool.run(NAP, owner="greedy", cancelled=greedy)))
        for _ in range(8)
    ]
    await asyncio.sleep(0.5)
    for _ in range(3):
        found = await in_thread(
            lambda: pool.run(_query("SELECT 1 AS a"), owner="other", cancelled=LIVE)
        )
        assert found == [{"a": 1}]
    assert pool.turns.count("greedy") == 2
    greedy.set()
    ended = await asyncio.gather(*slow, return_exceptions=True)
    assert [e.reason for e in ended if isinstance(e, JobError)] == ["cancelled"] * 8
    assert pool.turns.count("greedy") == 0


def test_no_key_is_in_the_environment_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123456")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-canary-123456")
    child = Child()
    try:
        child.ask(_query("SELECT 1"), 20, LIVE)
        environ = Path(f"/proc/{child.process.pid}/environ")
        if not environ.exists():
            pytest.skip("no /proc here")
        assert b"canary" not in environ.read_bytes()
        assert b"TMPDIR" in environ.read_bytes()
    finally:
        child.close()


def test_a_process_ends_with_its_worker_also_in_the_middle_of_a_job(tmp_path: Path) -> None:
    """A worker that is killed must leave no query behind that burns a core for good."""
    source = tmp_path / "parent.py"
    source.write_text(
        "import threading\n"
        "from planloom.activities.tools.processes.pool import Child\n"
        "child = Child()\n"
        "print(child.process.pid, child.folder, flush=True)\n"
        "sql = 'SELECT count(*) FROM range(10000000000) a, range(1000000) b'\n"
        "child.ask({'kind': 'query', 'sql': sql, 'files': []}, 100, threading.Event())\n"
    )
    parent = subprocess.Popen([sys.executable, source], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, _, folder = parent.stdout.readline().strip().partition(" ")
    time.sleep(1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while _is_alive(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(int(pid))
    assert not Path(folder).exists()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc").exists()
    return state != "Z"


def test_the_folder_of_a_process_that_was_killed_with_its_worker_is_removed_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("planloom.activities.tools.processes.pool.LEFT_AFTER_SECONDS", -1.0)
    live, gone = Child(), Child()
    gone.process.kill()
    gone.process.wait()
    gone._lock.close()  # as when this process were gone too
    remove_left_folders()
    assert live.folder.exists()
    assert not gone.folder.exists()
    live.close()
    gone.close()
