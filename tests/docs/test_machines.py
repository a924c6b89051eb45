"""The page of the machines: simulated runs make no move that it does not show."""

from __future__ import annotations

import re
from typing import Any

import pytest

from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.team import machine as team_machine
from tests.docs.pages import DOCS
from tests.simulation.cases import random_case
from tests.simulation.runner import run_case

CASES = 150


def shown_moves(machine: str) -> set[tuple[str, str]]:
    """The pairs of states in the table of a machine."""
    page = (DOCS / "reference" / "machines.md").read_text(encoding="utf-8")
    table = page.partition(f"## States: {machine}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    return {(state, to) for state, leads in rows for to in re.findall(r"`(\w+)`", leads)}


@pytest.mark.timeout(600)
def test_no_simulated_run_makes_a_move_that_the_page_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, set[tuple[str, str]]] = {"run": set(), "team": set()}
    for name, machine in (("run", run_machine), ("team", team_machine)):
        _watch(monkeypatch, machine, seen[name])
    for seed in range(CASES):
        run_case(random_case(seed))
    for name, moves in seen.items():
        assert moves - shown_moves(name) == set(), name
    assert len(seen["run"]) > 15
    assert len(seen["team"]) > 8


def _watch(patch: pytest.MonkeyPatch, machine: Any, seen: set[tuple[str, str]]) -> None:
    step = machine.step

    def watched(state: Any, event: Any, now: float) -> Any:
        before = state.stage.value
        commands = step(state, event, now)
        if state.stage.value != before:
            seen.add((before, state.stage.value))
        return commands

    patch.setattr(machine, "step", watched)
