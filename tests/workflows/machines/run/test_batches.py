"""Wide maps: items in batches, each a child run; what comes of them is the map's, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from planloom.planner.contract.jobs import Resolved, TaskOutput
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import RunResult, TaskReport, UsageReport
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.run import batches
from planloom.workflows.machines.run.children import inputs_of
from planloom.workflows.machines.run.view import progress_of
from planloom.workflows.machines.shared.commands import Cancel, Resolve, RunTool, StartChild
from planloom.workflows.machines.shared.events import Returned
from tests.support.run_driver import Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=9_000, preview="…")


@pytest.fixture(autouse=True)
def short_batches() -> Iterator[None]:
    """Maps of more than four items go in batches of two."""
    before = batches.BATCHED_FROM, batches.BATCH_ITEMS
    batches.BATCHED_FROM, batches.BATCH_ITEMS = 4, 2
    yield
    batches.BATCHED_FROM, batches.BATCH_ITEMS = before


def mapped(items: Any, request: dict[str, Any] | None = None, **fields: Any) -> Drive:
    task = work("m", "${item}", map="${params.items}", **fields)
    drive = Drive(plan=plan(task), params={"items": items}, **(request or {}))
    drive.begin()
    return drive


def child_request(command: StartChild) -> RunRequest:
    inputs: Any = inputs_of(command, {})
    request = inputs[0]
    assert isinstance(request, RunRequest)
    return request


def ended(outcome: Outcome, items: dict[str, int], output: Any = None, **fields: Any) -> RunResult:
    """The result of a batch."""
    report = TaskReport(outcome=outcome, items=items, output=output, **fields)
    status: Any = "completed" if outcome.is_good else "failed"
    usage = UsageReport(tasks=sum(items.values()), tool_calls=sum(items.values()))
    return RunResult(status=status, tasks={"m": report}, usage=usage)


def ends(drive: Drive, batch: int, outcome: Outcome, items: dict[str, int], **fields: Any) -> None:
    drive.returns(f"m[{batch}]#body", ended(outcome, items, **fields))


def test_few_items_run_in_the_run_itself() -> None:
    drive = mapped([1, 2, 3, 4])
    assert len(drive.sent(RunTool)) == 4


def test_many_items_go_in_batches_two_at_once_and_share_the_slots() -> None:
    drive = mapped([1, 2, 3, 4, 5], {"budget": {"parallel": 10}})
    assert [c.id for c in drive.commands if isinstance(c, StartChild)] == [
        "run/m[0:2]",
        "run/m[2:4]",
    ]
    first = next(c for c in drive.commands if isinstance(c, StartChild))
    request = child_request(first)
    assert request.budget.parallel == 5
    assert first.lineage.inputs["_items"].value == [1, 2]
    assert request.plan is not None
    assert request.plan.tasks[0].map == "${_items}"


@pytest.mark.parametrize(("parallel", "children", "each"), [(1, 1, 1), (2, 2, 1), (3, 3, 1)])
def test_batches_keep_to_the_slots_of_the_run(parallel: int, children: int, each: int) -> None:
    drive = mapped([1, 2, 3, 4, 5], {"budget": {"parallel": parallel}})
    sent = [c for c in drive.commands if isinstance(c, StartChild)]
    assert len(sent) == children
    assert child_request(sent[0]).budget.parallel == each
    assert drive.run.frontier.slots == children * each


def test_the_output_is_one_list_with_null_where_an_item_has_no_value() -> None:
    drive = mapped([1, 2, 3, 4, 5])
    ends(drive, 0, Outcome.SUCCEEDED, {"succeeded": 2}, output=[10, 20])
    ends(drive, 2, Outcome.FAILED, {"failed": 1}, error="no five", error_class="tool")
    fields = {"blob": "c" * 64, "size_bytes": 5_000, "preview": "["}
    ends(drive, 1, Outcome.SUCCEEDED, {"succeeded": 1, "failed": 1}, **fields)
    made = drive.command(Resolve).job
    assert (made.mode, made.value) == ("joined", ["${i0}", "${i1}", 1])
    drive.returns("m#list", Resolved(stored=Stored(value=[10, 20, 30, None, None])))
    assert (drive.result.status, drive.result.answer) == (
        "partial",
        {"m": [10, 20, 30, None, None]},
    )
    report = drive.result.tasks["m"]
    assert report.items == {"succeeded": 3, "failed": 2}
    assert (report.reason, report.error) == ("2 of 5 items have no value; no five", "no five")
    assert drive.result.usage.tasks == 5


def test_a_map_of_which_no_item_has_a_value_has_failed_and_gets_no_round_of_its_own() -> None:
    """Each batch had its rounds."""
    drive = mapped([1, 2, 3, 4, 5], {"retry_rounds": 1})
    for n, size in enumerate([2, 2, 1]):
        ends(drive, n, Outcome.FAILED, {"failed": size}, error="no", error_class="unknown")
    assert drive.outcome("m") is Outcome.FAILED
    assert drive.result.tasks["m"].items == {"failed": 5}


def test_a_batch_that_is_gone_is_as_many_failed_items_and_the_rest_goes_on() -> None:
    drive = mapped([1, 2, 3, 4, 5])
    drive.breaks("m[0]#body", "unknown")
    assert progress_of(drive.run, drive.now).running == ["m"]
    ends(drive, 1, Outcome.SUCCEEDED, {"succeeded": 2}, output=[3, 4])
    ends(drive, 2, Outcome.SUCCEEDED, {"succeeded": 1}, output=[5])
    drive.returns("m#list", Resolved(stored=Stored(value=[None, None, 3, 4, 5])))
    assert drive.result.tasks["m"].items == {"failed": 2, "succeeded": 3}


def test_a_map_that_is_cancelled_cancels_its_batches_and_counts_what_ran() -> None:
    drive = mapped([1, 2, 3, 4, 5], {"budget": {"parallel": 2}})
    drive.control("cancel_task", id="m")
    assert drive.sent(Cancel) == ["m[0]#body", "m[1]#body"]
    ends(drive, 0, Outcome.CANCELLED, {"succeeded": 1, "running": 1})
    drive.cancelled("m[1]#body")
    assert drive.outcome("m") is Outcome.CANCELLED
    assert drive.result.usage.tasks == 2


def test_a_list_that_only_an_activity_can_read_is_cut_there() -> None:
    drive = Drive(plan=plan(work("a"), work("m", "${item}", map="${a}")))
    drive.begin()
    drive.returns("a#body", TaskOutput(output=LARGE))
    job = drive.command(Resolve).job
    assert (job.mode, job.batch, job.batched_from, job.is_long) == ("list", 2, 4, True)
    parts = [Stored(value=[1, 2]), Stored(value=[3, 4]), Stored(value=[5])]
    found = Resolved(count=5, parts=parts)
    drive.returns("m#items", found)
    assert drive.sent(StartChild) == ["m[0]#body", "m[1]#body"]
    assert drive.run.records["m"].items_source == Stored()  # type: ignore[index]


def test_a_batch_has_what_its_items_read_and_knows_which_they_are() -> None:
    items = [1, 2, 3, 4, 5]
    task = work("m", {"n": "${index}", "a": "${a}", "by": "${params.by}"}, map=items)
    drive = Drive(plan=plan(work("a"), task), params={"by": "me"})
    drive.begin()
    drive.ends("a", "x")
    second = [c for c in drive.commands if isinstance(c, StartChild)][1]
    lineage = second.lineage
    assert lineage.inputs["a"] == Stored(value="x")
    assert lineage.params is not None
    assert (lineage.params.value, lineage.first_index, lineage.depth) == ({"by": "me"}, 2, 0)


def test_a_batch_may_use_what_its_items_want_and_starts_with_what_one_wants() -> None:
    drive = mapped([1, 2, 3, 4, 5], {"budget": {"tasks": 3}})
    granted = [c.lineage.grant for c in drive.commands if isinstance(c, StartChild)]
    assert [g.tasks for g in granted if g is not None] == [2, 1]


def test_agents_and_questions_to_people_are_not_put_into_batches() -> None:
    body = {"agent": "helper", "args": {"task": "${item}"}}
    drive = Drive(
        plan=plan({"id": "m", "map": "${params.items}", **body}), params={"items": [1] * 6}
    )
    drive.begin()
    assert [c.kind for c in drive.commands if isinstance(c, StartChild)] == ["AgentWorkflow"] * 6


def test_the_event_that_brings_the_batches_stays_as_it_came() -> None:
    """Seed 54303: what a batch had read was dropped from the event itself, which a replay reads."""
    drive = Drive(plan=plan(work("t"), work("m", "${item}", map="${t}")))
    drive.begin()
    drive.send(Returned("t#body", TaskOutput(output=LARGE)))
    parts = [Stored(value=[1, 2]), Stored(value=[3, 4]), Stored(value=[5])]
    found = Resolved(count=5, parts=parts)
    drive.returns("m#items", found)
    for batch, size in enumerate((2, 2, 1)):
        ends(drive, batch, Outcome.SUCCEEDED, {"succeeded": size}, output=[0] * size)
    assert found.parts == parts


@pytest.mark.parametrize(
    ("fallback", "made"), [(None, [None, None]), (0, [0, 0]), ("none", ["none", "none"])]
)
def test_a_batch_that_fell_back_as_a_whole_has_its_fallback_for_each_item(
    fallback: Any, made: list[Any]
) -> None:
    """Its items could not be read. The value stood for all of them: the list could not be made."""
    drive = mapped([1, 2, 3, 4, 5], fallback=fallback)
    report = TaskReport(outcome=Outcome.FALLBACK, output=fallback, error="the blob is gone")
    drive.returns("m[0]#body", RunResult(status="completed", tasks={"m": report}))
    ends(drive, 1, Outcome.SUCCEEDED, {"succeeded": 2}, output=[30, 40])
    ends(drive, 2, Outcome.SUCCEEDED, {"succeeded": 1}, output=[50])
    assert drive.command(Resolve).job.bindings.inputs["i0"].value == made
    drive.returns("m#list", Resolved(stored=Stored(value=[*made, 30, 40, 50])))
    assert drive.result.tasks["m"].items == {"fallback": 2, "succeeded": 3}


def test_a_batch_that_took_its_alternative_path_as_a_whole_has_no_value_for_its_items() -> None:
    drive = mapped([1, 2, 3, 4, 5], fallback={"tool": "work", "args": {"key": "other"}})
    report = TaskReport(outcome=Outcome.FALLBACK, output=7, error="the blob is gone")
    drive.returns("m[0]#body", RunResult(status="completed", tasks={"m": report}))
    ends(drive, 1, Outcome.SUCCEEDED, {"succeeded": 2}, output=[30, 40])
    ends(drive, 2, Outcome.SUCCEEDED, {"succeeded": 1}, output=[50])
    assert drive.command(Resolve).job.value == [2, "${i1}", "${i2}"]
    drive.returns("m#list", Resolved(stored=Stored(value=[None, None, 30, 40, 50])))
    assert drive.result.tasks["m"].items == {"failed": 2, "succeeded": 3}
