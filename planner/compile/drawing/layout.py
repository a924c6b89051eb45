"""Where the tasks of a graph stand: columns from left to right, few crossings, short edges.

Sugiyama's method in four steps: a column for each task (longest path from the start), stand-ins
where an edge passes over a column, an order within each column by the neighbours' mean, and heights
that pull each task towards its neighbours. O(rounds * (tasks + edges + stand-ins)).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

ORDER_ROUNDS = 8
HEIGHT_ROUNDS = 10
STAND_INS_MAX = 4_000
"""With more, long edges are drawn straight: the picture is past reading anyway."""
Place = Hashable
"""A task's id, or a stand-in on a long edge."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns and heights by task, and the way of each edge. One row is one unit of height."""

    columns: dict[str, int] = field(default_factory=dict)
    heights: dict[str, float] = field(default_factory=dict)
    ways: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict)
    """From (input, task) to the (column, height) points between both."""

    @property
    def width(self) -> int:
        """How many columns."""
        return 1 + max(self.columns.values(), default=-1)

    @property
    def height(self) -> float:
        """How many rows."""
        points = [h for way in self.ways.values() for _, h in way]
        return 1 + max([*self.heights.values(), *points], default=-1.0)


def layout(inputs: Mapping[str, Sequence[str]]) -> Layout:
    """A layout of the graph in which each task maps to those it reads; cycles are drawn somehow."""
    columns = _columns(inputs)
    above, chains = _with_stand_ins(inputs, columns)
    rows = _ordered(columns, above, chains)
    heights = _heights(rows, above)
    return Layout(
        columns,
        {task: heights[task] for task in inputs},
        {
            edge: [(columns[edge[0]] + 1 + n, heights[place]) for n, place in enumerate(chain)]
            for edge, chain in chains.items()
        },
    )


def _columns(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    known = {
        task: [i for i in reads if i in inputs and i != task] for task, reads in inputs.items()
    }
    try:
        order = list(TopologicalSorter(known).static_order())
    except CycleError:
        return dict.fromkeys(inputs, 0)
    columns: dict[str, int] = {}
    for task in order:
        columns[task] = 1 + max((columns[i] for i in known[task]), default=-1)
    return columns


def _with_stand_ins(
    inputs: Mapping[str, Sequence[str]], columns: Mapping[str, int]
) -> tuple[dict[Place, list[Place]], dict[tuple[str, str], list[Place]]]:
    """Each place's neighbours one column to the left, and the stand-ins of each edge."""
    edges = [(i, t) for t, reads in inputs.items() for i in reads if i in columns and i != t]
    spans = sum(max(0, columns[t] - columns[i] - 1) for i, t in edges)
    above: dict[Place, list[Place]] = {task: [] for task in inputs}
    chains: dict[tuple[str, str], list[Place]] = {}
    for source, task in edges:
        between = columns[task] - columns[source] - 1 if spans <= STAND_INS_MAX else 0
        chain: list[Place] = [(source, task, n) for n in range(max(0, between))]
        last: Place = source
        for place in [*chain, task]:
            above.setdefault(place, []).append(last)
            last = place
        chains[source, task] = chain
    return above, chains


def _ordered(
    columns: Mapping[str, int],
    above: Mapping[Place, Sequence[Place]],
    chains: Mapping[tuple[str, str], Sequence[Place]],
) -> list[list[Place]]:
    """The places of each column, ordered by the mean of their neighbours, back and forth."""
    rows: list[list[Place]] = [[] for _ in range(1 + max(columns.values(), default=-1))]
    for task, column in columns.items():
        rows[column].append(task)
    for (source, _), chain in chains.items():
        for n, place in enumerate(chain):
            rows[columns[source] + 1 + n].append(place)
    below: dict[Place, list[Place]] = {}
    for place, neighbours in above.items():
        for neighbour in neighbours:
            below.setdefault(neighbour, []).append(place)
    for turn in range(ORDER_ROUNDS):
        neighbours_of = above if turn % 2 == 0 else below
        at = {place: n for row in rows for n, place in enumerate(row)}
        for row in rows if turn % 2 == 0 else reversed(rows):
            means = {
                p: sum(at[n] for n in near) / len(near) if (near := neighbours_of.get(p)) else at[p]
                for p in row
            }
            row.sort(key=means.__getitem__)
            at |= {place: n for n, place in enumerate(row)}
    return rows


def _heights(rows: list[list[Place]], above: Mapping[Place, Sequence[Place]]) -> dict[Place, float]:
    """Heights near the neighbours' mean, in the order of each column and one apart."""
    tallest = max((len(row) for row in rows), default=0)
    heights: dict[Place, float] = {}
    for row in rows:
        start = (tallest - len(row)) / 2
        heights |= {place: start + n for n, place in enumerate(row)}
    near: dict[Place, list[Place]] = {}
    for place, neighbours in above.items():
        for neighbour in neighbours:
            near.setdefault(place, []).append(neighbour)
            near.setdefault(neighbour, []).append(place)
    for turn in range(HEIGHT_ROUNDS):
        for row in rows if turn % 2 == 0 else reversed(rows):
            wished = [
                sum(heights[n] for n in near[p]) / len(near[p]) if p in near else heights[p]
                for p in row
            ]
            heights |= zip(row, _apart(wished), strict=True)
    least = min(heights.values(), default=0.0)
    return {place: height - least for place, height in heights.items()}


def _apart(wished: list[float]) -> list[float]:
    """The heights nearest to those wished, in order and at least one apart.

    Neighbours that would come too close form a block, which goes to the mean of its wishes.
    """
    blocks: list[tuple[float, int]] = []  # the sum of (wish - place in the block), and how many
    for wish in wished:
        total, size = wish, 1
        while blocks and blocks[-1][0] / blocks[-1][1] + blocks[-1][1] > total / size:
            before, count = blocks.pop()
            total, size = before + total - size * count, count + size
        blocks.append((total, size))
    return [total / size + n for total, size in blocks for n in range(size)]
