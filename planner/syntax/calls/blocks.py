"""Statements of Python around calls: a plan has none, and what stands under one is not run. Pure.

`if a:` over an indented call says that the call may not be made; read without it, it always would.
"""

from __future__ import annotations

import ast
import re

from planloom.planner.syntax.calls.scan import CallText, Prose

BLOCK_HINT = (
    "A plan has no statements: write _when=… for a condition, _map=… for a list, _fallback=… for "
    "what is done instead."
)
_CHARS_MAX = 250
_BULLET = re.compile(r"(?:[-*•>+]|(?<!\d)\d{1,4}[.)])[ \t]+")
_ALONE = re.compile(r"(?:else|try|finally|except)[ \t]*:\Z")
_HEADER = re.compile(r"(?:if|elif|for|while|with|except|async (?:for|with))\b.*:\Z")


def opens_block(prose: Prose) -> bool:
    """Whether the line begins a statement under which other lines stand."""
    text = _BULLET.sub("", prose.text, count=1).rstrip()
    if len(text) > _CHARS_MAX:
        return False
    return bool(_ALONE.match(text)) or (bool(_HEADER.match(text)) and _is_python(text))


def stands_under(call: CallText, block: Prose) -> bool:
    return call.indent > block.indent


def _is_python(text: str) -> bool:
    """Words such as `for each of the cities:` are none."""
    if text.startswith("except"):
        text = f"try: pass\n{text}"
    elif text.startswith("async "):
        text = text.removeprefix("async ")
    try:
        ast.parse(f"{text.removeprefix('el')} pass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
