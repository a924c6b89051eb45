"""Random requests whose result is a function of the request: chaos may change only how it comes.

The plans are those of the simulator (`tests/simulation/plans.py`). What makes a result depend on
who is first is taken out of them: short time limits, `requires: any`, `stop_when`, a retry policy
that a killed worker may use up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.requests import RunRequest
from tests.simulation.chance import Chance, weighted
from tests.simulation.plans import random_plan

Document = dict[str, Any]

KINDS = {"plan": 5.0, "goal": 3.0, "joiner": 1.0, "agent": 1.0, "team": 1.0}
RETRY = {"max_attempts": 50, "initial_seconds": 0.2, "backoff": 1.5, "max_seconds": 2.0}
"""A worker that is killed uses up an attempt, so there are many."""
TIMING = ("timeout", "requires", "retry", "stop_when", "join")
"""Fields by which a result depends on what comes first."""
PREFIX = "case"
MARK = re.compile(rf"\({PREFIX} (\d+)\)")


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what it is asked, what its planner writes, and what a person does unasked."""

    seed: int
    workflow: str
    request: Document
    first_plan: Document | None = None
    """What the planner writes first; it writes `MORE` when it is asked again."""
    replans: bool = False
    """The joiner wants one more plan."""
    pauses: int = 0
    """How often a person pauses the run and lets it go on."""
    early: list[str] = field(default_factory=list)
    """Questions that are answered before they are asked."""
    is_cancelled: bool = False
    """Cancelled on the way: then only what may never happen is checked."""

    @property
    def mark(self) -> str:
        """Part of everything that a model or a tool is asked for this run."""
        return mark_of(self.seed)


def mark_of(seed: int) -> str:
    return f"({PREFIX} {seed})"


def random_case(seed: int) -> Case:
    """The case of a seed."""
    random = Chance(seed).of("chaos")
    kind = weighted(random, KINDS)
    mark = mark_of(seed)
    match kind:
        case "agent":
            name = random.choice(["helper", "critic"])
            return Case(seed, "AgentWorkflow", {"agent": name, "task": f"look into it {mark}"})
        case "team":
            name = random.choice(["panel", "crew"])
            request = {"team": name, "task": f"discuss it {mark}", "rounds": random.choice([0, 1])}
            return Case(seed, "TeamWorkflow", request)
        case _:
            return _run(seed, kind, random)


def _run(seed: int, kind: str, random: Random) -> Case:
    mark = mark_of(seed)
    while True:
        size = random.choice([2, 3, 5, 8, 12])
        plan = steady(random_plan(random, size=size), mark, random)
        request: Document = {"goal": f"reach it {mark}", "syntax": "calls"}
        if kind != "goal":
            plan["goal"] = f"reach it {mark}"
            request = {"plan": plan, "joiner": kind == "joiner"}
        request |= _policies(random)
        try:
            RunRequest.model_validate(request)
            RunRequest.model_validate({"plan": plan})
        except ValidationError:
            continue
        break
    questions = [t["id"] for t in plan["tasks"] if "human" in t and "map" not in t]
    return Case(
        seed,
        "DagWorkflow",
        request,
        first_plan=plan if kind == "goal" else None,
        replans=random.random() < 0.5,
        pauses=random.choice([0, 0, 0, 1, 2]),
        early=[q for q in questions if kind != "goal" and random.random() < 0.4],
        is_cancelled=random.random() < 0.05,
    )


def _policies(random: Random) -> Document:
    request: Document = {}
    if random.random() < 0.3:
        request["approval"] = random.choice(["plan", "replan", "always", "major"])
    if random.random() < 0.5:
        budget: Document = {}
        if random.random() < 0.5:
            budget["tokens"] = random.choice([3_000, 30_000])
        if random.random() < 0.4:
            budget["tasks"] = random.choice([2, 5, 40])
        if random.random() < 0.6:
            budget["parallel"] = random.choice([1, 2, 3])
        request["budget"] = budget
    if random.random() < 0.2:
        request["tenant"] = random.choice(["acme", "other"])
    if random.random() < 0.2:
        request["priority"] = random.choice(["high", "low"])
    if random.random() < 0.2:
        request["cache"] = random.choice(["run", "shared"])
    return request


def steady(plan: Document, mark: str, random: Random) -> Document:
    """The plan without what makes its result a matter of time; every model call names its run."""
    tasks = [_steady_task(task, mark, random) for task in plan["tasks"]]
    return {k: v for k, v in plan.items() if k not in TIMING} | {"tasks": tasks}


def _steady_task(task: Document, mark: str, random: Random) -> Document:
    task = {k: v for k, v in task.items() if k not in TIMING}
    if "map" in task and isinstance(task["map"], list):
        task["map"] = task["map"][:4]
    fallback = task.get("fallback")
    if isinstance(fallback, dict) and set(fallback) & {"tool", "ask", "agent", "team", "plan"}:
        task["fallback"] = _steady_body(fallback, f"{task['id']}-instead", mark, random)
    task = _steady_body(task, task["id"], mark, random)
    if "tool" in task or "ask" in task:
        task["retry"] = RETRY
    return task


def _steady_body(body: Document, id: str, mark: str, random: Random) -> Document:
    """Every text for a model ends with the mark; `post` is now and then a tool with a check."""
    body = dict(body)
    args = dict(body.get("args", {}))
    if body.get("tool") == "post" and random.random() < 0.4:
        body["tool"] = "sign"
    if body.get("tool") == "ask":
        args["prompt"] = f"{args.get('prompt')} {mark}{id}"
    if "ask" in body:
        body["ask"] = {**body["ask"], "prompt": f"{body['ask']['prompt']} {mark}{id}"}
    if "agent" in body or "team" in body:
        args["task"] = f"{args.get('task')} {mark}{id}"
        args.pop("budget", None)
    if body.get("team") == "panel" and random.random() < 0.5:
        body["team"] = "crew"
    if isinstance(body.get("plan"), dict):
        body["plan"] = steady(body["plan"], mark, random)
    if args:
        body["args"] = args
    return body
