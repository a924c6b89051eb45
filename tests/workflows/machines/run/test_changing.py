"""Edits and replans at any moment: what they bring counts, or they are refused."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.jobs import JoinReply, Resolved, TaskOutput
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run.state import Stage
from planloom.workflows.machines.shared.commands import (
    Answer,
    JoinOutcomes,
    Refuse,
    Resolve,
    RunTool,
    WritePlan,
)
from planloom.workflows.machines.shared.events import Broke, CancelRequested, Failure
from tests.support.run_driver import Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=90_000, preview="…")


def edit(drive: Drive, *tasks: dict[str, Any], **fields: Any) -> Any:
    """Edit the newest revision."""
    return drive.control("edit_plan", revision=drive.run.revision, plan=plan(*tasks, **fields))


def test_a_reader_still_waits_for_a_task_that_an_edit_writes_in_other_words() -> None:
    """The frontier forgot who read it, and the run waited for ever."""
    drive = Drive(plan=plan(work("z"), work("a", "${z}"), work("b", "${a}")))
    drive.begin()
    edit(drive, work("z"), work("a", "${z}", description="now"), work("b", "${a}"))
    drive.ends("z", 1)
    drive.ends("a", 2)
    assert drive.sent(RunTool) == ["b#body"]


def test_an_edit_while_a_plan_waits_for_approval_runs_nothing_without_it() -> None:
    """A replan was asked for instead of a decision; an edit then ran without any approval."""
    drive = Drive(goal="reach it", approval="plan")
    drive.begin()
    drive.wrote(work("a"))
    drive.control("request_replan", feedback="otherwise")
    assert drive.sent(WritePlan) == ["planner.2"]
    assert isinstance(edit(drive, work("a"), work("b")), Answer)
    assert (drive.sent(RunTool), drive.run.entered) == ([], 0)
    drive.send(Broke("planner.2", Failure("it is gone", "unknown")))
    assert (drive.run.approval.is_open, drive.run.approval.revision) == (True, 2)
    drive.control("approve_plan", revision=2)
    assert drive.sent(RunTool) == ["a#body", "b#body"]


def test_an_edit_while_the_answer_is_made_is_run_before_the_end() -> None:
    """The run ended while the new task ran."""
    drive = Drive(plan=plan(work("a"), answer="${a}"))
    drive.begin()
    drive.returns("a#body", TaskOutput(output=LARGE))
    assert drive.sent(Resolve) == ["answer"]
    edit(drive, work("a"), work("b"), answer="${b}")
    drive.returns("answer", Resolved(stored=LARGE))
    assert drive.run.stage is Stage.RUNNING
    drive.ends("b", "later")
    assert (drive.result.status, drive.result.answer) == ("completed", "later")


def test_an_edit_while_another_plan_is_written_is_run_when_that_plan_is_not_taken() -> None:
    drive = Drive(goal="reach it")
    drive.begin()
    drive.wrote(work("a"))
    drive.ends("a", 1)
    drive.returns(drive.command(JoinOutcomes).key, JoinReply(action="replan", feedback="more"))
    edit(drive, work("a"), work("b"))
    assert drive.sent(RunTool) == ["b#body"]
    drive.send(Broke("planner.2", Failure("it is gone", "unknown")))
    assert drive.run.stage is Stage.RUNNING
    drive.ends("b", 2)
    assert drive.sent(JoinOutcomes)
    assert any("replan not taken" in n for n in drive.run.notes)


def test_an_edit_while_the_joiner_decides_is_run_though_the_joiner_fails() -> None:
    drive = Drive(goal="reach it")
    drive.begin()
    drive.wrote(work("a"))
    drive.ends("a", 1)
    key = drive.command(JoinOutcomes).key
    edit(drive, work("a"), work("b"))
    drive.breaks(key, "auth")
    assert drive.run.stage is Stage.RUNNING
    drive.ends("b", 2)
    assert drive.outcome("b") is Outcome.SUCCEEDED


def test_a_run_that_is_being_stopped_takes_no_edit_and_no_replan() -> None:
    """They were accepted, and nothing came of them."""
    drive = Drive(goal="reach it", on_failure="fail", retry_rounds=0)
    drive.begin()
    drive.wrote(work("a"), work("b"))
    drive.breaks("a#body", "refused")
    refused = edit(drive, work("b"), work("c"))
    assert isinstance(refused, Refuse)
    assert "is being stopped: task a failed" in refused.message


def test_a_run_that_fails_for_its_callers_mistake_leaves_no_timer() -> None:
    drive = Drive(plan=plan({"id": "a", "tool": "unheard"}), budget={"seconds": 60})
    drive.begin()
    assert drive.run.failed is not None
    assert drive.run.account.timer_at is None


def test_what_was_skipped_for_a_failed_input_runs_when_an_edit_mends_the_input() -> None:
    """Only the input ran again; its readers stayed skipped for ever."""
    drive = Drive(plan=plan(work("a"), work("b", "${a}"), work("c", "${b}"), work("z")))
    drive.begin()
    drive.breaks("a#body", "refused")
    assert [drive.outcome(t) for t in "abc"] == ["failed", "skipped", "skipped"]
    edit(drive, work("a", "better"), work("b", "${a}"), work("c", "${b}"), work("z"))
    assert drive.sent(RunTool) == ["a#body"]
    drive.ends("a", 1)
    drive.ends("b", 2)
    assert drive.sent(RunTool) == ["c#body"]


def test_a_fallback_that_is_ready_waits_when_its_input_is_tried_again() -> None:
    """It ran its fallback although the input had a value by then."""
    other = {"tool": "work", "args": {"key": "other"}}
    reader = work("b", "${a}", fallback=other)
    drive = Drive(plan=plan(work("a"), reader, work("z")), budget={"parallel": 2}, retry_rounds=0)
    drive.begin()
    drive.control("pause")
    drive.breaks("a#body", "refused")
    edit(drive, work("a", "better"), reader, work("z"))
    drive.control("resume")
    assert drive.sent(RunTool) == ["a#body"]
    drive.ends("a", 1)
    assert drive.command(RunTool).job.args == {"key": "${a}"}


def test_a_task_that_was_left_out_and_comes_back_is_another_act() -> None:
    """It got the key of one that had acted, and would have been taken for it."""
    post = {"id": "a", "tool": "post", "args": {"key": "one"}}
    drive = Drive(plan=plan(post, work("z")), retry_rounds=0)
    drive.begin()
    first = next(c.job.key for c in drive.commands if isinstance(c, RunTool))
    drive.breaks("a#body", "refused")
    drive.control("pause")
    edit(drive, {**post, "args": {"key": "two"}}, work("z"))
    edit(drive, work("z"))
    edit(drive, {**post, "args": {"key": "three"}}, work("z"))
    drive.control("resume")
    assert drive.command(RunTool).job.key not in (first, "")
    assert drive.command(RunTool).job.key.endswith("/a.v2")


def test_what_a_task_used_counts_though_a_later_revision_leaves_it_out() -> None:
    drive = Drive(plan=plan(work("a"), work("z")), retry_rounds=0)
    drive.begin()
    drive.breaks("a#body", "refused", usage=Usage(input_tokens=7, model_calls=1))
    drive.control("pause")
    edit(drive, work("a", "better"), work("z"))
    edit(drive, work("z"))
    drive.control("resume")
    drive.ends("z", 1)
    assert drive.result.usage.tokens == 7
    assert drive.run.outside.tokens == 7


def test_nothing_starts_that_the_revision_of_the_same_step_leaves_out() -> None:
    """What the finished plan does without was started and cancelled at once."""
    drive = Drive(goal="reach it", budget={"parallel": 1})
    drive.begin()
    drive.writes(work("a"))
    assert drive.sent(RunTool) == ["a#body"]
    drive.ends("a", 1)
    drive.wrote(work("a"), work("b"), work("c"), answer="${c}", has_answer=True)
    assert drive.sent(RunTool) == ["c#body"]


def test_a_run_that_is_cancelled_while_a_plan_waits_for_a_yes_leaves_no_timer() -> None:
    drive = Drive(plan=plan(work("a")), approval={"mode": "always", "timeout": 60})
    drive.begin()
    drive.send(CancelRequested())
    assert (drive.result.status, drive.run.timers) == ("cancelled", {})
