"""Bugs that the simulator must find fit the machines still. `make simulate-planted` runs them."""

from __future__ import annotations

from pathlib import Path

from tests.simulation.bugs import BUGS
from tests.simulation.planted import fits

README = Path(__file__).with_name("README.md")


def test_every_planted_bug_fits_its_file() -> None:
    """Where it does not, give the bug the text that stands there now (see bugs.py)."""
    assert [b.name for b in BUGS if not fits(b)] == []


def test_every_planted_bug_is_in_the_table_of_the_readme() -> None:
    rows = [r.split("|")[1].strip() for r in README.read_text("utf-8").splitlines() if "|" in r]
    assert rows[2:] == [b.name for b in BUGS]
