"""LLMCompiler's own text: `1. search("…")`, `$1` in strings, `join()` or its paper's `finish()`.

Source: Kim et al., "An LLM Compiler for Parallel Function Calling", arXiv 2312.04511, and its code.
"""

from __future__ import annotations

import re
from collections.abc import Callable

JOINS = ("join", "finish")
_DOLLARS = re.compile(r"\$(\$(?=\w)|\$\{|\{\w+\}|\w+)")


def with_references(text: str, is_known: Callable[[str], bool], warn: Callable[[str], None]) -> str:
    """`$1` as `${1}`.

    A bare `$n` in a longer string that names no task is literal text, with a warning; `${n}`, or a
    string that is wholly `$n`, is a reference in any case. `$$1` is a literal `$1`.
    """

    def written(match: re.Match[str]) -> str:
        inner = match[1]
        if inner == "$":
            return "$"
        if inner == "${":
            return match[0]
        name = inner.strip("{}")
        is_whole, is_braced = match[0] == text.strip(), inner.startswith("{")
        if is_whole or is_braced or is_known(name):
            return f"${{{name}}}"
        warn(f'"{match[0]}" names no task; kept as text')
        return match[0]

    return _DOLLARS.sub(written, text) if "$" in text else text
