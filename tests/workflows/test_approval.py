"""Approval is bound to a revision; what is stale is refused with a reason."""

from __future__ import annotations

import pytest

from planloom.planner.contract.controls import ApprovePlan
from planloom.planner.contract.requests import RunRequest
from planloom.workflows.machines.run import machine
from planloom.workflows.machines.run.state import Stage
from planloom.workflows.machines.shared.approval import ApprovalState, Verdict, needs_approval
from planloom.workflows.machines.shared.machine import Identity


@pytest.mark.parametrize(
    ("mode", "first", "replan", "major_replan"),
    [
        ("never", False, False, False),
        ("plan", True, False, False),
        ("replan", False, True, True),
        ("major", True, False, True),
        ("always", True, True, True),
    ],
)
def test_each_mode_asks_when_it_says(mode, first, replan, major_replan) -> None:
    assert needs_approval(mode, is_first=True) is first
    assert needs_approval(mode, is_first=False) is replan
    assert needs_approval(mode, is_first=False, major=["costs more"]) is major_replan


def test_a_replaced_revision_is_refused_with_who_replaced_it() -> None:
    desk = ApprovalState()
    desk.open(1)
    desk.note_revision(2, by="ops")
    desk.open(2)
    said = desk.problem_with(1, "approve_plan")
    assert said == (
        'approve_plan: revision 1 was replaced by 2 (by "ops"). '
        'Look at query "diff", then decide on revision 2.'
    )
    assert desk.problem_with(2, "approve_plan") is None


def test_of_two_approvers_the_second_is_told_who_was_first() -> None:
    desk = ApprovalState()
    desk.open(1)
    desk.decide(Verdict(1, "approved", by="ann"))
    assert desk.problem_with(1, "reject_plan") == (
        'reject_plan: revision 1 was approved already by "ann".'
    )


def test_a_revision_that_does_not_exist_or_does_not_wait_is_refused() -> None:
    desk = ApprovalState()
    assert "there is no plan yet" in (desk.problem_with(1, "approve_plan") or "")
    desk.note_revision(1)
    assert "does not wait" in (desk.problem_with(1, "approve_plan") or "")
    assert "the newest is 1" in (desk.problem_with(7, "approve_plan") or "")


def test_approving_what_was_rejected_is_refused_as_that() -> None:
    # Between the rejection and the run's end, which may be in one workflow task.
    request = RunRequest.model_validate({"goal": "x", "approval": "plan"})
    run = machine.begin(request, Identity("w", "w/1"), 0.0)
    run.stage = Stage.STOPPING
    run.approval.open(1)
    run.approval.decide(Verdict(1, "rejected", by="ann"))
    refused = machine.check(run, "approve_plan", ApprovePlan(revision=1), 0.0)
    assert refused is not None
    assert refused.type == "PlanRejected"
    assert 'was rejected already by "ann"' in refused.message
