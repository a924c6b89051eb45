"""`planloom eval`: a set of goals against real models, so that a user can choose one."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from planloom import Client, RunFailed, planner
from planloom.console.documents import read_document
from planloom.console.mistakes import UsageError
from planloom.console.views import as_text
from planloom.planner.compile.passes.rank import width_of
from planloom.planner.compile.pipeline import graph_of
from planloom.planner.contract.results import RunResult
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Model
from planloom.planner.syntax.documents import problems_from_validation

Syntax = Literal["calls", "json"]
SYNTAXES: tuple[Syntax, ...] = get_args(Syntax)
SETS = Path(planner.__file__).parent / "library" / "eval"
TOKENS_PER_GOAL = 30_000
SECONDS_PER_GOAL = 300.0
TASKS_PER_GOAL = 200
TOKENS_MIN = 1_000
"""If fewer of the whole evaluation's tokens are left, a goal is not begun."""
LATE_SECONDS = 120.0
"""Seconds after its time limit at which a run that has not ended is given up."""


class Expect(Model):
    """What a right answer holds; all that are given must be true."""

    equals: str | None = None
    contains: str | None = None
    matches: str | None = None
    number: float | None = None
    tolerance: float = 0.0
    min_width: int | None = None
    max_tasks: int | None = None
    uses: list[str] = Field(default_factory=list)
    """Tools that the plan must call."""
    avoids: list[str] = Field(default_factory=list)
    """Tools that the plan must not call."""


class EvalGoal(Model):
    """One goal of a set."""

    id: str
    goal: str
    shape: str = ""
    """What kind of plan it needs: the report shows each kind by itself."""
    tools: list[str] | None = None
    context: JsonValue = None
    expect: Expect = Field(default_factory=Expect)
    solution: str | None = None
    """One plan that reaches it, in the planner's `calls` syntax; not shown to the model."""


