"""The activity of a group: real tools, walked in order, bounded in time, resumed after a crash."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from planloom.activities import run_group
from planloom.activities.run_group import GroupActivities, reply_before
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.tools.decorator import ToolError, tool
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.planner.contract.groups import GroupJob, GroupReply, UnitEnd
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Stored, TaskId

calls: list[str] = []


@tool(local=True)
async def add(a: int, b: int = 1) -> int:
    calls.append(f"add {a} {b}")
    return a + b


@tool(local=True)
def blocking(name: str) -> str:
    calls.append(name)
    return name


@tool(local=True)
async def fail(how: str) -> str:
    match how:
        case "retry":
            raise ToolError("busy", retry=True)
        case "later":
            raise ToolError("busy", retry_after=7.5)
    raise ToolError("no such thing")


@tool(local=True)
async def hang() -> str:
    try:
        await asyncio.sleep(60)
    finally:
        calls.append("called off")
    return "never"


@tool(local=True)
async def big(n: int) -> str:
    return "x" * n


@pytest.fixture
def runner(tmp_path: Path) -> ToolRunner:
    calls.clear()
    registry = ToolRegistry([add, blocking, fail, hang, big])
    return ToolRunner(registry, BlobStore(tmp_path / "blobs"), workspace=tmp_path)


def task(id: str, called: str, /, **more: Any) -> Task:
    fields = {k: more.pop(k) for k in ("retry", "timeout", "when", "fallback") if k in more}
    return Task.model_validate({"id": id, "tool": called, "args": more, **fields})


async def run(
    runner: ToolRunner, *tasks: Task, details: list[Any] | None = None, **more: Any
) -> GroupReply:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, heartbeat_details=details or [])
    job = GroupJob(tasks=list(tasks), **{"parallel": 4, **more})
    return await environment.run(GroupActivities(runner).run_group, job)


def told(reply: GroupReply) -> dict[str, Any]:
    return {
        e.task: e.output.output.value if e.output else (e.failed and e.failed.message, e.alone_in)
        for e in reply.ends
    }


async def test_a_graph_runs_in_its_own_order(runner: ToolRunner) -> None:
    reply = await run(
        runner,
        task("a", "add", a=1),
        task("b", "add", a="${a}", b=10),
        task("c", "blocking", name="x"),
        task("d", "add", a="${b}", b="${a}"),
    )
    assert told(reply) == {"a": 2, "b": 12, "c": "x", "d": 14}
    ended = {e.task: e for e in reply.ends}
    assert ended[TaskId("a")].ended <= ended[TaskId("b")].began
    assert ended[TaskId("d")].ended <= reply.seconds


async def test_a_failure_is_its_own(runner: ToolRunner) -> None:
    reply = await run(
        runner,
        task("bad", "fail", how="x"),
        task("again", "fail", how="retry"),
        task("later", "fail", how="later"),
        task("once", "fail", how="retry", retry={"max_attempts": 1}),
        task("wrong", "add", a="not a number"),
        task("lost", "add", a="${good.nothing.here}"),
        task("good", "add", a=1),
    )
    found = told(reply)
    assert found["good"] == 2
    assert found["bad"] == ('tool "fail": no such thing', None)
    assert found["again"] == ('tool "fail": busy', 1.0)
    assert found["later"] == ('tool "fail": busy', 7.5)
    assert found["once"] == ('tool "fail": busy', None)
    assert "needs a whole number" in found["wrong"][0]


async def test_a_condition_is_looked_at_where_blobs_can_be_read(runner: ToolRunner) -> None:
    reply = await run(
        runner,
        task("a", "big", n=5_000),
        task("b", "add", a=1, when="length(${a}) > `4000`"),
        task("c", "add", a=1, when="length(${a}) > `9000`"),
        task("d", "add", a=1, when="length(${b}) > `1`"),
    )
    ends = {e.task: e for e in reply.ends}
    assert ends[TaskId("a")].output is not None
    assert ends[TaskId("a")].output.output.blob is not None
    assert told(reply)["b"] == 2
    assert (ends[TaskId("c")].output, ends[TaskId("c")].failed) == (None, None)
    failed = ends[TaskId("d")].failed
    assert failed is not None
    assert (failed.has_begun, failed.message[:5]) == (False, "when:")


async def test_one_that_hangs_is_called_off_and_the_rest_is_told(
    runner: ToolRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_group, "PATIENCE_SECONDS", 0.3)
    reply = await run(runner, task("a", "add", a=1), task("h", "hang"), task("b", "add", a="${h}"))
    assert told(reply) == {"a": 2, "h": (None, 0.0)}
    assert calls == ["add 1 1", "called off"]


async def test_nothing_starts_once_the_group_has_taken_its_time(
    runner: ToolRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_group, "STARTING_SECONDS", -1.0)
    assert (await run(runner, task("a", "add", a=1))).ends == []


async def test_a_reply_does_not_outgrow_a_payload(
    runner: ToolRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_group, "REPLY_MAX_BYTES", 4_000)
    tasks = [task(f"t{n}", "big", n=1_500) for n in range(9)]
    assert len((await run(runner, *tasks, parallel=1)).ends) == 3


async def test_a_task_is_held_to_its_timeout(runner: ToolRunner) -> None:
    reply = await run(runner, task("h", "hang", timeout=0.1, retry={"max_attempts": 1}))
    (end,) = reply.ends
    assert end.failed is not None
    assert end.failed.error_class == "timeout"


async def test_a_second_attempt_repeats_nothing_that_was_told(runner: ToolRunner) -> None:
    before = GroupReply(
        ends=[
            UnitEnd(
                task=TaskId("a"), output=TaskOutput(output=Stored(value=41)), began=1.0, ended=1.5
            )
        ],
        seconds=2.0,
    )
    details = [before.model_dump(exclude_unset=True)]
    reply = await run(runner, task("a", "add", a=1), task("b", "add", a="${a}"), details=details)
    assert told(reply) == {"a": 41, "b": 42}
    assert calls == ["add 41 1"]
    assert reply.ends[0].ended == 0.0  # the clock of another attempt


def test_details_of_another_version_are_not_used() -> None:
    assert reply_before([{"something": "else"}]) is None
    assert reply_before([]) is None


async def test_the_newest_ends_are_in_the_heartbeat(
    runner: ToolRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_group, "PATIENCE_SECONDS", 1.4)
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details[0])
    job = GroupJob(tasks=[task("a", "add", a=1), task("h", "hang")], parallel=2)
    await environment.run(GroupActivities(runner).run_group, job)
    assert [e["task"] for e in beats[0]["ends"]] == ["a"]
    assert reply_before([beats[0]]) is not None
