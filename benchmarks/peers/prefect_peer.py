"""Prefect, in its own environment: a chain and a fan-out of tasks that do nothing.

Its best settings, each tried against the other way: a server of its own on SQLite (without one each
flow starts one), asynchronous tasks of one flow, started together, results kept in files
(`persist_result`, without which nothing is durable), no logs to the server, no analytics.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 120.0


@contextlib.contextmanager
def server(folder: Path) -> Iterator[None]:
    """A Prefect server on a free port, with its database in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
        }
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/health", process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.2)
    raise SystemExit(f"the Prefect server did not answer at {url}")


async def main() -> None:
    from prefect import flow, task  # reads its settings as it is imported
    from prefect.cache_policies import NO_CACHE
    from protocol import serve

    @task(persist_result=True, cache_policy=NO_CACHE)
    async def noop(n: int) -> int:
        return n

    @flow
    async def chain(length: int) -> int:
        value = 0
        for _ in range(length):
            value = await noop(value + 1)
        return value

    @flow
    async def fan_out(width: int) -> int:
        return len(await asyncio.gather(*(noop(n) for n in range(width))))

    async def run(shape: str, count: int) -> float:
        began = time.perf_counter()
        found = await {"chain": chain, "fan-out": fan_out}[shape](count)
        seconds = time.perf_counter() - began
        assert found == count, found
        return seconds

    await serve(run)


if __name__ == "__main__":
    with server(Path(sys.argv[1])):
        asyncio.run(main())
