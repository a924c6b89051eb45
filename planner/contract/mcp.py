"""Settings of MCP servers whose tools plans may use: `[mcp.<name>]` in `planloom.toml`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from planloom.planner.language.values import Model, Seconds


class McpSettings(Model):
    """One server: a `command` to start, which is used through its standard input and output, or
    the `url` of one that runs already."""

    command: str | None = None
    """The program to start, found as a shell would find it."""
    args: list[str] = Field(default_factory=list)
    """The program's arguments."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of the program, in addition to PATH, HOME and the like. None may be secret."""
    env_from: list[str] = Field(default_factory=list)
    """Names of variables that are passed on from the worker's environment, such as tokens."""
    url: str | None = None
    """Its address, for servers that speak streamable HTTP."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of each request. None of them may be secret: see `headers_env`."""
    headers_env: dict[str, str] = Field(default_factory=dict)
    """Headers whose values are secret, each with the name of the variable that holds its value."""
    tools: list[str] = Field(default_factory=lambda: ["*"])
    """The tools that plans may use, by name or pattern. All others are not loaded."""
    prefix: str | None = None
    """Put before each tool's name. Without it the server's name and `_`; may be empty."""
    timeout: Seconds = 60.0
    """The longest that one call may take, in seconds or as text such as "30s"."""
    start_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds until the server must have answered when it is first asked."""
    trust_hints: bool = True
    """Whether the server's own `readOnlyHint` and `idempotentHint` count. Without it every tool
    acts on the world, except those named in `read_only`."""
    read_only: list[str] = Field(default_factory=list)
    """Tools, by name or pattern, that change nothing, whatever the server says."""
    idempotent: list[str] = Field(default_factory=list)
    """Tools, by name or pattern, that may be called twice to the same effect."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("exactly one of command and url is needed")
        return self

    @field_validator("headers", "env")
    @classmethod
    def _are_no_secrets(cls, given: dict[str, str]) -> dict[str, str]:
        if wrong := [n for n in given if re.search(r"auth|key|token|secret|passw|cookie", n, re.I)]:
            raise ValueError(f"{', '.join(wrong)}: secret values belong to headers_env or env_from")
        return given

    def allows(self, tool: str) -> bool:
        return fits(tool, self.tools)


def fits(tool: str, patterns: list[str]) -> bool:
    """Whether one of the patterns fits the name."""
    return any(fnmatchcase(tool, pattern) for pattern in patterns)
