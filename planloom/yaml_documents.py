"""YAML as people write it: where each part stands, and none of YAML 1.1's surprises.

`NO` and `on` stay texts, `12:30:00` is not a number, `2024-01-01` not a date, a key written
twice is an error. Plans and templates are read by it, by the command line and by workers alike.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

NUMBERS_WARNED_MAX = 20
DEPTH_MAX = 100
COPIED_MAX = 1_000_000
"""What aliases may stand for, in characters and values."""
INT_MAX_BITS = 14_284
"""4,300 digits, as everywhere: readers of JSON take no longer number."""
_JSON_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_BARE_REFERENCE = re.compile(r"[:,\[{]\s*\$\{|^\s*-\s*\$\{")
_TIGHT_DASH = re.compile(r"^\s*-[A-Za-z_]\w*\s*:")
_COLON_INSIDE = re.compile(r"[\w\"']\s*:\s+[^\"'\[{|>#&*!].*:(\s|$)")
_CURLY_QUOTES = tuple("“”„‘’«")
_SIGNS = {"*": ("alias",), "&": ("an anchor",), "!": ("tag",), "@": ("'@'",), "%": ("'%'",)}
"""Signs that mean something to YAML, and how its errors about each read."""
_LIKE_A_VERSION = re.compile(r"[-+]?(\d+\.\d*0|0\d+)")
_INT = re.compile(r"[-+]?(?:0|[1-9]\d*|0\d+)$")
_FLOAT = re.compile(r"[-+]?(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?$|[-+]?\d+[eE][-+]?\d+$")


class DocumentError(Exception):
    """A text that is no document: `line` (from 1) and a hint where one is known."""

    def __init__(self, message: str, line: int | None = None, hint: str = "") -> None:
        self.message, self.line, self.hint = message, line, hint
        super().__init__(f"line {line}: {message}" if line else message)


@dataclass(slots=True)
class Document:
    """A document's value; `warnings` says which plain words may not be what was meant."""

    value: Any
    warnings: list[str] = field(default_factory=list)
    _root: yaml.Node | None = None

    def line_of(self, path: str) -> int | None:
        """The line (from 1) of the deepest part of `path` that the document has."""
        node, rest, line = self._root, path, None
        while node is not None and rest:
            found = _part(node, rest)
            if found is None:
                break
            node, rest, line = found
        return line

    def number_at(self, path: str) -> str:
        """The number at `path` as it was written, such as `3.10`; empty for anything else."""
        node, rest = self._root, path
        while node is not None and rest:
            found = _part(node, rest)
            if found is None:
                return ""
            node, rest, _ = found
        is_number = isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))
        return str(node.value) if node is not None and is_number else ""


