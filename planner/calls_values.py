"""The argument text of a call as values: Python's own grammar, literals and references only."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from planner.values import JsonValue

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|'
    r"\$\{\w+\}|\$\w+|#[^\n]*|.",
    re.DOTALL,
)
_DOLLAR = "_dollar_"
_CONSTANTS: dict[str, JsonValue] = {"true": True, "false": False, "null": None, "none": None}


class ArgumentError(ValueError):
    """An argument that is no literal and no reference."""


@dataclass(frozen=True, slots=True)
class NestedCall:
    """A call as a value: only a `_fallback` may be one."""

    tool: str
    positional: list[object]
    keywords: dict[str, object]


NameText = Callable[[str], str]


def parse_arguments(
    text: str, text_of: Callable[[str], str]
) -> tuple[list[object], dict[str, object]]:
    """Positional and keyword arguments. `text_of` maps a string literal to its final text.

    A bare name `a`, `a.b[0]` becomes `"${a.b[0]}"`; `$1` outside quotes becomes `"${1}"`.

    Raises:
        SyntaxError: the text is no argument list.
        ArgumentError: a value is neither a literal nor a reference.
    """
    node = ast.parse(f"_({_python(text)}\n)", mode="eval").body
    assert isinstance(node, ast.Call)
    return _call_parts(node, _Values(text_of))


def _call_parts(node: ast.Call, values: _Values) -> tuple[list[object], dict[str, object]]:
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise ArgumentError("* is not allowed")
    keywords: dict[str, object] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ArgumentError("** is not allowed")
        keywords[keyword.arg] = values.of(keyword.value)
    return [values.of(a) for a in node.args], keywords


def _python(text: str) -> str:
    """The text with `$1` as a name and real newlines in plain quotes escaped."""
    pieces: list[str] = []
    for token in _TOKEN.findall(text):
        if token[:3] in ('"""', "'''"):
            pieces.append(token)
        elif token[0] in "\"'" and len(token) > 1:
            pieces.append(token.replace("\n", "\\n"))
        elif token.startswith("$") and len(token) > 1:
            pieces.append(_DOLLAR + token.strip("${}"))
        else:
            pieces.append(token)
    return "".join(pieces)


class _Values:
    """Turns syntax nodes into JSON values with `${…}` references."""

    def __init__(self, text_of: Callable[[str], str]) -> None:
        self._text_of = text_of

    def of(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(value=str() as text):
                return self._text_of(text)
            case ast.Constant(value=None | bool() | int() | float() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.of(item) for item in node.elts]
            case ast.Dict():
                return self._object(node)
            case ast.JoinedStr():
                return "".join(self._piece(part) for part in node.values)
            case ast.BinOp(op=ast.Add()):
                left, right = self.of(node.left), self.of(node.right)
                if not isinstance(left, str) or not isinstance(right, str):
                    raise ArgumentError("+ joins text and names only: leave arithmetic to a tool")
                return left + right
            case ast.Name(id=name) if name.lower() in _CONSTANTS:
                return _CONSTANTS[name.lower()]
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return "${" + self._path(node) + "}"
            case ast.Call(func=ast.Name(id=tool)):
                positional, keywords = _call_parts(node, self)
                return NestedCall(tool, positional, keywords)
            case _:
                raise ArgumentError(f'"{ast.unparse(node)[:60]}" is neither a literal nor a name')

    def _object(self, node: ast.Dict) -> dict[str, object]:
        made: dict[str, object] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant):
                raise ArgumentError("keys must be plain text")
            made[str(key.value)] = self.of(value)
        return made

    def _path(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name.removeprefix(_DOLLAR)
            case ast.Attribute(value=value, attr=attr):
                return f"{self._path(value)}.{attr}"
            case ast.Subscript(value=value, slice=ast.Constant(value=int() as index)):
                return f"{self._path(value)}[{index}]"
            case ast.Subscript(value=value, slice=ast.Constant(value=str() as key)):
                plain = key if key.isidentifier() else '"' + key.replace('"', '\\"') + '"'
                return f"{self._path(value)}.{plain}"
            case _:
                raise ArgumentError(f'"{ast.unparse(node)[:60]}" is no path of a name')

    def _piece(self, part: ast.expr) -> str:
        if isinstance(part, ast.FormattedValue):
            if part.format_spec is not None or part.conversion != -1:
                raise ArgumentError("formats in an f-string are not allowed")
            return self._text(part.value)
        return self._text(part)

    def _text(self, node: ast.expr) -> str:
        value = self.of(node)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float | bool):
            return str(value)
        raise ArgumentError("only text and names can be joined with +")
