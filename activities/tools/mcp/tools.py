"""A tool of an MCP server as a Planloom tool: its schema, its hints, its results."""

from __future__ import annotations

import asyncio
import hashlib
import json
import keyword
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ToolAnnotations
from mcp_types import Tool as Described

from planloom.activities.tools.decorator import Tool, ToolContext, ToolError
from planloom.activities.tools.mcp.connections import McpServer, McpUnreachable, background
from planloom.activities.tools.signature import ToolArgumentsError
from planloom.planner.compile.schema_check import check_value
from planloom.planner.contract.mcp import McpSettings, fits
from planloom.planner.contract.settings import shown_address
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import JsonValue, Problem

ARGUMENT_PROBLEMS_MAX = 10


class McpTool(Tool[..., Any]):
    """It is called on its server's connection, which all its tools share."""

    def __init__(self, server: McpServer, described: Described, spec: ToolSpec) -> None:
        self.spec = spec
        self.check = None
        self.fingerprint = None
        self.__name__ = spec.name
        self.__doc__ = spec.description
        self.__module__ = f"mcp:{server.name}"
        self._server = server
        self._described = described

    def __call__(self, **arguments: Any) -> Any:
        return self.call(self.validate(arguments), ToolContext())

    @property
    def origin(self) -> str:
        return f"the MCP server {self._server.name}"

    @property
    def untyped(self) -> list[str]:
        return []  # what a server leaves open, its user cannot change

    @property
    def is_async(self) -> bool:
        return True

    def validate(self, args: Mapping[str, JsonValue]) -> dict[str, Any]:
        """The arguments, held against the server's own schema.

        Raises:
            ToolArgumentsError: naming the tool and every argument that does not fit.
        """
        problems = check_value(dict(args), self.spec.parameters, "args")
        if problems:
            lines = "; ".join(p.line() for p in problems[:ARGUMENT_PROBLEMS_MAX])
            raise ToolArgumentsError(f'tool "{self.spec.name}": {lines}')
        return dict(args)

    def call(self, kwargs: Mapping[str, Any], context: ToolContext) -> Awaitable[Any]:
        return self._called(dict(kwargs))

    async def _called(self, arguments: dict[str, Any]) -> JsonValue:
        server, name = self._server, self._described.name
        try:
            result = await background().result(lambda: server.call(name, arguments))
        except McpUnreachable as error:
            text = server.without_secrets(str(error))
            raise ToolError(f"MCP server {server.name}: {text}", retry=True) from error
        except MCPError as error:  # as it was, with its code: only what it says is looked through
            said = server.without_secrets(str(error))
            if said == str(error):
                raise
            raise RuntimeError(f"MCP server {server.name}: {said}") from None
        except RuntimeError as error:  # the SDK quotes the whole schema below its first line
            raise RuntimeError(server.without_secrets(str(error).partition("\n")[0])) from error
        if result.is_error:
            text = server.without_secrets(_text_of(result))
            raise ToolError(text or f"MCP server {server.name}: the tool failed without a word")
        return value_of(result)


def value_of(result: CallToolResult) -> JsonValue:
    """A result as a plan reads it: the structured content, else text, else the parts.

    Servers wrap a value that is not an object as `{"result": …}`: it is taken out.
    """
    structured: JsonValue = result.structured_content
    if structured is not None:
        is_wrapped = isinstance(structured, dict) and list(structured) == ["result"]
        return structured["result"] if is_wrapped else structured  # type: ignore[index, call-overload]
    if all(part.type == "text" for part in result.content):
        return _text_of(result)
    return [
        part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content
    ]


def _text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def spec_of(server: str, settings: McpSettings, described: Described) -> ToolSpec:
    """What planner, compiler and dispatcher are told of a tool.

    A tool acts on the world unless it says that it only reads. One that acts is claimed before it
    is called, and is never cached; it is tried again only if it may be called twice.
    """
    hints = described.annotations if settings.trust_hints else None
    hints = hints or ToolAnnotations()
    reads = fits(described.name, settings.read_only) or bool(hints.read_only_hint)
    twice = reads or fits(described.name, settings.idempotent) or bool(hints.idempotent_hint)
    schema = json.loads(json.dumps(described.input_schema))
    schema.pop("title", None)
    told = _description(described)
    if not reads and hints.destructive_hint is not False:
        told += " It may overwrite or delete."
    prefix = f"{server}_" if settings.prefix is None else settings.prefix
    version = json.dumps([described.input_schema, described.output_schema], sort_keys=True)
    return ToolSpec(
        name=tool_name(prefix + described.name),
        description=told,
        parameters={"type": "object", "properties": {}, **schema},
        idempotent=twice,
        side_effects=not reads,
        outside=True,  # whatever the server says, a model that read a page may have made it
        timeout_seconds=float(settings.timeout),
        version=hashlib.sha256(version.encode()).hexdigest()[:12],
    )


def tool_name(name: str) -> str:
    """A name that a plan can call: letters, digits and _."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if plain[:1].isdigit() or not plain:
        plain = f"_{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain == "join" else plain


def _description(described: Described) -> str:
    text = " ".join((described.description or described.title or described.name).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def load_servers(servers: Sequence[McpServer]) -> tuple[list[McpTool], list[Problem]]:
    """The tools of all servers, asked at once; and what is wrong, each with its server."""

    async def ask(server: McpServer) -> list[McpTool] | Problem:
        try:
            described = await server.tools()
        except McpUnreachable as error:
            return _problem(server, str(error))
        if not described:
            return _problem(server, f"it has no tool that fits {server.settings.tools}")
        return [McpTool(server, d, spec_of(server.name, server.settings, d)) for d in described]

    async def ask_all() -> list[list[McpTool] | Problem]:
        return await asyncio.gather(*(ask(server) for server in servers))

    tools: list[McpTool] = []
    problems: list[Problem] = []
    for found in background().wait(ask_all) if servers else []:
        if isinstance(found, Problem):
            problems.append(found)
        else:
            tools += found
    return tools, problems


def _problem(server: McpServer, message: str) -> Problem:
    settings = server.settings
    command = " ".join([str(settings.command), *settings.args])
    what = shown_address(settings.url) if settings.url else command
    return Problem(
        path=f"planloom.toml: mcp.{server.name}",
        code="mcp_server",
        message=f"the tools of this MCP server cannot be loaded: {message}.",
        hint=f"Try it by itself ({what}), or take [mcp.{server.name}] out.",
    )
