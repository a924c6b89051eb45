"""The argument text of a call as values: Python's own grammar, literals and references only."""

from __future__ import annotations

import ast
import json
import keyword
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from planloom.planner.language.expressions import NUMBER_MAX_BITS
from planloom.planner.language.references import references_in
from planloom.planner.language.values import JsonValue, is_deeper

_TOKEN = re.compile(
    r"(?P<prefix>(?:[rR][bBfF]?|[bBfF][rR]?|[uU])(?=[\"']))?"
    r'(?P<string>"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\])*"|'
    r"'(?:\\.|[^'\\])*')"
    r"|(?P<reference>\$\{[^}\n]*\})|\$(?P<dollar>\w+)|(?P<comment>#[^\n]*)"
    r"|(?P<word>[^\W\d]\w*)(?P<equals>[ \t]*=(?!=))?|\d+|[ \t]+|\\.|.",  # no escaped quote is tried
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:(?P<known>[\\'\"abfnrtv\n0-7]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|"
    r"U0010[0-9a-fA-F]{4}|N\{[A-Z0-9 -]+\})|(?P<slash>/)|)"
)
_DOLLAR = "_dollar_"
_KEYWORD = "_kw_"
_CONSTANTS: dict[str, JsonValue] = {"true": True, "false": False, "null": None, "none": None}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NO_ARITHMETIC = "+ joins text and names only: leave arithmetic to a tool"
ARGUMENTS_MAX_DEPTH = 90
"""Below the 100 levels of a document: a task and its plan stand around the arguments."""
BEFORE_COMMENT = ",([{\"')]}\n"
"""After one of these, `#` begins a comment; elsewhere it may be text."""


class ArgumentError(ValueError):
    """An argument that is no literal and no reference."""


@dataclass(frozen=True, slots=True)
class NestedCall:
    """A call as a value: only a `_fallback` may be one."""

    tool: str
    positional: list[object]
    keywords: dict[str, object]


def parse_arguments(
    text: str, text_of: Callable[[str], str], *, is_numbered: bool = False
) -> tuple[list[object], dict[str, object]]:
    """Positional and keyword arguments. `text_of` maps a string literal to its final text.

    A bare name `a`, `a.b[0]` becomes `"${a.b[0]}"`; `$1` outside quotes becomes `"${1}"`. With
    `is_numbered` (LLMCompiler's text) a `#` inside unquoted text is no comment.

    Raises:
        SyntaxError: the text is no argument list.
        ArgumentError: a value is neither a literal nor a reference.
    """
    node = ast.parse(f"_({_python(text, is_numbered)}\n)", mode="eval").body
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ArgumentError("more than one bracket of arguments")
    return _call_parts(node, _Values(text_of))


def _call_parts(node: ast.Call, values: _Values) -> tuple[list[object], dict[str, object]]:
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise ArgumentError("* is not allowed")
    keywords: dict[str, object] = {}
    for keyword_node in node.keywords:
        name, value = keyword_node.arg, values.of(keyword_node.value)
        # `**{"a-b": 1}` writes what is no Python name.
        given = {name.removeprefix(_KEYWORD): value} if name is not None else value
        if not isinstance(given, dict):
            raise ArgumentError("** is allowed before an object only")
        if twice := [k for k in given if k in keywords]:
            raise ArgumentError(f'"{twice[0]}" is given twice')
        keywords |= given
    positional = [values.of(a) for a in node.args]
    if is_deeper([positional, keywords], ARGUMENTS_MAX_DEPTH + 2):  # type: ignore[list-item]
        raise ArgumentError(f"nested deeper than {ARGUMENTS_MAX_DEPTH} levels")
    return positional, keywords


def _python(text: str, is_numbered: bool) -> str:
    """The text as Python reads it.

    `$1` becomes a name, `${…}` a string; real newlines and stray backslashes in plain quotes are
    escaped; parameters named like Python's keywords (`from=`) are marked.
    """
    parts: list[str] = []
    before = "("
    for token in _TOKEN.finditer(text):
        seen = token[0]
        if token["string"]:
            seen = _string(token["prefix"] or "", token["string"])
        elif token["reference"]:
            inner = seen[2:-1].strip()
            is_name = re.fullmatch(r"\w+", inner)
            seen = _DOLLAR + inner if is_name else json.dumps(seen, ensure_ascii=False)
        elif token["dollar"]:
            seen = _DOLLAR + token["dollar"]
        elif token["comment"] and is_numbered and before not in BEFORE_COMMENT:
            seen = "$"  # no Python: the raw text is taken
        elif token["equals"] and keyword.iskeyword(token["word"]):
            seen = _KEYWORD + seen
        parts.append(seen)
        if not token[0].isspace() or "\n" in token[0]:
            before = token[0][-1]
    return "".join(parts)


def _string(prefix: str, literal: str) -> str:
    if "r" in prefix.lower():
        return prefix + literal
    if "\\" in literal:
        literal = _ESCAPE.sub(_escaped, literal)
    if literal[:3] not in ('"""', "'''"):
        literal = literal.replace("\\\n", "").replace("\n", "\\n")
    return prefix + literal


def _escaped(match: re.Match[str]) -> str:
    """An escape that Python knows as it is, `\\/` of JSON, any other backslash as itself."""
    if match["known"]:
        return match[0]
    return "/" if match["slash"] else "\\\\"


class _Values:
    """Turns syntax nodes into JSON values with `${…}` references."""

    def __init__(self, text_of: Callable[[str], str]) -> None:
        self._text_of = text_of

    def of(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(value=str() as text):
                return self._text_of(_whole(text))
            case ast.Constant(value=None | bool() | int() | float() as value):
                return _finite(value)
            case ast.UnaryOp(
                op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=value)
            ) if isinstance(value, int | float) and not isinstance(value, bool):
                return _finite(-value if isinstance(sign, ast.USub) else value)
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.of(item) for item in node.elts]
            case ast.Dict():
                return self._object(node)
            case ast.JoinedStr():
                return self._joined(node)
            case ast.BinOp(op=ast.Add()):
                return self._sum(node)
            case ast.Name(id=name) if name.lower() in _CONSTANTS:
                return _CONSTANTS[name.lower()]
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return "${" + self._path(node) + "}"
            case ast.Call(func=ast.Name(id=tool)):
                positional, keywords = _call_parts(node, self)
                return NestedCall(tool, positional, keywords)
            case _:
                raise ArgumentError(f'"{_shown(node)}" is neither a literal nor a name')

    def _object(self, node: ast.Dict) -> dict[str, object]:
        made: dict[str, object] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(
                key.value, str | int | float | None
            ):
                raise ArgumentError("keys must be plain text")
            name = _whole(key.value) if isinstance(key.value, str) else json.dumps(key.value)
            made[name] = self.of(value)
        return made

    def _path(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name.removeprefix(_DOLLAR)
            case ast.Attribute(value=value, attr=attr):
                return f"{self._path(value)}.{_key(attr)}"
            case ast.Subscript(value=value, slice=ast.Constant(value=str() as key)):
                return f"{self._path(value)}.{_key(key)}"
            case ast.Subscript(value=value, slice=ast.Slice() as part):
                ends = [part.lower, part.upper, *([part.step] if part.step else [])]
                written = ":".join("" if e is None else str(self._index(e)) for e in ends)
                return f"{self._path(value)}[{written}]"
            case ast.Subscript(value=value, slice=index):
                return f"{self._path(value)}[{self._index(index)}]"
            case _:
                raise ArgumentError(f'"{_shown(node)}" is no path of a name')

    def _index(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int() as index) if not isinstance(index, bool):
                return index
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as index)):
                return -index
            case _:
                raise ArgumentError(f'"{_shown(node)}" is no index: write a number or a text')

    def _joined(self, node: ast.JoinedStr) -> str:
        text = ""
        for part in node.values:
            if not isinstance(part, ast.FormattedValue):
                text += self._text(part)
                continue
            if part.format_spec is not None or part.conversion != -1:
                raise ArgumentError("formats in an f-string are not allowed")
            value = self._text(part.value)
            # f"${a}" means "${a}": read as text, its dollar would make the reference a literal.
            if value.startswith("${") and text.endswith("$"):
                text = text[:-1]
            text += value
        return text

    def _sum(self, node: ast.BinOp) -> str:
        """Text and names joined with `+`. Names alone would be arithmetic, which is refused."""
        parts: list[ast.expr] = []
        rest: ast.expr = node
        while isinstance(rest, ast.BinOp) and isinstance(rest.op, ast.Add):
            parts.append(rest.right)
            rest = rest.left
        parts = [rest, *reversed(parts)]
        if not any(_is_text(p) for p in parts) or any(_is_number(p) for p in parts):
            raise ArgumentError(_NO_ARITHMETIC)
        text = ""
        for part in parts:
            text = _concatenated(text, self._text(part))
        return text

    def _text(self, node: ast.expr) -> str:
        if isinstance(node, ast.Call) and _is_text(node):
            node = node.args[0]
        value = self.of(node)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise ArgumentError(_NO_ARITHMETIC)


