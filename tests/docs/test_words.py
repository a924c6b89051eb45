"""Plain English: words and forms that stop a native reader (CONTRIBUTING.md, Docs)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import CHECKOUT, PAGES, name_of, prose_of

NOUNS = (
    "JSON|number|plan|list|duration|part|tool|member|task|body|schema|value|object|text|id|name|"
    "valid|function|file|map|model|answer|reference"
)
OUT_OF_USE = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"dear(er|est)?": "expensive",
    r"gone without": "say what happens instead",
    r"but for": "except",
    r"ours": "Planloom's",
    r"of (its|their|one's) own": "its own …",
    r"for ever": "forever",
    r"set-up": "setup",
    r"time-outs?": "timeout",
    r"the two ends": "the beginning and end",
    r"asks nothing": "has not asked",
    r"stands already": "exists already",
    rf"(?<![Tt]here )(is|are) no ({NOUNS})": "is not a …",
    r"(?<![Tt]here )is none": "is not one",
    r"one (trace|task|item|queue|line) a (run|pool|line|queue|task)": "per",
    r"half as much again": "by 50 %",
}
RULE = re.compile("|".join(rf"\b{form}\b" for form in OUT_OF_USE))
ROOMS = ("planner", "workflows", "activities", "console", "planloom", "docs/generator", "examples")


@pytest.mark.parametrize("page", [*PAGES, CHECKOUT / "CHANGELOG.md"], ids=name_of)
def test_a_page_is_in_plain_english(page: Path) -> None:
    prose = re.sub(r"\]\([^)]*\)", "]", prose_of(page.read_text(encoding="utf-8")))
    assert list(_found(prose)) == []


@pytest.mark.parametrize("room", ROOMS)
def test_messages_help_and_docstrings_are_in_plain_english(room: str) -> None:
    found = []
    for path in sorted((CHECKOUT / room).rglob("*.py")):
        if any(parent.is_symlink() for parent in path.parents):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                found += [f"{name_of(path)}:{node.lineno + n} {w}" for n, w in _found(node.value)]
    assert found == []


def test_the_list_finds_what_it_is_for() -> None:
    assert [w for _, w in _found("a queue of its own\nis no JSON. There is none.")] == [
        "of its own",
        "is no JSON",
    ]


def _found(text: str) -> Iterator[tuple[int, str]]:
    """Line (from 0) and words of each offence."""
    for match in RULE.finditer(text):
        yield text.count("\n", 0, match.start()), match[0]
