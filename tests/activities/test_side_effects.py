"""Side effects over several workers: who shares a store acts once, who does not never guesses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from planloom.activities.run_tool import ToolActivities, nothing_done_of
from planloom.activities.storage.backends import Backend, BlobError, open_backend
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.tools.call import ToolCallError
from planloom.activities.tools.decorator import Check, ToolError, tool
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.planner.contract.jobs import TaskOutput, ToolJob
from planloom.planner.language.values import Outcome
from tests.support.s3 import s3

JOB = ToolJob(task="t", tool="send", key="run/t", args={"to": "a"})
sent: list[str] = []


class Died(BaseException):
    """Stands for the end of the process: nothing that comes after is done."""


def worker(shared: Backend, data: Path, ending: str = "", check: Check | None = None) -> ToolRunner:
    """A worker with a disk of its own; `ending` is what its tool does after it acted."""

    @tool(name="send", side_effects=True, check=check)
    async def send(to: str) -> str:
        if ending == "refuses":
            raise ToolError("too many requests", retry_after=1.0)
        sent.append(to)
        if ending == "dies":
            raise Died
        return f"sent to {to}"

    return ToolRunner(
        ToolRegistry([send]),
        BlobStore(data / "blobs"),
        workspace=data,
        claims=ClaimStore(shared.within("claims")),
    )


@pytest.fixture(params=["folder", "s3"])
def shared(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    sent.clear()
    if request.param == "folder":
        yield open_backend(tmp_path / "shared")
        return
    with s3(monkeypatch):
        yield open_backend("s3://bucket/runs")


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "two"


async def test_two_workers_with_a_shared_store_act_once(
    shared: Backend, disks: tuple[Path, Path]
) -> None:
    first = await worker(shared, disks[0]).call(JOB)
    again = await worker(shared, disks[1]).call(JOB, attempt=2)
    assert sent == ["a"]
    assert again.output == first.output
    assert "on record" in again.note


async def test_a_claim_is_seen_by_a_worker_with_another_data_folder(
    shared: Backend, disks: tuple[Path, Path]
) -> None:
    """Claims lay in the data folder: the second worker saw none, and acted again."""
    with pytest.raises(Died):
        await worker(shared, disks[0], "dies").call(JOB)
    again = await worker(shared, disks[1]).call(JOB, attempt=2)
    assert again.outcome is Outcome.UNKNOWN
    assert "left no result" in again.note
    assert sent == ["a"]


async def test_without_a_shared_store_a_second_attempt_is_unknown_and_never_acts(
    disks: tuple[Path, Path],
) -> None:
    sent.clear()
    one, two = (open_backend(disk / "blobs") for disk in disks)
    with pytest.raises(Died):
        await worker(one, disks[0], "dies").call(JOB)
    for attempt in (2, 3):
        again = await worker(two, disks[1]).call(JOB, attempt=attempt)
        assert again.outcome is Outcome.UNKNOWN
        assert "whether it acted is not known" in again.note
    assert sent == ["a"]


@pytest.mark.parametrize(("found", "acts"), [("found it", 1), (None, 2)])
async def test_without_a_shared_store_the_check_is_asked(
    disks: tuple[Path, Path], found: Any, acts: int
) -> None:
    sent.clear()
    one, two = (open_backend(disk / "blobs") for disk in disks)
    with pytest.raises(Died):
        await worker(one, disks[0], "dies").call(JOB)
    again = await worker(two, disks[1], check=lambda context, args: found).call(JOB, attempt=2)
    assert again.outcome is Outcome.SUCCEEDED
    assert again.output.value == (found or "sent to a")
    assert len(sent) == acts


async def test_a_tool_that_refuses_may_be_tried_again_by_any_worker(
    shared: Backend, disks: tuple[Path, Path]
) -> None:
    for attempt, disk in ((1, disks[0]), (2, disks[1])):
        with pytest.raises(ToolCallError, match="too many") as caught:
            await worker(shared, disk, "refuses").call(JOB, attempt=attempt)
        assert (caught.value.retry, caught.value.nothing_done) == (True, True)
    output = await worker(shared, disks[0]).call(JOB, attempt=3)
    assert output.outcome is Outcome.SUCCEEDED
    assert sent == ["a"]


async def test_of_two_attempts_whose_checks_found_nothing_one_acts(
    shared: Backend, disks: tuple[Path, Path]
) -> None:
    """A second attempt and a third that overlaps: both asked before either acted."""
    with pytest.raises(Died):
        await worker(shared, disks[0], "dies").call(JOB)
    sent.clear()
    other: list[TaskOutput] = []

    async def check(context: Any, args: Any) -> None:
        if not other:
            rival = worker(shared, disks[0], check=lambda context, args: None)
            other.append(await rival.call(JOB, attempt=2))

    output = await worker(shared, disks[1], check=check).call(JOB, attempt=3)
    assert sent == ["a"]
    assert other[0].outcome is Outcome.SUCCEEDED
    assert output.output == other[0].output  # the rival's result was on record by then


async def test_a_claim_store_that_is_down_leaves_the_act_to_a_retry(
    shared: Backend, disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = worker(shared, disks[0])

    def down(*_: Any, **__: Any) -> None:
        raise BlobError("store is down")

    with monkeypatch.context() as patch:
        patch.setattr(ClaimStore, "claim", down)
        with pytest.raises(ToolCallError, match="store is down") as caught:
            await runner.call(JOB)
        assert (caught.value.retry, caught.value.nothing_done) == (True, True)
        with pytest.raises(ToolCallError) as caught:
            await runner.call(JOB, attempt=3, nothing_done=1)  # the second was lost
        assert not caught.value.nothing_done
    assert (await runner.call(JOB, attempt=2, nothing_done=1)).outcome is Outcome.SUCCEEDED
    assert sent == ["a"]


# In an activity: what a retry carries


def environment(*heartbeat: Any, attempt: int) -> tuple[ActivityEnvironment, list[Any]]:
    env, beats = ActivityEnvironment(), []
    env.info = dataclasses.replace(env.info, attempt=attempt, heartbeat_details=list(heartbeat))
    env.on_heartbeat = lambda *details: beats.append(list(details))
    return env, beats


async def test_that_nothing_was_done_travels_with_the_retry(disks: tuple[Path, Path]) -> None:
    """Also to a worker that shares nothing: a 429 must not make an act unknown."""
    sent.clear()
    one, two = (open_backend(disk / "blobs") for disk in disks)
    env, beats = environment(attempt=1)
    with pytest.raises(ApplicationError, match="too many"):
        await env.run(ToolActivities(worker(one, disks[0], "refuses")).run_tool, JOB)
    assert beats[-1] == [{"nothing_done": 1}]
    env, _ = environment(*beats[-1], attempt=2)
    output = await env.run(ToolActivities(worker(two, disks[1])).run_tool, JOB)
    assert output.outcome is Outcome.SUCCEEDED
    # An attempt that said so once does not speak for a later one that was lost.
    env, _ = environment(*beats[-1], attempt=3)
    lost = await env.run(
        ToolActivities(worker(open_backend(disks[0] / "third"), disks[0])).run_tool, JOB
    )
    assert lost.outcome is Outcome.UNKNOWN
    assert sent == ["a"]


async def test_an_act_that_failed_midway_says_nothing_of_that_kind(
    disks: tuple[Path, Path],
) -> None:
    @tool(name="send", side_effects=True, check=lambda context, args: None)
    async def send(to: str) -> str:
        raise ConnectionError("line cut")

    runner = ToolRunner(
        ToolRegistry([send]),
        BlobStore(disks[0] / "blobs"),
        workspace=disks[0],
        claims=ClaimStore(disks[0] / "claims"),
    )
    env, beats = environment(attempt=1)
    with pytest.raises(ApplicationError, match="line cut") as caught:
        await env.run(ToolActivities(runner).run_tool, JOB)
    assert not caught.value.non_retryable  # its check will be asked
    assert all(beat == [] for beat in beats)


@pytest.mark.parametrize(
    "details",
    [
        [],
        [None],
        ["x"],
        [{}],
        [{"nothing_done": "1"}],
        [{"nothing_done": True}],
        [{"nothing_done": -1}],
    ],
)
def test_heartbeat_details_of_another_kind_prove_nothing(details: list[Any]) -> None:
    assert nothing_done_of(details) == 0


def test_a_side_effect_never_runs_as_a_local_activity() -> None:
    """A local activity that lost its worker starts again as attempt 1, as if nothing had been."""

    @tool(side_effects=True, local=True)
    def once() -> None: ...

    @tool(side_effects=True, local=True, idempotent=True)
    def often() -> None: ...

    assert (once.spec.local, often.spec.local) == (False, True)
