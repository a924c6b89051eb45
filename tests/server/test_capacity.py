"""Pools on the real server: rates, cool-down, priorities, permits, breakers, across processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.testing import WorkflowEnvironment

from planloom import CapacityState, Client, Pool, Refused, Release, Renew, Reserve
from planloom.activities.tools.registry import ToolLoadError
from planloom.planner.contract.settings import Settings
from planloom.workflows.capacity import UPDATES_MAX
from planloom.workflows.shell.converter import data_converter
from tests.model_server import Reply, Seen
from tests.support.harness import Planloom
from tests.support.waiting import until


def configure(planloom: Planloom, text: str) -> None:
    """`planloom.toml` in the folder in which this test's workers run."""
    (planloom.folder / "planloom.toml").write_text(inspect.cleandoc(text), encoding="utf-8")


def pool_of(planloom: Planloom, name: str = "default") -> Pool:
    settings = Settings(task_queue=planloom.task_queue)
    return Client(planloom.client, planloom.task_queue).pool(name, settings)


async def state_of(planloom: Planloom, name: str = "default") -> CapacityState:
    state = await pool_of(planloom, name).state()
    assert state is not None
    return state


@contextlib.asynccontextmanager
async def processes(planloom: Planloom, count: int, **env: str) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        started = [planloom.worker_process(**env) for _ in range(count)]
        await asyncio.gather(*(stack.enter_async_context(each) for each in started))
        yield


def asks(count: int, text: str = "question", **task: Any) -> dict[str, Any]:
    """A map of that many model calls."""
    items = [f"{text} {n}" for n in range(count)]
    body = {"id": "all", "map": items, "ask": {"prompt": "${item}"}, **task}
    return {"plan": {"tasks": [body]}, "budget": {"parallel": 1000}}


async def test_a_call_starts_the_pools_workflow_on_demand(planloom: Planloom) -> None:
    planloom.model.script("question", "answer")
    async with planloom.worker():
        assert await pool_of(planloom).state() is None
        result = await planloom.run(asks(5))
        assert result["status"] == "completed"
        state = await until_state(planloom, lambda state: state.calls.get("succeeded") == 5)
    assert state.calls == {"succeeded": 5}
    assert (state.status, state.penalty, state.in_flight) == ("open", 0, 0)


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4]
)
async def test_a_pools_rate_holds_for_all_workers_together(
    planloom: Planloom, workers: int
) -> None:
    configure(planloom, "[pools.default]\nrequests_per_minute = 600\n")
    planloom.model.script("question", Reply(text="answer", delay=0.2))
    count = 110
    async with processes(planloom, workers):
        began = time.time()
        result = await planloom.run(asks(count), timeout=60)
    assert result["status"] == "completed"
    times = sorted(seen.at for seen in planloom.model.requests)
    assert len(times) == count
    # A busy machine makes it slower, never faster; for its figures: `make bench`.
    assert times[-1] - began >= (count - BURST) / 10


BURST = 5
"""Calls beyond its rate that a pool may let go at once."""
RETRY_AFTER = 6.0


class Endpoint:
    """Answers 429 with Retry-After above `room` calls at a time."""

    def __init__(self, room: int, seconds: float) -> None:
        self.room, self.seconds = room, seconds
        self.ends: list[float] = []
        self.served: list[float] = []
        self.refused: list[float] = []

    def __call__(self, seen: Seen) -> Reply:
        now = time.time()
        self.ends = [end for end in self.ends if end > now]
        if len(self.ends) >= self.room:
            self.refused.append(now)
            return Reply(status=429, headers={"retry-after": f"{RETRY_AFTER}"}, text="too many")
        self.ends.append(now + self.seconds)
        self.served.append(now)
        return Reply(text="answer", delay=self.seconds)


