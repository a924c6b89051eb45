"""Agents and teams as a person or a plan defines them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planloom.planner.language.values import ID_PATTERN, JsonValue, Model, Problem

TOOL_NAMES_MAX = 10_000
"""Far more than a worker has. A list of half a million would take seconds of workflow code."""
ToolNames = Annotated[list[str], Field(max_length=TOOL_NAMES_MAX)]


def granted_tools(own: list[str] | None, allowed: list[str] | None) -> list[str]:
    """What an agent or member may call: its own tools as far as the request's `tools` allow them.

    One that names none has those of the request. Where that names none either, it has none: what
    changes the world is never given without being named.
    """
    if own is None:
        return list(allowed or ())
    return [name for name in own if allowed is None or name in allowed]


class AgentSpec(Model):
    """A subagent: who it is, which tools it may call, which model answers."""

    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    """The agent's name in reports. Without it, the task's id."""
    description: str = ""
    """What the agent is good at. The planner reads it to choose an agent."""
    system: str = ""
    """The system message: who the agent is and how it works."""
    tools: ToolNames | None = None
    """The tools that the agent may call, as far as the run allows them. Without it, those that the
    request names in `tools`; none when it names none."""
    model: str | None = None
    """The model that answers. Without it, the run's `worker` model."""
    max_turns: Annotated[int, Field(ge=1, le=200)] | None = None
    """The most model turns. Without it, the request's `max_turns`."""
    output_schema: dict[str, JsonValue] | None = None
    """A JSON Schema that the answer must fit. The output is then JSON instead of text."""


class MemberSpec(Model):
    """One member of a team. With `task` it has its own subtask; `depends_on` orders it."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    """The member's name in reports and links."""
    role: str = ""
    """The role in one or two words, such as `Reviewer`."""
    description: str = ""
    """What the member looks at, in a sentence. Part of its prompt."""
    system: str = ""
    """More of the member's system message."""
    model: str | None = None
    """The model that answers. Without it, the request's `worker` model."""
    tools: ToolNames | None = None
    """The tools that the member may call, as far as the run allows them. Without it, those that the
    request names in `tools`; none when it names none."""
    task: str | None = None
    """A subtask for this member. A team whose members have subtasks runs as a graph."""
    depends_on: list[str] = Field(default_factory=list)
    """Members whose subtasks must have ended before this one starts."""
    enabled: bool = True
    """Whether the member takes part."""


class TeamSpec(Model):
    """A team: its members, and who reads whose answers."""

    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    """The team's name in reports. Without it, the task's id."""
    name: str = ""
    """A readable name."""
    description: str = ""
    """What the team is good at. The planner reads it to choose a team."""
    members: Annotated[list[MemberSpec], Field(min_length=1, max_length=64)]
    """The members, 1 to 64."""
    links: str | dict[str, list[str]] | None = None
    """Who reads whose answers between rounds: `all`, `ring`, `star`, `pairs`, `source`, or lists
    of member ids by member id. Without it, `all`."""
    strategy: Literal["parallel", "sequential"] | None = None
    """Whether members give their first answers at once or in turn. A request's `strategy` replaces
    it."""


class Limits(Model):
    """How many agents or teams of a request run at once, with how many members and model calls.

    `calls` is divided by the number of teams that run at once, so that all their members together
    stay below it.
    """

    agents: Annotated[int, Field(ge=1, le=64)] | None = None
    """Agents at once."""
    teams: Annotated[int, Field(ge=1, le=64)] | None = None
    """Teams at once."""
    members: Annotated[int, Field(ge=1, le=64)] | None = None
    """Members of one team at once."""
    calls: Annotated[int, Field(ge=1, le=64)] | None = None
    """Model calls at once, over all agents or teams of the request."""


class AgentTask(Model):
    """One of `agents` with its own task; `args` are more fields of its request."""

    agent: str | AgentSpec
    """The agent: the name of a definition, or the definition itself."""
    id: str | None = None
    """The id of the agent's task in the plan. Without it, the agent's name."""
    task: str | None = None
    """What it is asked to do. Without it, the request's `goal`."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """More fields of its request, such as `context` or `budget`."""


class TeamTask(Model):
    """One of `teams` with its own task; `args` are more fields of its request."""

    team: str | TeamSpec
    """The team: the name of a definition, or the definition itself."""
    id: str | None = None
    """The id of the team's task in the plan. Without it, the team's name."""
    task: str | None = None
    """What it is asked to do. Without it, the request's `goal`."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """More fields of its request, such as `context` or `budget`."""


class Subtask(Model):
    """A part of a team's task: which member does it, after which other parts."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    """The subtask's name in references and reports."""
    task: Annotated[str, Field(min_length=1)]
    """What the member is asked to do."""
    member: str | None = None
    """The member that does it. Without it, the member of the same id."""
    depends_on: list[str] = Field(default_factory=list)
    """Subtasks that must have ended before this one starts."""


def name_taken(kind: str, name: str, *, unused: str, used: str) -> Problem:
    """What is wrong with a file of the workspace whose name is taken by one that comes first."""
    return Problem(
        path=unused,
        code="name_taken",
        message=f'not used: the {kind} "{name}" is {used}.',
        hint="Give it another name, or move it to your own configuration folder.",
    )
