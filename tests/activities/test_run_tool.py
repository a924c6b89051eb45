"""One tool call: bound, checked, cached or claimed, run, stored; without and within an activity."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from planloom.activities.run_tool import ToolActivities
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import ResultCache
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.storage.patience import Patience
from planloom.activities.tools.builtin import builtin_registry
from planloom.activities.tools.call import ToolCallError
from planloom.activities.tools.decorator import ToolContext, ToolError, tool
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.activities.tools.times import ToolTimes
from planloom.planner.contract.jobs import ToolJob
from planloom.planner.language.values import Bindings, Outcome, Stored, Usage
from tests.support.waiting import until

calls: list[Any] = []


class Box(BaseModel):
    n: int


@tool(cost=0.001)
def double(n: int) -> int:
    """Twice the number."""
    calls.append(n)
    return 2 * n


@tool
async def wait(seconds: float) -> str:
    calls.append("began")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        calls.append("cancelled")
        raise
    return "slept"


@tool(timeout=0.1)
def hang(context: ToolContext) -> str:
    while not context.is_cancelled:
        time.sleep(0.01)
    calls.append("stopped by itself")
    return "late"


@tool
def fail(kind: str) -> Any:
    match kind:
        case "tool":
            raise ToolError("no such page")
        case "retry":
            raise ToolError("busy", retry=True)
        case "later":
            raise ToolError("busy", retry_after=7.5)
        case "zero":
            return 1 / 0
        case "timeout":
            raise TimeoutError("socket timed out")
        case "nan":
            return {"rows": [float("nan")]}
        case "odd":
            return object()
        case "bytes":
            return b"\xff\xfe"
        case _:
            raise StopIteration("odd")


@tool
def shapes(kind: str) -> Any:
    import datetime

    return {
        "model": Box(n=1),
        "set": {3},
        "tuple": (1, [2]),
        "date": datetime.date(2020, 1, 2),
        "path": Path("a/b"),
        "none": None,
        "keys": {1: "a"},
    }[kind]


@tool
def whoami(context: ToolContext) -> dict[str, Any]:
    return {
        "key": context.key,
        "task": context.task,
        "run": context.run_id,
        "tenant": context.tenant,
        "thread": threading.current_thread() is threading.main_thread(),
    }


@dataclasses.dataclass
class House:
    """A runner over a temporary folder, with the tools above and any others."""

    root: Path
    registry: ToolRegistry

    @property
    def runner(self) -> ToolRunner:
        """A new one each time: what it knows must be on disk."""
        blobs = BlobStore(self.root / "blobs", patience=Patience(0.0, 0.0))
        return ToolRunner(
            self.registry,
            blobs,
            workspace=self.root,
            cache=ResultCache(blobs, self.root / "locks"),
            claims=ClaimStore(self.root / "claims"),
        )

    async def call(self, name: str, attempt: int = 1, **given: Any) -> Any:
        job = ToolJob(task="t", tool=name, **{"key": "run/t/1", **given})
        return await self.runner.call(job, attempt=attempt, run_id="trip")


@pytest.fixture
def house(tmp_path: Path) -> House:
    calls.clear()
    registry = builtin_registry()
    for each in (double, wait, hang, fail, shapes, whoami):
        registry.register(each)
    return House(tmp_path, registry)


async def test_references_are_bound_and_the_result_is_stored(house: House) -> None:
    bindings = Bindings(inputs={"a": Stored(value={"n": 21})})
    output = await house.call("double", args={"n": "${a.n}"}, bindings=bindings)
    assert output.output == Stored(value=42, size_bytes=2)
    assert output.outcome is Outcome.SUCCEEDED
    assert output.usage == Usage(tool_calls=1, usd_nano=1_000_000)


async def test_a_tool_outside_the_runs_allow_list_is_refused_where_it_would_run(
    house: House,
) -> None:
    """The workflow checks it too; a plan that came past that check must still not run it."""
    allowed = await house.call("double", args={"n": 1}, allow=["double"])
    assert allowed.output.value == 2
    with pytest.raises(ToolCallError) as caught:
        await house.call("double", args={"n": 2}, allow=["calculate"])
    assert caught.value.message == 'tool "double" is not allowed here. Allowed: calculate'
    assert not caught.value.retry
    assert calls == [1]


async def test_a_built_in_tool_runs(house: House) -> None:
    bindings = Bindings(inputs={"fr": Stored(value={"v": 68}), "es": Stored(value={"v": 48})})
    args = {"expression": "${fr.v} / ${es.v}"}
    output = await house.call("calculate", args=args, bindings=bindings)
    assert output.output.value == 68 / 48
    with pytest.raises(ToolCallError) as caught:
        await house.call("calculate", args={"expression": "1 / 0"})
    assert caught.value.message == 'tool "calculate": division by zero'


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("model", {"n": 1}),
        ("set", [3]),
        ("tuple", [1, [2]]),
        ("date", "2020-01-02"),
        ("path", "a/b"),
        ("none", None),
        ("keys", {"1": "a"}),
    ],
)
async def test_results_become_json(house: House, kind: str, value: Any) -> None:
    assert (await house.call("shapes", args={"kind": kind})).output.value == value


@pytest.mark.parametrize(
    ("name", "args", "said", "error_class", "retry"),
    [
        ("double", {}, 'tool "double": argument "n" is missing', "tool", False),
        (
            "double",
            {"n": "x", "m": 1},
            'there is no argument "m". Arguments: "n".',
            "tool",
            False,
        ),
        ("dubble", {}, 'Did you mean "double"?', "tool", False),
        ("double", {"n": "${nowhere}"}, "nowhere", "tool", False),
        ("fail", {"kind": "tool"}, 'tool "fail": no such page', "tool", False),
        ("fail", {"kind": "retry"}, "busy", "tool", True),
        ("fail", {"kind": "zero"}, "ZeroDivisionError: division by zero", "tool", True),
        ("fail", {"kind": "timeout"}, "socket timed out", "timeout", True),
        ("fail", {"kind": "nan"}, "rows[0] is nan", "tool", False),
        ("fail", {"kind": "odd"}, "type object has no JSON form", "tool", False),
        ("fail", {"kind": "bytes"}, "cannot travel as JSON", "tool", False),
        ("fail", {"kind": "stop"}, "StopIteration", "tool", True),
        ("hang", {}, "longer than its timeout of 0.1 s", "timeout", True),
    ],
)
async def test_a_call_that_fails_says_what_where_and_whether_again(
    house: House, name: str, args: Any, said: str, error_class: str, retry: bool
) -> None:
    with pytest.raises(ToolCallError) as caught:
        await house.call(name, args=args)
    assert said in caught.value.message
    assert (caught.value.error_class, caught.value.retry) == (error_class, retry)


async def test_a_sync_tool_out_of_time_is_told_to_stop(house: House) -> None:
    with pytest.raises(ToolCallError):
        await house.call("hang")
    await until(lambda: "stopped by itself" in calls)


async def test_a_sync_tool_does_not_hold_up_the_loop(house: House) -> None:
    others = threading.Barrier(4)

    @tool
    def meet() -> None:
        others.wait(60)  # one after the other they would never meet

    house.registry.register(meet)
    await asyncio.gather(*(house.call("meet") for _ in range(28)))


async def test_the_context_tells_a_tool_of_its_call(house: House) -> None:
    output = await house.call("whoami", tenant="acme")
    assert output.output.value == {
        "key": "run/t/1",
        "task": "t",
        "run": "trip",
        "tenant": "acme",
        "thread": False,
    }


async def test_an_equal_call_is_answered_from_the_cache(house: House) -> None:
    first = await house.call("double", args={"n": 1}, cache="shared")
    again = await house.call("double", args={"n": 1}, cache="shared")
    assert calls == [1]
    assert (first.outcome, again.outcome) == (Outcome.SUCCEEDED, Outcome.CACHED)
    assert again.output == first.output
    assert again.usage == Usage(cache_hits=1)
    assert again.saved_usd_nano == 1_000_000
    await house.call("double", args={"n": 1}, cache="off")
    await house.call("double", args={"n": 1}, cache="run", cache_scope="other")
    await house.call("double", args={"n": 1}, cache="shared", tenant="other")
    assert len(calls) == 4


async def test_a_file_that_changed_is_read_again(house: House) -> None:
    (house.root / "a.txt").write_text("old")
    job: dict[str, Any] = {"args": {"path": "a.txt"}, "cache": "shared"}
    assert (await house.call("read_file", **job)).output.value == "old"
    (house.root / "a.txt").write_text("newer")
    assert (await house.call("read_file", **job)).output.value == "newer"
    assert (await house.call("read_file", **job)).outcome is Outcome.CACHED


def _send(check: Any = None, idempotent: bool | None = None) -> Any:
    @tool(name="send", side_effects=True, check=check, idempotent=idempotent)
    async def send(to: str, mode: str = "ok") -> str:
        calls.append(to)
        match mode:
            case "refuse":
                raise ToolError("not accepted", retry=True)
            case "crash":
                raise ConnectionError("line cut")
            case "slow":
                await asyncio.sleep(60)
        return f"sent to {to}"

    return send


async def test_a_side_effect_is_never_cached_but_its_result_is_returned_again(
    house: House,
) -> None:
    house.registry.register(_send())
    first = await house.call("send", args={"to": "a"}, cache="shared")
    again = await house.call("send", args={"to": "a"}, cache="shared", attempt=2)
    assert calls == ["a"]
    assert again.output == first.output
    assert "earlier attempt" in again.note
    other = await house.call("send", args={"to": "a"}, cache="shared", key="run/t/2")
    assert other.outcome is Outcome.SUCCEEDED
    assert calls == ["a", "a"]


async def _interrupted(house: House, mode: str = "slow") -> None:
    """An attempt that is cut off between its claim and its result."""
    attempt = asyncio.create_task(house.call("send", args={"to": "a", "mode": mode}))
    await until(lambda: bool(calls))
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)


async def test_a_claim_without_a_result_ends_unknown(house: House) -> None:
    house.registry.register(_send())
    await _interrupted(house)
    output = await house.call("send", args={"to": "a", "mode": "slow"}, attempt=2)
    assert output.outcome is Outcome.UNKNOWN
    assert "whether it acted is not known" in output.note
    assert "cancelled while it acted" in output.note
    assert calls == ["a"]


@pytest.mark.parametrize(
    ("found", "outcome", "value", "acts"),
    [("sent before", Outcome.SUCCEEDED, "sent before", 1), (None, Outcome.SUCCEEDED, None, 2)],
)
async def test_a_check_tells_whether_a_claimed_act_was_done(
    house: House, found: Any, outcome: Outcome, value: Any, acts: int
) -> None:
    def check(context: ToolContext, args: dict[str, Any]) -> Any:
        assert (context.key, args["to"]) == ("run/t/1", "a")
        return found

    house.registry.register(_send(check))
    await _interrupted(house)
    again = asyncio.create_task(house.call("send", args={"to": "a", "mode": "slow"}, attempt=2))
    if acts == 2:
        await until(lambda: len(calls) == 2)
        again.cancel()
        return
    output = await again
    assert (output.outcome, output.output.value) == (outcome, value)
    assert len(calls) == acts
    assert (await house.call("send", args={"to": "a", "mode": "slow"})).output.value == value


async def test_a_check_that_cannot_tell_is_asked_again_and_then_it_is_unknown(
    house: House,
) -> None:
    async def check(context: ToolContext, args: dict[str, Any]) -> Any:
        raise ConnectionError("log is down")

    house.registry.register(_send(check))
    await _interrupted(house)
    with pytest.raises(ToolCallError, match="log is down") as caught:
        await house.call("send", args={"to": "a", "mode": "slow"}, attempt=2, max_attempts=3)
    assert caught.value.retry
    output = await house.call("send", args={"to": "a", "mode": "slow"}, attempt=3, max_attempts=3)
    assert output.outcome is Outcome.UNKNOWN
    assert calls == ["a"]


async def test_an_idempotent_side_effect_is_simply_done_again(house: House) -> None:
    house.registry.register(_send(idempotent=True))
    await _interrupted(house)
    again = asyncio.create_task(house.call("send", args={"to": "a", "mode": "slow"}, attempt=2))
    await until(lambda: len(calls) == 2)
    again.cancel()


async def test_a_tool_that_says_nothing_was_done_may_act_again(house: House) -> None:
    house.registry.register(_send())
    for attempt in (1, 2):
        with pytest.raises(ToolCallError, match="not accepted") as caught:
            await house.call("send", args={"to": "a", "mode": "refuse"}, attempt=attempt)
        assert caught.value.retry
    assert calls == ["a", "a"]


async def test_a_crash_in_a_side_effect_is_not_repeated_blindly(house: House) -> None:
    house.registry.register(_send())
    with pytest.raises(ToolCallError, match="may have acted") as caught:
        await house.call("send", args={"to": "a", "mode": "crash"})
    assert not caught.value.retry
    output = await house.call("send", args={"to": "a", "mode": "crash"}, attempt=2)
    assert output.outcome is Outcome.UNKNOWN
    assert "line cut" in output.note


def _act_and_die(root: str) -> None:
    @tool(name="send", side_effects=True)
    def send(to: str, mode: str = "ok") -> str:
        (Path(root) / "acted").write_text(to)
        os.kill(os.getpid(), 9)
        return "never"

    house = House(Path(root), ToolRegistry([send]))
    asyncio.run(house.call("send", args={"to": "a"}))


async def test_a_worker_killed_between_act_and_result_leaves_an_unknown_outcome(
    house: House,
) -> None:
    worker = multiprocessing.get_context("fork").Process(
        target=_act_and_die, args=(str(house.root),)
    )
    worker.start()
    await asyncio.to_thread(worker.join, 20)
    assert worker.exitcode == -9
    assert (house.root / "acted").read_text() == "a"
    house.registry.register(_send())
    output = await house.call("send", args={"to": "a"}, attempt=2)
    assert output.outcome is Outcome.UNKNOWN
    assert calls == []


async def test_a_lost_blob_may_be_tried_again(house: House) -> None:
    lost = Bindings(inputs={"a": Stored(blob="0" * 64, size_bytes=5)})
    with pytest.raises(ToolCallError, match="is not in") as caught:
        await house.call("double", args={"n": "${a}"}, bindings=lost)
    assert (caught.value.error_class, caught.value.retry) == ("unknown", True)


async def test_durations_are_learned(house: House, tmp_path: Path) -> None:
    times = ToolTimes(tmp_path / "times.json")
    times.record("a", 1.0)
    times.record("a", 2.0)
    times.save()
    assert ToolTimes(tmp_path / "times.json").likely() == {"a": 1.2}
    (tmp_path / "times.json").write_text("[torn")
    assert ToolTimes(tmp_path / "times.json").likely() == {}
    runner = house.runner
    await runner.call(ToolJob(task="t", tool="double", args={"n": 1}))
    assert runner.times.likely()["double"] > 0


# In an activity


def environment(**info: Any) -> ActivityEnvironment:
    env = ActivityEnvironment()
    env.info = dataclasses.replace(
        env.info,
        **{
            "start_to_close_timeout": timedelta(seconds=30),
            "heartbeat_timeout": timedelta(seconds=0.4),
            **info,
        },
    )
    return env


async def test_the_activity_beats_while_a_tool_runs(house: House) -> None:
    env = environment()
    beats: list[Any] = []
    env.on_heartbeat = lambda *details: beats.append(details)
    job = ToolJob(task="t", tool="wait", args={"seconds": 0.5})
    output = await env.run(ToolActivities(house.runner).run_tool, job)
    assert output.output.value == "slept"
    assert len(beats) >= 4


async def test_a_cancelled_activity_cancels_its_tool(house: House) -> None:
    env = environment()
    job = ToolJob(task="t", tool="wait", args={"seconds": 60})
    running = asyncio.create_task(env.run(ToolActivities(house.runner).run_tool, job))
    await until(lambda: calls == ["began"])
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert calls == ["began", "cancelled"]


@pytest.mark.parametrize(
    ("kind", "type_", "final", "delay"),
    [
        ("tool", "tool", True, None),
        ("retry", "tool", False, None),
        ("later", "tool", False, 7.5),
        ("zero", "tool", False, None),
    ],
)
async def test_a_failure_reaches_temporal_with_class_delay_and_usage(
    house: House, kind: str, type_: str, final: bool, delay: float | None
) -> None:
    job = ToolJob(task="t", tool="fail", args={"kind": kind})
    with pytest.raises(ApplicationError) as caught:
        await environment(attempt=2).run(ToolActivities(house.runner).run_tool, job)
    error = caught.value
    assert (error.type, error.non_retryable) == (type_, final)
    assert (error.next_retry_delay and error.next_retry_delay.total_seconds()) == delay
    assert error.details[0]["usage"]["tool_calls"] == 1
    assert error.details[0]["attempts"] == 2


async def test_a_tool_ends_before_the_servers_time_is_up(house: House) -> None:
    env = environment(start_to_close_timeout=timedelta(seconds=0.3))
    job = ToolJob(task="t", tool="wait", args={"seconds": 60})
    with pytest.raises(ApplicationError, match="longer than its timeout") as caught:
        await env.run(ToolActivities(house.runner).run_tool, job)
    assert caught.value.type == "timeout"
