"""A run in this process and one on a server come to the same: one is the oracle of the other."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from planloom import RunFailed, local
from planloom.activities.tools.decorator import Tool
from tests.support.harness import Planloom
from tests.support.random_runs import Chance, Document, plan_from
from tests.support.tools import SOURCE

SEEDS = range(16)


def without_chance(plan: Document) -> Document:
    """The plan without what depends on who is faster."""
    plan.pop("stop_when", None)
    for task in plan["tasks"]:
        task.pop("approval", None)
        task.pop("speculate", None)
        if task.get("tool") == "nap":
            task.pop("timeout", None)
        if "plan" in task:
            without_chance(task["plan"])
    return plan


def told(result: Any) -> Document:
    """What must be the same of both."""
    return {
        "status": result["status"],
        "answer": result["answer"],
        "tasks": {t: (r["outcome"], r.get("output")) for t, r in result["tasks"].items()},
    }


async def test_random_plans_come_to_the_same_here_and_on_a_server(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNT_FILE", str(planloom.folder / "calls.txt"))
    name = planloom.tools(SOURCE)
    monkeypatch.setattr(sys, "path", [str(planloom.folder), *sys.path])
    tools = [t for t in vars(importlib.import_module(name)).values() if isinstance(t, Tool)]

    async def here(plan: Document) -> Document | str:
        try:
            result = await local.run(plan, tools=tools, workspace=planloom.workspace)
        except RunFailed as failed:
            return failed.type
        return told(result.model_dump(mode="json"))

    async def there(plan: Document) -> Document | str:
        try:
            return told(await planloom.run({"plan": plan}, timeout=60))
        except WorkflowFailureError as failed:
            return str(getattr(failed.cause, "type", failed.cause))

    plans = [without_chance(plan_from(Chance(seed))) for seed in SEEDS]
    async with planloom.worker(PLANLOOM_TOOLS=name):
        theirs = await asyncio.gather(*(there(plan) for plan in plans))
    ours = await asyncio.gather(*(here(plan) for plan in plans))
    for seed, plan, one, other in zip(SEEDS, plans, ours, theirs, strict=True):
        assert one == other, f"seed {seed}: {plan}"
    assert sum(isinstance(one, dict) for one in ours) >= len(SEEDS) // 2
