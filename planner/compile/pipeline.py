"""Compile: pure passes from a plan as written to a plan that can run, or all its problems."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from planloom.planner.compile.estimate import estimate_plan, estimate_task, items_of
from planloom.planner.compile.passes.deduplicate import deduplicate_calls
from planloom.planner.compile.passes.fuse import fuse_tasks, fused_seconds
from planloom.planner.compile.passes.prune import prune_tasks
from planloom.planner.compile.passes.rank import critical_path, rank_upward, width_of
from planloom.planner.compile.passes.recursion import check_recursion
from planloom.planner.compile.passes.resolve import graph_of, inputs_of, values_of
from planloom.planner.compile.passes.validate import (
    check_cycles,
    check_plan,
    check_task,
    find_warnings,
)
from planloom.planner.contract.requests import PARALLEL_DEFAULT
from planloom.planner.contract.results import EstimateReport
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import Problem, TaskId

__all__ = [
    "Compiled",
    "check_cycles",
    "check_plan",
    "check_task",
    "compile_plan",
    "graph_of",
    "inputs_of",
    "values_of",
]

RANK_PARALLEL = PARALLEL_DEFAULT
"""Ranks do not follow the limit of a run, which may change while it goes on."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the passes made of a plan. With `problems` it must not run."""

    plan: Plan
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    inputs: dict[TaskId, tuple[TaskId, ...]] = field(default_factory=dict)
    ranks: dict[TaskId, float] = field(default_factory=dict)
    leaves: list[TaskId] = field(default_factory=list)
    """Tasks of the plan as written that nobody reads."""
    aliases: dict[TaskId, TaskId] = field(default_factory=dict)
    pruned: dict[TaskId, str] = field(default_factory=dict)
    estimate: EstimateReport = field(default_factory=EstimateReport)
    critical_path: list[TaskId] = field(default_factory=list)
    width: int = 0
    groups: list[list[TaskId]] = field(default_factory=list)
    """Tasks that can share one activity, group by group."""
    batched: list[TaskId] = field(default_factory=list)
    """Maps whose items can share activities."""


def compile_plan(
    plan: Plan,
    catalog: Catalog,
    *,
    allow: Sequence[str] | None = None,
    other_ids: Collection[str] = (),
    parallel: int = PARALLEL_DEFAULT,
    model: str | None = None,
    depth: int = 0,
    fuse: bool | None = None,
) -> Compiled:
    """Run all passes. `other_ids` may be referred to beside the plan's own tasks; the estimate goes
    by `parallel` and `model`; `fuse` is the request's.

    Passes, in order: resolve dependencies, validate, deduplicate, prune, rank, fuse, estimate.
    O(N + E) except near misses of names that do not exist.
    """
    problems = check_plan(plan, catalog, allow=allow, other_ids=other_ids, depth=depth)
    problems = problems or check_recursion(plan, catalog)
    if problems:
        return Compiled(plan, problems=problems)
    written = graph_of(plan)
    read = {i for inputs in written.values() for i in inputs}
    slim, aliases = deduplicate_calls(plan, written, catalog)
    graph = graph_of(slim) if aliases else written
    slim, pruned = prune_tasks(slim, graph, catalog)
    inputs = {t.id: graph[t.id] for t in slim.tasks}  # what is kept reads nothing that is not
    each = {t.id: estimate_task(t, catalog, model) for t in slim.tasks}
    seconds = {t.id: each[t.id].seconds[1] * -(-items_of(t) // RANK_PARALLEL) for t in slim.tasks}
    ranks = rank_upward(inputs, seconds)
    fused = {t.id: fused_seconds(t, catalog, fuse) for t in slim.tasks}
    return Compiled(
        slim,
        warnings=find_warnings(plan, catalog)
        + [f"{a}: same call as {b}, made once" for a, b in aliases.items()]
        + [f"{t}: not run, {why}" for t, why in pruned.items()],
        inputs=inputs,
        ranks=ranks,
        leaves=[t for t in written if t not in read],
        aliases=aliases,
        pruned=pruned,
        estimate=estimate_plan(slim, inputs, each, parallel=parallel),
        critical_path=critical_path(inputs, ranks),
        width=width_of(inputs),
        groups=fuse_tasks(slim.tasks, inputs, fused),
        batched=[t.id for t in slim.tasks if t.map is not None and fused[t.id] is not None],
    )
