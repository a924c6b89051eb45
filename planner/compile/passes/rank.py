"""Ranks: how long the plan still takes from the start of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from planloom.planner.language.values import TaskId


def rank_upward(
    inputs: Mapping[TaskId, Sequence[TaskId]], seconds: Mapping[TaskId, float]
) -> dict[TaskId, float]:
    """Seconds from the start of each task to the end of the plan, along its longest path.

    `inputs` maps each task to those it reads (N tasks, E edges; time O(N + E)); `seconds` is the
    likely duration of each. The result has the same N keys, in the order of `inputs`.

    Raises:
        graphlib.CycleError: the plan has a cycle; its second argument lists the tasks in order.

    Source: HEFT's upward rank without communication cost, Topcuoglu et al., IEEE TPDS 13(3), 2002.
    """
    after: dict[TaskId, float] = dict.fromkeys(inputs, 0.0)
    ranks: dict[TaskId, float] = {}
    for task in reversed(list(TopologicalSorter(inputs).static_order())):
        ranks[task] = seconds[task] + after[task]
        for needed in inputs[task]:
            after[needed] = max(after[needed], ranks[task])
    return {task: ranks[task] for task in inputs}


def critical_path(
    inputs: Mapping[TaskId, Sequence[TaskId]], ranks: Mapping[TaskId, float]
) -> list[TaskId]:
    """The longest path of the plan by rank, first task first."""
    dependents: dict[TaskId, list[TaskId]] = {t: [] for t in inputs}
    for task, ins in inputs.items():
        for needed in ins:
            dependents[needed].append(task)
    starts = [t for t in inputs if not inputs[t]]
    path: list[TaskId] = []
    following = starts
    while following:
        best = max(following, key=lambda t: ranks[t])
        path.append(best)
        following = dependents[best]
    return path


def depths_of(inputs: Mapping[TaskId, Sequence[TaskId]]) -> dict[TaskId, int]:
    """How many tasks stand before each on its longest chain of inputs, from 0.

    Raises:
        graphlib.CycleError: as `rank_upward`.
    """
    depths: dict[TaskId, int] = {}
    for task in TopologicalSorter(inputs).static_order():
        depths[task] = 1 + max((depths[i] for i in inputs[task]), default=-1)
    return depths


def width_of(inputs: Mapping[TaskId, Sequence[TaskId]]) -> int:
    """Most tasks at one depth: how far the plan fans out."""
    counts: dict[int, int] = {}
    for level in depths_of(inputs).values():
        counts[level] = counts.get(level, 0) + 1
    return max(counts.values(), default=0)
