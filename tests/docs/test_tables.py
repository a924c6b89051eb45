"""Every table is shown as one: GitHub and MkDocs take uneven rows as text, or cut them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import CHECKOUT, PAGES, name_of

CODE = re.compile(r"^```.*?^```", re.M | re.S)


@pytest.mark.parametrize("page", [*PAGES, CHECKOUT / "CHANGELOG.md"], ids=name_of)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page: Path) -> None:
    assert list(_uneven(page.read_text(encoding="utf-8"))) == []


def test_rows_of_unequal_length_are_found() -> None:
    """Every table of the settings' page had one cell too many below its head."""
    assert list(_uneven("\n| a | b |\n|---|---|---|\n| `x \\| y` | 2 |\n")) == ["|---|---|---|"]


def _uneven(text: str) -> Iterator[str]:
    text = CODE.sub("", text)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = table.splitlines()
        assert re.fullmatch(r"[|:\- ]+", rows[1]), f"no head: {rows[0]}"
        cells = {row: len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        yield from (row for row in rows if cells[row] != cells[rows[0]])
