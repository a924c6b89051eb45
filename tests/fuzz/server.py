"""Random requests and signals for a real server and worker: no task fails, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue
from temporalio.service import RPCError

from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.fuzz.readers_outside import THEIR_NAMES, named
from tests.fuzz.texts import bytes_of, plan_of, text_of, value_of
from tests.model_server import ModelServer
from tests.support.failed_tasks import failed_task
from tests.support.harness import Planloom

AT_ONCE = 20
SIGNALS = [
    *("reserve", "renew", "release", "set", "drain", "report"),
    "approve_plan",
    "reject_plan",
    "edit_plan",
    "request_replan",
    "raise_budget",
    "pause",
    "resume",
    "cancel_task",
    "complete_task",
    "approve_task",
    "child_ended",
    "plan_written",
    "child_asks",
    "ask_budget",
    "report_to_parent",
    "no_such_signal",
    "deadline_moved",
]
WORKFLOWS = ["DagWorkflow", "DagWorkflow", "AgentWorkflow", "TeamWorkflow", "CapacityWorkflow"]
END_SECONDS = 60.0
REFUSALS = (
    RPCError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    TimeoutError,
)


def payload_of(random: Random, value: Any) -> RawValue:
    """A value as JSON, or bytes that say they are."""
    if random.random() < 0.1:
        encoding = random.choice([b"json/plain", b"binary/plain", b"binary/null", b"", b"x"])
        return RawValue(Payload(metadata={"encoding": encoding}, data=bytes_of(random)))
    text = json.dumps(value).encode()  # lone surrogates stay as they are: \\ud83d
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text))


def request_of(random: Random, workflow: str) -> Any:
    if random.random() < 0.2:
        return random.choice([value_of(random), named(random, THEIR_NAMES)])
    more = {
        random.choice(["budget", "approval", "context", "params", "tools"]): value_of(random, 2)
    }
    more = more if random.random() < 0.4 else {}
    match workflow:
        case "AgentWorkflow":
            return {"agent": {"id": "x", "system": text_of(random, 3)}, "task": "t", **more}
        case "TeamWorkflow":
            return {"team": {"members": [{"id": "a", "role": "r"}]}, "task": "t", **more}
        case "CapacityWorkflow":
            return {"pool": random.choice(["default", "none", text_of(random, 2)]), **more}
    if random.random() < 0.3:
        return {"goal": text_of(random, 5) or "x", "replan": {"max_rounds": 1}, **more}
    return {"plan": plan_of(random), **more}


@dataclass(slots=True)
class Fuzzed:
    """What a server was given, and what went wrong, each with its seed."""

    runs: int = 0
    inputs: int = 0
    """Requests, signals and updates."""
    wrong: list[str] = field(default_factory=list)


async def one_run(planloom: Planloom, random: Random, name: str, fuzzed: Fuzzed) -> str | None:
    """Start a run, send it anything, cancel it; what is wrong with how it went, or None."""
    fuzzed.runs += 1
    fuzzed.inputs += 1
    workflow = random.choice(WORKFLOWS)
    count = 2 if random.random() < 0.1 else 1
    handle: WorkflowHandle[Any, Any] = await planloom.client.start_workflow(
        workflow,
        args=[payload_of(random, request_of(random, workflow)) for _ in range(count)],
        id=name,
        task_queue=planloom.task_queue,
    )
    for _ in range(random.randint(0, 5)):
        signal = random.choice(SIGNALS)
        value = value_of(random, 2)
        if random.random() < 0.5:
            value = {"id": "t0", "revision": 1, "output": value_of(random, 1)}
        fuzzed.inputs += 1
        args = [payload_of(random, value) for _ in range(random.choice([0, 1, 1, 1, 2]))]
        try:
            if random.random() < 0.3:
                await asyncio.wait_for(handle.execute_update(signal, args=args), 10)
            else:
                await handle.signal(signal, args=args)
        except REFUSALS:
            pass  # refused, or it has ended
    with contextlib.suppress(RPCError):
        await handle.cancel()
    if workflow == "CapacityWorkflow":  # it serves on, whoever cancels it
        with contextlib.suppress(RPCError):
            await handle.query("state", rpc_timeout=timedelta(seconds=30))
            await handle.terminate()
    return await _how_it_ended(handle)


async def _how_it_ended(handle: WorkflowHandle[Any, Any]) -> str | None:
    ends = asyncio.get_running_loop().time() + END_SECONDS
    while (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
        if asyncio.get_running_loop().time() > ends:
            return await _failed_task(handle) or "it has not ended"
        await asyncio.sleep(0.1)
    return await _failed_task(handle)


async def _failed_task(handle: WorkflowHandle[Any, Any]) -> str | None:
    async for event in handle.fetch_history_events():
        if reason := failed_task(event):
            return reason
    return None


async def fuzz_runs(planloom: Planloom, inputs: int, first: int) -> Fuzzed:
    """Runs, some at once, until they were given so many inputs."""
    fuzzed, seeds = Fuzzed(), itertools.count(first)

    async def one_after_the_other() -> None:
        while fuzzed.inputs < inputs:
            seed = next(seeds)
            if found := await one_run(planloom, Random(seed), f"fuzz-{seed}", fuzzed):
                fuzzed.wrong.append(f"run, seed {seed}: {found}")

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return fuzzed


async def fuzz_server(inputs: int, first: int) -> int:
    """The same on a server and worker of its own, with a line of figures."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="planloom-fuzz-") as folder,
        ModelServer() as model,
        DevServer(in_memory=True, headless=True, port=None) as server,
    ):
        os.chdir(folder)
        client = await Client.connect(server.address, data_converter=data_converter())
        model.script("", "words")
        planloom = Planloom(client, model, Path(folder))
        logging.disable(logging.CRITICAL)  # what it refuses is told in each run's history
        async with planloom.worker():
            fuzzed = await fuzz_runs(planloom, inputs, first)
    took = time.monotonic() - began
    print(
        f"{'server':<18}{fuzzed.inputs:>12,} inputs to {fuzzed.runs:,} runs in {took:.0f} s"
        + ("  BROKEN" if fuzzed.wrong else "")
    )
    for text in fuzzed.wrong[:5]:
        print(f"\n{text}")
    return len(fuzzed.wrong)