def _is_text(node: ast.expr) -> bool:
    """A literal text, or `str(…)` of one thing."""
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.Call(func=ast.Name(id="str"), args=[_], keywords=[]):
            return True
        case _:
            return False


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, str)


def _concatenated(left: str, right: str) -> str:
    """Two texts as one. A `$` before a reference would make it literal, so it joins its path."""
    if left.endswith("$") and right.startswith("${"):
        first = references_in(right)[0].text
        rest = right[len(first) :]
        return f"{left[:-1]}{first[:-1]} | join('', ['$', to_string(@)])}}{rest}"
    return left + right


def _key(name: str) -> str:
    """One step of a JMESPath, quoted where it must be."""
    return name if _PLAIN_KEY.match(name) else json.dumps(_whole(name), ensure_ascii=False)


def _whole(text: str) -> str:
    """The text with halves of characters (`\\ud83d\\ude00`, as JSON writes them) put together."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ArgumentError("half of a character: a surrogate stands alone") from None


def _finite(value: JsonValue) -> JsonValue:
    is_endless = isinstance(value, float) and not math.isfinite(value)
    # As hexadecimal, Python reads numbers that it does not write.
    if is_endless or (isinstance(value, int) and value.bit_length() > NUMBER_MAX_BITS):
        raise ArgumentError("a number too large for JSON")
    return value


def _shown(node: ast.expr) -> str:
    return ast.unparse(node)[:60]
