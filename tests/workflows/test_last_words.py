"""What a run says at its end reaches whoever asked for it, also while it is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio import workflow

from planloom.workflows.shell.shell import Shell


@pytest.mark.parametrize("asked", ["before", "meanwhile", "never"])
async def test_a_child_that_is_asked_while_it_tells_its_end_reports_it_too(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chaos run 200029: the parent went on as another run then, and waited for a minute."""
    reported: list[str] = []
    tells = [1]

    async def report(ended: str) -> None:
        reported.append(ended)
        tells.append(2)

    async def wait_condition(_: Any) -> None:
        tells.clear()
        shell.reports = asked != "never"

    shell = SimpleNamespace(
        reports=asked == "before", _tells=tells, _jobs={}, _report=report,
        _publish=lambda: None, _let_go_now=lambda: 0,
    )  # fmt: skip
    monkeypatch.setattr(workflow, "wait_condition", wait_condition)
    await Shell._leave(cast(Any, shell), "done")
    assert reported == ([] if asked == "never" else ["done"])
    assert not tells
