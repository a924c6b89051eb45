"""A run exported over OTLP: one trace, right parents, conventional names, none doubled."""

from __future__ import annotations

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
