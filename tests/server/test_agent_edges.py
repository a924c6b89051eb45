"""What could hang, lose or overfill an agent: equal ids, ranges, large values, windows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.model_server import Reply
from tests.server.test_agents import agent, call, run_agent
from tests.support.harness import Planloom

Tools = dict[str, str]
BIG = "The quick brown fox. " * 2_000
"""42,000 characters: too large to be shown whole."""


def told(planloom: Planloom) -> list[str]:
    return [m["content"] for m in planloom.model.seen()[-1].messages if m["role"] == "tool"]


async def test_calls_with_the_same_id_are_all_made(planloom: Planloom, tools: Tools) -> None:
    """Two activities of one id would fail the workflow task again and again."""
    calls = [call("echo", "same", value=n) for n in (1, 2)] + [call("echo", "x" * 2_000, value=3)]
    planloom.model.script("", Reply(tool_calls=calls), "done")
    result = await run_agent(planloom, tools, agent=agent(tools=["echo"]), task="go")
    assert (result["status"], result["tool_calls"]) == ("completed", 3)
    assert told(planloom) == ["1", "2", "3"]


async def test_a_large_context_is_summed_up_cut_and_opened(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("Sum up the text", "a fox, many times")
    opened = [
        call("read_output", "r1", id="context", start=41_990, end=42_000),
        call("read_output", "r2", id="context", start=99_999),
        call("read_output", "r3", id="nothing"),
    ]
    planloom.model.script("", Reply(tool_calls=opened), "done")
    result = await run_agent(planloom, tools, task="read", context=BIG)
    assert result["output"] == "done"
    first = next(s for s in planloom.model.seen() if "# Task" in s.text).text
    assert "# Input context, summed up\na fox, many times" in first
    assert 'cut: 2,000 of 42,000 characters; read_output("context", start, end) opens it' in first
    assert len(first) < 5_000
    part, beyond, unknown = told(planloom)
    assert "wn fox. " in part
    assert "the output has 42,000 characters" in beyond
    assert 'no output "nothing". There are: context' in unknown


async def test_a_summary_is_made_once_for_the_same_text(planloom: Planloom, tools: Tools) -> None:
    planloom.model.script("Sum up the text", "a fox")
    planloom.model.script("", "seen")
    spec = agent()
    tasks = [
        {"id": "t", "tool": "echo", "args": {"value": BIG}},
        *(
            {"id": f"a{n}", "agent": spec, "args": {"task": f"{n}", "context": "${t}"}}
            for n in range(2)
        ),
    ]
    tasks[2]["depends_on"] = ["a0"]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["status"] == "completed"
    assert planloom.model.calls("Sum up the text") == 1


async def test_a_large_tool_output_is_cut_and_can_be_opened(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script(
        "",
        Reply(tool_calls=[call("echo", "c1", value=BIG)]),
        Reply(tool_calls=[call("read_output", "c2", id="echo.1.c1", start=0, end=9)]),
        "done",
    )
    result = await run_agent(planloom, tools, agent=agent(tools=["echo"]), task="go")
    assert result["output"] == "done"
    cut, opened = told(planloom)
    assert 'read_output("echo.1.c1", start, end) opens it' in cut
    assert opened.startswith("The quick")


async def test_two_questions_of_one_turn_are_both_answered(
    planloom: Planloom, tools: Tools
) -> None:
    calls = [call("ask_human", f"q{n}", question=f"Number {n}?") for n in (1, 2)]
    planloom.model.script("", Reply(tool_calls=calls), "thanks")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["ask_human"]), "task": "ask"}
        handle = await planloom.start(request, "AgentWorkflow")
        for n in (1, 2):
            await planloom.until(handle, lambda p, n=n: f"Number {n}?" in (p.detail or ""))
            await handle.signal("complete_task", {"id": "helper", "output": f"answer {n}"})
        await handle.signal("complete_task", {"id": "helper", "output": "late"})
        result = await planloom.result(handle)
    assert told(planloom) == ["answer 1", "answer 2"]
    assert result["status"] == "completed"


@pytest.mark.parametrize("payload", [[], [{}], [{"by": "ops"}]])
async def test_pause_and_resume_by_signal_with_or_without_input(
    planloom: Planloom, tools: Tools, payload: list[Any]
) -> None:
    planloom.model.script("", Reply(tool_calls=[call("echo", value=1)], delay=0.4), "done")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["echo"]), "task": "go"}
        handle = await planloom.start(request, "AgentWorkflow")
        await handle.signal("pause", args=payload)
        await planloom.until(handle, lambda p: p.status == "paused")
        await asyncio.sleep(0.8)
        assert planloom.model.calls_paid() <= 1
        await handle.signal("resume", args=payload)
        assert (await planloom.result(handle))["status"] == "completed"


async def test_an_unknown_tool_in_an_allow_list_is_refused(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["calculat"]), "task": "x"}
        handle = await planloom.start(request, "AgentWorkflow")
        failure = await planloom.failure(handle, timeout=10)
    assert failure.type == "UnknownTool"
    assert 'Did you mean "calculate"?' in str(failure)


async def test_tools_for_ever_end_at_max_turns_with_that_reason(
    planloom: Planloom, tools: Tools
) -> None:
    """A model that calls on, although it is offered no tools any more, has no answer."""
    planloom.model.script("", *[Reply(tool_calls=[call("echo", value=n)]) for n in range(9)])
    request = {"agent": agent(tools=["echo"]), "task": "go on", "max_turns": 3}
    result = await run_agent(planloom, tools, **request)
    assert result["status"] == "partial"
    assert "max_turns 3 is reached" in result["reason"]
    assert planloom.model.calls_paid() == 3


async def test_a_violated_schema_says_so_in_agent_and_plan(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", "prose")
    schema = {"type": "object", "required": ["n"]}
    async with planloom.worker(**tools):
        request = {"agent": agent(), "task": "x", "output_schema": schema}
        alone = await planloom.run(request, "AgentWorkflow")
        task = {"id": "a", "agent": agent(output_schema=schema), "args": {"task": "x"}}
        inside = await planloom.run({"plan": {"tasks": [task]}, "retry_rounds": 0})
    assert (alone["status"], alone["error_class"]) == ("failed", "schema_violation")
    assert inside["tasks"]["a"]["error_class"] == "schema_violation"


async def test_a_conversation_is_cut_to_fit_its_model_or_fails_with_both_counts(
    planloom: Planloom, tools: Tools
) -> None:
    (planloom.folder / "planloom.toml").write_text(
        '[context_windows]\n"small-*" = 2000\n"tiny" = 256\n'
    )
    (planloom.workspace / "fox.txt").write_text(BIG[:11_000])
    planloom.model.script("", Reply(tool_calls=[call("read_file", path="fox.txt")]), "done")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["read_file"]), "task": "go", "model": "small-one"}
        good = await planloom.run(request, "AgentWorkflow")
        planloom.model.script("", "never")
        bad = await planloom.run(
            {"agent": agent(system="x" * 1_200), "task": "go", "model": "tiny"}, "AgentWorkflow"
        )
    assert good["status"] == "completed"
    seen = [s for s in planloom.model.seen() if s.model == "small-one"]
    assert max(len(s.text) for s in seen) < 2_000 * 4
    assert "cut to fit the model" in seen[-1].text
    assert (bad["status"], bad["error_class"]) == ("failed", "context_length")
    assert "tiny reads 256" in bad["reason"]
    assert not [s for s in planloom.model.seen() if s.model == "tiny"]


async def test_agents_with_tasks_of_their_own_end_with_an_outcome_code(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("Break it", Reply(status=401))
    planloom.model.script("", "fine")
    agents = ["reviewer", {"agent": "tester", "task": "Break it"}]
    async with planloom.worker(**tools):
        mixed = await planloom.run({"goal": "Look", "agents": agents, "limits": {"agents": 1}})
        theirs = await planloom.run({"task": "Look", "subagentIds": ["tester", "tester"]})
    assert (mixed["status"], mixed["answer"]["reviewer"]) == ("partial", "fine")
    assert mixed["aggregate"]["code"] == "PARTIAL_SUCCESS"
    assert mixed["aggregate"]["failed"] == ["tester"]
    assert theirs["answer"] == {"tester": "fine"}
    assert theirs["aggregate"]["code"] == "SUCCESS"


async def test_an_agent_that_is_switched_off_is_left_out_and_never_called_unknown(
    planloom: Planloom, tools: Tools
) -> None:
    folder = planloom.workspace / ".planloom" / "agents"
    folder.mkdir(parents=True)
    (folder / "idle.md").write_text("---\nname: idle\nenabled: disabled\n---\nYou rest.")
    planloom.model.script("", "fine")
    task = {"id": "t", "agent": "idle", "args": {"task": "x"}}
    async with planloom.worker(**tools):
        both = await planloom.run({"task": "Look", "subagentIds": ["tester", "idle"]})
        alone = await planloom.start({"task": "Look", "subagentIds": ["idle"]})
        nobody = await planloom.failure(alone)
        named = await planloom.failure(await planloom.start({"plan": {"tasks": [task]}}))
    assert (both["status"], both["answer"]) == ("completed", {"tester": "fine"})
    assert '"idle" is disabled, and was left out' in both["notes"]
    assert "none of them is enabled: idle" in str(nobody)
    assert 'agent "idle" is disabled' in str(named)


async def test_search_attributes_say_what_an_agent_waits_for(
    planloom: Planloom, tools: Tools
) -> None:
    question = Reply(tool_calls=[call("ask_human", question="Well?")])
    planloom.model.script("", question, "thanks")
    async with planloom.worker(**tools):
        request = {"agent": agent(tools=["ask_human"]), "task": "ask", "tenant": "acme"}
        handle = await planloom.start(request, "AgentWorkflow")
        await planloom.until(handle, lambda p: p.awaiting == "human")
        shown = {p.key.name: p.value for p in (await handle.describe()).typed_search_attributes}
        await handle.signal("complete_task", {"id": "helper", "output": "yes"})
        await planloom.result(handle)
        ended = {p.key.name: p.value for p in (await handle.describe()).typed_search_attributes}
    assert (shown["PlanloomStatus"], shown["PlanloomAwaiting"]) == ("waiting", ["human"])
    assert (shown["PlanloomTenant"], ended["PlanloomStatus"]) == ("acme", "completed")
