"""The pages and their code blocks.

A block that no test runs has a comment on the line before its fence: `<!-- not run: why -->`.
Where a page's commands need a worker, `<!-- worker -->` stands before the block that starts it.
`<!-- first: PAGE -->` anywhere: the commands of that page come before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted(DOCS.rglob("*.md")),
]
GENERATED = "<!-- Written by `make docs`; do not edit. -->"
BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    note: str = ""

    @property
    def why_not_run(self) -> str:
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""

    @property
    def starts_worker(self) -> bool:
        return self.note == "worker"

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["text"],
            match["note"] or "",
        )
        for match in BLOCK.finditer(text)
    ]


def all_blocks(language: str) -> list[Block]:
    """The blocks of a language that are to be run or checked."""
    return [
        block
        for page in PAGES
        for block in blocks_of(page)
        if block.language == language and not block.why_not_run
    ]


def is_generated(page: Path) -> bool:
    return page.read_text(encoding="utf-8").startswith(GENERATED)


def prose_of(text: str) -> str:
    """A page without its code blocks and comments, lines kept."""
    without = BLOCK.sub(lambda m: "\n" * m[0].count("\n"), text)
    return re.sub(r"<!--.*?-->", "", without, flags=re.S)
