"""Maps: their items, what becomes of those that fail, and the list of their outputs."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.jobs import Resolved, TaskOutput
from planloom.planner.language.plan import MAP_ITEMS_MAX
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.run.stopping import problem_with_cancel
from planloom.workflows.machines.run.view import progress_of
from planloom.workflows.machines.shared.commands import Answer, Cancel, Refuse, Resolve, RunTool
from tests.support.run_driver import Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=9_000, preview="…")


def mapped(items: Any, *, rounds: int = 0, **fields: Any) -> Drive:
    """A run whose one task works on each of these items."""
    task = work("m", "${item}", map="${params.items}", **fields)
    drive = Drive(plan=plan(task), params={"items": items}, retry_rounds=rounds)
    drive.begin()
    return drive


def test_each_item_runs_once_and_the_output_keeps_their_order() -> None:
    drive = mapped([1, 2, 3])
    assert drive.sent(RunTool) == ["m[0]#body", "m[1]#body", "m[2]#body"]
    for n in (2, 0, 1):
        drive.ends(f"m[{n}]", n * 10)
    assert drive.result.answer == {"m": [0, 10, 20]}


def test_an_empty_list_is_an_empty_output() -> None:
    assert mapped([]).result.answer == {"m": []}


@pytest.mark.parametrize(
    ("items", "says"), [(None, "null"), (7, "a number"), ({"a": 1}, "an object")]
)
def test_what_is_no_list_fails_the_task_with_what_was_found(items: Any, says: str) -> None:
    drive = mapped(items)
    told = drive.result.tasks["m"].error
    assert told.startswith(f'tasks.m.map: needs a list; "${{params.items}}" is {says}.')


def test_a_list_that_is_too_long_is_refused_with_what_to_do() -> None:
    task = work("m", "${item}", map="${a}")
    drive = Drive(plan=plan(work("a"), task), retry_rounds=0)
    drive.begin()
    drive.returns("a#body", TaskOutput(output=LARGE))
    drive.returns("m#items", Resolved(stored=LARGE, count=MAP_ITEMS_MAX + 1))
    drive.returns("answer", Resolved(stored=Stored(value={"m": None})))
    said = drive.result.tasks["m"].error
    assert said.endswith("Split the list.")
    assert f"{MAP_ITEMS_MAX:,}" in said


def test_an_item_that_fails_is_a_hole_of_its_own() -> None:
    drive = mapped([1, 2])
    drive.breaks("m[0]#body")
    drive.ends("m[1]", 20)
    assert (drive.result.status, drive.result.answer) == ("partial", {"m": [None, 20]})
    assert drive.result.tasks["m"].reason.startswith("1 of 2 items have no value: [0]")


def test_a_map_of_which_every_item_fails_has_failed() -> None:
    drive = mapped([1, 2])
    drive.breaks("m[0]#body")
    drive.breaks("m[1]#body")
    assert drive.outcome("m") is Outcome.FAILED


def test_long_outputs_are_put_together_by_an_activity() -> None:
    drive = mapped([1, 2])
    drive.returns("m[0]#body", TaskOutput(output=LARGE))
    drive.ends("m[1]", 20)
    made = drive.command(Resolve)
    assert (made.key, list(made.job.bindings.inputs)) == ("m#list", ["i0", "i1"])
    drive.returns("m#list", Resolved(stored=LARGE, count=2))
    assert drive.outcome("m") is Outcome.SUCCEEDED


def test_a_list_that_could_not_be_stored_is_made_again_and_no_item_runs_twice() -> None:
    drive = mapped([1, 2], rounds=1)
    drive.returns("m[0]#body", TaskOutput(output=LARGE))
    drive.ends("m[1]", 20)
    drive.breaks("m#list", "unknown")
    assert (drive.sent(RunTool), drive.sent(Resolve)) == ([], ["m#list"])
    drive.returns("m#list", Resolved(stored=LARGE, count=2))
    assert drive.outcome("m") is Outcome.SUCCEEDED
    drive.returns("answer", Resolved(stored=LARGE))
    assert drive.result.usage.tasks == 2


def test_a_map_that_is_cancelled_cancels_its_items_and_starts_no_more() -> None:
    task = work("m", "${item}", map="${params.items}")
    drive = Drive(plan=plan(task), params={"items": [1, 2, 3]}, budget={"parallel": 2})
    drive.begin()
    drive.control("cancel_task", id="m")
    assert drive.sent(Cancel) == ["m[0]#body", "m[1]#body"]
    drive.cancelled("m[0]#body")
    drive.cancelled("m[1]#body")
    assert drive.sent(RunTool) == []
    assert drive.outcome("m") is Outcome.CANCELLED


def test_a_map_at_work_runs_as_one_task() -> None:
    drive = mapped([1, 2, 3])
    drive.ends("m[0]", 1)
    assert progress_of(drive.run, drive.now).running == ["m"]
    assert problem_with_cancel(drive.run, "m") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("parallel", [1, 3])
def test_one_item_that_is_cancelled_is_a_hole_and_the_others_keep_their_values(
    parallel: int,
) -> None:
    drive = Drive(plan=plan(work("m", "${item}", map=[1, 2, 3])), budget={"parallel": parallel})
    drive.begin()
    answer = drive.control("cancel_task", id="m[1]", by="ops")
    assert isinstance(answer, Answer)
    if parallel == 3:
        assert drive.sent(Cancel) == ["m[1]#body"]
        drive.cancelled("m[1]#body")
    assert drive.outcome("m") is None
    drive.ends("m[0]", "a")
    if parallel == 1:
        assert drive.sent(RunTool) == ["m[2]#body"]
    drive.ends("m[2]", "c")
    assert drive.run.value_of("m") == Stored(value=["a", None, "c"])
    report = drive.result.tasks["m"]
    assert (report.outcome, report.items) == ("succeeded", {"succeeded": 2, "cancelled": 1})
    assert (drive.result.status, drive.result.usage.tasks) == ("partial", 2 + (parallel == 3))
    assert "[1]" in (drive.result.reason or "")


def test_items_that_cannot_be_cancelled_are_refused_with_the_reason() -> None:
    drive = Drive(plan=plan(work("m", "${item}", map=[1, 2]), work("x")), budget={"parallel": 1})
    drive.begin()

    def refused(id: str) -> str:
        answer = drive.control("cancel_task", id=id)
        assert isinstance(answer, Refuse)
        return answer.message

    assert "has 2 items" in refused("m[2]")
    assert "has no items" in refused("x[0]")
    assert "no task" in refused("y[0]")
    assert isinstance(drive.control("cancel_task", id="m[1]"), Answer)
    assert "has ended: cancelled" in refused("m[1]")
    assert isinstance(drive.control("cancel_task", id="m[0]"), Answer)
    assert "has ended: cancelled" in refused("m[1]")
    drive.cancelled("m[0]#body")
    assert drive.outcome("m") == "cancelled"
    drive.ends("x", 1)
    assert drive.result.tasks["m"].reason == "cancelled by a person"
