"""`planloom demo`: a real server, a real worker, a real plan over real data; no key needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console

from planloom import Client, PlanloomError, Run, planner
from planloom.console.app import fail
from planloom.console.devserver import DevServer, DevServerError
from planloom.console.documents import settings_now
from planloom.console.graph import draw
from planloom.console.live import follow
from planloom.console.processes import stop_process, worker_process
from planloom.console.results import print_result
from planloom.console.runs import ui_address
from planloom.planner.contract.results import RunResult

TEMPLATE = "weather-report"
GOAL = (
    "From seattle-weather.csv (columns date, precipitation, temp_max, temp_min, wind, weather): "
    "which year was the wettest, by how many millimetres more than the driest?"
)
WORKER_SECONDS = 60.0
KEPT = ("PLANLOOM_MODEL", "PLANLOOM_CONFIG", "PLANLOOM_LOG", "PLANLOOM_LOG_LEVEL")
"""Settings that reach the demo's worker; queues and folders are its own."""


async def run_demo(*, keep: bool, err: Console, as_json: bool = False) -> int:
    """Run the demo; gives the exit code. With `as_json` standard output is the run's result."""
    folder = Path(tempfile.mkdtemp(prefix="planloom-demo-"))
    data = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"
    workspace = folder / "workspace"
    workspace.mkdir()
    shutil.copy(data, workspace)
    server = DevServer(data_dir=folder, in_memory=not keep, port=None, ui_port=None)
    try:
        await asyncio.to_thread(server.start)
    except DevServerError as error:
        return fail(str(error), error.hint, kind="no_server").exit_code
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PLANLOOM_") or k in KEPT}
    environment = kept | {
        "TEMPORAL_ADDRESS": server.address,
        "TEMPORAL_NAMESPACE": "default",
        "PLANLOOM_DATA_DIR": str(folder),
        "PLANLOOM_WORKSPACE": str(workspace),
    }
    log = (folder / "worker.log").open("wb")
    worker = worker_process(environment, log)
    try:
        err.print(f"A Temporal server at {server.address}, its Web UI at {server.ui_url}")
        client = await Client.connect(settings_now(environment), target_host=server.address)
        await _until_polling(worker, folder / "worker.log")
        code = await _run_template(client, server, err, keep=keep, as_json=as_json)
        if not as_json:  # else one run, one document
            await _goal_where_a_model_is(client, err)
        if keep:
            err.print(f"\nThe Web UI stays at {server.ui_url} until Ctrl-C.")
            with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
                await asyncio.Event().wait()
        else:
            err.print("To look at the runs in the Web UI: planloom demo --keep")
        return code
    except (PlanloomError, DevServerError) as error:
        return fail(str(error), error.hint).exit_code
    finally:
        stop_process(worker)
        log.close()
        server.stop()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _goal_where_a_model_is(client: Client, err: Console) -> None:
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        await _run_goal(client, err)
    else:
        err.print("\nWith OPENAI_API_KEY or OPENAI_BASE_URL set, the demo also plans a goal.")


async def _until_polling(worker: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the worker's one line.

    Raises:
        DevServerError: it ended instead, or took too long.
    """
    deadline = time.monotonic() + WORKER_SECONDS
    while "is polling" not in log.read_text(errors="replace"):
        if worker.poll() is not None or time.monotonic() > deadline:
            raise DevServerError("the worker did not start", log.read_text()[-2000:])
        await asyncio.sleep(0.05)


async def _run_template(
    client: Client, server: DevServer, err: Console, *, keep: bool, as_json: bool
) -> int:
    err.print(
        f"\n[bold]The plan[/bold] (template {TEMPLATE}): SQL over 1,461 days of weather\n",
        markup=True,
    )
    run = await client.start({"template": TEMPLATE}, id="demo-weather")
    result = await _follow(run, err)
    err.print()
    code = print_result(result, as_json=as_json, err=err)
    await _graph(run, err)
    if keep:  # else the server is gone before anybody can look
        err.print(f"Web UI: {ui_address_of(server, client, run)}", markup=False, soft_wrap=True)
    recovered = [t for t, r in result.tasks.items() if r.outcome == "fallback"]
    if recovered:
        first = result.tasks[recovered[0]]
        cause = (first.error or "").split("\n")[0][:140]
        text = f'Task "{recovered[0]}" really failed ({cause}) and took its fallback.'
        err.print(text, markup=False, soft_wrap=True)
    return code


def ui_address_of(server: DevServer, client: Client, run: Run) -> str:
    path = f"namespaces/{client.temporal.namespace}/workflows/{run.id}"
    return f"{server.ui_url}/{path}" if server.ui_url else ui_address(client, run.id)


async def _run_goal(client: Client, err: Console) -> None:
    err.print(f"\n[bold]A goal, planned by the model[/bold]: {GOAL}\n", markup=True)
    run = await client.start({"goal": GOAL, "budget": {"tokens": 60_000}}, id="demo-goal")
    result = await _follow(run, err)
    print_result(result, as_json=False, err=err)
    await _graph(run, err)


async def _follow(run: Run, err: Console) -> RunResult:
    async with asyncio.timeout(WORKER_SECONDS * 5):
        await follow(run, err)
        return await run.result()


async def _graph(run: Run, err: Console) -> None:
    plan, shown = await run.plan(), await run.progress()
    err.print("\n[bold]The graph as it ran[/bold]", markup=True)
    err.print(draw(plan, shown.tasks))
    err.print()
