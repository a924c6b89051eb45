"""A run exported over OTLP: one trace, right parents, conventional names, none doubled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.harness import Planloom
from tests.support.otlp import Collector, Span


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def one(spans: list[Span], name: str) -> Span:
    (found,) = [s for s in spans if s.name == name]
    return found


async def test_a_run_is_one_trace_though_its_worker_was_restarted(
    planloom: Planloom, tools: dict[str, str], collector: Collector
) -> None:
    planloom.model.script(
        "Write the plan",
        'a = nap(name="a")\nb = nap(name="b", seconds=0.8, after=a)\n'
        'c = ask(prompt="Say ${b}")\njoin(c)',
    )
    planloom.model.script("decide whether", '{"action": "finish", "answer": "x"}')
    planloom.model.script("Say b", "b!")
    env = {
        **tools,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    async with planloom.worker_process(**env) as worker:
        handle = await planloom.start({"goal": "nap"})
        await planloom.until(handle, lambda p: p.tasks.get("b") == "running")
        await worker.stop()
        await worker.start()
        result = await planloom.result(handle, timeout=60)
    assert result["status"] == "completed"
    spans = collector.spans
    assert len({s.trace for s in spans}) == 1
    assert max(Counter(s.id for s in spans).values()) == 1
    run = one(spans, "invoke_workflow DagWorkflow")
    plan = one(spans, "plan planner")
    assert run.parent == ""
    assert plan.parent == run.id
    naps = [s for s in spans if s.name == "execute_tool nap"]
    assert {s.parent for s in naps} <= {run.id, plan.id}
    assert {s.attributes["planloom.task"] for s in naps} == {"a", "b"}
    chats = [s for s in spans if s.name == "chat test-model"]
    assert len(chats) == 3
    assert plan.id in {s.parent for s in chats}
    assert all(s.kind == 3 for s in chats)  # CLIENT
    assert all(s.attributes["gen_ai.usage.input_tokens"] > 0 for s in chats)
    assert not any("gen_ai.input.messages" in s.attributes for s in spans)
    assert {
        "gen_ai.client.token.usage",
        "gen_ai.client.operation.duration",
        "gen_ai.execute_tool.duration",
    } <= collector.metrics


async def test_a_run_started_by_a_signal_still_belongs_to_its_trace(
    planloom: Planloom, tools: dict[str, str], collector: Collector
) -> None:
    env = {**tools, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    async with planloom.worker_process(**env):
        tasks = [{"id": "q", "human": "?"}, {"id": "a", "tool": "nap", "args": {"name": "${q}"}}]
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        await handle.signal("complete_task", {"id": "q", "output": "x"})
        await planloom.result(handle)
    run = one(collector.spans, "invoke_workflow DagWorkflow")
    assert one(collector.spans, "execute_tool nap").parent == run.id


def quick(tools: dict[str, str], collector: Collector) -> dict[str, str]:
    return {**tools, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}


async def test_sub_plans_and_model_calls_are_in_the_trace_with_their_run_and_task(
    planloom: Planloom, tools: dict[str, str], collector: Collector
) -> None:
    planloom.model.script("Say hi", "hello")
    inner = {"tasks": [{"id": "in", "tool": "nap", "args": {"name": "in"}}]}
    tasks = [
        {"id": "sub", "plan": inner},
        {"id": "q", "ask": "Say hi", "depends_on": ["sub"]},
        {"id": "bad", "tool": "broken", "args": {}, "retry": {"max_attempts": 1}},
    ]
    async with planloom.worker_process(**quick(tools, collector)):
        handle = await planloom.start({"plan": {"tasks": tasks}})
        assert (await planloom.result(handle))["status"] == "partial"
    spans = collector.spans
    assert len({s.trace for s in spans}) == 1
    runs = {s.attributes["planloom.run"]: s for s in spans if s.name.startswith("invoke_workflow")}
    assert set(runs) == {handle.id, f"{handle.id}/sub"}
    assert runs[f"{handle.id}/sub"].parent == runs[handle.id].id
    assert one(spans, "execute_tool nap").parent == runs[f"{handle.id}/sub"].id
    chat = one(spans, "chat test-model")
    assert (chat.attributes["planloom.run"], chat.attributes["planloom.task"]) == (handle.id, "q")
    assert "planloom.usd" in chat.attributes
    assert one(spans, "execute_tool broken").attributes["error.type"] == "tool"


@pytest.mark.parametrize(
    ("span", "request_", "kind"),
    [
        ("DagWorkflow", {"plan": {"tasks": [{"id": "a", "tool": "nothing"}]}}, "InvalidPlan"),
        ("DagWorkflow", {"goal": "x", "template": "y"}, "InvalidRequest"),
        ("AgentWorkflow", {"task": "x"}, "InvalidRequest"),
        ("AgentWorkflow", {"agent": "nobody", "task": "x"}, "InvalidRequest"),
        ("TeamWorkflow", {"team": {"members": []}, "task": "x"}, "InvalidRequest"),
        ("TeamWorkflow", {"team": "nobody", "task": "x"}, "InvalidRequest"),
    ],
)
async def test_a_run_that_fails_has_a_span_that_says_why(
    planloom: Planloom,
    tools: dict[str, str],
    collector: Collector,
    span: str,
    request_: dict[str, object],
    kind: str,
) -> None:
    async with planloom.worker_process(**quick(tools, collector)):
        await planloom.failure(await planloom.start(request_, span))
    [run] = [s for s in collector.spans if s.attributes.get("gen_ai.workflow.name") == span]
    assert run.attributes["error.type"] == kind


async def test_an_agent_is_invoked_by_its_name(
    planloom: Planloom, tools: dict[str, str], collector: Collector
) -> None:
    planloom.model.script("", "done")
    task = {"id": "a", "agent": {"id": "reader", "system": "Read."}, "args": {"task": "read"}}
    async with planloom.worker_process(**quick(tools, collector)):
        assert (await planloom.run({"plan": {"tasks": [task]}}))["status"] == "completed"
    agent = one(collector.spans, "invoke_agent reader")
    assert agent.parent == one(collector.spans, "invoke_workflow DagWorkflow").id
    assert agent.attributes["gen_ai.agent.name"] == "reader"
    assert one(collector.spans, "chat test-model").parent == agent.id


async def test_content_is_captured_when_it_is_asked_for(
    planloom: Planloom, tools: dict[str, str], collector: Collector
) -> None:
    planloom.model.script("Say hi", "hello")
    env = quick(tools, collector) | {
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"
    }
    async with planloom.worker_process(**env):
        await planloom.run({"plan": {"tasks": [{"id": "q", "ask": "Say hi"}]}})
    chat = one(collector.spans, "chat test-model").attributes
    said = json.loads(chat["gen_ai.output.messages"])[0]["parts"][0]["content"]
    assert said == "hello"
    assert "Say hi" in chat["gen_ai.input.messages"]


async def test_a_tools_own_log_line_has_its_run_task_and_revision(planloom: Planloom) -> None:
    module = planloom.tools(
        """
        import logging
        from planloom import tool

        @tool
        def loud(n: int) -> int:
            "Says so."
            logging.getLogger("loud").warning("n is %s", n)
            return n

        @tool(local=True)
        def near(n: int) -> int:
            "Says so, in the workflow's worker."
            logging.getLogger("near").warning("n is %s", n)
            return n
        """
    )
    tasks = [
        {"id": "loud", "tool": "loud", "args": {"n": 1}},
        {"id": "near", "tool": "near", "args": {"n": 1}},
        {"id": "rows", "map": [2, 3], "tool": "loud", "args": {"n": "${item}"}, "fuse": True},
        {"id": "alone", "map": [4, 5], "tool": "loud", "args": {"n": "${item}"}, "fuse": False},
    ]
    async with planloom.worker_process(PLANLOOM_TOOLS=module, PLANLOOM_LOG="json") as worker:
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.result(handle)
        await worker.stop()
        lines = [json.loads(x) for x in worker.output.splitlines() if x.startswith("{")]
    seen = {(x["logger"], x["task"], x["message"]) for x in lines}
    assert seen == {
        ("loud", "loud", "n is 1"),
        ("near", "near", "n is 1"),
        ("loud", "rows[0]", "n is 2"),
        ("loud", "rows[1]", "n is 3"),
        ("loud", "alone[0]", "n is 4"),
        ("loud", "alone[1]", "n is 5"),
    }
    assert {(x["run"], x["revision"]) for x in lines} == {(handle.id, 1)}
