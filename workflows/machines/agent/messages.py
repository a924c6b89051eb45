"""What is sent to an agent: by people, and by its parent run."""

from __future__ import annotations

from planloom.planner.contract.controls import CompleteTask, Pause, RaiseBudget, Resume
from planloom.workflows.machines.shared.messages import DEADLINE, Control

AGENT_CONTROLS = [
    Control("pause", Pause, "Start no further turn"),
    Control("resume", Resume, "Go on after a pause"),
    Control("complete_task", CompleteTask, "Answer the agent's question {id, output}"),
    Control("raise_budget", RaiseBudget, "New caps, as totals {tokens?, usd?, …}"),
]
AGENT_NOTICES = [DEADLINE]
