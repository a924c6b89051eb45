"""What workflow code must not do, found by reading it: clock, chance, the world, order by hash.

Temporal's sandbox would stop a part of this at run time, and hang the run on it; it lets pass what
differs most quietly between two processes: `hash`, `id`, and the order of a set.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = {
    *("time", "random", "secrets", "uuid", "os", "sys", "socket", "ssl", "select", "selectors"),
    *("threading", "multiprocessing", "concurrent", "subprocess", "signal", "tempfile", "shutil"),
    *("io", "glob", "sqlite3", "urllib", "http", "logging", "locale", "getpass", "platform"),
}
CALLS = {
    *("open", "input", "print", "hash", "id", "eval", "exec", "compile", "__import__", "globals"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("asyncio.wait", "asyncio.as_completed", "asyncio.to_thread", "asyncio.run", "asyncio.gather"),
    *("asyncio.get_event_loop", "asyncio.get_running_loop", "asyncio.TaskGroup"),
}
ORDERED = {"list", "tuple", "iter", "enumerate", "next", "dict.fromkeys", "join", "map", "zip"}
"""What keeps the order of what it is given."""


def faults(source: str) -> list[str]:
    """Each fault as `line N: what`."""
    return [f"line {line}: {what}" for line, what in _faults(ast.parse(source))]


def _faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.split(".")[0] in MODULES:
                        yield node.lineno, f"import {alias.name}"
            case ast.ImportFrom(module="urllib.parse"):
                pass  # text in, text out
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield node.lineno, f"from {module} import"
            case ast.Call(func=func, args=args):
                name = _name(func)
                if name in CALLS:
                    yield node.lineno, f"{name}()"
                if name in ORDERED or name.split(".")[-1] == "join":
                    yield from ((a.lineno, f"{name}() of a set") for a in args if _is_set(a))
            case ast.For(iter=walked) | ast.comprehension(iter=walked) if _is_set(walked):
                yield walked.lineno, "a walk over a set"
            case ast.Starred(value=value) if _is_set(value):
                yield node.lineno, "a set unpacked in order"


def _is_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=func):
            return _name(func) in ("set", "frozenset")
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() | ast.Sub(), right=right):
            return _is_set(left) or _is_set(right)
        case _:
            return False


def _name(func: ast.expr) -> str:
    """The last two names of what is called: `datetime.now` of `datetime.datetime.now`."""
    match func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=owner, attr=attr):
            return f"{_name(owner).split('.')[-1]}.{attr}"
        case _:
            return ""
