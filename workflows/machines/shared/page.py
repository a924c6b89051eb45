"""Current details of a workflow, as the Web UI shows them: a page of Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from planloom.planner.contract.results import OpenWait
from planloom.planner.language.clean_text import in_its_order

GOAL_MAX_CHARS = 300
DETAILS_MAX_CHARS = 19_000
"""Details are at most 20,000 bytes."""
ROWS_MAX = 40
WAITS_MAX = 5
FENCE = "```"
CELL_MAX_CHARS = 80
EM_SPACE = "\u2003"


def markdown_page(
    title: str,
    head: str,
    waits: Sequence[OpenWait],
    columns: Sequence[str] = (),
    rows: Sequence[tuple[str, ...]] = (),
) -> str:
    """Current details of any workflow: what it is to do, how it stands, what it waits for, a table.

    The Web UI draws tables without room between their columns, so each cell brings its own.
    """
    lines = [f"### {_one_line(title)}", ""] if title else []
    lines.append(head)
    for wait in waits[:WAITS_MAX]:
        lines.append(f"\nWaiting for {wait.kind}: {_one_line(wait.what)}")
        lines += ["", FENCE, in_its_order(wait.command.replace(FENCE, "")), FENCE]
    if rows:
        lines += ["", _table_row(columns), "|" + "---|" * len(columns)]
        lines += [_table_row(row) for row in rows[:ROWS_MAX]]
    if len(rows) > ROWS_MAX:
        lines.append(_table_row((f"… and {len(rows) - ROWS_MAX} more", *[""] * (len(columns) - 1))))
    return "\n".join(lines)[:DETAILS_MAX_CHARS]


def _table_row(cells: Sequence[str]) -> str:
    told = (plain(" ".join(c.split())[:CELL_MAX_CHARS].replace("|", "/")) for c in cells)
    return "| " + " | ".join(f"{c}{EM_SPACE}" for c in told) + " |"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return plain(line if len(line) <= GOAL_MAX_CHARS else line[: GOAL_MAX_CHARS - 1] + "…")


def plain(text: str) -> str:
    """Text as Markdown that shows it. What tasks and models say may hold HTML, images and links,
    and a page that loads a picture tells somebody that it was looked at."""
    text = in_its_order(text)
    for mark in ("\\", "<", "`", "]("):
        text = text.replace(mark, mark[:-1] + "\\" + mark[-1])
    return text
