"""What is sent to a run: by people, by child runs, and by the planner's activity."""

from __future__ import annotations

from planloom.planner.contract.controls import CONTROLS, ChildAsks, GrantWanted
from planloom.planner.contract.jobs import PlannedBatch, PlannerAttempt
from planloom.workflows.machines.shared.events import (
    GrantAsked,
    PlannerRetried,
    PlanWritten,
    QuestionOfChild,
)
from planloom.workflows.machines.shared.messages import DEADLINE, Control, Notice, Question

DESCRIPTIONS = {
    "approve_plan": "Approve a revision {revision, by?, note?}",
    "reject_plan": "Reject a revision {revision, reason?}",
    "edit_plan": "Edit the plan {revision, plan|patch}",
    "request_replan": "Ask for another plan {feedback}",
    "raise_budget": "New caps, as totals {tokens?, usd?, …}",
    "pause": "Start nothing new; what runs goes on",
    "resume": "Go on after a pause",
    "cancel_task": "Cancel one task {id}",
    "complete_task": "Answer a human task {id, output}",
    "approve_task": "Let a task run, or not {id, approve?}",
}


RUN_CONTROLS = [Control(name, model, DESCRIPTIONS[name]) for name, model in CONTROLS.items()]
RUN_NOTICES = [
    Notice("grant_wanted", GrantWanted, GrantAsked, "A child run has used its grant up"),
    Notice("child_asks", ChildAsks, QuestionOfChild, "Something in a child run waits for a person"),
    DEADLINE,
    Notice("plan_written", PlannedBatch, PlanWritten, "Tasks the planner has finished writing"),
]
RUN_QUESTIONS = [
    Question("planner_attempt", PlannerAttempt, PlannerRetried, "A later planner attempt begins"),
]
