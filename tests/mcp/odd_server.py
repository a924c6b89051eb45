"""An MCP server written by hand, without an SDK: what it says is not always by the protocol."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

READS = {"readOnlyHint": True}
OBJECT = {"type": "object"}
NAMES = [
    "get-weather",
    "fs/read.file",
    "wait",
    "go",
    "fails",
    "denies",
    *os.environ.get("MORE", "").split(),
]
TOOLS: list[dict[str, Any]] = [
    {"name": name, "inputSchema": OBJECT, "annotations": READS} for name in NAMES
]
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS.append({"name": "lies", "inputSchema": OBJECT, "outputSchema": NUMBER, "annotations": READS})
if "PID_FILE" in os.environ:
    Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
    time.sleep(0.5)
if "NO_SCHEMA" in os.environ:
    TOOLS.append({"name": "bare", "inputSchema": {}})
TOKEN = os.environ.get("ODD_TOKEN", "")
GATE = Path(os.environ.get("GATE", "gate"))


def send(id: Any, **answer: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": id, **answer}) + "\n")
    sys.stdout.flush()


def call(id: Any, name: str) -> None:
    text: dict[str, Any] = {"content": [{"type": "text", "text": name}]}
    match name:
        case "wait":
            until = time.monotonic() + 20
            while not GATE.exists() and time.monotonic() < until:
                time.sleep(0.02)
        case "go":
            GATE.touch()
        case "lies":
            text["structuredContent"] = {"n": "seven"}
        case "denies":
            text |= {"isError": True, "content": [{"type": "text", "text": f"bad token {TOKEN}"}]}
        case "fails" if TOKEN:
            return send(id, error={"code": -32603, "message": f"bad token {TOKEN}"})
        case "fails":
            return send(id, error={"code": -32603, "message": "a fault inside"})
    return send(id, result=text)


for line in sys.stdin:
    message = json.loads(line)
    id, params = message.get("id"), message.get("params") or {}
    match message.get("method"):
        case "initialize":
            about = {"serverInfo": {"name": "odd", "version": "0"}, "capabilities": {"tools": {}}}
            send(id, result={"protocolVersion": params["protocolVersion"], **about})
        case "tools/list":
            send(id, result={"tools": TOOLS})
        case "tools/call":
            threading.Thread(target=call, args=(id, params["name"]), daemon=True).start()
        case _ if id is not None:
            send(id, error={"code": -32601, "message": "Method not found"})
