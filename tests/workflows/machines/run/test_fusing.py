"""Groups: who goes together, what the reports mean, and members that end otherwise."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.groups import GroupReply, UnitEnd, UnitFailed
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import Outcome, Stored, TaskId, Usage
from planloom.workflows.machines.shared.commands import Cancel, RunGroup, RunTool
from tests.support.run_driver import CATALOG, Drive, plan, work

CHEAP = CATALOG.model_copy(update={"tool_seconds": {"work": 0.002}})
FAILED = UnitFailed(message="no", error_class="tool", usage=Usage(tool_calls=1))


def begun(*tasks: dict[str, Any], **request: Any) -> Drive:
    fields = {k: request.pop(k) for k in ("answer", "stop_when") if k in request}
    drive = Drive(CHEAP, plan=plan(*tasks, **fields), **request)
    drive.begin()
    return drive


def good(task: str, value: Any = None, at: float = 0.0, index: int | None = None) -> UnitEnd:
    output = TaskOutput(output=Stored(value=value), usage=Usage(tool_calls=1))
    return UnitEnd(task=TaskId(task), index=index, output=output, began=at, ended=at)


def members(drive: Drive) -> list[str]:
    (group,) = drive.run.groups.values()
    return list(group.members)


def ends(drive: Drive, *units: UnitEnd, seconds: float = 0.0, after: float = 0.0) -> None:
    from planloom.workflows.machines.shared.events import Returned

    (key,) = drive.run.groups
    drive.send(Returned(key, GroupReply(ends=list(units), seconds=seconds)), after)


def test_ready_tasks_and_those_behind_them_are_one_command() -> None:
    drive = begun(work("a"), work("b"), work("c", "${a}"), work("d", ["${c}", "${b}"]))
    command = drive.command(RunGroup)
    assert [t.id for t in command.job.tasks] == ["a", "b", "c", "d"]
    assert command.summary == "4 tasks: a, b, c, d"
    assert (command.job.parallel, drive.run.frontier.slots) == (2, 2)
    states = {str(t): s.value for t, s in drive.run.frontier.states().items()}
    assert states == {"a": "running", "b": "running", "c": "waiting", "d": "waiting"}


def test_each_keeps_its_own_outcome_output_and_times() -> None:
    drive = begun(work("a"), work("b"), work("c", "${a}", fallback=0))
    failed = UnitEnd(task=TaskId("c"), failed=FAILED, began=0.2, ended=0.3)
    ends(drive, good("a", 5, at=0.1), failed, good("b", 6, at=0.4), seconds=0.5, after=2.0)
    result = drive.result
    assert result.status == "completed"
    outcomes = {str(t): (r.outcome.value, r.output, r.attempts) for t, r in result.tasks.items()}
    assert outcomes == {"a": ("succeeded", 5, 1), "b": ("succeeded", 6, 1), "c": ("fallback", 0, 1)}
    # The group took the last half second of the two.
    assert [result.tasks[t].times.ended for t in "acb"] == [1.6, 1.8, 1.9]
    assert result.tasks["c"].times.started == 1.7
    assert result.usage.tool_calls == 3
    assert result.usage.tasks == 3


def test_one_task_is_no_group() -> None:
    drive = begun(work("a"), {"id": "p", "tool": "post", "args": {"key": "x"}})
    assert sorted(drive.sent(RunTool)) == ["a#body", "p#body"]
    assert drive.sent(RunGroup) == []


def test_side_effects_money_approvals_and_people_stay_out() -> None:
    drive = begun(
        work("a"),
        work("b"),
        {"id": "p", "tool": "post", "args": {"key": "${a}"}},
        {"id": "m", "tool": "pay", "args": {"key": "${a}"}},
        work("y", "${a}", approval=True),
        work("after", "${p}"),
        {"id": "h", "human": "well, ${a}?"},
        {"id": "q", "ask": "why ${a}?"},
    )
    assert members(drive) == ["a", "b"]


def test_fuse_false_runs_each_alone() -> None:
    drive = begun(work("a"), work("b"), fuse=False)
    assert drive.sent(RunTool) == ["a#body", "b#body"]
    drive = begun(work("a"), work("b"), work("c", fuse=False))
    assert members(drive) == ["a", "b"]
    assert drive.sent(RunTool) == ["c#body"]


def test_a_failed_attempt_that_may_be_repeated_goes_on_alone() -> None:
    drive = begun(
        work("a", retry={"max_attempts": 3, "initial_seconds": 2}), work("b"), work("c", "${a}")
    )
    ends(drive, UnitEnd(task=TaskId("a"), failed=FAILED, alone_in=2.0), good("b"))
    command = drive.command(RunTool)
    assert (command.key, command.delay, command.job.attempts_before) == ("a#body", 2.0, 1)
    assert (command.retry.max_attempts, command.retry.initial_seconds) == (2, 4.0)
    assert command.job.max_attempts == 3
    drive.ends("a", 1, attempts=2)
    assert drive.sent(RunTool) == ["c#body"]  # alone by now
    drive.ends("c")
    assert drive.result.tasks["a"].attempts == 2


def test_what_the_group_has_not_come_to_goes_into_the_next() -> None:
    drive = begun(*(work(f"t{n}") for n in range(4)))
    ends(drive, good("t1"))
    assert members(drive) == ["t0", "t2", "t3"]
    assert drive.run.frontier.slots == 3


def test_a_failure_that_ends_the_run_leaves_uncounted_what_had_not_begun() -> None:
    """Seed 64675: `b` had begun, `c` had not; before, it depended on the order of the report."""
    for is_first in (True, False):
        drive = begun(work("a"), work("b"), work("c"), on_failure="fail")
        failed = UnitEnd(task=TaskId("a"), failed=FAILED)
        long = UnitEnd(task=TaskId("b"), alone_in=0.0)
        ends(drive, *([failed, long] if is_first else [long, failed]))
        assert drive.result.usage.tasks == 2
        outcomes = {str(t): r.outcome.value for t, r in drive.result.tasks.items()}
        assert outcomes == {"a": "failed", "b": "cancelled", "c": "cancelled"}


def test_one_that_takes_long_goes_on_alone() -> None:
    drive = begun(work("a"), work("b"), work("c"))
    ends(drive, good("b"), UnitEnd(task=TaskId("a"), alone_in=0.0))
    assert drive.sent(RunTool) == ["a#body", "c#body"]
    assert drive.command_of("a#body").job.attempts_before == 0


def test_a_group_whose_worker_is_lost_falls_apart() -> None:
    """One of them may have killed it: it must not take the others along again."""
    drive = begun(work("a"), work("b"), work("c", "${a}"))
    drive.breaks("group.1", "timeout")
    assert drive.sent(RunTool) == ["a#body", "b#body"]
    assert drive.run.account.ledger.held.tasks == 2


def test_one_that_a_person_cancels_ends_at_once_with_what_stands_behind_it() -> None:
    drive = begun(work("a"), work("b"), work("c", "${a}"), work("d", "${b}"))
    drive.control("cancel_task", id="a")
    assert (drive.outcome("a"), drive.outcome("c")) == (Outcome.CANCELLED, Outcome.SKIPPED)
    assert members(drive) == ["b", "d"]
    # The group did not hear of it: what it says of them does not count.
    ends(drive, good("a", 1), good("c", 1), good("b", 2), good("d", 2))
    assert {str(t): r.outcome.value for t, r in drive.result.tasks.items()} == {
        "a": "cancelled",
        "b": "succeeded",
        "c": "skipped",
        "d": "succeeded",
    }


def test_what_ran_after_a_cancelled_one_runs_once_more() -> None:
    """It could do without that input, but the group gave it the input's value."""
    drive = begun(work("a"), work("b"), work("c", ["${a}", "${b}"], requires="any"))
    drive.control("cancel_task", id="a")
    ends(drive, good("a", 1), good("b", 2), good("c", "of a and b"))
    command = drive.command(RunTool)
    assert command.key == "c#body"
    assert command.job.bindings.inputs["a"].value is None