class EvalSet(Model):
    """A file of goals."""

    version: int = 1
    name: str = ""
    goals: list[EvalGoal] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is compared: a model (None: the worker's own) with a planner syntax."""

    model: str | None = None
    syntax: Syntax = "calls"

    @property
    def name(self) -> str:
        return f"{self.model or '(the worker’s)'} {self.syntax}"


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that each goal, and the whole evaluation, may use."""

    tokens: int = TOKENS_PER_GOAL
    seconds: float = SECONDS_PER_GOAL
    total_tokens: int | None = None
    total_usd: float | None = None


class EvalRow(Model):
    """The result of one goal with one candidate."""

    id: str
    shape: str = ""
    model: str | None = None
    syntax: str = "calls"
    valid: bool
    """A plan was made that compiles."""
    at_once: bool = False
    """… without a repair."""
    right: bool
    is_run: bool = True
    """False: a cap of the whole evaluation left no room for it."""
    tasks: int = 0
    width: int = 0
    repairs: int = 0
    rounds: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    first_task_seconds: float | None = None
    """From the start of the run to that of its first task."""
    answer: str = ""
    reason: str = ""


def shipped_sets() -> list[str]:
    """The names of the sets that come with Planloom."""
    return sorted(path.stem for path in SETS.glob("*.yaml"))


def load_set(named: str) -> EvalSet:
    """The set of this name that ships, or a file.

    Raises:
        UsageError: there is no such file, or it has problems.
    """
    source = str(SETS / f"{named}.yaml") if named in shipped_sets() else named
    return read_set(read_document(source), source)


def read_set(document: Any, source: str) -> EvalSet:
    """A set of goals.

    Raises:
        UsageError: with all problems of the file.
    """
    try:
        return EvalSet.model_validate(document)
    except ValidationError as error:
        problems = problems_from_validation(error, document, EvalSet)
        raise UsageError(f"{source} is not a valid set of goals", problems) from None


def is_right(answer: str, expect: Expect, plan: Plan | None) -> bool:
    """Whether an answer, and the plan that gave it, are what was expected."""
    plain = answer.strip(" \n.\"'“”")
    width = width_of(graph_of(plan)) if plan is not None else 0
    tools = {task.tool for task in plan.tasks if task.tool} if plan is not None else set()
    checks = [
        expect.equals is None or plain.lower() == expect.equals.lower(),
        expect.contains is None or expect.contains.lower() in answer.lower(),
        expect.matches is None or re.search(expect.matches, answer) is not None,
        expect.min_width is None or width >= expect.min_width,
        expect.max_tasks is None or plan is None or len(plan.tasks) <= expect.max_tasks,
        set(expect.uses) <= tools,
        not set(expect.avoids) & tools,
    ]
    if expect.number is not None:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
        off = [abs(float(f) - expect.number) for f in numbers]
        checks.append(bool(off) and min(off) <= expect.tolerance + 1e-9)
    return all(checks)


class _Purse:
    """What is left of the whole evaluation's caps; goals at work hold a part of it."""

    def __init__(self, caps: Caps, parallel: int) -> None:
        self._caps, self._parallel = caps, parallel
        self._tokens, self._usd = 0, 0.0

    def take(self) -> dict[str, Any] | None:
        """The budget of one goal; None when too little is left."""
        budget: dict[str, Any] = {
            "tokens": self._caps.tokens,
            "seconds": self._caps.seconds,
            "tasks": TASKS_PER_GOAL,
            "on_budget": "partial",
        }
        if self._caps.total_tokens is not None:
            budget["tokens"] = min(self._caps.tokens, self._caps.total_tokens - self._tokens)
            if budget["tokens"] < min(TOKENS_MIN, self._caps.tokens):
                return None
        if self._caps.total_usd is not None:
            left = self._caps.total_usd - self._usd
            if left < self._caps.total_usd / 1_000:
                return None
            budget["usd"] = left / self._parallel
        self._tokens += budget["tokens"]
        self._usd += budget.get("usd", 0.0)
        return budget

    def settle(self, budget: dict[str, Any], row: EvalRow) -> None:
        """A goal has ended: what it did not use is free again."""
        self._tokens -= max(0, budget["tokens"] - row.tokens)
        self._usd -= max(0.0, budget.get("usd", 0.0) - row.usd)


async def evaluate(
    client: Client,
    goals: EvalSet,
    candidates: Sequence[Candidate],
    caps: Caps,
    parallel: int,
) -> list[EvalRow]:
    """Run every goal with each candidate, at most `parallel` at once, in the order given."""
    slots, purse = asyncio.Semaphore(parallel), _Purse(caps, parallel)
    name = uuid.uuid4().hex[:6]

    async def one(number: int, candidate: Candidate, goal: EvalGoal) -> EvalRow:
        async with slots:
            budget = purse.take()
            if budget is None:
                row = _row(goal, candidate, reason="not run: the evaluation's cap is reached")
                return row.model_copy(update={"is_run": False})
            id = f"eval-{name}-{number}-{goal.id}"
            row = await _run_goal(client, goal, candidate, budget, id)
            purse.settle(budget, row)
            return row

    work = [one(n, c, g) for n, c in enumerate(candidates) for g in goals.goals]
    return list(await asyncio.gather(*work))


async def _run_goal(
    client: Client, goal: EvalGoal, candidate: Candidate, budget: dict[str, Any], id: str
) -> EvalRow:
    request: dict[str, Any] = {
        "goal": goal.goal,
        "syntax": candidate.syntax,
        "replan": {"max_rounds": 2},
        "budget": budget,
    }
    request |= {"tools": goal.tools} if goal.tools is not None else {}
    request |= {"context": goal.context} if goal.context is not None else {}
    request |= {"model": candidate.model} if candidate.model is not None else {}
    run = await client.start(request, id=id)
    try:
        result = await run.result(budget["seconds"] + LATE_SECONDS)
    except RunFailed as failed:
        return _row(goal, candidate, reason=str(failed)[:300])
    except TimeoutError:
        await run.cancel()
        return _row(goal, candidate, reason="it did not end in time")
    document = await run.query("plan")
    plan = Plan.model_validate(document) if document else None
    return _judged(goal, candidate, result, plan)


def _row(goal: EvalGoal, candidate: Candidate, reason: str) -> EvalRow:
    """A goal without a result."""
    return EvalRow(
        id=goal.id,
        shape=goal.shape,
        model=candidate.model,
        syntax=candidate.syntax,
        valid=False,
        right=False,
        reason=reason,
    )


def _judged(goal: EvalGoal, candidate: Candidate, result: RunResult, plan: Plan | None) -> EvalRow:
    answer = as_text(result.answer) if result.answer is not None else ""
    planning = result.planning
    repairs, first = planning.get("repairs", 0), planning.get("first_task_seconds")
    is_valid = bool(result.tasks) or (plan is not None and result.answer is not None)
    return EvalRow(
        id=goal.id,
        shape=goal.shape,
        model=candidate.model,
        syntax=candidate.syntax,
        valid=is_valid,
        at_once=is_valid and not repairs,
        right=result.answer is not None and is_right(answer, goal.expect, plan),
        tasks=len(result.tasks),
        width=width_of(graph_of(plan)) if plan is not None else 0,
        repairs=repairs if isinstance(repairs, int) else 0,
        rounds=result.rounds,
        tokens=result.usage.tokens,
        usd=result.usage.usd,
        seconds=result.seconds,
        first_task_seconds=first if isinstance(first, int | float) else None,
        answer=answer[:120],
        reason=(result.reason or "")[:300],
    )
