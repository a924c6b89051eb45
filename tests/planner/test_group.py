"""The walk of a group by value: what starts, with what, and what an end leaves open."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.groups import GroupItems, GroupJob, GroupReply, UnitEnd, UnitFailed
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Bindings, Outcome, Stored, TaskId
from planloom.planner.walk.group import GroupWalk, begin_walk

FAILED = UnitFailed(message="no", error_class="tool")


def task(id: str, value: Any = 1, **more: Any) -> Task:
    return Task.model_validate({"id": id, "tool": "work", "args": {"key": value}, **more})


def walk_of(*tasks: Task, parallel: int = 10, **more: Any) -> GroupWalk:
    return begin_walk(GroupJob(tasks=list(tasks), parallel=parallel, **more))


def starts(walk: GroupWalk) -> list[str]:
    found = []
    while (name := walk.next_start()) is not None:
        found.append(str(name))
    return found


def end(walk: GroupWalk, name: str, value: Any = None, **more: Any) -> None:
    output = {} if more else {"output": TaskOutput(output=Stored(value=value))}
    walk.end(UnitEnd(task=TaskId(name), **output, **more))


def test_a_task_starts_with_what_those_before_it_gave() -> None:
    walk = walk_of(task("a"), task("b", "${a.x}"), task("c", ["${a}", "${b}"]))
    assert starts(walk) == ["a"]
    end(walk, "a", {"x": 5})
    assert starts(walk) == ["b"]
    end(walk, "b", 6)
    assert starts(walk) == ["c"]
    job = walk.job_of(TaskId("c"))
    assert {n: s.value for n, s in job.bindings.inputs.items()} == {"a": {"x": 5}, "b": 6}


def test_no_more_run_at_once_than_it_has_slots() -> None:
    walk = walk_of(*(task(f"t{n}") for n in range(5)), parallel=2)
    assert starts(walk) == ["t0", "t1"]
    end(walk, "t1")
    assert starts(walk) == ["t2"]


def test_values_and_outcomes_from_outside_count() -> None:
    walk = walk_of(
        task("a", "${x}", depends_on=["bad"], requires="any"),
        task("b", "${bad}"),
        values=Bindings(inputs={"x": Stored(value=7)}),
        outcomes={TaskId("x"): Outcome.SUCCEEDED, TaskId("bad"): Outcome.FAILED},
    )
    assert starts(walk) == ["a"]  # b has no input
    assert walk.job_of(TaskId("a")).bindings.inputs["x"].value == 7


def test_a_failure_goes_on_as_the_plan_says() -> None:
    walk = walk_of(
        task("a", fallback={"x": 1}),
        task("b"),
        task("c", "${a.x}"),
        task("d", "${b}", fallback=9),
        task("e", "${d}"),
        task("f", "${b}", requires="best_effort"),
    )
    assert starts(walk) == ["a", "b"]
    end(walk, "a", failed=FAILED)
    end(walk, "b", failed=FAILED)
    assert starts(walk) == ["c", "e", "f"]
    assert walk.job_of(TaskId("c")).bindings.inputs["a"].value == {"x": 1}
    assert walk.job_of(TaskId("e")).bindings.inputs["d"].value == 9
    assert walk.job_of(TaskId("f")).bindings.inputs["b"].value is None


def test_what_may_be_tried_again_is_left_open_with_all_behind_it() -> None:
    walk = walk_of(task("a"), task("b", "${a}"), task("c"), parallel=1)
    assert starts(walk) == ["a"]
    end(walk, "a", failed=FAILED, alone_in=1.0)
    assert starts(walk) == ["c"]  # its slot is free
    assert not walk.is_running(TaskId("a"))


def test_a_condition_reads_outcomes_and_values() -> None:
    walk = walk_of(task("a"), task("b", when="a.outcome == 'succeeded' && ${a.x} > 3"))
    starts(walk)
    end(walk, "a", {"x": 5})
    starts(walk)
    condition = walk.condition_of(TaskId("b"))
    assert condition is not None
    assert condition.outcomes == {"a": "succeeded"}
    assert condition.bindings.inputs["a"].value == {"x": 5}
    assert walk.condition_of(TaskId("a")) is None


def test_one_that_is_not_to_run_is_skipped() -> None:
    walk = walk_of(task("a", when="params.x"), task("b", "${a}"), task("c", depends_on=["b"]))
    starts(walk)
    walk.end(UnitEnd(task=TaskId("a")))
    assert starts(walk) == []
    assert walk.frontier.outcome_of(TaskId("c")) is Outcome.SKIPPED


def test_nothing_starts_after_a_failure_that_ends_the_run() -> None:
    walk = walk_of(task("a"), task("b"), parallel=1, is_failing_fast=True)
    starts(walk)
    end(walk, "a", failed=FAILED)
    assert starts(walk) == []


@pytest.mark.parametrize("is_blob", [False, True])
def test_items_of_a_map_have_their_item_and_index(is_blob: bool) -> None:
    whole = Stored(blob="b" * 64, size_bytes=9) if is_blob else Stored(value=["x", "y"])
    items = {TaskId("rows"): GroupItems(indexes=[3, 4], source=whole)}
    walk = walk_of(task("rows", "${item}", map=[]), items=items, keys="run/first")
    assert starts(walk) == ["rows[3]", "rows[4]"]
    job = walk.job_of(TaskId("rows[4]"))
    assert (job.task, job.key, job.bindings.index) == ("rows", "run/first/rows[4]", 4)
    item = job.bindings.item
    assert item is not None
    assert (item.blob, job.bindings.is_item_of_list) == (whole.blob, is_blob)
    assert is_blob or item.value == "y"


def test_a_later_attempt_goes_on_where_the_earlier_one_was() -> None:
    tasks = [task("a"), task("b", "${a}"), task("c"), task("d", "${b}")]
    ends = [
        UnitEnd(task=TaskId("c"), failed=FAILED, alone_in=1.0),
        UnitEnd(task=TaskId("a"), output=TaskOutput(output=Stored(value=5))),
        UnitEnd(task=TaskId("b"), output=TaskOutput(output=Stored(value=6))),
    ]
    walk = begin_walk(GroupJob(tasks=tasks, parallel=1), GroupReply(ends=ends))
    assert starts(walk) == ["d"]
    assert walk.job_of(TaskId("d")).bindings.inputs["b"].value == 6
    assert [e.task for e in walk.ends] == ["c", "a", "b"]
    walk.frontier.check()
