"""Recorded histories replay: a change that breaks one would break runs that are in progress."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from planloom import worker
from planloom.workflows.shell.converter import data_converter

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_every_kind_of_run_is_recorded() -> None:
    from tests.record_histories import SCENARIOS

    assert {p.stem.split(".")[0] for p in HISTORIES} >= set(SCENARIOS)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda p: p.stem)
async def test_history_replays(path: Path) -> None:
    replayer = Replayer(
        workflows=worker.WORKFLOWS,
        data_converter=data_converter(),
        workflow_runner=worker.RUNNER,
    )
    document = json.loads(path.read_text())
    started = document["events"][0]["workflowExecutionStartedEventAttributes"]
    # Ids of children are made from the run's own id.
    await replayer.replay_workflow(WorkflowHistory.from_json(started["workflowId"], document))
