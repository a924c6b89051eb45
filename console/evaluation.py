"""`planloom eval`: a set of goals against a real model, so that a user can choose one."""

from __future__ import annotations

import asyncio
import re
import statistics
import uuid
from typing import Any

from pydantic import Field, ValidationError
from rich.table import Table

from planloom import Client, RunFailed
from planloom.console.mistakes import UsageError
from planloom.console.views import as_text
from planloom.planner.compile.passes.rank import width_of
from planloom.planner.compile.pipeline import graph_of
from planloom.planner.contract.results import RunResult
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Model
from planloom.planner.syntax.documents import problems_from_validation


class Expect(Model):
    """What a right answer holds; all that are given must be true."""

    equals: str | None = None
    contains: str | None = None
    matches: str | None = None
    number: float | None = None
    tolerance: float = 0.0
    min_width: int | None = None


class EvalGoal(Model):
    """One goal of a set."""

    id: str
    goal: str
    tools: list[str] | None = None
    context: JsonValue = None
    expect: Expect = Field(default_factory=Expect)


class EvalSet(Model):
    """A file of goals."""

    version: int = 1
    name: str = ""
    goals: list[EvalGoal] = Field(min_length=1)


class EvalRow(Model):
    """What one goal came to."""

    id: str
    valid: bool
    right: bool
    tasks: int = 0
    width: int = 0
    repairs: int = 0
    rounds: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    answer: str = ""
    reason: str = ""


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


def is_right(answer: str, width: int, expect: Expect) -> bool:
    """Whether an answer is what was expected."""
    plain = answer.strip().strip(".").strip('"')
    checks = [
        expect.equals is None or plain.lower() == expect.equals.lower(),
        expect.contains is None or expect.contains.lower() in answer.lower(),
        expect.matches is None or re.search(expect.matches, answer) is not None,
        expect.min_width is None or width >= expect.min_width,
    ]
    if expect.number is not None:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
        off = [abs(float(f) - expect.number) for f in numbers]
        checks.append(bool(off) and min(off) <= expect.tolerance + 1e-9)
    return all(checks)


async def evaluate(
    client: Client, goals: EvalSet, model: str | None, parallel: int
) -> list[EvalRow]:
    """Run every goal, at most `parallel` at once, in the order of the set."""
    slots = asyncio.Semaphore(parallel)
    name = uuid.uuid4().hex[:6]

    async def one(goal: EvalGoal) -> EvalRow:
        async with slots:
            return await _run_goal(client, goal, model, f"eval-{name}-{goal.id}")

    return list(await asyncio.gather(*(one(goal) for goal in goals.goals)))


async def _run_goal(client: Client, goal: EvalGoal, model: str | None, id: str) -> EvalRow:
    request: dict[str, Any] = {"goal": goal.goal, "replan": {"max_rounds": 1}}
    request |= {"tools": goal.tools} if goal.tools is not None else {}
    request |= {"context": goal.context} if goal.context is not None else {}
    request |= {"model": model} if model is not None else {}
    run = await client.start(request, id=id)
    try:
        result = await run.result()
    except RunFailed as failed:
        return EvalRow(id=goal.id, valid=False, right=False, reason=str(failed)[:300])
    document = await run.query("plan")
    plan = Plan.model_validate(document) if document else None
    return _row(goal, result, width_of(graph_of(plan)) if plan is not None else 0)


def _row(goal: EvalGoal, result: RunResult, width: int) -> EvalRow:
    answer = as_text(result.answer) if result.answer is not None else ""
    repairs = result.planning.get("repairs", 0)
    return EvalRow(
        id=goal.id,
        valid=bool(result.tasks),
        right=result.answer is not None and is_right(answer, width, goal.expect),
        tasks=len(result.tasks),
        width=width,
        repairs=repairs if isinstance(repairs, int) else 0,
        rounds=result.rounds,
        tokens=result.usage.tokens,
        usd=result.usage.usd,
        seconds=result.seconds,
        answer=answer[:120],
        reason=(result.reason or "")[:300],
    )


def table_of(rows: list[EvalRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("goal", "plan", "answer", "tasks", "width", "repairs", "tokens", "seconds"):
        table.add_column(name, no_wrap=True, justify="left" if name == "goal" else "right")
    for row in rows:
        table.add_row(
            row.id,
            "valid" if row.valid else "none",
            "right" if row.right else "wrong",
            str(row.tasks),
            str(row.width),
            str(row.repairs),
            f"{row.tokens:,}",
            f"{row.seconds:.1f}",
        )
    return table


def summary_of(rows: list[EvalRow]) -> dict[str, float]:
    """The figures to compare models by."""
    count = len(rows)
    return {
        "goals": count,
        "plans_valid": sum(r.valid for r in rows) / count,
        "answers_right": sum(r.right for r in rows) / count,
        "repairs": sum(r.repairs for r in rows),
        "tokens_median": statistics.median(r.tokens for r in rows),
        "usd": sum(r.usd for r in rows),
        "seconds_median": statistics.median(r.seconds for r in rows),
    }
