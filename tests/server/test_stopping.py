"""How a worker ends: not ready first, what runs is finished, what it has recorded is written."""

from __future__ import annotations

import contextlib
import json
import os
import signal

from temporalio.service import RPCError

from tests.activities.test_health import asked
from tests.server.test_worker_metrics import free_port
from tests.support.harness import Planloom
from tests.support.otlp import Collector
from tests.support.waiting import until

TOOLS = """
import asyncio
from pathlib import Path
from planloom import tool

@tool
async def held(file: str) -> str:
    Path(file + ".began").touch()
    while not Path(file).exists():
        await asyncio.sleep(0.01)
    return "done"

@tool
async def break_worker() -> str:
    loop = asyncio.get_running_loop()
    (serving,) = [t for t in asyncio.all_tasks() if t.get_coro().__qualname__ == "serve"]
    loop.call_later(0.2, serving.cancel)
    return "it breaks"
"""


async def test_a_worker_that_is_stopped_is_not_ready_and_finishes_what_runs(
    planloom: Planloom,
) -> None:
    port, file = free_port(), planloom.folder / "go"
    env = {
        "PLANLOOM_TOOLS": planloom.tools(TOOLS),
        "PLANLOOM_HEALTH_ADDRESS": f"127.0.0.1:{port}",
    }
    async with planloom.worker_process(**env) as worker:
        await until(lambda: asked(port, "/ready")[0] == 200)
        task = {"id": "a", "tool": "held", "args": {"file": str(file)}, "fuse": False}
        handle = await planloom.start({"plan": {"tasks": [task]}})
        await until((planloom.folder / "go.began").exists)
        os.kill(worker.pid, signal.SIGTERM)
        await until(lambda: asked(port, "/ready") == (503, ["it is stopping"]))
        assert asked(port, "/live") == (200, [])
        file.touch()
        assert await worker.stop() == 0
        ends = [e.event_type for e in (await planloom.history(handle)).events]
        assert 12 in ends  # EVENT_TYPE_ACTIVITY_TASK_COMPLETED, at its first attempt
        await handle.terminate()


async def test_what_a_worker_has_recorded_is_written_when_it_fails(planloom: Planloom) -> None:
    """Spans wait for minutes here, so they come by the flush alone; the file of times likewise."""
    collector = Collector()
    env = {
        "PLANLOOM_TOOLS": planloom.tools(TOOLS),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    }
    try:
        async with planloom.worker_process(**env) as worker:
            handle = await planloom.start(
                {"plan": {"tasks": [{"id": "a", "tool": "break_worker", "fuse": False}]}}
            )
            await until(lambda: not worker.is_running)
            await until(lambda: "execute_tool break_worker" in {s.name for s in collector.spans})
            await until(lambda: "gen_ai.execute_tool.duration" in collector.metrics)
            assert "CancelledError" in worker.output
            with contextlib.suppress(RPCError):  # it may have ended before its worker did
                await handle.terminate()
    finally:
        collector.stop()
    assert "break_worker" in json.loads((planloom.data_dir / "tool_times.json").read_text())