@pytest.mark.slow
async def test_one_429_slows_everyone_a_little_and_never_wipes_out_a_fan_out(
    planloom: Planloom,
) -> None:
    server = Endpoint(room=8, seconds=0.5)
    planloom.model.script("question", server)
    async with processes(planloom, 2):
        result = await planloom.run(asks(200), timeout=90)
        state = await state_of(planloom)
    assert result["status"] == "completed"
    assert result["tasks"]["all"]["attempts"] == 200  # one each: waiting used up none
    assert 1 <= len(server.refused) < 0.05 * 200
    first = server.refused[0]
    # Those that were let go before the pool cooled down may still arrive; at the endpoint's own
    # rate it would be a hundred.
    cooled = [t for t in server.served if first < t < first + RETRY_AFTER]
    assert len(cooled) <= 40, "nobody asks while the pool cools down"
    assert [r.reason for r in state.penalty_reasons][:1] == ["rate_limit"]


async def test_answers_that_do_not_fit_are_felt_by_the_pool_unless_settings_say_no(
    planloom: Planloom,
) -> None:
    planloom.model.script("question", "no number")
    ask = {"prompt": "question", "output_schema": {"type": "integer"}}
    request = {"plan": {"tasks": [{"id": "a", "ask": ask}]}}
    async with planloom.worker():
        assert (await planloom.run(request))["status"] == "failed"
        state = await until_state(planloom, lambda s: len(s.penalty_reasons) == 2)
    first = state.penalty_reasons[0]
    assert (first.reason, first.penalty) == ("schema_violation", 0.5)
    assert state.calls == {"succeeded": 4}  # two attempts, each with its repair
    configure(planloom, "[retries.schema_violation]\ncounts_as_penalty = false\nattempts_max = 1\n")
    async with planloom.worker():
        assert (await planloom.run(request))["status"] == "failed"
        state = await until_state(planloom, lambda s: s.calls["succeeded"] == 6)
    assert len(state.penalty_reasons) == 2


async def test_the_urgent_overtake_a_backlog(planloom: Planloom) -> None:
    configure(planloom, "[pools.default]\nparallel = 4\n")
    seconds = 0.8
    planloom.model.script("question", Reply(text="answer", delay=seconds))
    planloom.model.script("urgent", Reply(text="answer", delay=seconds))
    async with processes(planloom, 2):
        backlog = await planloom.start(asks(500) | {"priority": "background"})
        await until(lambda: len(planloom.model.requests) >= 12)
        waiting = await pool_of(planloom).waiting()
        result = await planloom.run(asks(5, "urgent") | {"priority": "critical"})
        await backlog.terminate()
    assert result["status"] == "completed"
    assert waiting["background"] > 400
    order = sorted(planloom.model.requests, key=lambda r: r.at)
    places = [n for n, request in enumerate(order) if "urgent" in request.text]
    assert len(places) == 5
    # They were queued together: what stands between them had its slot before.
    assert places[-1] - places[0] < 5 + 2 * 4


async def test_tenants_share_a_pool_by_their_weights(planloom: Planloom) -> None:
    configure(planloom, "[pools.default]\nparallel = 4\n\n[tenants]\nsmall = 1\nlarge = 3\n")
    planloom.model.script("small", Reply(text="answer", delay=0.05))
    planloom.model.script("large", Reply(text="answer", delay=0.05))
    async with processes(planloom, 1):
        async with asyncio.timeout(20):
            await pool_of(planloom).change("drain", {"reason": "fill the queue first"})
            runs = [
                await planloom.start(asks(150, name) | {"tenant": name})
                for name in ("small", "large")
            ]
            while sum((await pool_of(planloom).waiting()).values()) < 300:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert not planloom.model.requests
            await pool_of(planloom).change("resume", {})
            await until(lambda: len(planloom.model.requests) >= 140)
        for run in runs:
            await run.terminate()
    names = ["large" if "large" in r.text else "small" for r in planloom.model.requests][20:120]
    print(f"{names.count('large')} of 100 for the tenant of weight 3 of 4")
    assert names.count("large") == pytest.approx(75, abs=7.5)


