"""`python -m benchmarks.page [JSON …]`: write their figures into the docs page on benchmarks.

Later files replace parts of earlier ones. Everything between the two markers of the page is made
here; nothing there is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import PARTS
from benchmarks.report import CHECKOUT, in_words, notes_of, read, row

PAGE = CHECKOUT / "docs" / "explanation" / "benchmarks.md"
BEGIN, END = "<!-- figures: made by `make bench-page` -->", "<!-- end of figures -->"
HEAD = "| measure | must be | median | spread | |\n|---|---|---|---|---|"


def section(name: str, part: dict[str, Any]) -> str:
    """One part of the page."""
    before, after = part["load_average"]
    lines = [
        f"### {name}",
        f"Size {part['size']}, {part['at']}, {part['seconds']:.0f} s, load average {before} before "
        f"and {after} after.",
    ]
    if part["figures"]:
        rows = ["| " + " | ".join(row(each)) + " |" for each in part["figures"]]
        lines.append("\n".join([HEAD, *rows]))
    if part["error"]:
        lines.append(f"This part did not come to its end: `{part['error']}`")
    lines += [f"- {note}" for note in notes_of(part["figures"])]
    return "\n\n".join(lines)


def figures_of(parts: dict[str, dict[str, Any]]) -> str:
    """All figures, in the order of the parts, and the machines that they were measured on."""
    ordered = [name for name in PARTS if name in parts]
    where = dict.fromkeys(in_words(p["machine"], p["versions"]) for p in parts.values())
    told = "\n".join(f"- {each}" for each in where)
    return "\n\n".join([f"Measured on:\n\n{told}", *(section(n, parts[n]) for n in ordered)])


def filled(page: str, figures: str) -> str:
    """The page with these figures between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def main(files: Sequence[str]) -> None:
    parts: dict[str, dict[str, Any]] = {}
    for file in files or [str(CHECKOUT / "build" / "bench-full.json")]:
        parts |= read(Path(file))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), figures_of(parts)), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
