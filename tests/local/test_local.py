"""Runs in this process: the machines of a run on a server, without the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from planloom import Refused, RunFailed, ToolError, local, tool
from planloom.activities.tools.decorator import ToolDefinitionError
from planloom.planner.contract.results import AgentResult, OpenWait, RunResult, TeamResult
from planloom.stream import RunEvent
from planloom.workflows.machines.shared.commands import Command
from tests.model_server import ModelServer, Reply
from tests.server.test_teams import JUDGE, TRUSTED, form, team

ASKS: dict[str, Any] = {
    "tasks": [
        {"id": "six", "tool": "calculate", "args": {"expression": "2 * 3"}},
        {"id": "factor", "human": {"question": "Times what?"}, "depends_on": ["six"]},
        {"id": "whole", "tool": "calculate", "args": {"expression": "${six} * ${factor}"}},
    ],
    "answer": "${whole}",
}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        monkeypatch.setenv("PLANLOOM_MODEL", "test-model")
        yield server


def plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), **more}


async def test_a_plan_file_runs_with_plain_functions_as_tools(tmp_path: Path) -> None:
    def double(text: str) -> str:
        """The text twice."""
        return text * 2

    (tmp_path / "plan.yaml").write_text(
        "tasks:\n  - {id: a, tool: double, args: {text: ha}}\nanswer: '${a}!'\n"
    )
    result = await local.run(tmp_path / "plan.yaml", tools=[double], workspace=tmp_path)
    assert isinstance(result, RunResult)
    assert (result.status, result.answer) == ("completed", "haha!")
    assert result.usage.tool_calls == 1


async def test_people_decide_by_callback_and_everything_is_heard() -> None:
    events: list[RunEvent] = []

    async def answer(wait: OpenWait) -> int:
        return {"factor": 7}[str(wait.task)]

    result = await local.run(
        ASKS, approval="plan", approve=lambda wait: True, answer=answer, on_event=events.append
    )
    assert result.answer == 42
    assert any("approved" in note for note in result.notes)
    assert [e.task for e in events if e.kind == "wait"] == [None, "factor"]
    assert events[-1].kind == "end"
    refused = await local.run(ASKS, approval="plan", approve=False)
    assert refused.status == "rejected"


async def test_a_wait_that_nothing_here_can_answer_is_an_error_and_no_hang() -> None:
    with pytest.raises(local.Stuck, match=r"human: factor: Times what\?.*answer=") as stuck:
        await local.run(ASKS)
    assert [w.task for w in stuck.value.waits] == ["factor"]


async def test_a_question_with_a_time_out_is_no_dead_end() -> None:
    task = {"id": "q", "human": "Which?", "timeout": 0.05, "fallback": "blue"}
    assert (await local.run(plan(task, answer="${q}"))).answer == "blue"


async def test_a_handle_decides_like_a_run_on_a_server() -> None:
    run = local.start(ASKS, approval="plan", budget={"tasks": 20})
    try:
        async for event in run.stream():
            if event.kind == "wait" and event.wait is not None and event.wait.kind == "approval":
                break
        assert "not durable" in repr(run)
        with pytest.raises(Refused, match="revision"):
            await run.approve(9)
        patch = [{"op": "replace", "path": "/tasks/0/args/expression", "value": "3 * 3"}]
        await run.edit(patch=patch)
        await run.approve()
        assert (await run.raise_budget(tasks=30)).accepted
        await run.pause()
        assert (await run.progress()).status in ("paused", "waiting")
        await run.resume()
        async for event in run.stream():
            if event.task == "factor" and event.kind == "wait":
                await run.answer(2)
        assert (await run.result(5)).answer == 18
        assert await run.output("six") == 9
        with pytest.raises(Refused, match="has ended"):
            await run.pause()
        assert "six" in (await run.graph()).svg
    finally:
        await run.close()


async def test_what_happens_while_an_event_is_handled_is_told_before_the_end() -> None:
    """An answer given in the loop ended the run: the task's end and `answered` were left out."""
    run = local.start(plan({"id": "q", "human": "Which?"}, answer="${q}"))
    told = []
    try:
        async for event in run.stream():
            told.append((event.kind, event.task, event.state))
            if event.kind == "wait":
                await run.answer("blue")
    finally:
        await run.close()
    assert {("task", "q", "succeeded"), ("answered", "q", None)} <= set(told)
    assert told[-2:] == [("status", None, "completed"), ("end", None, "completed")]