def _is_json_number(value: float) -> bool:
    """Whether readers of JSON take it: in YAML `.inf` and `0xfff…` are numbers too."""
    if isinstance(value, int):
        return value.bit_length() <= INT_MAX_BITS
    return math.isfinite(value)


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's own rules, for files of others: forty lines of aliases do not stand for 2^40 values,
    no value is inside itself, what is not what its tag says is an error like others, and keys are
    texts.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._composed = self._copied = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise ComposerError(None, None, "a value is inside itself", event.start_mark)
            self._count(self._sizes.get(event.anchor, 0), event)
            return super().compose_node(parent, index)
        before = self._composed + self._copied
        self._composed += 1 + len(getattr(event, "value", ""))
        self._depth += 1
        if self._depth > DEPTH_MAX:
            message = f"is nested deeper than {DEPTH_MAX} levels"
            raise ComposerError(None, None, message, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._composed + self._copied - before
        return node

    def _count(self, size: int, event: Any) -> None:
        self._copied += size
        if self._copied > COPIED_MAX:
            message = f"its aliases stand for more than {COPIED_MAX:,} characters"
            raise ComposerError(None, None, message, event.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int | float) and not _is_json_number(value):
                raise ValueError
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            message = f"this is no {node.tag.rpartition(':')[2][:40]}"
            raise ConstructorError(None, None, message, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"  # names of fields are texts, as in JSON
        return super().construct_mapping(node, deep)


class _Loader(BoundedLoader):
    """Scalars by the rules of YAML 1.2's core schema; no key twice, and nothing but JSON."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own registry
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: made
        for tag, made in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _JSON_TAGS
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    message = f'the key "{key.value}" is here and in line {seen[key.value]}'
                    raise DocumentError(message, line, "Keep one of them.")
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN\0")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])
_resolve("int", _INT.pattern, "-+0123456789")
_resolve("float", _FLOAT.pattern, "-+0123456789.")
_resolve("merge", r"^(?:<<)$", "<")


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # 010 is ten, as it reads


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def read_document_text(text: str) -> Document:
    """A YAML or JSON text as a document.

    Raises:
        DocumentError: it is neither, or has a key twice in one object.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            return Document(json.loads(text, object_pairs_hook=_once), [], _composed(text))
        except json.JSONDecodeError as error:
            if not _is_flow_yaml(text):
                message = f"is not valid JSON: {error.msg} (column {error.colno})"
                hint = _quote_hint(text, error.lineno) or _json_hint(error)
                raise DocumentError(message, error.lineno, hint) from None
        except (RecursionError, ValueError) as error:
            raise DocumentError(str(error)) from None
    return _read_yaml(text)


def _read_yaml(text: str) -> Document:
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        value = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        message = error.problem or error.context or "cannot be read"
        hint = _quote_hint(text, line) or _hint_for(error, text, line)
        if "another document" in message:
            message = "a second document begins here"
        raise DocumentError(message, line, hint) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise DocumentError(str(error).split("\n")[0][:200]) from None
    finally:
        if loader is not None:
            loader.dispose()
    return Document(value, _warnings(root), root)


def _is_flow_yaml(text: str) -> bool:
    """Whether a text that begins like JSON is YAML in braces: its first key has no quotes."""
    return re.match(r'\s*[\[{]\s*[^\s"\[{\]}]', text) is not None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key "{key}" stands twice in one object')
        found[key] = value
    return found


def _composed(text: str) -> yaml.Node | None:
    """Where the parts of a JSON text stand; None where it is too odd for YAML."""
    try:
        return yaml.compose(text, _Loader)
    except (yaml.YAMLError, RecursionError):
        return None


def _quote_hint(text: str, line: int | None) -> str:
    """The commonest slip: a reference without quotes inside braces or brackets."""
    lines = text.splitlines()
    near = lines[max(0, (line or 1) - 2) : line or 1]
    if any(_BARE_REFERENCE.search(each) for each in near):
        return 'A reference inside {…} or […] needs quotes: write "${a}", with the quotes.'
    if any("\t" in each[: len(each) - len(each.lstrip())] for each in near):
        return "Indent with spaces, not with tabs."
    return ""


def _json_hint(error: json.JSONDecodeError) -> str:
    before, rest = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if rest.startswith(("True", "False", "None")):
        return "JSON's words are true, false and null."
    if rest.startswith("'"):
        return "JSON strings are in \", not in '."
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments."
    if before.endswith(",") and rest.startswith(("}", "]")):
        return f"Remove the comma before {rest[0]}."
    return "" if rest else "The text ends before its last bracket is closed."


def _hint_for(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str:
    """What to do about an error of the YAML reader, for the slips that people make."""
    told, doing = error.problem or "", error.context or ""
    began = error.context_mark.line + 1 if error.context_mark is not None else None
    lines = text.splitlines()
    near = lines[max(0, (line or 1) - 2) : line or 1]
    if "another document" in told:
        return "One file holds one document: remove the line with ---."
    if any(_TIGHT_DASH.match(each) for each in near):
        return 'A list item needs a space after its dash: "- id: …".'
    if "mapping values" in told and near and _COLON_INSIDE.search(near[-1]):
        return 'A text that holds ": " needs quotes.'
    if "quoted scalar" in doing:
        return f"The quote that opens in line {began} is not closed."
    if "flow" in doing:
        if any(each.lstrip().startswith(("//", "/*")) for each in lines):
            return "JSON has no comments."
        return f"Is the bracket that opens in line {began} closed, and a comma between its items?"
    for sign, sounds in _SIGNS.items():
        if any(sound in f"{doing} {told}" for sound in sounds):
            return f"A text that begins with {sign} needs quotes."
    if "found '<scalar>'" in told and near and near[-1].count("'") > 2:
        return "Inside '…' an apostrophe is written twice, or use \"…\"."
    if "block" in doing or "simple key" in doing or "mapping values" in told:
        return "Fields of one object begin in the same column, each as `name: value`."
    return ""


def _warnings(root: yaml.Node | None) -> list[str]:
    """Plain words that may not be what was meant: `3.10`, `007`, and quotes that are none."""
    found: list[str] = []
    stack, seen = [root], set[int]()
    while stack and len(found) < NUMBERS_WARNED_MAX:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            stack.extend(value for _, value in reversed(node.value))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(reversed(node.value))
        elif isinstance(node, yaml.ScalarNode) and node.style is None:
            is_number = node.tag.endswith((":int", ":float"))
            if is_number and _LIKE_A_VERSION.fullmatch(node.value):
                number = float(node.value) if "." in node.value else int(node.value)
                found.append(
                    f"line {node.start_mark.line + 1}: {node.value} is read as the number "
                    f'{number:g}; for the text write "{node.value}"'
                )
            elif node.value.startswith(_CURLY_QUOTES):
                found.append(
                    f"line {node.start_mark.line + 1}: {node.value[0]} is part of the text; "
                    "the quotes of YAML are \" and '"
                )
    return found


def _part(node: yaml.Node, path: str) -> tuple[yaml.Node, str, int] | None:
    """The part of a node that `path` begins with, what is left of the path, and its line."""
    if isinstance(node, yaml.MappingNode):
        # An id may hold dots: the longest key that fits.
        fitting = [
            (key, value)
            for key, value in node.value
            if isinstance(key, yaml.ScalarNode) and _begins(path, key.value)
        ]
        if fitting:
            key, value = max(fitting, key=lambda pair: len(pair[0].value))
            return value, path[len(key.value) :].lstrip("."), key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        if index := re.match(r"\[(\d+)\]\.?", path):
            n = int(index[1])
            if n < len(node.value):
                item = node.value[n]
                return item, path[index.end() :], item.start_mark.line + 1
            return None
        named = [(_id_of(item), item) for item in node.value]
        fits = [(id, item) for id, item in named if id and _begins(path, id)]
        if fits:
            id, item = max(fits, key=lambda pair: len(pair[0]))
            return item, path[len(id) :].lstrip("."), item.start_mark.line + 1
    return None


def _begins(path: str, name: str) -> bool:
    return path == name or path.startswith((f"{name}.", f"{name}["))


def _id_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "id" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
    return ""
