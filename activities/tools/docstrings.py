"""What a docstring says about a tool: its text, and its parameters one by one."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(
    r"^(Args|Arguments|Parameters|Params|Returns?|Raises|Yields?|Examples?|Notes?)\s*:?\s*$"
)
_ARGUMENT_SECTIONS = ("Args", "Arguments", "Parameters", "Params")
_GOOGLE = re.compile(r"^(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r"^:param\s+(?:[\w\[\], .|]+\s+)?(\w+)\s*:\s*(.*)$")
_SPHINX_OTHER = re.compile(r"^:(returns?|rtype|raises?|type)\b.*:")


@dataclass(frozen=True)
class Docstring:
    text: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_docstring(docstring: str | None) -> Docstring:
    """The text before the first section, one line a paragraph, and each parameter's description.

    Reads Google's `Args:` and Sphinx's `:param name:`; other sections are left out.
    """
    if not docstring:
        return Docstring()
    text: list[str] = []
    parameters: dict[str, str] = {}
    section, current = "", ""
    for line in inspect.cleandoc(docstring).splitlines():
        bare = line.strip()
        if match := _SECTION.match(line):
            section, current = match[1], ""
        elif match := _SPHINX.match(bare):
            section, current = "Args", match[1]
            parameters[current] = match[2]
        elif _SPHINX_OTHER.match(bare):
            section, current = "other", ""
        elif not section:
            text.append(bare)
        elif section in _ARGUMENT_SECTIONS and bare:
            entry = _GOOGLE.match(bare)
            if entry and _is_entry_indent(line, current):
                current = entry[1]
                parameters[current] = entry[2]
            elif current:
                parameters[current] = f"{parameters[current]} {bare}".strip()
    paragraphs = re.split(r"\n{2,}", "\n".join(text).strip())
    return Docstring("\n".join(" ".join(p.split("\n")) for p in paragraphs), parameters)


def _is_entry_indent(line: str, current: str) -> bool:
    # A continuation line is indented deeper than its entry, and may hold a colon too.
    indent = len(line) - len(line.lstrip())
    return not current or indent <= 4
