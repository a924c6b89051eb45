"""Prompts as files with versions, and the pure functions that fill them.

`<name>.v<n>.md` is a prompt; a change of meaning is a new version. Nothing here calls a model.
"""

from planloom.planner.prompts.ask import ask_messages, repair_messages
from planloom.planner.prompts.joiner import joiner_messages
from planloom.planner.prompts.planner import planner_messages

__all__ = ["ask_messages", "joiner_messages", "planner_messages", "repair_messages"]
