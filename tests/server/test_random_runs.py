"""Random runs with random signals: whatever is asked, and whenever, every run ends, and replays."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Replayer

from planloom import worker
from planloom.workflows.shell.converter import data_converter
from tests.model_server import Seen
from tests.support.harness import Handle, Planloom
from tests.support.random_runs import (
    Chance,
    joiner_replies,
    plan_from,
    planner_replies,
    request_from,
    signals_from,
)

RUNS = int(os.environ.get("PLANLOOM_RANDOM_RUNS", "25"))
"""More of them find more: set it for a longer search."""
FIRST = int(os.environ.get("PLANLOOM_RANDOM_SEED", "0"))
AT_ONCE = 8
END_SECONDS = 60.0
OUTCOMES = {"succeeded", "cached", "fallback", "failed", "skipped", "cancelled"}


async def lets_end(planloom: Planloom, handle: Handle, ids: list[str]) -> dict[str, Any]:
    """The result, when everybody now agrees to everything."""
    waiting = asyncio.ensure_future(planloom.result(handle, END_SECONDS))
    while not waiting.done():
        await asyncio.wait([waiting], timeout=1.0)
        with contextlib.suppress(RPCError, TimeoutError):
            await handle.signal("resume")
            await handle.signal("raise_budget", {"tasks": 500, "tokens": 1_000_000})
            shown = await asyncio.wait_for(planloom.progress(handle), 60)
            await handle.signal("approve_plan", {"revision": shown.revision})
            for task in ids:
                await handle.signal("approve_task", {"id": task})
    return await waiting


async def replays(planloom: Planloom, handle: Handle) -> None:
    """The history of a run, and those of its children, through the workflow code once more."""
    history = await planloom.history(handle)
    replayer = Replayer(
        workflows=worker.WORKFLOWS,
        data_converter=data_converter(),
        workflow_runner=worker.RUNNER,
    )
    await replayer.replay_workflow(history)
    for event in history.events:
        if event.HasField("child_workflow_execution_started_event_attributes"):
            child = event.child_workflow_execution_started_event_attributes.workflow_execution
            await replays(planloom, planloom.client.get_workflow_handle(child.workflow_id))


async def ends_well(planloom: Planloom, seed: int, request: dict[str, Any], ids: list[str]) -> None:
    chance = Chance(-seed - 1)
    handle = await planloom.start(request)
    with contextlib.suppress(RPCError):  # it may have ended by then
        for seconds, name, payload in signals_from(chance, ids):
            await asyncio.sleep(seconds)
            await handle.signal(name, payload)
        if chance.is_so(0.1):
            await handle.cancel()
    try:
        result = await lets_end(planloom, handle, ids)
        await replays(planloom, handle)
    except workflow.NondeterminismError as changed:
        raise AssertionError(f"seed {seed}: {changed}") from changed
    except WorkflowFailureError as failed:
        cause = failed.cause
        if isinstance(cause, ApplicationError) and cause.type == "InvalidPlan":
            return
        raise AssertionError(f"seed {seed}: {cause!r}") from failed
    except AssertionError as late:
        raise AssertionError(f"seed {seed}: {late}") from late
    assert {t["outcome"] for t in result["tasks"].values()} <= OUTCOMES, f"seed {seed}"
    assert result["reason"] or result["status"] == "completed", f"seed {seed}"


async def side_by_side(planloom: Planloom, tools: dict[str, str], runs: list[Any]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int, request: dict[str, Any], ids: list[str]) -> None:
        async with room:
            await ends_well(planloom, seed, request, ids)

    async with planloom.worker(**tools):
        ended = await asyncio.gather(*(one(*r) for r in runs), return_exceptions=True)
    faults = [str(e) or repr(e) for e in ended if e is not None]
    assert not faults, "\n\n".join(faults)


@pytest.mark.timeout(END_SECONDS + 5 * RUNS)
async def test_any_plan_ends_whatever_signals_come(
    planloom: Planloom, tools: dict[str, str]
) -> None:
    runs = []
    for seed in range(FIRST, FIRST + RUNS):
        chance = Chance(seed)
        plan = plan_from(chance)
        runs.append((seed, request_from(chance) | {"plan": plan}, [t["id"] for t in plan["tasks"]]))
    await side_by_side(planloom, tools, runs)


@pytest.mark.timeout(END_SECONDS + 5 * RUNS)
async def test_any_goal_ends_whatever_its_models_write(
    planloom: Planloom, tools: dict[str, str]
) -> None:
    runs = []
    for seed in range(FIRST, FIRST + RUNS):
        chance, mark = Chance(seed), f"goal number {seed}."
        speaks = {
            "Write the plan that reaches the goal": planner_replies(chance),
            "You decide whether a goal is reached": joiner_replies(chance),
        }
        for words, replies in speaks.items():

            def is_asked(seen: Seen, words: str = words, mark: str = mark) -> bool:
                return words in seen.text and mark in seen.text

            planloom.model.script(is_asked, *replies)
        request = request_from(chance) | {"goal": mark, "stream": chance.is_so(0.8)}
        request["replan"] = {"max_rounds": chance.random.randint(0, 3)}
        runs.append((seed, request, list(chance.ids) or ["a0"]))
    await side_by_side(planloom, tools, runs)