async def test_weights_set_by_hand_reach_the_server_and_go_with_a_reset(
    planloom: Planloom,
) -> None:
    async with planloom.worker():
        pool = pool_of(planloom)
        await pool.change("set", {"tenants": {"small": 1, "large": 3}})
        assert await _weights(planloom) == {"small": 1.0, "large": 3.0}
        await pool.change("set", {"tenants": {"large": 2}})
        assert await _weights(planloom) == {"large": 2.0}
        await pool.change("set", {"reset": True})
        assert await _weights(planloom) == {}


async def _weights(planloom: Planloom) -> dict[str, float]:
    found = await planloom.client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=planloom.client.namespace,
            task_queue=TaskQueue(name=f"{planloom.task_queue}-llm-default"),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_config=True,
        )
    )
    return dict(found.config.fairness_weight_overrides)


@pytest.mark.parametrize(("workers", "seconds"), [(2, 0.0), (4, 0.5)])
async def test_a_bad_key_reaches_the_endpoint_three_times_for_a_hundred_siblings(
    planloom: Planloom, workers: int, seconds: float
) -> None:
    body = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
    planloom.model.script("question", Reply(status=401, body=body, delay=seconds))
    async with processes(planloom, workers):
        result = await planloom.run(asks(100))
        state = await state_of(planloom)
        assert len(planloom.model.requests) <= 3
        assert state.status == "broken"
        assert "Incorrect API key" in state.breakers[0].cause
        assert result["status"] in ("failed", "partial")
        planloom.model.script("again", "answer")
        await pool_of(planloom).change("resume", {"by": "ops"})
        assert (await planloom.run(asks(1, "again")))["status"] == "completed"
        await until_state(planloom, lambda state: state.status == "open")
        result = await planloom.run(asks(3, "again"))
    assert result["status"] == "completed"


HOLDER = """
import asyncio, sys
from planloom import Client, Reserve, Renew
from planloom.planner.contract.settings import Settings

async def main():
    client = await Client.connect()
    pool = client.pool("default", Settings(task_queue=sys.argv[1]))
    reply = await pool.permit("reserve", Reserve(holder="killed", calls=4, ttl_seconds=3))
    print(reply.allowed, flush=True)
    while True:
        await asyncio.sleep(0.5)
        await pool.permit("renew", Renew(holder="killed", ttl_seconds=3))

asyncio.run(main())
"""


async def _said(process: asyncio.subprocess.Process) -> str:
    return (await process.communicate())[1].decode()


