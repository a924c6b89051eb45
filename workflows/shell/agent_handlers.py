"""What is sent to agents and teams: by people, by their parent, and to a team's plan."""

from __future__ import annotations

from planloom.planner.contract.controls import CompleteTask, Pause, RaiseBudget, Resume
from planloom.workflows.machines.run.controls import CONTROLS
from planloom.workflows.shell.handlers import Control
from planloom.workflows.shell.run_handlers import DEADLINE, RUN_NOTICES, RUN_QUESTIONS

AGENT_CONTROLS = [
    Control("pause", Pause, "Start no further turn"),
    Control("resume", Resume, "Go on after a pause"),
    Control("complete_task", CompleteTask, "Answer the agent's question {id, output}"),
    Control("raise_budget", RaiseBudget, "New caps, as totals {tokens?, usd?, …}"),
]
AGENT_NOTICES = [DEADLINE]

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