def test_a_group_that_nobody_waits_for_is_cancelled() -> None:
    drive = begun(work("a"), work("b"))
    drive.control("cancel_task", id="a")
    assert drive.sent(Cancel) == []
    drive.control("cancel_task", id="b")
    assert drive.sent(Cancel) == ["group.1"]


def test_a_cancelled_run_ends_with_all_members_cancelled() -> None:
    from planloom.workflows.machines.shared.events import CancelRequested

    drive = begun(work("a"), work("b"), work("c", "${a}"))
    drive.send(CancelRequested())
    assert drive.result.status == "cancelled"
    assert {r.outcome for r in drive.result.tasks.values()} == {Outcome.CANCELLED}


def test_the_budget_counts_every_member() -> None:
    drive = begun(*(work(f"t{n}") for n in range(5)), budget={"tasks": 3})
    assert members(drive) == ["t0", "t1", "t2"]
    ends(drive, *(good(f"t{n}") for n in range(3)))
    assert drive.run.lack is not None
    drive.control("raise_budget", tasks=5)
    assert members(drive) == ["t3", "t4"]


def test_a_group_holds_no_more_slots_than_there_are() -> None:
    drive = begun(*(work(f"t{n}") for n in range(5)), budget={"parallel": 2})
    assert drive.command(RunGroup).job.parallel == 2
    assert members(drive) == [f"t{n}" for n in range(5)]