async def test_a_cancelled_run_keeps_what_is_finished() -> None:
    run = local.start(ASKS)
    try:
        async for event in run.stream():
            if event.kind == "wait":
                await run.cancel()
        result = await run.result(5)
        assert (result.status, result.tasks["six"].output) == ("cancelled", 6)
        with pytest.raises(Refused, match="has ended"):
            await run.cancel()
    finally:
        await run.close()


async def test_retries_time_outs_and_fallbacks_are_those_of_a_run_on_a_server() -> None:
    tries: list[int] = []

    @tool
    def unsteady() -> str:
        """Fails twice."""
        tries.append(1)
        if len(tries) < 3:
            raise ToolError("not yet", retry=True)
        return "now"

    @tool
    async def endless() -> str:
        """Never ends."""
        await asyncio.Event().wait()
        return ""

    quick = {"max_attempts": 3, "initial_seconds": 0.01}
    result = await local.run(
        plan(
            {"id": "a", "tool": "unsteady", "retry": quick},
            {
                "id": "b",
                "tool": "endless",
                "timeout": 0.1,
                "retry": {"max_attempts": 1},
                "fallback": "gave up",
            },
            answer=["${a}", "${b}"],
        ),
        tools=[unsteady, endless],
    )
    assert (result.answer, result.tasks["a"].attempts) == (["now", "gave up"], 3)
    assert result.tasks["b"].outcome == "fallback"
    broken = {"id": "c", "tool": "calculate", "args": {"expression": "1 / 0"}}
    result = await local.run(plan(broken, {"id": "d", "ask": "${c}"}))
    assert (result.status, result.tasks["c"].error_class) == ("failed", "tool")
    assert result.tasks["d"].outcome == "skipped"


async def test_a_large_answer_is_whole() -> None:
    @tool
    def rows(n: int) -> list[dict[str, Any]]:
        """Many rows."""
        return [{"n": i, "text": "x" * 50} for i in range(n)]

    task = {"id": "r", "tool": "rows", "args": {"n": 2_000}}
    result = await local.run(plan(task, answer="${r}"), tools=[rows])
    assert len(result.answer) == 2_000
    assert result.tasks["r"].blob


async def test_sub_plans_and_maps_are_child_machines_with_the_runs_budget() -> None:
    inner = {
        "params": {"n": {"type": "integer"}},
        "tasks": [{"id": "sq", "tool": "calculate", "args": {"expression": "${params.n} ** 2"}}],
        "answer": "${sq}",
    }
    mapped = {"id": "m", "map": [1, 2, 3], "plan": inner, "args": {"n": "${item}"}}
    result = await local.run(plan(mapped, answer="${m}"))
    assert result.answer == [1, 4, 9]
    assert result.usage.tasks == 6
    refused = await local.run(plan(mapped), budget={"tasks": 3}, on_budget="partial")
    assert refused.status in ("partial", "failed")


async def test_a_goal_is_planned_streamed_joined_and_replanned(model: ModelServer) -> None:
    model.script("Why a new plan is needed", 'c = calculate(expression="40 + 2")\njoin(c)')
    model.script(
        "Write the plan", Reply('a = calculate(expression="20 + 1")\njoin(a)', token_seconds=0.001)
    )
    replan = '{"action": "replan", "feedback": "double it"}'
    model.script("decide whether", replan, '{"action": "finish", "answer": "42 it is"}')
    result = await local.run(goal="What is twice 21?", approval="replan", approve=True)
    assert (result.status, result.answer, result.rounds) == ("completed", "42 it is", 1)
    assert result.tasks["a"].output == 21
    assert result.tasks["c"].output == 42


async def test_an_endpoint_that_refuses_is_tried_again_as_the_table_says(
    model: ModelServer,
) -> None:
    busy = Reply(status=429, headers={"retry-after": "0"})
    model.script("capital", busy, busy, "Paris")
    result = await local.run(plan({"id": "a", "ask": "The capital of France?"}, answer="${a}"))
    assert result.answer == "Paris"
    assert model.calls_paid("capital") == 1
    model.script("", Reply(status=401, body={"error": {"message": "bad key"}}))
    result = await local.run(plan({"id": "a", "ask": "Who?"}))
    assert (result.status, result.tasks["a"].error_class) == ("failed", "auth")


