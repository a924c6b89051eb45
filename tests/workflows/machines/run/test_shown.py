"""What a run shows beside its states, and what kind of refusal a control gets."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.names import INVALID_REQUEST, STALE
from planloom.workflows.machines.run.view import details, open_waits, progress_of, tasks_document
from planloom.workflows.machines.shared.commands import Refuse
from tests.support.run_driver import Drive, plan, work


def begun(*tasks: dict[str, Any], **request: Any) -> Drive:
    drive = Drive(plan=plan(*tasks), **request)
    drive.begin()
    return drive


@pytest.mark.parametrize(
    ("name", "payload", "kind"),
    [
        ("complete_task", {"id": "nobody", "output": 1}, INVALID_REQUEST),
        ("complete_task", {"id": "ask", "output": "no number"}, INVALID_REQUEST),
        ("complete_task", {"id": "b", "output": 1}, STALE),
        ("approve_task", {"id": "nobody"}, INVALID_REQUEST),
        ("raise_budget", {}, INVALID_REQUEST),
        ("request_replan", {"feedback": "again"}, INVALID_REQUEST),
        ("approve_plan", {"revision": 1}, STALE),
    ],
)
def test_stale_names_only_what_came_too_late(name: str, payload: dict[str, Any], kind: str) -> None:
    """Every refusal of `complete_task` was called stale, also a wrong id and a wrong value."""
    human = {"id": "ask", "human": {"question": "how many?", "schema": {"type": "integer"}}}
    drive = begun(human, work("b"))
    refused = drive.control(name, **payload)
    assert isinstance(refused, Refuse)
    assert (name, refused.type) == (name, kind)


def test_progress_has_the_seconds_of_what_runs_and_each_wait_its_answer() -> None:
    drive = begun(work("a"), {"id": "ask", "human": "which?"})
    drive.now += 2.5
    shown = progress_of(drive.run, drive.now)
    assert shown.running_seconds["a"] == pytest.approx(2.5)
    [wait] = open_waits(drive.run, drive.now)
    assert (wait.update, wait.input["id"]) == ("complete_task", "ask")
    tasks = tasks_document(drive.run, drive.now)
    assert (tasks["a"]["state"], tasks["a"]["outcome"]) == ("running", None)
    assert tasks["a"]["times"]["started"] is not None


def test_current_details_show_the_graph_as_text_and_the_command_of_each_wait() -> None:
    """They showed mermaid source, and no command."""
    drive = begun({"id": "ask", "human": "which?"}, work("b", "${ask}"))
    page = details(drive.run, drive.now)
    assert "mermaid" not in page
    assert "--name complete_task" in page
    assert "· b: " in page
    assert "<- ask" in page
