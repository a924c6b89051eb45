"""A recogniser of llama.cpp's grammars (GBNF), small and slow: whether a text is in the language.

It reads what `json_schema_to_grammar` writes: rules, alternatives, groups, literals, character
classes, references, `?`, `*`, `+`, `{m,n}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<chars>\[(?:\\.|[^\]\\])*\])|'
    r"(?P<name>\w[\w-]*)|(?P<times>\{\d+(?:,\d*)?\})|(?P<sign>[()|?*+]))"
)


@dataclass(frozen=True)
class Node:
    kind: str
    text: str = ""
    parts: tuple[Node, ...] = ()
    least: int = 1
    most: int | None = 1


class Grammar:
    """`accepts` tells whether a whole text can be made from the rule `root`."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, Node] = {}
        for line in text.splitlines():
            if "::=" in line:
                name, body = line.split("::=", 1)
                tokens = [(m.lastgroup or "", m[0].strip()) for m in _TOKEN.finditer(body)]
                node, rest = _alternatives(tokens)
                assert not rest, f"{name}: cannot read {rest[:3]}"
                self._rules[name.strip()] = node

    def accepts(self, text: str) -> bool:
        @cache
        def ends(node: Node, at: int) -> frozenset[int]:
            match node.kind:
                case "text":
                    return frozenset(
                        [at + len(node.text)] if text.startswith(node.text, at) else []
                    )
                case "chars":
                    return frozenset([at + 1] if re.match(node.text, text[at : at + 1]) else [])
                case "name":
                    return ends(self._rules[node.text], at)
                case "or":
                    return frozenset(e for part in node.parts for e in ends(part, at))
                case "all":
                    reached = frozenset([at])
                    for part in node.parts:
                        reached = frozenset(e for r in reached for e in ends(part, r))
                    return reached
                case _:
                    return repeated(node, at)

        def repeated(node: Node, at: int) -> frozenset[int]:
            found: set[int] = {at} if node.least == 0 else set()
            reached, count = {at}, 0
            while reached and (node.most is None or count < node.most):
                count += 1
                following = {e for r in reached for e in ends(node.parts[0], r)}
                reached = following - found if count > node.least else following
                if count >= node.least:
                    found |= following
            return frozenset(found)

        return len(text) in ends(self._rules["root"], 0)


def _alternatives(tokens: list[tuple[str, str]]) -> tuple[Node, list[tuple[str, str]]]:
    options: list[Node] = []
    parts: list[Node] = []
    while tokens:
        kind, seen = tokens[0]
        if (kind, seen) == ("sign", ")"):
            break
        tokens = tokens[1:]
        if (kind, seen) == ("sign", "|"):
            options.append(Node("all", parts=tuple(parts)))
            parts = []
            continue
        if (kind, seen) == ("sign", "("):
            node, tokens = _alternatives(tokens)
            assert tokens, "a group is not closed"
            tokens = tokens[1:]
        else:
            node = _leaf(kind, seen)
        while tokens and (tokens[0][0] == "times" or tokens[0][1] in ("?", "*", "+")):
            node = _times(node, tokens[0][1])
            tokens = tokens[1:]
        parts.append(node)
    options.append(Node("all", parts=tuple(parts)))
    return (options[0] if len(options) == 1 else Node("or", parts=tuple(options))), tokens


def _leaf(kind: str, seen: str) -> Node:
    if kind == "text":
        return Node("text", seen[1:-1].encode().decode("unicode_escape"))
    assert kind in ("chars", "name"), f"cannot read {seen}"
    return Node(kind, seen)


def _times(node: Node, sign: str) -> Node:
    least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(sign, (0, None))
    if sign.startswith("{"):
        low, _, high = sign[1:-1].partition(",")
        least, most = int(low), (int(high) if high else None) if "," in sign else int(low)
    return Node("times", parts=(node,), least=least, most=most)
