"""`kill -9` in the very workflow task that continues as new, and in the first one after it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.model_server import Reply
from tests.server.test_agents import agent, call
from tests.server.test_continue_as_new import chain, runs_of
from tests.server.test_teams import JUDGE, TRUSTED, form, speaks, team
from tests.support.harness import Handle, Planloom
from tests.support.nursery import NursedWorker, Nursery
from tests.support.tools import SOURCE
from tests.support.waiting import until

EVENTS_MAX = 30
MOMENTS = {"before it is said", "after it is said"}
DYING = f"""
import os, signal
from temporalio import workflow
from planloom.workflows.shell import opening, runner, shell

runner.EVENTS_MAX = {EVENTS_MAX}

def _die(moment):
    try:
        path = os.path.join(os.environ["DEATHS"], f"{{workflow.info().workflow_type}}.{{moment}}")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return  # once each
    os.kill(os.getpid(), signal.SIGKILL)

def _before(carry):
    def carried(*given, **named):
        state = carry(*given, **named)
        _die("before it is said")
        return state
    return carried

def _after(read):
    def found(*given):
        _die("after it is said")
        return read(*given)
    return found

shell.carry = _before(shell.carry)
opening.read_carried = _after(opening.read_carried)
"""
"""Two points of no return: the state is written and the server does not know it yet; the server
has closed the run and begun the next, and no worker has seen that one."""


async def _kept_alive(planloom: Planloom, worker: NursedWorker, handle: Handle) -> dict[str, Any]:
    """The result, from a worker that is started again each time it is gone."""
    await worker.start()
    ended = asyncio.ensure_future(planloom.result(handle, timeout=100))
    while not ended.done():
        if not worker.is_running:
            await worker.start()
        await asyncio.wait({ended}, timeout=0.05)
    return await ended


async def test_a_run_an_agent_and_a_team_killed_as_they_continue_do_nothing_twice(
    planloom: Planloom, tools: dict[str, str], calls: Callable[[], list[str]]
) -> None:
    """Each on a worker of its own, so that nothing but the workflow itself is under way then."""
    deaths = planloom.folder / "deaths"
    deaths.mkdir()
    module = planloom.tools(SOURCE + DYING)
    planloom.model.script(JUDGE, TRUSTED)
    for id in ("ann", "bob"):
        speaks(planloom, id, form(f"{id} says so"))
    turns = [Reply(tool_calls=[call("nap", name=f"a{n}", seconds=0.01)]) for n in range(12)]
    planloom.model.script("You help.", *turns, "done")
    asked = {"tasks": [{"id": "q", "human": {"question": "Well?"}}], "answer": "${q}"}
    plan = chain(20)
    plan["tasks"].append({"id": "sub", "plan": asked})  # a child that lives through it
    plan["answer"] = ["${t19}", "${sub}"]
    requests = {
        "DagWorkflow": {"plan": plan},
        "AgentWorkflow": {"agent": agent(tools=["nap"]), "task": "go"},
        "TeamWorkflow": {
            "task": "Decide",
            "team": team("ann", "bob"),
            "rounds": 12,
            "consensus": False,
        },
    }

    async def one(nursery: Nursery, kind: str) -> tuple[dict[str, Any], int]:
        queue = f"{planloom.task_queue}-{kind}"
        env = {**planloom.env, **tools, "PLANLOOM_TOOLS": module, "DEATHS": str(deaths)}
        worker = nursery.worker({**env, "PLANLOOM_TASK_QUEUE": queue}, Path.cwd())
        handle = await planloom.client.start_workflow(
            kind,
            requests[kind],
            id=queue,
            task_queue=queue,
            task_timeout=timedelta(seconds=2),  # so soon the server misses the dead
        )
        result = await _kept_alive(planloom, worker, handle)
        return result, await runs_of(planloom, handle.id)

    async def answer() -> None:
        """The child ends while another run of its parent than the one that began it is current."""
        await until(lambda: len(list(deaths.glob("DagWorkflow.*"))) == 2, seconds=100)
        child = planloom.client.get_workflow_handle(f"{planloom.task_queue}-DagWorkflow/sub")
        await child.signal("complete_task", {"id": "q", "output": "red"})

    with Nursery() as nursery:
        results = await asyncio.gather(*(one(nursery, kind) for kind in requests), answer())
    (run, _), (single, _), (group, _) = results = results[:3]
    assert {p.name for p in deaths.iterdir()} == {f"{k}.{m}" for k in requests for m in MOMENTS}
    assert [r["status"] for r, _ in results] == ["completed"] * 3, results
    assert all(count > 2 for _, count in results), [count for _, count in results]
    assert run["answer"] == ["t19", "red"]
    named = [f"t{n}" for n in range(20)] + [f"a{n}" for n in range(12)]
    assert Counter(calls()) == Counter(f"{w} {n}" for n in named for w in ("start", "end"))
    assert (single["output"], single["turns"], single["tool_calls"]) == ("done", 13, 12)
    assert [r["round"] for r in group["rounds"]] == list(range(13))
    assert planloom.model.calls_paid() == 13 + 2 * 13 + 1
