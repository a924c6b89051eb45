"""Agents and teams as a person or a plan defines them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planloom.planner.language.values import ID_PATTERN, JsonValue, Model, Problem


class AgentSpec(Model):
    """A subagent: who it is, which tools it may call, which model answers."""

    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    description: str = ""
    system: str = ""
    tools: list[str] | None = None
    model: str | None = None
    max_turns: Annotated[int, Field(ge=1, le=200)] | None = None
    output_schema: dict[str, JsonValue] | None = None


class MemberSpec(Model):
    """One member of a team. With `task` it has a subtask of its own; `depends_on` orders it."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    role: str = ""
    description: str = ""
    system: str = ""
    model: str | None = None
    tools: list[str] | None = None
    task: str | None = None
    depends_on: list[str] = Field(default_factory=list)
    enabled: bool = True


class TeamSpec(Model):
    """A team: its members, and who reads whose answers."""

    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    name: str = ""
    description: str = ""
    members: Annotated[list[MemberSpec], Field(min_length=1, max_length=64)]
    links: str | dict[str, list[str]] | None = None
    strategy: Literal["parallel", "sequential"] | None = None
    """Of the first answers, unless a request says otherwise."""


class Limits(Model):
    """How many of a call for many run at once: agents or teams, members of each, and in all.

    With `calls` each team's share is `calls` through the teams that run, so that all members
    together stay below it.
    """

    agents: Annotated[int, Field(ge=1, le=64)] | None = None
    teams: Annotated[int, Field(ge=1, le=64)] | None = None
    members: Annotated[int, Field(ge=1, le=64)] | None = None
    calls: Annotated[int, Field(ge=1, le=64)] | None = None


class AgentTask(Model):
    """One of `agents` with a task of its own; `args` are more fields of its request."""

    agent: str | AgentSpec
    id: str | None = None
    task: str | None = None
    args: dict[str, JsonValue] = Field(default_factory=dict)


class TeamTask(Model):
    """One of `teams` with a task of its own; `args` are more fields of its request."""

    team: str | TeamSpec
    id: str | None = None
    task: str | None = None
    args: dict[str, JsonValue] = Field(default_factory=dict)


class Subtask(Model):
    """A part of a team's task: which member does it, after which other parts."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    task: Annotated[str, Field(min_length=1)]
    member: str | None = None
    """Without it, the member of the same id."""
    depends_on: list[str] = Field(default_factory=list)


def name_taken(kind: str, name: str, *, unused: str, used: str) -> Problem:
    """What is wrong with a file of the workspace whose name is taken by one that comes first."""
    return Problem(
        path=unused,
        code="name_taken",
        message=f'not used: the {kind} "{name}" is {used}.',
        hint="Give it another name, or move it to your own configuration folder.",
    )
