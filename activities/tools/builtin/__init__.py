"""The built-in tools (DESIGN §4), and the registry that begins with them."""

from __future__ import annotations

from typing import Any

from planloom.activities.tools.builtin.calculate import calculate
from planloom.activities.tools.builtin.files import list_files, read_file, write_file
from planloom.activities.tools.builtin.search import search_text
from planloom.activities.tools.builtin.sql import query_sql
from planloom.activities.tools.builtin.web import http_get
from planloom.activities.tools.decorator import Tool
from planloom.activities.tools.registry import ToolRegistry
from planloom.planner.language.catalog import ToolSpec

BUILTIN_TOOLS: tuple[Tool[..., Any], ...] = (
    calculate,
    read_file,
    list_files,
    search_text,
    query_sql,
    http_get,
    write_file,
)

ASK_SPEC = ToolSpec(
    name="ask",
    description="Ask the language model. It sees only the prompt and the context given here.",
    parameters={
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "description": "the whole question or instruction"},
            "context": {"description": "what it should look at, for example an earlier result"},
        },
        "required": ["prompt"],
        "additionalProperties": False,
    },
    version="1",
)
"""`ask` looks like a tool to a planner; the compiler makes an ask body of it, no tool runs."""


def builtin_registry() -> ToolRegistry:
    """A registry with the built-in tools, to which a worker adds its own."""
    return ToolRegistry(BUILTIN_TOOLS, [ASK_SPEC])


__all__ = ["ASK_SPEC", "BUILTIN_TOOLS", "builtin_registry"]
