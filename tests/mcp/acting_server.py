"""An MCP server of the official SDK whose tools act, fail, and answer in every form."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, ToolAnnotations

server = MCPServer("acting")
LOG = Path(os.environ.get("ACTS_FILE", "acts.txt"))


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
def note(text: str) -> str:
    """Write a line down."""
    with LOG.open("a") as file:
        file.write(text + "\n")
    return f"noted {text}"


@server.tool()
def wipe() -> str:
    """Forget all lines"""
    LOG.write_text("")
    return "gone"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def refuse(why: str) -> str:
    """Fail with a reason."""
    raise ToolError(f"refused: {why}")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def slow(seconds: float) -> str:
    """Take a while."""
    time.sleep(seconds)
    return "late"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def die() -> str:
    """End the server in the middle of a call."""
    os._exit(1)


@server.tool(annotations=ToolAnnotations(read_only_hint=True), structured_output=False)
def picture() -> ImageContent:
    """A picture."""
    return ImageContent(type="image", data="aGk=", mime_type="image/png")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def secret() -> str:
    """What of the environment it sees."""
    return ",".join(n for n in ("PASSED_ON", "NOT_PASSED_ON") if n in os.environ)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
