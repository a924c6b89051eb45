"""`planloom mcp`, asked by the official SDK's client as a coding agent would."""

from __future__ import annotations

import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters

from planloom import Client as PlanloomClient
from planloom.console.mcp_server import build_server
from tests.support.harness import Planloom

ASKS = {
    "tasks": [
        {"id": "six", "tool": "calculate", "args": {"expression": "2 * 3"}},
        {"id": "factor", "human": {"question": "Times what?"}, "depends_on": ["six"]},
        {"id": "whole", "tool": "calculate", "args": {"expression": "${six} * ${factor}"}},
    ],
    "answer": "${whole}",
}


def program(planloom: Planloom) -> StdioServerParameters:
    """`planloom mcp`, as an agent's settings name it."""
    environment = {**os.environ, **planloom.env}
    arguments = ["-P", "-m", "planloom.cli", "mcp"]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env=environment, cwd=planloom.folder
    )


def in_process(planloom: Planloom) -> Any:
    async def connect() -> PlanloomClient:
        return PlanloomClient(planloom.client, planloom.task_queue)

    return build_server(connect)


async def told(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    text = "\n".join(p.text for p in result.content if p.type == "text")
    assert not result.is_error, text
    return result.structured_content if result.structured_content is not None else text


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return "\n".join(p.text for p in result.content if p.type == "text")


async def test_an_agent_starts_a_job_follows_it_and_passes_decisions_on(
    planloom: Planloom,
) -> None:
    async with planloom.worker(), Client(program(planloom)) as client:
        assert "Never approve by yourself" in str(client.instructions)
        started = await told(client, "start", plan=ASKS, approval="plan", id="job")
        assert started["run"] == "job"
        waits = await told(client, "result", run="job", wait_seconds=60)
        assert (waits["has_ended"], waits["awaiting"]) == (False, "approval")
        assert "revision" in await refused(client, "approve", run="job", revision=5)
        await told(
            client, "approve", run="job", revision=waits["waits"][0]["input"]["revision"], by="ana"
        )
        waits = await told(client, "result", run="job", wait_seconds=60)
        assert waits["waits"][0]["input"]["id"] == "factor"
        await told(client, "answer", run="job", output=7, by="ana")
        result = await told(client, "result", run="job", wait_seconds=60)
        assert (result["has_ended"], result["status"], result["answer"]) == (True, "completed", 42)
        report = await told(client, "report", run="job")
    assert "# Run job: completed" in report
    assert "| whole | succeeded |" in report
    assert "```mermaid" in report
    assert 'approved by "ana"' in report


async def test_what_an_agent_gets_wrong_is_said_so_that_it_can_do_better(
    planloom: Planloom,
) -> None:
    async with planloom.worker(), Client(in_process(planloom)) as client:
        assert 'no run "never"' in await refused(client, "progress", run="never")
        await told(client, "start", plan={"tasks": [{"id": "a", "tool": "calculat"}]}, id="bad")
        said = await refused(client, "result", run="bad", wait_seconds=30)
        assert 'Did you mean "calculate"' in said
        assert "refused" in await told(client, "report", run="bad")
        assert "cannot be sent" in await refused(client, "start", goal="\ud83d")
        await told(client, "start", plan=ASKS, approval="never", id="stops")
        assert "already running" in await refused(client, "start", plan=ASKS, id="stops")
        waits = await told(client, "result", run="stops", wait_seconds=30)
        assert waits["awaiting"] == "human"
        assert "It waits for" in await told(client, "report", run="stops")
        await told(client, "cancel", run="stops")
        result = await told(client, "result", run="stops", wait_seconds=30)
        assert result["status"] == "cancelled"
        for tool in ("cancel", "approve", "answer"):
            given = {"output": 1} if tool == "answer" else {}
            said = await refused(client, tool, run="stops", **given)
            assert said.endswith('run "stops" has ended.')
        slips: list[tuple[str, dict[str, Any], str]] = [
            ("progress", {}, "progress: run: is missing"),
            ("progress", {"run": ""}, "progress: run: needs at least 1 character"),
            ("start", {"plan": "x"}, "start: plan: needs an object, found text"),
            ("result", {"run": "stops", "wait_seconds": 999}, "wait_seconds: needs 300 or less"),
            ("approve", {"run": "stops", "revision": "one"}, "revision: needs a whole number"),
            ("start", {"goal": "x", "approval": "perhaps"}, "approval: needs 'never', 'plan'"),
        ]
        for tool, given, words in slips:
            said = await refused(client, tool, **given)
            assert words in said
            assert "pydantic" not in said


async def test_the_tools_say_what_they_change(planloom: Planloom) -> None:
    async with Client(in_process(planloom)) as client:
        tools = {t.name: t for t in (await client.list_tools()).tools}
    reads = {n for n, t in tools.items() if t.annotations and t.annotations.read_only_hint}
    assert reads == {"progress", "result", "report"}
    stops = {n for n, t in tools.items() if t.annotations and t.annotations.destructive_hint}
    assert stops == {"cancel"}
    assert {"start", "approve", "reject", "answer", "raise_budget"} <= set(tools)
    assert all(t.description for t in tools.values())


async def test_without_a_server_the_agent_is_told_how_to_start_one(planloom: Planloom) -> None:
    async def nowhere() -> PlanloomClient:
        return await PlanloomClient.connect(target_host="127.0.0.1:9")

    async with Client(build_server(nowhere)) as client:
        said = await refused(client, "start", goal="x")
    assert "no Temporal server answers at 127.0.0.1:9" in said
    assert "planloom dev" in said
