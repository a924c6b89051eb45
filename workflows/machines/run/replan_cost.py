"""Whether a replan fits what the budget leaves, and what it will likely cost. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from planloom.planner.compile.estimate import estimate_task, items_of
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Task
from planloom.planner.language.values import NANO
from planloom.workflows.machines.shared.budget import Caps


@dataclass(frozen=True, slots=True)
class ReplanCost:
    """What a replan will likely take; `problem` is why it cannot be taken, or None."""

    words: str
    problem: str | None = None


def cost_of_replan(
    tasks: Sequence[Task],
    finished: Collection[str],
    free: Caps,
    catalog: Catalog,
    model: str | None,
) -> ReplanCost:
    """The likely cost of the tasks that have not finished, against what is free under each cap."""
    new = [t for t in tasks if t.id not in finished]
    if not new:
        return ReplanCost("", "the new plan has nothing left to do")
    each = [estimate_task(t, catalog, model).times(items_of(t)) for t in new]
    tokens = sum(int(e.tokens[1]) for e in each)
    priced = all(e.usd_nano is not None for e in each)
    usd = sum(int(e.usd_nano[1]) for e in each if e.usd_nano is not None)
    money = f", ${usd / NANO:.4f}" if priced else ""
    words = f"about {tokens:,} tokens{money} for {len(new)} tasks"
    if free.tasks is not None and free.tasks < len(new):
        lack = f"its {len(new)} tasks are more than the {free.tasks} the budget leaves"
    elif free.tokens is not None and tokens > free.tokens:
        lack = f"it would likely take {tokens:,} tokens of the {free.tokens:,} that are left"
    elif free.usd_nano is not None and usd > free.usd_nano:
        left = free.usd_nano / NANO
        lack = f"it would likely cost ${usd / NANO:.4f} of the ${left:.4f} that are left"
    else:
        return ReplanCost(words)
    return ReplanCost(words, lack)
