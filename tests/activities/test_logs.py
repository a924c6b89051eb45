"""Log lines carry run, task and revision, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from temporalio.testing import ActivityEnvironment

from planloom.activities.telemetry.logs import setup_logging, task_of
from planloom.planner.contract.jobs import ToolJob


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_line_in_an_activity_has_its_run_and_task(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging({"PLANLOOM_LOG": "json"})
    ActivityEnvironment().run(logging.getLogger("my.tool").warning, "hello %s", "you")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "my.tool",
        "message": "hello you",
        "run": "test",
        "task": "test",
    }


def test_a_line_of_a_workflow_has_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging({"PLANLOOM_LOG": "json"})
    extra = {"temporal_workflow": {"workflow_id": "trip"}}
    logging.getLogger("temporalio.workflow").warning("late", extra=extra)
    assert json.loads(capsys.readouterr().err)["run"] == "trip"


def test_text_says_what_is_known_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging({})
    logging.getLogger("planloom.worker").warning("outside")
    ActivityEnvironment().run(logging.getLogger("my.tool").warning, "inside")
    outside, inside = capsys.readouterr().err.splitlines()
    assert outside.endswith("WARNING planloom.worker: outside")
    assert inside.endswith("WARNING my.tool test/test: inside")


def test_an_error_keeps_its_traceback_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging({"PLANLOOM_LOG": "json"})
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("my.tool").exception("failed")
    assert "ValueError: wrong" in json.loads(capsys.readouterr().err)["error"]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_no_message_acts_on_a_terminal_or_looks_like_another_line(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A tool's own words in a log: colours, the clipboard, a forged line, half a character."""
    setup_logging({"PLANLOOM_LOG": kind})
    forged = "2026-01-01 00:00:00,000 INFO planloom.worker: all is well"
    said = f"\x1b]52;c;eA==\x07 \x9b2J \u202egpj \ud83d\n{forged}"
    logging.getLogger("my.tool").warning(said)
    told = capsys.readouterr().err
    told.encode()
    assert not set("\x1b\x07\x9b") & set(told)
    assert not any(line.startswith("2026-01-01 00:00:00,000") for line in told.splitlines())


def test_an_unknown_level_is_said_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging({"PLANLOOM_LOG_LEVEL": "loud"})
    assert 'no level "LOUD"' in capsys.readouterr().err
    assert logging.getLogger().level == logging.WARNING


def test_a_local_activity_goes_by_its_tasks_name() -> None:
    info = ActivityEnvironment.default_info()
    assert task_of(info, ToolJob(task="a", tool="t")) == "test"
    assert task_of(replace(info, is_local=True), ToolJob(task="a", tool="t")) == "a"


def test_what_somebody_cancelled_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The SDK logs a cancelled tool as a failure, with forty lines of where it stood."""

    def told(environment: dict[str, str]) -> str:
        setup_logging(environment)
        try:
            raise asyncio.CancelledError("Activity cancelled")
        except asyncio.CancelledError:
            logger = logging.getLogger("temporalio.activity")
            logger.warning("Completing activity as failed", exc_info=True)
        return capsys.readouterr().err

    assert told({}) == ""
    assert told({"PLANLOOM_LOG_LEVEL": "info"}).endswith("INFO temporalio.activity: cancelled\n")