async def test_an_agent_asks_a_person_and_calls_tools(model: ModelServer) -> None:
    call = {"name": "calculate", "arguments": {"expression": "6 * 7"}}
    ask = {"name": "ask_human", "arguments": {"question": "May I?"}}
    model.script(
        "You help.",
        Reply(tool_calls=[ask]),
        Reply(tool_calls=[call]),
        "SUMMARY: s\nRESULT: it is 42 as you allowed\nNEXT_STEP: none",
    )
    helper = {"id": "helper", "system": "You help.", "tools": ["calculate", "ask_human"]}
    result = await local.run(agent=helper, task="Compute", answer=lambda wait: "yes")
    assert isinstance(result, AgentResult)
    assert (result.status, result.tool_calls) == ("completed", 2)
    assert "42" in str(result.output)


async def test_a_team_in_a_plan_speaks_and_is_judged(model: ModelServer) -> None:
    model.script(JUDGE, TRUSTED)
    for id in ("ann", "bob"):
        model.script(f"You are {id},", form(f"{id} says yes"), form(f"{id} still says yes"))
    result = await local.run(team=team("ann", "bob"), task="Decide")
    assert isinstance(result, TeamResult)
    assert (result.status, [r.kind for r in result.rounds]) == (
        "completed",
        ["initial", "communication"],
    )
    task = {"id": "t", "team": team("ann", "bob"), "args": {"task": "Decide"}}
    assert (await local.run(plan(task))).tasks["t"].outcome == "succeeded"


async def test_what_cannot_run_is_refused_with_all_problems() -> None:
    with pytest.raises(RunFailed) as failed:
        await local.run(plan({"id": "a", "tool": "calculat"}, {"id": "b", "ask": "${c}"}))
    assert failed.value.type == "InvalidPlan"
    assert len(failed.value.problems) >= 2
    with pytest.raises(RunFailed, match="gaol"):
        await local.run(gaol="x")


def test_a_script_needs_no_event_loop() -> None:
    assert local.run_sync(ASKS, answer=lambda wait: 3).answer == 18


def test_every_command_of_the_machines_is_carried_out() -> None:
    """A new command that a local run does not know would fail only where it comes up."""
    folder = Path(local.__file__).parent
    source = "".join((folder / f).read_text() for f in ("effects.py", "process.py"))
    for command in get_args(Command):
        assert (
            f"case {command.__name__}()" in source
            or f"| {command.__name__}()" in source
            or (f"isinstance(command, {command.__name__})" in source)
        ), command


async def test_slips_in_python_say_what_to_write() -> None:
    def look(x: int) -> int:
        """Look."""
        return x

    plan = {"tasks": [{"id": "a", "tool": "look", "args": {"x": 1}}]}
    with pytest.raises(FileNotFoundError, match='a goal is given by its name: goal="…"'):
        await local.run("Compare the populations")
    with pytest.raises(TypeError, match=r"tools=\[look\]"):
        await local.run(plan, tools=look)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"await local\.run"):
        local.run_sync(plan, tools=[look])
    with pytest.raises(ToolDefinitionError, match='Did you mean "side_effects"'):
        tool(side_effect=True)(look)  # type: ignore[call-overload]


async def test_a_handle_that_is_closed_lets_nobody_wait() -> None:
    run = local.start(ASKS)
    async for event in run.stream():
        if event.kind == "wait":
            break
    with pytest.raises(KeyError, match=r'no output of a task "nope"\. Tasks with one: six'):
        await run.output("nope")
    waiting = asyncio.create_task(run.result())
    await asyncio.sleep(0)
    await run.close()
    for late in (waiting, run.result(), run.answer(7, task="factor")):
        with pytest.raises(Refused, match='run "local" was closed before its end'):
            await asyncio.wait_for(late, 5)


async def test_a_callback_or_a_tool_that_is_none_is_named() -> None:
    slips: list[tuple[dict[str, Any], str]] = [
        ({"answer": "blue"}, "answer is a function, found 'blue'"),
        ({"approve": "yes"}, "approve is a function, found 'yes'"),
        ({"tools": "mine"}, 'tools is a list of functions, found the text "mine"'),
    ]
    for given, words in slips:
        with pytest.raises(TypeError, match=words):
            await local.run(ASKS, **given)


def test_a_handle_needs_an_event_loop_and_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"use local\.run_sync"):
        local.start(ASKS)
