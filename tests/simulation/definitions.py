"""Agents and teams that the simulated worker knows by name."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.jobs import LoadedDefinition, LoadJob
from planloom.planner.language.values import Problem, Stored

AGENTS: dict[str, Any] = {
    "helper": {"tools": ["work", "post", "ask_human"], "max_turns": 4},
    "critic": {"tools": None, "output_schema": {"type": "object", "required": ["n"]}},
}
MEMBERS: list[Any] = [
    {"id": "first", "role": "lead", "tools": ["ask_human"]},
    {"id": "second", "tools": ["work", "post"]},
    {"id": "third", "model": "b1"},
]


def definition(job: LoadJob) -> LoadedDefinition:
    """What the worker knows by this name, or why it knows nothing."""
    if job.kind == "agent" and job.name in AGENTS:
        return LoadedDefinition(spec=Stored(value={"system": "you help"}), **AGENTS[job.name])
    if job.kind == "team" and job.name == "panel":
        return LoadedDefinition(spec=Stored(value={}), members=MEMBERS, links="ring")
    missing = Problem(path=job.kind, code="unknown", message=f'there is no "{job.name}"')
    return LoadedDefinition(problems=[missing])
