"""Fused and unfused, the same plan comes to the same: every outcome, output, error and attempt."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import RunResult
from planloom.workflows.machines.run import machine
from tests.simulation.cases import Case
from tests.simulation.chance import Chance
from tests.simulation.plans import Document, random_plan
from tests.simulation.world import World

RUNS = 400
PARTS = 4
TIMELESS = ("tool", "ask")
"""Bodies whose outcome does not depend on when they run."""
ON_TIME = ("speculate", "fuse", "approval")


def timeless_plan(random: Random) -> Document:
    """A random plan whose outcomes follow from its tasks alone, and not from their order."""
    plan = random_plan(random, size=random.choice([2, 4, 8, 16]))
    tasks = [_timeless(task, random) for task in plan["tasks"]]
    return {"tasks": tasks, **{k: v for k, v in plan.items() if k == "answer"}}


def _timeless(task: Document, random: Random) -> Document:
    kept = {k: v for k, v in task.items() if k not in ON_TIME}
    if not any(body in kept for body in TIMELESS):
        for body in ("human", "agent", "team", "plan"):
            kept.pop(body, None)
        kept |= {"tool": "work", "args": {"key": f"of {task['id']}"}}
    if isinstance(fallback := kept.get("fallback"), dict) and "value" not in fallback:
        kept["fallback"] = random.choice([None, {"value": 2, "items": [1], "ok": True}])
    # `any` starts with whatever is there first.
    if kept.get("requires") not in (None, "all", "best_effort"):
        kept["requires"] = "best_effort"
    return kept


def result_of(seed: int, plan: Document, fuse: bool | None, fails: float) -> World:
    request: Document = {"plan": plan, "retry_rounds": seed % 3}
    if fuse is not None:
        request["fuse"] = fuse
    # Few slots, so that groups take turns.
    request["budget"] = {"parallel": Random(seed).choice([1, 2, 5, 100])}
    world = World(Case(seed, request, carried=0.02, fails=fails, blobs_fail=False))
    world.run()
    return world


def told(world: World) -> dict[str, Any]:
    """What a person sees of the end, without times."""
    result = machine.ended(world.root.state)
    if not isinstance(result, RunResult):
        return {"failed": result}  # its pool never has room for it
    tasks = {}
    for task, report in result.tasks.items():
        # A map tells the error of the item that failed last.
        of_time = {"error", "error_class"} if report.items else set[str]()
        tasks[task] = report.model_dump(mode="json", exclude={"times", "reason", *of_time})
    return {"status": result.status, "answer": result.answer, "tasks": tasks}


def is_readable(plan: Document) -> bool:
    try:
        RunRequest.model_validate({"plan": plan})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("part", range(PARTS))
def test_fused_and_unfused_runs_end_alike(part: int) -> None:
    fused = 0
    for seed in range(part * (RUNS // PARTS), (part + 1) * (RUNS // PARTS)):
        plan = timeless_plan(Chance(seed).of("plan"))
        if not is_readable(plan):
            continue
        fails = (0.0, 0.2, 0.5)[seed % 3]
        alone = result_of(seed, plan, False, fails)
        assert alone.root.state.groups_made == 0
        for fuse in (None, True):
            together = result_of(seed, plan, fuse, fails)
            assert told(together) == told(alone), f"seed {seed}, fuse {fuse}: {plan}"
            fused += together.root.state.groups_made
    assert fused > RUNS // PARTS
