"""One run does its worst with the built-in tools; another run of quick tasks hardly notices.

A worker process of its own, so that the test's clock does not share the event loop it judges.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.harness import Handle, Planloom

QUICK_SECONDS = 20.0
LOADED_TIMES = 10
"""On a machine so busy that even alone the quick run takes long, so many times as long."""
LARGE = "x" * 50_000
"""A value that is stored apart: writing and reading it goes by the executor that all share."""
QUICK = {
    "plan": {
        "tasks": [
            {"id": "sum", "tool": "calculate", "args": {"expression": "1 + 2"}},
            {"id": "act", "tool": "write_file", "args": {"path": "q.txt", "text": LARGE}},
            {
                "id": "rows",
                "tool": "query_sql",
                "args": {"sql": "SELECT 1 AS a", "source": "t.csv"},
            },
            {"id": "read", "tool": "read_file", "args": {"path": "q.txt"}, "depends_on": ["act"]},
        ],
        "answer": {"sum": "${sum}", "rows": "${rows}", "read": "${read | length(@)}"},
    }
}
ENDLESS = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT a FROM t"
GZIP_TWICE = gzip.compress(gzip.compress(bytes(200_000_000), 9))


class _Hostile(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = self.path.lstrip("/").partition("?")[0]
        if page == "nowhere":
            self._send(302, b"", {})
        elif page == "twice":
            self._send(200, GZIP_TWICE, {"Content-Encoding": "gzip, gzip"})
        else:
            self._send(200, b"a" * 200_000, {"Content-Type": f"text/plain; charset={page}"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def limit(planloom: Planloom) -> AsyncIterator[float]:
    """Seconds that the quick run may take beside another; a worker runs meanwhile."""
    (planloom.workspace / "t.csv").write_text("a\n1\n")
    async with planloom.worker_process(PLANLOOM_HTTP_ALLOW_PRIVATE="127.0.0.0/8"):
        # The first query starts a process, which is not what these tests measure.
        assert (await planloom.run(QUICK))["status"] == "completed"
        began = time.monotonic()
        assert (await planloom.run(QUICK))["status"] == "completed"
        yield max(QUICK_SECONDS, LOADED_TIMES * (time.monotonic() - began))


def _tasks(tool: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """A plan of tasks that differ (equal calls would be made once) and fail alone."""
    tasks = [{"id": f"t{n}", "tool": tool, "args": args} for n, args in enumerate(calls)]
    return {"plan": {"tasks": tasks, "answer": "done"}}


async def _quick_run_beside(planloom: Planloom, hostile: Handle, limit: float) -> None:
    await planloom.until(hostile, lambda progress: len(progress.tasks) > 1, timeout=30)
    await asyncio.sleep(1)  # until its calls are at their worst
    began = time.monotonic()
    result = await planloom.run(QUICK)
    assert time.monotonic() - began < limit
    assert result["status"] == "completed"
    assert result["answer"] == {"sum": 3, "rows": [{"a": 1}], "read": 50_000}


async def test_eight_queries_without_end_stop_no_side_effect_or_value_of_another_run(
    planloom: Planloom, limit: float
) -> None:
    """They filled the executor that claims and large values go by, and could not be cancelled."""
    with closing(sqlite3.connect(planloom.workspace / "views.sqlite")) as made:
        made.execute(f"CREATE VIEW endless AS {ENDLESS}")
        made.commit()
    endless = "SELECT count(*) FROM range(10000000000) a, range(1000000) b"
    queries = [(endless, "t.csv")] * 8
    queries += [("SELECT * FROM endless", "views.sqlite")] * 4
    queries += [("SELECT range(300000000)[1]", "t.csv")] * 4
    calls = [{"sql": f"{sql} -- {n}", "source": at} for n, (sql, at) in enumerate(queries)]
    hostile = await planloom.start(_tasks("query_sql", calls))
    await _quick_run_beside(planloom, hostile, limit)
    await hostile.cancel()
    assert (await planloom.result(hostile))["status"] == "cancelled"
    again = time.monotonic()
    assert (await planloom.run(QUICK))["status"] == "completed"
    assert time.monotonic() - again < limit


async def test_hostile_pages_stop_no_other_run(
    planloom: Planloom, limit: float, address: str
) -> None:
    """One page of `charset=punycode` held the event loop for 12 s."""
    pages = ["punycode", "idna", "twice", "nowhere"] * 6
    hostile = await planloom.start(
        _tasks("http_get", [{"url": f"{address}/{page}?{n}"} for n, page in enumerate(pages)])
    )
    await _quick_run_beside(planloom, hostile, limit)
    result = await planloom.result(hostile)
    tasks = [result["tasks"][f"t{n}"] for n in range(4)]
    assert [task["outcome"] for task in tasks] == ["succeeded", "succeeded", "failed", "failed"]
    assert "gzip, gzip" in tasks[2]["error"]
    assert "does not say where to" in tasks[3]["error"]
    assert [task["attempts"] for task in tasks[2:]] == [1, 1]


async def test_long_arithmetic_and_hard_expressions_stop_no_other_run(
    planloom: Planloom, limit: float
) -> None:
    """A sum of 1,171 combinations took 8 s without letting go of the interpreter's lock."""
    (planloom.workspace / "long.txt").write_text("a" * 4_000_000)
    hard = "((a?){30}){30}x"
    sums = "sum([" + ",".join(["comb(10000,5000)"] * 1_100) + "])"
    hostile = [
        await planloom.start(
            _tasks("calculate", [{"expression": f"{sums} + {n}"} for n in range(100)])
        ),
        await planloom.start(
            _tasks("search_text", [{"query": f"{hard}{n}", "regex": True} for n in range(8)])
        ),
    ]
    await _quick_run_beside(planloom, hostile[1], limit)
    for handle in hostile:
        await handle.terminate()


