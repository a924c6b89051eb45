"""Tool calls that a model wrote as calls of functions: `[look(q="x")]`, `print(look(q="x"))`. Pure.

So write models of the Llama, Gemma and Liquid families. A text counts when it consists of nothing
but such calls; what their arguments hold is literals.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection

from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.tool_calls import called_name

TEXT_MAX_CHARS = 20_000
_AROUND = re.compile(
    r"<[|｜][^<>\n]{0,60}[|｜]>|</?tool_calls?>|\[/?TOOL_CALLS?\]|```[\w-]{0,20}", re.IGNORECASE
)


Call = tuple[str, dict[str, JsonValue]]


def function_calls(text: str, tools: Collection[str]) -> list[Call] | None:
    """The calls that the whole text is, by name with their arguments; None when it is something
    else. Empty: they are calls of tools, but the names or values of arguments are not known.
    """
    bare = _AROUND.sub("\n", text).strip()
    if len(bare) > TEXT_MAX_CHARS or not bare.endswith((")", "]", ";")) or "(" not in bare:
        return None
    try:
        lines = ast.parse(bare).body
        nodes = [node for line in lines for node in _calls_in(line)]
        names = [_name_of(node, tools) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not names or None in names:
        return None
    try:
        return [
            (name, _arguments_of(node)) for name, node in zip(names, nodes, strict=True) if name
        ]
    except (ValueError, TypeError, RecursionError, MemoryError):
        return []


def _calls_in(line: ast.stmt) -> list[ast.expr]:
    """The calls of a line.

    Raises:
        ValueError: it is another statement.
    """
    if not isinstance(line, ast.Expr):
        raise ValueError("a statement")
    value = line.value
    if isinstance(value, ast.Await):
        value = value.value
    if (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == "print"
    ):
        return value.args
    return value.elts if isinstance(value, ast.List | ast.Tuple) else [value]


def _name_of(node: ast.expr, tools: Collection[str]) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    written = ast.unparse(node.func)
    return called_name(written, tools) or called_name(written.removesuffix(".call"), tools)


def _arguments_of(node: ast.expr) -> dict[str, JsonValue]:
    """The arguments by name.

    Raises:
        ValueError: one has no name, or is no literal that JSON knows.
    """
    assert isinstance(node, ast.Call)
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("an argument without a name")
    args = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    found: dict[str, JsonValue] = json.loads(json.dumps(args, allow_nan=False))
    return found
