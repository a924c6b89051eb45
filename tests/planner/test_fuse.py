"""Which tasks may share an activity, and which go together."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from planloom.planner.compile.explain import explain
from planloom.planner.compile.passes.fuse import fuse_tasks, fused_seconds
from planloom.planner.compile.pipeline import Compiled, compile_plan
from planloom.planner.language.catalog import Catalog, PoolSpec, ToolSpec
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import TaskId

ANY: dict[str, Any] = {"type": "object", "additionalProperties": True}


def spec(name: str, **more: Any) -> ToolSpec:
    return ToolSpec(name=name, parameters=ANY, **more)


CATALOG = Catalog(
    tools=[
        spec("quick", local=True),
        spec("measured"),
        spec("slow"),
        spec("unknown"),
        spec("sluggish", local=True),
        spec("write", local=True, side_effects=True),
        spec("random", local=True, idempotent=False),
        spec("paid", local=True, cost_usd=0.01),
        spec("pooled", local=True, pool="p"),
        spec("ask", local=True),
    ],
    tool_seconds={"measured": 0.004, "slow": 3.0, "sluggish": 0.5},
    pools=[PoolSpec(name="p")],
)


def task(tool: str = "quick", id: str = "t", **more: Any) -> Task:
    return Task.model_validate({"id": id, "tool": tool, **more})


def compiled(*tasks: Task, fuse: bool | None = None) -> Compiled:
    documents = [t.model_dump(exclude_unset=True) for t in tasks]
    return compile_plan(Plan.model_validate({"tasks": documents}), CATALOG, fuse=fuse)


@pytest.mark.parametrize(
    ("tool", "more", "run", "may"),
    [
        ("quick", {}, None, True),
        ("measured", {}, None, True),
        ("slow", {}, None, False),
        ("unknown", {}, None, False),
        ("sluggish", {}, None, False),  # its author says local, its calls say otherwise
        ("quick", {"fuse": False}, None, False),
        ("quick", {"fuse": False}, True, False),
        ("quick", {}, False, False),
        ("quick", {"fuse": True}, False, True),
        ("unknown", {"fuse": True}, None, True),
        ("unknown", {}, True, True),
        ("slow", {}, True, True),
        ("quick", {"estimate": {"seconds": 5}}, None, False),
        ("unknown", {"estimate": {"seconds": 0.001}}, None, True),
        ("quick", {"args": {"text": "x" * 7_000}}, True, False),
        ("quick", {"approval": True}, True, False),
        ("quick", {"fallback": {"tool": "quick"}}, True, False),
        ("quick", {"fallback": 3}, None, True),
        *[(name, {}, True, False) for name in ("write", "random", "paid", "pooled", "ask")],
    ],
)
def test_cheap_tools_that_change_nothing_may_share_an_activity(
    tool: str, more: dict[str, Any], run: bool | None, may: bool
) -> None:
    assert (fused_seconds(task(tool, **more), CATALOG, run) is not None) is may


def test_other_bodies_run_alone() -> None:
    asking = Task.model_validate({"id": "a", "ask": "why?"})
    assert fused_seconds(asking, CATALOG, True) is None


@pytest.mark.parametrize("tool", ["write", "random", "paid", "pooled"])
def test_fuse_on_a_tool_that_must_run_alone_is_a_problem(tool: str) -> None:
    (problem,) = compiled(task(tool, fuse=True)).problems
    assert (problem.path, problem.code) == ("tasks.t.fuse", "cannot_fuse")
    assert f'"{tool}"' in problem.message


def test_together_go_those_that_wait_for_the_same_tasks() -> None:
    tasks = [
        task(id="a", args={"n": 1}),
        task(id="b", args={"n": 2}),
        task("slow", id="s", args={"n": "${a}"}),
        task(id="c", args={"n": ["${a}", "${b}"]}),
        task(id="d", args={"n": ["${s}", 1]}),
        task(id="e", args={"n": ["${d}", "${c}"]}),
        task(id="rows", args={"n": "${item}"}, map="${c}"),
        task(id="f", args={"n": "${rows}"}),
    ]
    found = compiled(*tasks)
    assert found.groups == [["a", "b", "c"], ["d", "e"]]
    assert found.batched == ["rows"]
    told = explain(found)
    assert "fuse               5 tasks share 2 activities\n  a, b, c\n  d, e\n" in told
    assert "rows: its items share activities" in told
    assert compiled(*tasks, fuse=False).groups == []


def groups_by_definition(
    inputs: dict[TaskId, tuple[TaskId, ...]], alone: set[TaskId]
) -> set[frozenset[TaskId]]:
    """The oracle: what each task waits for outside, by walking back from it."""

    def waits(one: TaskId) -> frozenset[TaskId]:
        found: set[TaskId] = set()
        for needed in inputs[one]:
            found |= {needed} if needed in alone else waits(needed)
        return frozenset(found)

    groups: dict[frozenset[TaskId], set[TaskId]] = {}
    for one in inputs:
        if one not in alone:
            groups.setdefault(waits(one), set()).add(one)
    return {frozenset(g) for g in groups.values() if len(g) > 1}


def test_groups_of_random_graphs_are_those_of_the_definition() -> None:
    for seed in range(300):
        random = Random(seed)
        names = [TaskId(f"t{n}") for n in range(random.randint(1, 12))]
        inputs = {
            name: tuple(random.sample(names[:n], random.randint(0, min(n, 3))))
            for n, name in enumerate(names)
        }
        alone = {n for n in names if random.random() < 0.3}
        tasks = [task(id=n) for n in names]
        seconds = {n: None if n in alone else 0.001 for n in names}
        found = {frozenset(g) for g in fuse_tasks(tasks, inputs, seconds)}
        assert found == groups_by_definition(inputs, alone), f"seed {seed}"