async def test_the_room_of_a_killed_holder_is_back_within_its_time(
    planloom: Planloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("run", "pool"):  # less than the wait for room
        monkeypatch.setattr(f"planloom.client.{module}.ANSWER_SECONDS", 2.0)
    configure(planloom, "[pools.default]\nparallel = 4\n")
    root = Path(__file__).parents[2]
    async with planloom.worker():
        holder = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            HOLDER,
            planloom.task_queue,
            env={**os.environ, **planloom.env, "PYTHONPATH": str(root)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert (await holder.stdout.readline()).strip() == b"True", await _said(holder)
        pool = pool_of(planloom)
        await asyncio.sleep(3.5)  # longer than its time: it is renewed
        refused = await pool.permit("reserve", Reserve(holder="b", calls=1))
        assert (refused.allowed, refused.reasons) == (False, ["calls: 5 of 4"])
        holder.kill()
        reply = await pool.permit("reserve", Reserve(holder="b", calls=4, wait_seconds=20))
        assert reply.allowed
        again = await pool.permit("reserve", Reserve(holder="b", calls=4))
        assert again.allowed
        state = await state_of(planloom)
        assert [(p.holder, p.calls) for p in state.permits] == [("b", 4)]
        stranger = await pool.permit("release", Release(holder="killed"))
        assert not stranger.allowed
        assert "holds nothing" in stranger.reasons[0]
        assert (await pool.permit("release", Release(holder="b"))).allowed
        assert not (await pool.permit("release", Release(holder="b"))).allowed
        await holder.wait()


async def test_whole_runs_wait_for_room_and_say_so(planloom: Planloom) -> None:
    configure(planloom, "[pools.default]\nmax_runs = 1\n")
    planloom.model.script("question", "answer")
    asks_a_person = asks(1)
    asks_a_person["plan"]["tasks"].append({"id": "q", "human": "Well?"})
    async with planloom.worker():
        first = await planloom.start(asks_a_person)
        await planloom.until(first, lambda p: p.awaiting == "human")
        second = await planloom.start(asks(1))
        seen = await planloom.until(second, lambda p: p.awaiting == "capacity")
        assert (seen.status, seen.detail) == ("waiting", "room in pool default: planloom capacity")
        third = await planloom.start(asks(1))
        await planloom.until(third, lambda p: p.awaiting == "capacity")
        await third.cancel()
        assert (await planloom.result(third))["status"] == "cancelled"
        await first.signal("complete_task", {"id": "q", "output": "yes"})
        assert (await planloom.result(first))["status"] == "completed"
        assert (await planloom.result(second))["status"] == "completed"
        await until_state(planloom, lambda s: not s.permits and not s.permits_waiting)


async def test_a_pool_that_cannot_serve_hands_over_to_its_fallback(planloom: Planloom) -> None:
    configure(
        planloom,
        f"""
        [pools.main]
        base_url = "http://127.0.0.1:9/v1"
        models = ["test-model"]
        fallback = "spare"
        [pools.spare]
        base_url = "{planloom.model.url}"
        models = ["spare-model"]
        """,
    )
    planloom.model.script("question", "answer")
    request = asks(1, retry={"max_attempts": 1})
    async with planloom.worker():
        result = await planloom.run(request)
    assert result["answer"] == {"all": ["answer"]}
    assert [r.model for r in planloom.model.requests] == ["spare-model"]


async def test_calls_of_planner_and_joiner_wait_out_a_cool_down_too(planloom: Planloom) -> None:
    """They have no queue of the pool's, and run in whichever process is free."""
    busy = Reply(status=429, headers={"retry-after": "3"})
    planloom.model.script("Write the plan", 'a = calculate(expression="6 * 7")\njoin(a)')
    planloom.model.script("You decide whether", '{"action": "finish", "answer": "done"}')
    planloom.model.script("question", busy, "answer")
    async with processes(planloom, 2):
        first = await planloom.start(asks(1))
        await until(lambda: bool(planloom.model.requests))
        refused = planloom.model.requests[0].ended_at or time.time()
        await until_state(planloom, lambda state: state.status == "cooling")
        result = await planloom.run({"goal": "six times seven"})
        await planloom.result(first)
    assert (result["status"], result["answer"]) == ("completed", "done")
    assert result["planning"]["planner_attempts_lost"] == 0
    assert min(seen.at for seen in planloom.model.requests[1:]) >= refused + 3.0


async def test_what_people_set_acts_at_once_and_can_be_taken_back(planloom: Planloom) -> None:
    planloom.model.script("question", Reply(text="answer", delay=0.3))
    async with planloom.worker():
        pool = pool_of(planloom)
        await pool.change("set", {"parallel": 2})
        handle = await planloom.start(asks(12))
        await asyncio.sleep(1.0)
        state = await state_of(planloom)
        assert (state.parallel, state.parallel_set) == (2, 2)
        assert state.in_flight <= 2
        await pool.change("set", {"reset": True})
        assert (await planloom.result(handle))["status"] == "completed"
        assert (await state_of(planloom)).parallel_set is None
        with pytest.raises(Refused, match="needs more than 0"):
            await pool.change("set", {"requests_per_minute": 0})
        with pytest.raises(Refused, match="nothing to set"):
            await pool.change("set", {})
    most = max(
        sum(o.at <= r.at < (o.ended_at or 0) for o in planloom.model.requests)
        for r in planloom.model.requests[:6]
    )
    assert most <= 2


async def test_a_drained_pool_keeps_calls_waiting_until_it_is_resumed(planloom: Planloom) -> None:
    planloom.model.script("question", "answer")
    async with planloom.worker():
        pool = pool_of(planloom)
        await pool.change("drain", {"reason": "night", "by": "ops"})
        handle = await planloom.start(asks(3))
        await asyncio.sleep(1.0)
        assert not planloom.model.requests
        assert (await state_of(planloom)).status == "drained"
        await pool.change("resume", {})
        assert (await planloom.result(handle))["status"] == "completed"


async def test_a_pool_nobody_knows_is_refused_with_the_names(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"pool": "nope"}, "CapacityWorkflow")
        failure = await planloom.failure(handle)
        assert failure.type == "InvalidRequest"
        assert 'no pool "nope". Pools of this worker: default' in str(failure)
        with pytest.raises(Refused, match='no pool "nope"'):
            await pool_of(planloom, "nope").change("drain", {})
        for wrong in ({"pol": "default"}, {"pool": "default", "state": {"calls": 3}}, [1], None):
            handle = await planloom.client.start_workflow(
                "CapacityWorkflow",
                args=[] if wrong is None else [wrong],
                id=f"{planloom.task_queue}-wrong",
                task_queue=planloom.task_queue,
            )
            assert (await planloom.failure(handle)).type == "InvalidRequest"


@pytest.mark.slow
async def test_the_pools_workflow_begins_anew_by_itself_and_forgets_nothing(
    planloom: Planloom,
) -> None:
    configure(planloom, "[pools.default]\nparallel = 3\n")
    async with planloom.worker():
        pool = pool_of(planloom)
        assert (await pool.permit("reserve", Reserve(holder="kept", ttl_seconds=600))).allowed
        first = (await planloom.client.get_workflow_handle(pool.id).describe()).run_id
        for n in range(UPDATES_MAX + 10):
            await pool.permit("renew", Renew(holder="kept", ttl_seconds=600))
            if n % 100 == 0:
                now = (await planloom.client.get_workflow_handle(pool.id).describe()).run_id
                if now != first:
                    break
        handle = planloom.client.get_workflow_handle(pool.id)
        assert (await handle.describe()).run_id != first
        state = await state_of(planloom)
        assert [p.holder for p in state.permits] == ["kept"]


async def test_no_address_or_key_of_a_pool_reaches_its_history(planloom: Planloom) -> None:
    address = planloom.model.url.replace("://", "://ops:pass-word@")
    configure(
        planloom,
        f"""
        [pools.default]
        base_url = "{address}"
        api_key_env = "SOME_API_KEY"
        max_runs = 5
        """,
    )
    planloom.model.script("question", "answer")
    async with planloom.worker(SOME_API_KEY="key-of-somebody"):
        assert (await planloom.run(asks(2)))["status"] == "completed"
        handle = planloom.client.get_workflow_handle(pool_of(planloom).id)
        await until_state(planloom, lambda state: state.calls.get("succeeded") == 2)
        text = (await handle.fetch_history()).to_json()
    for part in _payload_texts(text):
        assert "pass-word" not in part
        assert "SOME_API_KEY" not in part
        assert "key-of-somebody" not in part


def _payload_texts(history: str) -> list[str]:
    found = re.findall(r'"data":\s*"([A-Za-z0-9+/=]+)"', history)
    assert found
    return [base64.b64decode(data).decode(errors="replace") for data in found]


async def test_a_tool_on_a_pool_that_is_not_there_is_refused_at_the_start(
    planloom: Planloom,
) -> None:
    module = planloom.tools(
        """
        from planloom import tool

        @tool(pool="gpu")
        def draw(what: str) -> str:
            "Draws."
            return what
        """
    )
    with pytest.raises(ToolLoadError, match='tool draw: no pool "gpu"'):
        async with planloom.worker(PLANLOOM_TOOLS=module):
            pass


async def test_a_limit_that_somebody_else_set_is_left_alone(planloom: Planloom) -> None:
    queue = f"{planloom.task_queue}-llm-default"
    limit = ["--task-queue", queue, "--task-queue-type", "activity"]
    asked = [*limit, "--queue-rps-limit", "50", "--queue-rps-limit-reason", "by hand"]
    planloom.model.script("question", "answer")
    await _temporal(planloom, "task-queue", "config", "set", *asked)
    async with planloom.worker():
        await planloom.run(asks(2))
        await until_state(planloom, lambda state: state.calls.get("succeeded") == 2)
    found = await _temporal(planloom, "task-queue", "config", "get", *limit, "-o", "json")
    assert "by hand" in found


async def until_state(
    planloom: Planloom, condition: Callable[[CapacityState], bool], seconds: float = 10.0
) -> CapacityState:
    async with asyncio.timeout(seconds):
        while not condition(state := await state_of(planloom)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return state


async def _temporal(planloom: Planloom, *words: str) -> str:
    program = Path(sys.executable).parent / "temporal"
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        env={**os.environ, **planloom.env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0, out
    return out


@pytest.mark.parametrize(
    ("reply", "class_"),
    [
        (Reply(status=429), "rate_limit"),
        (Reply(status=429, headers={"retry-after": "soon"}), "rate_limit"),
        (Reply(status=429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), "rate_limit"),
        (Reply(status=503, headers={"retry-after": "1"}), "capacity"),
        (Reply(fault="error_body", body={"error": {"message": "Too many requests"}}), "rate_limit"),
    ],
)
async def test_every_form_of_too_many_is_waited_out(
    planloom: Planloom, reply: Reply, class_: str
) -> None:
    planloom.model.script("question", reply, "answer")
    async with planloom.worker():
        result = await planloom.run(asks(1))
        assert result["answer"] == {"all": ["answer"]}
        assert result["tasks"]["all"]["attempts"] == 1
        await until_state(planloom, lambda state: state.calls == {"succeeded": 1, class_: 1})


async def test_a_server_that_refuses_rates_is_gone_without_and_the_state_says_so(
    planloom: Planloom,
) -> None:
    """Temporal's test server knows no queue configuration: workers keep the pace alone."""
    program = str(Path(sys.executable).parent / "temporal-test-server")
    planloom.model.script("question", "answer")
    configure(planloom, "[pools.default]\nrequests_per_minute = 600\n")
    environment = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=program, data_converter=data_converter()
    )
    async with environment:
        other = Planloom(environment.client, planloom.model, planloom.folder)
        async with other.worker():
            pool = pool_of(other)
            await asyncio.wait_for(pool.change("set", {"parallel": 3}), 30)
            state = await until_state(other, lambda s: any("cannot be set" in n for n in s.notes))
    assert state.requests_per_minute == 600


async def test_surplus_payloads_of_a_pool_are_refused_and_fail_no_workflow_task(
    planloom: Planloom,
) -> None:
    """Found by fuzzing: `resume` with two payloads failed the workflow task again and again."""
    from temporalio.client import WorkflowUpdateFailedError

    async with planloom.worker():
        handle = await planloom.client.start_workflow(
            "CapacityWorkflow",
            {"pool": "default"},
            id=f"{planloom.task_queue}-capacity-default",
            task_queue=planloom.task_queue,
        )
        for name in ("reserve", "renew", "release", "set", "drain", "resume", "report"):
            for args in ([{}, {}], ["x", "y"], [1]):
                with pytest.raises(WorkflowUpdateFailedError):
                    await handle.execute_update(name, args=args)
        await handle.signal("renew", args=[{}, {}])
        await handle.signal("release", args=["x", "y"])
        assert await handle.query("state", args=["x", "y"]) is not None
        history = await handle.fetch_history()
    failed = [e for e in history.events if e.HasField("workflow_task_failed_event_attributes")]
    assert failed == []
