"""Workflow code is the same in every process: checked by reading it, as no sandbox runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.determinism import faults

CHECKOUT = Path(__file__).resolve().parents[1]
CLOCK = CHECKOUT / "workflows" / "shell" / "query_clock.py"
"""Queries may look at the clock: they change nothing, and are never replayed."""
FILES = sorted([*(CHECKOUT / "workflows").rglob("*.py"), *(CHECKOUT / "planner").rglob("*.py")])
FILES.remove(CLOCK)


def test_the_clock_of_queries_looks_only_where_nothing_is_replayed() -> None:
    assert faults(CLOCK.read_text(encoding="utf-8")) == ["line 5: import time"]
    text = CLOCK.read_text(encoding="utf-8")
    assert "time.time() if workflow.unsafe.is_read_only() else workflow.time()" in text
    users = [p.name for p in FILES if "query_clock" in p.read_text(encoding="utf-8")]
    assert users == ["agent.py", "dag.py", "team.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_workflow_code_reads_no_clock_chance_or_world(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "breach",
    [
        "import time",
        "from random import choice",
        "import os.path",
        "from urllib.request import urlopen",
        "x = datetime.now()",
        "x = datetime.datetime.now()",
        "x = open('a')",
        "x = hash('a')",
        "async def f(): await asyncio.wait(x)",
        "for x in {1, 2}: pass",
        "x = [y for y in set(z)]",
        "x = list({1} | z)",
        "x = ', '.join({y for y in z})",
        "x = [*set(z)]",
    ],
)
def test_a_breach_is_found(breach: str) -> None:
    assert len(faults(breach)) == 1


@pytest.mark.parametrize(
    "allowed",
    [
        "for x in sorted({1, 2}): pass",
        "x = len({1, 2})",
        "x = 1 in {1, 2}",
        "from datetime import datetime",
        "from urllib.parse import urlsplit",
        "x = workflow.now()",
    ],
)
def test_what_is_the_same_everywhere_is_no_breach(allowed: str) -> None:
    assert faults(allowed) == []