async def test_the_data_folder_of_a_worker_is_for_its_user_alone(planloom: Planloom) -> None:
    folder = planloom.folder / "fresh"
    async with planloom.worker_process(PLANLOOM_DATA_DIR=str(folder)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    planloom.data_dir.chmod(0o755)
    async with planloom.worker_process() as process:
        assert f"close it with: chmod 700 {planloom.data_dir}" in process.output


async def test_a_worker_says_which_files_it_does_not_use_and_sends_no_unknown_variable(
    planloom: Planloom,
) -> None:
    agents = planloom.workspace / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "r.md").write_text("---\nname: researcher\ndescription: mine\n---\nObey.")
    async with planloom.worker_process() as process:
        assert f'{agents / "r.md"}: not used: the agent "researcher" is' in process.output
    (planloom.folder / "planloom.toml").write_text(
        "[pools.default]\nbase_url = 'http://127.0.0.1:9/v1'\n"
        "api_key_env = 'AWS_SECRET_ACCESS_KEY'\n"
    )
    with pytest.raises(AssertionError, match="PLANLOOM_KEY_VARIABLES=AWS_SECRET_ACCESS_KEY"):
        async with planloom.worker_process(AWS_SECRET_ACCESS_KEY="canary"):
            pass


@pytest.mark.parametrize("layout", ["default", "apart"])
async def test_a_plan_writes_nothing_that_the_worker_trusts(
    planloom: Planloom, layout: str
) -> None:
    """In the default layout a plan wrote `planloom.toml` and the tool module itself."""
    folder = planloom.folder if layout == "default" else planloom.workspace
    (folder / "planloom.toml").write_text("max_activities = 20\n")
    name = planloom.tools(
        "from planloom import tool\n\n@tool\ndef mine(a: int) -> int:\n    'Mine.'\n    return a\n"
    )
    store = folder / "values"
    paths = ["planloom.toml", f"{name}.py", "values/blobs/aa", ".claude/agents/a.md", "numpy.py"]
    calls = [{"path": path, "text": "x"} for path in paths]
    async with planloom.worker_process(
        PLANLOOM_WORKSPACE=str(folder),
        PLANLOOM_CONFIG=str(folder / "planloom.toml"),
        PLANLOOM_DATA_DIR=str(store),
        PLANLOOM_TOOLS=name,
    ):
        result = await planloom.run(_tasks("write_file", calls))
    told = {
        path: result["tasks"][f"t{n}"].get("error") or "written" for n, path in enumerate(paths)
    }
    if layout == "apart":  # the module is not there, and nothing is imported from there
        assert told.pop(f"{name}.py") == told.pop("numpy.py") == "written"
    assert all("closed to tools" in message for message in told.values()), told
    assert (folder / "planloom.toml").read_text() == "max_activities = 20\n"
