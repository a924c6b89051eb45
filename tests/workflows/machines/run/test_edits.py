"""`edit_plan`: a patch or a plan becomes the next revision, or is refused and nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.jobs import PatchedPlan
from planloom.planner.contract.names import INVALID_PLAN, STALE
from planloom.workflows.machines.shared.commands import (
    Answer,
    PatchPlan,
    Prepare,
    Refuse,
    RunTool,
    SetTimer,
)
from tests.support.run_driver import CATALOG, Drive, plan, work

PATCH: list[dict[str, Any]] = [{"op": "add", "path": "/tasks/-", "value": work("b")}]


def patched(drive: Drive, found: PatchedPlan) -> Answer | Refuse | None:
    """A patch is sent, and the activity that applies it has ended."""
    assert drive.control("edit_plan", revision=1, patch=PATCH) is None
    drive.returns(drive.command(PatchPlan).key, found)
    answers = [c for c in drive.commands if isinstance(c, Answer | Refuse)]
    return answers[0] if answers else None


def begun(**request: Any) -> Drive:
    drive = Drive(plan=plan(work("a")), **request)
    drive.begin()
    return drive


def test_a_patch_is_applied_and_its_new_task_starts() -> None:
    drive = begun()
    answer = patched(drive, PatchedPlan(document=plan(work("a"), work("b"))))
    assert isinstance(answer, Answer)
    assert answer.reply.message.startswith("revision 2: ")
    assert drive.sent(RunTool) == ["b#body"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (PatchedPlan(document=None, problem="no such path"), "no such path"),
        (PatchedPlan(document={"tasks": [{"id": "b"}]}), "tasks.b"),
        (PatchedPlan(document=plan(work("a", "${nobody}"))), "nobody"),
    ],
)
def test_a_patch_that_makes_no_plan_is_refused_with_what_is_wrong(
    found: PatchedPlan, says: str
) -> None:
    drive = begun()
    refused = patched(drive, found)
    assert isinstance(refused, Refuse)
    assert refused.type == INVALID_PLAN
    assert says in refused.message
    assert (drive.run.revision, drive.run.edits) == (1, {})


def test_a_patch_whose_activity_fails_is_refused() -> None:
    drive = begun()
    drive.control("edit_plan", revision=1, patch=PATCH)
    drive.breaks(drive.command(PatchPlan).key, "unknown")
    assert drive.command(Refuse).message == "edit_plan: patch: it failed"


def test_an_edit_that_names_what_is_not_known_yet_asks_the_worker() -> None:
    drive = Drive(CATALOG.model_copy(update={"template_names": ["weekly"]}), plan=plan(work("a")))
    drive.begin()
    new = {"id": "b", "plan": "weekly", "args": {}}
    drive.control("edit_plan", revision=1, plan=plan(work("a"), new))
    asked = drive.command(Prepare)
    assert asked.job.templates == ["weekly"]
    drive.breaks(asked.key, "unknown")
    assert drive.command(Refuse).message == "edit_plan: plan: it failed"


def test_an_edit_of_a_revision_that_was_replaced_is_refused_with_the_newest() -> None:
    drive = begun()
    drive.control("edit_plan", revision=1, plan=plan(work("a"), work("b")))
    refused = drive.control("edit_plan", revision=1, plan=plan(work("a")))
    assert isinstance(refused, Refuse)
    assert refused.type == STALE
    assert "revision 1 was replaced by 2" in refused.message


def test_a_plan_that_was_replaced_while_a_patch_was_applied_is_not_patched() -> None:
    drive = begun()
    drive.control("edit_plan", revision=1, patch=PATCH)
    key = drive.command(PatchPlan).key
    drive.control("edit_plan", revision=1, plan=plan(work("a"), work("c")))
    drive.returns(key, PatchedPlan(document=plan(work("a"), work("b"))))
    assert drive.command(Refuse).type == STALE
    assert "b" not in drive.run.tasks


def test_an_edit_by_signal_that_is_wrong_is_noted_and_the_run_goes_on() -> None:
    drive = begun()
    drive.signal("edit_plan", revision=1, plan=plan(work("a", "${nobody}")))
    assert any(n.startswith("signal ignored: edit_plan: ") for n in drive.run.notes)
    drive.ends("a", 1)
    assert drive.result.status == "completed"


def test_what_the_joiner_is_shown_follows_the_tasks_that_an_edit_leaves() -> None:
    drive = Drive(plan=plan(work("a"), work("b", "${a}"), join=["a", "b"]))
    drive.begin()
    edited = plan(work("a"), join=["a", "b"])
    assert isinstance(drive.control("edit_plan", revision=1, plan=edited), Answer)
    assert drive.run.plan is not None
    assert drive.run.plan.join == ["a"]


def test_an_edit_that_is_major_waits_for_approval_before_it_runs() -> None:
    drive = begun(approval="major")
    drive.control("approve_plan", revision=1)
    acts = {"id": "b", "tool": "post", "args": {"key": "k"}}
    drive.control("edit_plan", revision=1, plan=plan(work("a"), acts))
    assert drive.run.approval.is_open
    assert drive.sent(RunTool) == []
    drive.control("approve_plan", revision=2)
    assert drive.sent(RunTool) == ["b#body"]
    assert drive.outcome("a") is None


def test_edits_that_are_still_looked_up_when_the_run_ends_are_refused() -> None:
    drive = begun()
    drive.control("edit_plan", revision=1, patch=PATCH)
    drive.ends("a", 1)
    assert drive.command(Refuse).message == "edit_plan: the run has ended"
    assert drive.result.status == "completed"


def test_an_edited_plan_has_the_whole_time_for_its_approval() -> None:
    """It had what was left of the plan before: an edit in the last second was rejected with it."""
    drive = begun(approval={"mode": "always", "timeout": 600, "on_timeout": "reject"})
    assert drive.run.timers["approval"][0] == drive.now + 600
    drive.now += 599
    answer = drive.control("edit_plan", revision=1, plan=plan(work("a"), work("b")))
    assert isinstance(answer, Answer)
    assert drive.run.timers["approval"][0] == drive.now + 600
    assert drive.command(SetTimer).at == drive.now + 600


def test_a_small_edit_on_top_of_a_material_one_does_not_approve_it() -> None:
    drive = Drive(goal="do it", approval="major")
    drive.begin()
    drive.wrote(work("a"))
    drive.control("approve_plan", revision=1)
    drive.control("request_replan", feedback="another")  # while it is written, edits wait
    assert drive.run.planning is not None
    acts = {"id": "b", "tool": "post", "args": {"key": "k"}}
    drive.control("edit_plan", revision=1, plan=plan(work("a"), acts))
    drive.control("edit_plan", revision=2, plan=plan(work("a"), acts, work("c")))
    assert drive.sent(RunTool) == []
    drive.wrote(work("d"), call=2)
    assert drive.run.approval.is_open
    assert drive.sent(RunTool) == []
