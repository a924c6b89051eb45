"""What people decide, as methods of a run; events as they happen; the client without `async`."""

from __future__ import annotations

import asyncio
from threading import Event, Thread
from typing import Any

import pytest

from planloom import Client, NoSuchRun, PlanloomError, Refused, RunFailed
from planloom.planner.contract.results import RunResult
from planloom.stream import RunEvent
from planloom.sync import Client as SyncClient
from tests.support.harness import Planloom

ASKS = {
    "tasks": [
        {"id": "six", "tool": "calculate", "args": {"expression": "2 * 3"}},
        {"id": "factor", "human": {"question": "Times what?"}, "depends_on": ["six"]},
        {"id": "whole", "tool": "calculate", "args": {"expression": "${six} * ${factor}"}},
    ],
    "answer": "${whole}",
}


def client_of(planloom: Planloom) -> Client:
    return Client(planloom.client, planloom.task_queue)


async def test_a_goal_runs_with_one_call(planloom: Planloom) -> None:
    planloom.model.script("Write the plan", 'a = calculate(expression="6 * 7")\njoin(a)')
    planloom.model.script("decide whether", '{"action": "finish", "answer": "42"}')
    async with planloom.worker():
        result = await client_of(planloom).run(goal="Six times seven", timeout=30)
    assert (result.status, result.answer) == ("completed", "42")


async def test_a_stream_tells_everything_once_and_ends_with_the_result(planloom: Planloom) -> None:
    events: list[RunEvent] = []
    async with planloom.worker():
        run = await client_of(planloom).start(plan=ASKS, approval="plan")
        async with asyncio.timeout(30):
            async for event in run.stream():
                events.append(event)
                if event.kind == "wait" and event.wait is not None:
                    if event.wait.kind == "approval":
                        assert (await run.approve(event.wait.revision, by="ana")).accepted
                    else:
                        assert (event.task, event.text) == ("factor", "factor: Times what?")
                        await run.answer(7)
    said = [(e.kind, e.task or e.state or e.revision) for e in events]
    for once in [
        ("plan", 1),
        ("task", "six"),
        ("wait", "factor"),
        ("answered", "factor"),
        ("end", "completed"),
    ]:
        assert once in said
    outcomes = [e for e in events if e.kind == "task" and e.state == "succeeded"]
    assert sorted(e.task for e in outcomes if e.task) == ["factor", "six", "whole"]
    assert events[-1].kind == "end"
    assert isinstance(events[-1].result, RunResult)
    assert events[-1].result.answer == 42
    assert str(events[-1]).endswith("end: completed")


async def test_the_stream_of_a_run_that_has_ended_is_its_end(planloom: Planloom) -> None:
    async with planloom.worker():
        run = await client_of(planloom).start(plan={"tasks": ASKS["tasks"][:1]})
        await run.result(30)
        events = [event async for event in client_of(planloom).run(run.id).stream()]
    assert [e.kind for e in events if e.kind in ("task", "end")] == ["task", "end"]


async def test_the_stream_of_a_refused_run_ends_with_its_reasons(planloom: Planloom) -> None:
    async with planloom.worker():
        run = await client_of(planloom).start(plan={"tasks": [{"id": "a", "tool": "nothing"}]})
        with pytest.raises(RunFailed, match="nothing"):
            async with asyncio.timeout(30):
                _ = [event async for event in run.stream()]


async def test_every_decision_is_a_method(planloom: Planloom) -> None:
    async with planloom.worker():
        client = client_of(planloom)
        run = await client.start(plan=ASKS, approval="plan", budget={"tasks": 50})
        handle = planloom.client.get_workflow_handle(run.id)
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        with pytest.raises(Refused, match="revision"):
            await run.approve(7)
        patch = [{"op": "replace", "path": "/tasks/0/args/expression", "value": "3 * 3"}]
        edited = await run.edit(patch=patch, by="ben")
        assert (await run.pause()).accepted
        await run.approve(edited.revision)
        with pytest.raises(Refused, match="no open question"):
            await run.answer(1)
        assert (await run.raise_budget(tasks=60, by="ana")).accepted
        await run.resume()
        await planloom.until(handle, lambda p: p.awaiting == "human")
        await run.answer(5, task="factor", by="ana")
        assert (await run.result(30)).answer == 45
        assert repr(run).startswith(f"<Run '{run.id}': ")

        refused = await client.start(plan=ASKS, approval="plan")
        await planloom.until(
            planloom.client.get_workflow_handle(refused.id), lambda p: p.awaiting == "approval"
        )
        await refused.reject("too little")
        assert (await refused.result(30)).status == "rejected"

        stopped = await client.start(plan=ASKS)
        await planloom.until(
            planloom.client.get_workflow_handle(stopped.id), lambda p: p.awaiting == "human"
        )
        await stopped.cancel()
        result = await stopped.result(30)
        assert (result.status, result.tasks["six"].output) == ("cancelled", 6)
        with pytest.raises(Refused, match="has ended"):
            await stopped.cancel()
        with pytest.raises(NoSuchRun):
            await client.run("never-was").cancel()


