"""AgentWorkflow on a real server: tools, bounds, schema, people, bad input."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.waiting import until

Tools = dict[str, str]


def call(_name: str, _id: str = "c1", **args: Any) -> dict[str, Any]:
    return {"id": _id, "name": _name, "arguments": args}


def agent(**more: Any) -> dict[str, Any]:
    return {"id": "helper", "system": "You help.", **more}


async def run_agent(planloom: Planloom, tools: Tools, **request: Any) -> dict[str, Any]:
    async with planloom.worker(**tools):
        handle = await planloom.start({"agent": agent(), **request}, "AgentWorkflow")
        result = await planloom.result(handle)
        shown = await planloom.progress(handle)
    assert (shown.status, shown.awaiting) == (result["status"], None)
    return result


async def test_an_agent_answers_and_its_fields_are_parsed(planloom: Planloom, tools: Tools) -> None:
    text = "SUMMARY: counted\nRESULT: there are three of them\nNEXT_STEP: none"
    planloom.model.script("", text)
    result = await run_agent(planloom, tools, task="Count them", context="a, b, c")
    assert (result["status"], result["output"], result["turns"]) == ("completed", text, 1)
    assert result["fields"]["RESULT"] == "there are three of them"
    seen = planloom.model.seen("Count them")[0].text
    assert "You help." in seen
    assert "a, b, c" in seen


async def test_a_shipped_agent_is_started_by_name(planloom: Planloom, tools: Tools) -> None:
    planloom.model.script("", "fine")
    result = await run_agent(planloom, tools, agent="researcher", task="Look")
    assert result["status"] == "completed"
    assert "careful researcher" in planloom.model.seen("Look")[0].text


async def test_tool_calls_of_a_turn_run_at_once_and_are_activities_of_their_own(
    planloom: Planloom, tools: Tools
) -> None:
    calls = [call("nap", "c1", name="x", seconds=0.4), call("nap", "c2", name="y", seconds=0.4)]
    planloom.model.script("", Reply(tool_calls=calls), "x and y")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["nap"]), "task": "nap twice"}
        handle = await planloom.start(request, "AgentWorkflow")
        result = await planloom.result(handle)
        history = (await planloom.history(handle)).to_json()
    assert (result["status"], result["turns"], result["tool_calls"]) == ("completed", 2, 2)
    last = planloom.model.seen()[-1].messages
    assert [m["content"] for m in last if m["role"] == "tool"] == ["x", "y"]
    assert history.count('"EVENT_TYPE_ACTIVITY_TASK_COMPLETED"') == 4
    assert result["transcript"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("no_such_tool", "there is no tool"), ("write_file", "there is no tool"), ("broken", "order")],
)
async def test_a_call_that_cannot_be_made_is_told_to_the_model(
    planloom: Planloom, tools: Tools, name: str, said: str
) -> None:
    args = {"path": "x", "text": "y"} if name == "write_file" else {}
    planloom.model.script("", Reply(tool_calls=[call(name, **args)]), "I could not")
    result = await run_agent(planloom, tools, agent=agent(tools=["broken", "nap"]), task="try")
    assert result["output"] == "I could not"
    told = [m["content"] for m in planloom.model.seen()[-1].messages if m["role"] == "tool"]
    assert said in told[0]
    assert not (planloom.workspace / "x").exists()


async def test_the_same_call_for_ever_is_ended_with_its_reason(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", Reply(tool_calls=[call("echo", value=1)]))
    result = await run_agent(planloom, tools, agent=agent(tools=["echo"]), task="loop")
    assert result["status"] == "partial"
    assert result["reason"] == "the same call came 5 times with the same result without an answer"
    assert planloom.model.calls_paid() == 6  # the last one was told to answer, and called on


async def test_turns_are_bounded_and_the_last_must_answer(planloom: Planloom, tools: Tools) -> None:
    replies = [Reply(tool_calls=[call("echo", value=n)]) for n in range(2)]
    planloom.model.script("answer now", "all I have")
    planloom.model.script("", *replies)
    request = {"agent": agent(tools=["echo"]), "task": "go on", "max_turns": 3}
    result = await run_agent(planloom, tools, **request)
    assert (result["turns"], result["output"]) == (3, "all I have")


async def test_a_schema_is_checked_repaired_once_then_counted(
    planloom: Planloom, tools: Tools
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    planloom.model.script("first", '{"n": "x"}', '{"n": 3}')
    planloom.model.script("second", "prose")
    async with planloom.worker(**tools):
        good = {"agent": agent(), "task": "first", "output_schema": schema}
        assert (await planloom.run(good, "AgentWorkflow"))["output"] == {"n": 3}
        bad = await planloom.run({**good, "task": "second"}, "AgentWorkflow")
    assert bad["status"] == "failed"
    assert planloom.model.calls_paid("second") == 2


async def test_a_person_answers_an_agents_question(planloom: Planloom, tools: Tools) -> None:
    question = Reply(tool_calls=[call("ask_human", question="Which colour?")])
    planloom.model.script("", question, "blue it is")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["ask_human"]), "task": "paint"}
        handle = await planloom.start(request, "AgentWorkflow")
        shown = await planloom.until(handle, lambda p: p.awaiting == "human")
        assert "Which colour?" in (shown.detail or "")
        await handle.execute_update("complete_task", {"id": "helper", "output": "blue"})
        result = await planloom.result(handle)
    assert result["output"] == "blue it is"
    told = [m["content"] for m in planloom.model.seen()[-1].messages if m["role"] == "tool"]
    assert told == ["blue"]


async def test_an_agent_stays_within_its_tokens(planloom: Planloom, tools: Tools) -> None:
    usage = {"prompt_tokens": 900, "completion_tokens": 100}
    replies = [Reply(tool_calls=[call("echo", value=n)], usage=usage) for n in range(9)]
    planloom.model.script("", *replies)
    request = {"agent": agent(tools=["echo"]), "task": "spend", "budget": {"tokens": 2_500}}
    request["on_budget"] = "partial"
    result = await run_agent(planloom, tools, **request)
    assert result["status"] == "partial"
    assert "budget" in result["reason"]
    assert result["usage"]["tokens"] <= 2_500


async def test_a_cancelled_agent_says_so(planloom: Planloom, tools: Tools) -> None:
    planloom.model.script("", Reply(text="late", delay=20))
    async with planloom.worker(**tools):
        handle = await planloom.start({"agent": agent(), "task": "wait"}, "AgentWorkflow")
        await until(lambda: planloom.model.calls() == 1)
        await handle.cancel()
        assert (await planloom.result(handle))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (None, "agent"),
        ({"agent": "reseacher", "task": "x"}, 'Did you mean "researcher"'),
        ({"agent": "researcher"}, "task"),
        ({"agent": "researcher", "task": "x", "max_turns": 0}, "max_turns"),
        ({"agent": "researcher", "task": "x", "tols": []}, 'Did you mean "tools"'),
        ({"agent": {"output_schema": {"type": "strng"}}, "task": "x"}, 'Did you mean "string"'),
    ],
)
async def test_a_bad_request_is_refused_at_once(
    planloom: Planloom, request_: Any, said: str
) -> None:
    async with planloom.worker():
        handle = await planloom.start(request_, "AgentWorkflow")
        failure = await planloom.failure(handle, timeout=10)
    assert failure.type == "InvalidRequest"
    assert said in str(failure)


async def test_an_agent_is_a_task_of_a_plan_and_many_may_share_a_goal(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", "an answer")
    tasks = [
        {"id": "n", "tool": "calculate", "args": {"expression": "40 + 2"}},
        {"id": "a", "agent": "reviewer", "args": {"task": "Review ${n}"}},
    ]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks, "answer": "${a}"}})
        both = await planloom.run({"goal": "Look", "agents": ["researcher", "tester"]})
        wrong = await planloom.failure(await planloom.start({"goal": "Look", "agents": ["nobody"]}))
    assert (result["status"], result["answer"]) == ("completed", "an answer")
    assert planloom.model.calls("Review 42") == 1
    assert both["answer"] == {"researcher": "an answer", "tester": "an answer"}
    assert 'no agent "nobody"' in str(wrong)
