"""Whole runs on servers that other people wrote: the ordinary path, errors, what passes a proxy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import ModelServer, Reply
from tests.real_servers.conftest import KEY, PLAN
from tests.support.harness import Planloom

JOIN = '{"action": "finish", "answer": "42"}'


def ask(prompt: str = "hi", **fields: Any) -> dict[str, Any]:
    task = {"id": "a", "ask": {"prompt": prompt}, "retry": {"max_attempts": 1}}
    return {"plan": {"tasks": [task], "answer": "${a}"}, "retry_rounds": 0, **fields}


async def result_of(planloom: Planloom, url: str, request: dict[str, Any], **env: str) -> Any:
    async with planloom.worker(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, **env):
        return await planloom.run(request, timeout=60)


async def test_an_answer_and_its_usage_come_through_litellm(
    planloom: Planloom, litellm: str
) -> None:
    result = await result_of(planloom, litellm, ask(model="mock"))
    assert (result["status"], result["answer"]) == ("completed", "yes it is")
    assert result["usage"]["tokens"] > 0


@pytest.mark.parametrize(
    ("name", "error_class"),
    [("long", "context_length"), ("broken", "unknown"), ("not-there", "refused")],
)
async def test_errors_of_litellm_have_their_class(
    planloom: Planloom, litellm: str, name: str, error_class: str
) -> None:
    result = await result_of(planloom, litellm, ask(model=name))
    assert result["status"] == "failed"
    assert result["tasks"]["a"]["error_class"] == error_class, result["reason"]


async def test_a_rate_limit_of_litellm_is_waited_for(planloom: Planloom, litellm: str) -> None:
    async with planloom.worker(OPENAI_BASE_URL=litellm, OPENAI_API_KEY=KEY):
        handle = await planloom.start(ask(model="limited"))
        with pytest.raises(AssertionError, match="has not ended"):
            await planloom.result(handle, timeout=4)
        await handle.terminate()


async def test_a_wrong_key_of_litellm_is_no_refusal(planloom: Planloom, litellm: str) -> None:
    async with planloom.worker(OPENAI_BASE_URL=litellm, OPENAI_API_KEY="sk-wrong-7654321"):
        result = await planloom.run(ask(model="mock"))
    assert result["tasks"]["a"]["error_class"] == "auth", result["reason"]
    assert "7654321" not in str(result)


async def test_a_goal_is_planned_and_joined_behind_litellm(
    planloom: Planloom, litellm: str, behind: ModelServer
) -> None:
    behind.reset()
    behind.script("Write the plan", Reply(text=PLAN, chunking="line"))
    behind.script("You decide whether", JOIN)
    result = await result_of(planloom, litellm, {"goal": "six times seven", "model": "behind"})
    assert (result["status"], result["answer"]) == ("completed", "42")
    assert result["usage"]["tokens"] == behind.tokens_paid()


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_an_answer_that_is_not_whole_stays_so_behind_litellm(
    planloom: Planloom, litellm: str, behind: ModelServer, finish: str
) -> None:
    behind.reset()
    behind.script("hi", Reply(text="half of the ans", finish=finish))
    result = await result_of(planloom, litellm, ask(model="behind"))
    assert result["status"] == "failed"


async def test_a_stream_that_breaks_behind_litellm_is_no_plan(
    planloom: Planloom, litellm: str, behind: ModelServer
) -> None:
    behind.reset()
    broken = Reply(text=PLAN + "\n" * 40, fault="cut_stream", cut_after=2, chunking="token")
    behind.script("Write the plan", broken, PLAN)
    behind.script("You decide whether", JOIN)
    result = await result_of(planloom, litellm, {"goal": "six times seven", "model": "behind"})
    assert (result["status"], result["answer"]) == ("completed", "42")


async def test_an_agent_calls_its_tools_behind_litellm(
    planloom: Planloom, litellm: str, behind: ModelServer
) -> None:
    behind.reset()
    form = "SUMMARY: it is done now\nRESULT: the answer is forty-two, as asked\nNEXT_STEP: none"
    calls = [
        {"name": "calculate", "arguments": {"expression": "6 * 7"}, "id": "a"},
        {"name": "calculate", "arguments": {"expression": "6 * 8"}, "id": "b"},
    ]
    behind.script(lambda seen: seen.messages[-1]["role"] == "tool", form)
    behind.script("", Reply(tool_calls=calls))
    request = {"agent": {"id": "x", "tools": ["calculate"]}, "task": "count", "model": "behind"}
    async with planloom.worker(OPENAI_BASE_URL=litellm, OPENAI_API_KEY=KEY):
        result = await planloom.run(request, workflow="AgentWorkflow", timeout=60)
    assert (result["status"], result["tool_calls"]) == ("completed", 2), result["reason"]


async def test_a_goal_is_planned_and_joined_on_fakellm(planloom: Planloom, fakellm: str) -> None:
    result = await result_of(planloom, fakellm, {"goal": "six times seven"})
    assert (result["status"], result["answer"]) == ("completed", "42"), result["reason"]


async def test_an_ask_is_answered_on_fakellm(planloom: Planloom, fakellm: str) -> None:
    result = await result_of(planloom, fakellm, ask("What is the capital of Norway?"))
    assert (result["status"], result["answer"]) == ("completed", "Oslo")