async def test_a_field_that_no_request_has_is_a_mistake_of_the_program(planloom: Planloom) -> None:
    with pytest.raises(TypeError, match=r'no field "gaol". Did you mean "goal"'):
        await client_of(planloom).run(gaol="x")


async def test_the_client_without_async_has_the_same_methods(planloom: Planloom) -> None:
    def script(address: str) -> list[str]:
        with SyncClient.connect(target_host=address) as client:
            client._inner.task_queue = planloom.task_queue
            run = client.start(plan=ASKS)
            seen: list[str] = []
            for event in run.stream():
                seen.append(event.kind)
                if event.kind == "wait":
                    run.answer(2)
            assert client.run(run.id).result().answer == 12
            assert (
                client.run(
                    plan={
                        "tasks": [
                            {"id": "a", "tool": "calculate", "args": {"expression": "1 + 1"}}
                        ],
                        "answer": "${a}",
                    }
                ).answer
                == 2
            )
            with pytest.raises(Refused, match="has ended"):
                run.pause()
            assert repr(run).startswith("<Run 'dag-")
            return seen

    async with planloom.worker():
        address = planloom.client.service_client.config.target_host
        seen = await asyncio.to_thread(script, address)
    assert seen[-1] == "end"


async def test_slips_are_said_before_anything_is_sent(planloom: Planloom) -> None:
    client = client_of(planloom)
    one: dict[str, Any] = {"plan": ASKS}
    slips: list[tuple[Any, str]] = [
        (lambda: client.start(3), "a request is a RunRequest or a dict of its fields, found 3"),  # type: ignore[arg-type]
        (lambda: client.start(**one, id=5), "id is a text, found 5"),  # type: ignore[arg-type]
        (lambda: client.start(goal=object()), "the request is not JSON: .*object"),
        (lambda: client.run(**one, timeout="x"), "timeout is a number of seconds, found 'x'"),
        (lambda: client.run("x").result("x"), "timeout is a number of seconds, found 'x'"),  # type: ignore[arg-type]
        (lambda: client.run("x").answer(object(), task="q"), "complete_task is given is not JSON"),  # type: ignore[arg-type]
    ]
    for slip, words in slips:
        with pytest.raises(TypeError, match=words):
            await slip()
    with pytest.raises(TypeError, match="id is a text, found 5"):
        client.run(5)  # type: ignore[call-overload]


async def test_what_comes_after_the_end_or_is_too_slow_says_so(planloom: Planloom) -> None:
    async with planloom.worker():
        run = await client_of(planloom).start(plan={"tasks": [ASKS["tasks"][0]]}, approval="plan")
        with pytest.raises(TimeoutError, match=f'run "{run.id}" has not ended within 0.5 s'):
            await run.result(0.5)
        with pytest.raises(Refused, match=r'no task "zz"\. Tasks: '):
            await run.cancel_task("zz")
        await run.approve()
        await run.result(30)
        with pytest.raises(Refused, match=f'run "{run.id}" has ended'):
            await run.answer("x")


async def test_a_client_without_async_that_is_closed_lets_nobody_wait(planloom: Planloom) -> None:
    is_waiting = Event()
    found: list[str] = []

    def wait(run: Any) -> None:
        is_waiting.set()
        try:
            run.result()
        except PlanloomError as error:
            found.append(str(error))

    def work(address: str) -> None:
        client = SyncClient.connect(target_host=address)
        run = client.start(plan=ASKS)
        waiting = Thread(target=wait, args=(run,))
        waiting.start()
        assert is_waiting.wait(10)
        client.close()
        waiting.join(10)
        assert not waiting.is_alive()
        client.close()
        for late in (run.progress, lambda: client.start(plan=ASKS)):
            with pytest.raises(PlanloomError, match="the client is closed"):
                late()

    await asyncio.to_thread(work, planloom.client.service_client.config.target_host)
    assert found[0].startswith("the client is closed")
