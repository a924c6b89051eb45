"""What is sent to a team: by people, by its parent run, and to its plan of subtasks."""

from __future__ import annotations

from planloom.planner.contract.controls import CONTROLS
from planloom.workflows.machines.run.messages import RUN_NOTICES, RUN_QUESTIONS
from planloom.workflows.machines.shared.messages import Control

_OF_A_TEAM = {
    "approve_plan": "Approve the subtasks {revision, by?, note?}",
    "reject_plan": "Reject the subtasks {revision, reason?}",
    "edit_plan": "Edit the subtasks {revision, plan|patch}",
    "request_replan": "Ask for other subtasks {feedback}",
    "raise_budget": "New caps, as totals {tokens?, usd?, …}",
    "pause": "Start no further turn",
    "resume": "Go on after a pause",
    "cancel_task": "Cancel one subtask {id}",
    "complete_task": "Answer a member's question {id, output}",
    "approve_task": "Let a subtask run, or not {id, approve?}",
}
TEAM_CONTROLS = [Control(name, model, _OF_A_TEAM[name]) for name, model in CONTROLS.items()]
TEAM_NOTICES = RUN_NOTICES
TEAM_QUESTIONS = RUN_QUESTIONS
