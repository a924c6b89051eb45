"""The public Python face of Planloom: tools, models, and a client of running plans.

A user's tool module imports this and nothing else:

    from planloom import tool

    @tool
    def shout(text: str) -> str:
        "The text in capitals."
        return text.upper()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planloom.activities.tools.decorator import ToolContext, ToolError, tool
    from planloom.client import Client, Pool, Run
    from planloom.errors import (
        AlreadyRunning,
        NoServer,
        NoSuchRun,
        NoWorker,
        PlanloomError,
        Refused,
        RunFailed,
    )
    from planloom.graph import Graph
    from planloom.planner.contract.capacity import (
        CapacityState,
        PermitReply,
        Release,
        Renew,
        Reserve,
        SetCapacity,
    )
    from planloom.planner.contract.controls import Reply
    from planloom.planner.contract.requests import AgentRequest, RunRequest, TeamRequest
    from planloom.planner.contract.results import AgentResult, Progress, RunResult, TeamResult
    from planloom.planner.language.plan import Plan, Task
    from planloom.planner.language.values import Problem, TaskId
    from planloom.stream import RunEvent

# Loaded when a name is first used: a module of `planloom` that needs no client starts without one.
_HOMES = {
    "AgentRequest": "planloom.planner.contract.requests",
    "AgentResult": "planloom.planner.contract.results",
    "AlreadyRunning": "planloom.errors",
    "CapacityState": "planloom.planner.contract.capacity",
    "Client": "planloom.client",
    "Graph": "planloom.graph",
    "NoServer": "planloom.errors",
    "NoSuchRun": "planloom.errors",
    "NoWorker": "planloom.errors",
    "PermitReply": "planloom.planner.contract.capacity",
    "Plan": "planloom.planner.language.plan",
    "PlanloomError": "planloom.errors",
    "Pool": "planloom.client",
    "Problem": "planloom.planner.language.values",
    "Progress": "planloom.planner.contract.results",
    "Refused": "planloom.errors",
    "Release": "planloom.planner.contract.capacity",
    "Renew": "planloom.planner.contract.capacity",
    "Reply": "planloom.planner.contract.controls",
    "Reserve": "planloom.planner.contract.capacity",
    "Run": "planloom.client",
    "RunEvent": "planloom.stream",
    "RunFailed": "planloom.errors",
    "RunRequest": "planloom.planner.contract.requests",
    "RunResult": "planloom.planner.contract.results",
    "SetCapacity": "planloom.planner.contract.capacity",
    "Task": "planloom.planner.language.plan",
    "TaskId": "planloom.planner.language.values",
    "TeamRequest": "planloom.planner.contract.requests",
    "TeamResult": "planloom.planner.contract.results",
    "ToolContext": "planloom.activities.tools.decorator",
    "ToolError": "planloom.activities.tools.decorator",
    "tool": "planloom.activities.tools.decorator",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "AgentRequest",
    "AgentResult",
    "AlreadyRunning",
    "CapacityState",
    "Client",
    "Graph",
    "NoServer",
    "NoSuchRun",
    "NoWorker",
    "PermitReply",
    "Plan",
    "PlanloomError",
    "Pool",
    "Problem",
    "Progress",
    "Refused",
    "Release",
    "Renew",
    "Reply",
    "Reserve",
    "Run",
    "RunEvent",
    "RunFailed",
    "RunRequest",
    "RunResult",
    "SetCapacity",
    "Task",
    "TaskId",
    "TeamRequest",
    "TeamResult",
    "ToolContext",
    "ToolError",
    "tool",
]
