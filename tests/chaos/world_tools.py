"""The tools of chaos runs, loaded by the workers. Each execution is told to the kit over a socket
and waits for its word, so the record outlives the worker, and a worker can be killed in the act.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from typing import Any

from planloom import ToolContext, ToolError, tool

LARGE_BYTES = 20_000


def _told(what: str, name: str, context: ToolContext, args: Any) -> str:
    """Tell the kit; its answer is one word."""
    host, _, port = os.environ["CHAOS_LEDGER"].rpartition(":")
    entry = {
        "what": what,
        "tool": name,
        "run": context.run_id,
        "task": context.task,
        "key": context.key,
        "attempt": context.attempt,
        "args": json.dumps(args, sort_keys=True, default=str)[:2000],
        "pid": os.getpid(),
    }
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(json.dumps(entry).encode() + b"\n")
        return connection.makefile().readline().strip()


def _number(name: str, args: Any) -> int:
    text = json.dumps([name, args], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _work(name: str, context: ToolContext, **args: Any) -> dict[str, Any]:
    """The same arguments give the same result, or the same failure."""
    number = _number(name, args)
    if _told("start", name, context, args) == "later":
        raise ToolError("not now", retry=True)
    time.sleep((0.0, 0.0, 0.05, 0.2, 0.6)[number % 5])
    if number % 11 == 0:
        raise ToolError(f"{name} cannot do this")
    return _result(number)


def _result(number: int) -> dict[str, Any]:
    """Now and then a value that is too large for history."""
    made: dict[str, Any] = {
        "value": number % 10,
        "ok": number % 3 > 0,
        "items": [number % 4, number % 7][: number % 3],
    }
    if number % 4 == 0:
        made["text"] = f"{number} " * (LARGE_BYTES // 8)
    return made


def _act(name: str, context: ToolContext, **args: Any) -> dict[str, Any]:
    """What must not be done twice: it is done when the kit has heard of it."""
    number = _number(name, args)
    if _told("start", name, context, args) == "later":
        raise ToolError("not now", retry=True)
    _told("act", name, context, args)
    time.sleep((0.0, 0.1)[number % 2])
    return _result(number)


def _was_done(context: ToolContext, args: dict[str, Any]) -> dict[str, Any] | None:
    given = {"key": args.get("key"), "more": args.get("more")}
    is_done = _told("look", "sign", context, given) == "done"
    return _result(_number("sign", given)) if is_done else None


@tool
def work(context: ToolContext, key: Any, more: Any = None) -> dict[str, Any]:
    """Work something out."""
    return _work("work", context, key=key, more=more)


@tool
def search(context: ToolContext, query: Any, more: Any = None) -> dict[str, Any]:
    """Search for something."""
    return _work("search", context, query=query, more=more)


@tool(local=True)
def calc(expression: Any) -> dict[str, Any]:
    """Compute something, in a moment."""
    return _result(_number("calc", expression))


@tool(cost=0.01)
def pay(context: ToolContext, key: Any) -> dict[str, Any]:
    """Work that has a price."""
    return _work("pay", context, key=key)


@tool(timeout=60)
def slow(context: ToolContext, key: Any) -> dict[str, Any]:
    """Work that takes its time."""
    if _told("start", "slow", context, key) == "later":
        raise ToolError("not now", retry=True)
    time.sleep(2.0)
    return _result(_number("slow", key))


@tool(pool="backup")
def elsewhere(context: ToolContext, key: Any) -> dict[str, Any]:
    """Work that another pool does."""
    return _work("elsewhere", context, key=key)


@tool(side_effects=True, idempotent=True)
def put(context: ToolContext, key: Any, more: Any = None) -> dict[str, Any]:
    """Act; twice is as good as once."""
    return _act("put", context, key=key, more=more)


@tool(side_effects=True)
def post(context: ToolContext, key: Any, more: Any = None) -> dict[str, Any]:
    """Act; never twice."""
    return _act("post", context, key=key, more=more)


@tool(side_effects=True, check=_was_done)
def sign(context: ToolContext, key: Any, more: Any = None) -> dict[str, Any]:
    """Act; never twice, and whether it acted can be looked up."""
    return _act("sign", context, key=key, more=more)
