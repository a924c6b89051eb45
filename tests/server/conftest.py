"""What tests of whole runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import Planloom
from tests.support.tools import SOURCE


@pytest.fixture
def tools(planloom: Planloom, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of a worker that has the counting tools."""
    count = planloom.folder / "calls.txt"
    count.touch()
    monkeypatch.setenv("COUNT_FILE", str(count))
    return {"PLANLOOM_TOOLS": planloom.tools(SOURCE), "COUNT_FILE": str(count)}


@pytest.fixture
def calls(planloom: Planloom) -> Callable[[], list[str]]:
    """The calls so far, as `start NAME` and `end NAME` lines in order."""
    path: Path = planloom.folder / "calls.txt"
    return lambda: path.read_text().splitlines() if path.exists() else []