def test_nothing_more_is_taken_in_once_enough_is_known() -> None:
    drive = begun(
        work("a"), work("b", "${a}"), work("c", "${b}"), stop_when="b.outcome == 'succeeded'"
    )
    ends(drive, good("a"), good("b"), good("c"))
    outcomes = {str(t): r.outcome.value for t, r in drive.result.tasks.items()}
    assert outcomes == {"a": "succeeded", "b": "succeeded", "c": "cancelled"}


def test_items_of_a_map_go_together() -> None:
    drive = begun(work("rows", "${item}", map=[5, 6, 7]), work("x", "${rows}"))
    command = drive.command(RunGroup)
    (items,) = command.job.items.values()
    assert (items.indexes, items.source.value) == ([0, 1, 2], [5, 6, 7])
    assert command.summary == "3 tasks: rows[0-2]"
    failed = UnitEnd(task=TaskId("rows"), index=1, failed=FAILED)
    ends(drive, good("rows", "a", index=0), failed, good("rows", "c", index=2))
    assert drive.sent(RunTool) == ["x#body"]
    assert drive.run.records[TaskId("rows")].output == Stored(value=["a", None, "c"])
    drive.ends("x")
    assert drive.result.tasks["rows"].items == {"succeeded": 2, "failed": 1}


def test_an_item_that_a_group_gives_back_runs_alone() -> None:
    drive = begun(work("rows", "${item}", map=[5, 6, 7]))
    again = UnitEnd(task=TaskId("rows"), index=1, failed=FAILED, alone_in=1.0)
    ends(drive, good("rows", "a", index=0), again, good("rows", "c", index=2))
    assert drive.sent(RunTool) == ["rows[1]#body"]
    drive.ends("rows[1]", "b", attempts=2)
    assert drive.result.answer == {"rows": ["a", "b", "c"]}


def test_much_work_goes_to_several_groups() -> None:
    drive = begun(*(work(f"t{n}", estimate={"seconds": 0.019}) for n in range(60)))
    sizes = [len(c.job.tasks) for c in drive.commands if isinstance(c, RunGroup)]
    assert sizes == [27, 27, 6]


PAID_FIRST = (
    work("a", priority="critical"),
    {"id": "p", "tool": "pay", "args": {"key": "x"}, "priority": "high"},
    work("c"),
    work("d", "${a}"),
)


def test_a_group_takes_no_slot_from_one_that_comes_first() -> None:
    drive = begun(*PAID_FIRST, budget={"parallel": 2})
    assert drive.command(RunGroup).job.parallel == 1
    assert members(drive) == ["a", "c", "d"]
    assert drive.sent(RunTool) == ["p#body"]


def test_a_group_takes_no_budget_from_one_that_comes_first() -> None:
    drive = begun(*PAID_FIRST, budget={"tasks": 2})
    assert drive.sent(RunTool) == ["a#body", "p#body"]


def test_what_a_group_reads_from_outside_taints_what_follows() -> None:
    outside = CHEAP.tools[0].model_copy(update={"name": "fetch", "outside": True})
    catalog = CHEAP.model_copy(
        update={
            "tools": [*CHEAP.tools, outside],
            "tool_names": [*CHEAP.tool_names, "fetch"],
            "tool_seconds": {"work": 0.002, "fetch": 0.002},
        }
    )
    fetch = {"id": "a", "tool": "fetch", "args": {"key": "x"}}
    post = {"id": "p", "tool": "post", "args": {"key": "${c}"}}
    drive = Drive(catalog, plan=plan(fetch, work("b"), work("c", "${a}"), post), approval="tainted")
    drive.begin()
    ends(drive, good("a"), good("b"), good("c"))
    records = drive.run.records
    assert [records[TaskId(t)].is_tainted for t in "abc"] == [True, False, True]
    assert list(drive.run.held) == ["p"]
