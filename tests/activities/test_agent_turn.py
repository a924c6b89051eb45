"""`agent_turn`: calls as they were meant, answers as they are, and a history that is accepted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from planloom.activities.agent_tools import NOT_CALLED
from planloom.activities.agent_turn import LAST_TURN, TurnActivities, allowed_tools
from planloom.activities.models.client import ModelClient
from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract.jobs import CallResult, TurnJob, TurnReply
from planloom.planner.contract.settings import PoolSettings, Settings
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import Stored
from tests.model_server import ModelServer, Reply

TASK = "what is it?"
FORM = "SUMMARY: one sentence\nRESULT: a full answer of twenty characters\nNEXT_STEP: none"
PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
SPECS = [
    ToolSpec(name="fread", parameters=PATH),
    ToolSpec(name="write_file", side_effects=True, parameters=PATH),
    ToolSpec(name="git.log", parameters=PATH),
    ToolSpec(
        name="total",
        parameters={
            "type": "object",
            "properties": {"values": {"type": "array", "items": {"type": "number"}}},
        },
    ),
]


class Registry:
    specs = SPECS


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


class Bench:
    def __init__(self, client: ModelClient, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.activities = TurnActivities(client, Registry(), blobs)

    async def turn(self, **fields: Any) -> TurnReply:
        known: dict[str, Any] = {
            "name": "ag",
            "spec": Stored(value={"id": "ag"}),
            "task": Stored(value=TASK),
            "model": "m",
            "tools": [s.name for s in SPECS],
            "form": "agent",
        }
        job = TurnJob(**(known | fields))
        return await ActivityEnvironment().run(self.activities.agent_turn, job)


@pytest.fixture
async def bench(server: ModelServer, tmp_path: Path) -> AsyncIterator[Bench]:
    client = ModelClient(Settings(pools={"default": PoolSettings(base_url=server.url)}), {})
    yield Bench(client, BlobStore(tmp_path))
    await client.close()


def called(name: str, arguments: str, id: str = "c1") -> dict[str, Any]:
    return {"id": id, "name": name, "arguments": arguments}


async def test_names_and_arguments_are_read_as_they_were_meant(
    server: ModelServer, bench: Bench
) -> None:
    server.script(
        TASK,
        Reply(
            tool_calls=[
                called("functions.fread", '{"path": "a.txt",}', "c1"),
                called("total", '{"values": "[1, 2]"}', "c2"),
                called("git_log", '"a.txt"', "c3"),
                called("fread", '{"path": "a', "c4"),
            ]
        ),
        FORM,
    )
    reply = await bench.turn()
    assert [(c.name, c.args, c.problem is None) for c in reply.calls] == [
        ("fread", {"path": "a.txt"}, True),
        ("total", {"values": [1, 2]}, True),
        ("git.log", {"path": "a.txt"}, True),
        ("fread", {}, False),
    ]
    results = [CallResult(id=c.id, output=Stored(value="ok")) for c in reply.calls]
    await bench.turn(transcript=reply.transcript, results=results)
    sent = server.requests[1].messages
    functions = [c["function"] for c in sent[2]["tool_calls"]]
    assert [f["name"] for f in functions] == ["fread", "total", "git_log", "fread"]
    assert [json.loads(f["arguments"]) for f in functions] == [
        {"path": "a.txt"},
        {"values": [1, 2]},
        {"path": "a.txt"},
        {},
    ]


async def test_the_last_turn_keeps_the_tools_and_puts_no_user_behind_results(
    server: ModelServer, bench: Bench
) -> None:
    server.script(TASK, Reply(tool_calls=[called("fread", '{"path": "a"}')]), FORM)
    reply = await bench.turn()
    results = [CallResult(id="c1", output=Stored(value="seen"), note="you repeat yourself")]
    last = await bench.turn(transcript=reply.transcript, results=results, is_last=True)
    body = server.requests[1].body
    assert [t["function"]["name"] for t in body["tools"]][:2] == ["fread", "write_file"]
    assert body["tool_choice"] == "none"
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][-1]["content"] == f"seen\n\n(you repeat yourself)\n\n{LAST_TURN}"
    assert last.calls == []
    assert last.problems == []


async def test_a_call_in_the_last_turn_is_not_made_and_leaves_no_open_call(
    server: ModelServer, bench: Bench
) -> None:
    server.script(TASK, Reply(text="", tool_calls=[called("fread", '{"path": "a"}')]), FORM)
    reply = await bench.turn(is_last=True)
    assert (reply.calls, reply.problems) == ([], ["empty output"])
    await bench.turn(transcript=reply.transcript, problems=reply.problems)
    assert all("tool_calls" not in m for m in server.requests[1].messages)


async def test_results_that_were_lost_with_a_failed_turn_are_told_as_not_run(
    server: ModelServer, bench: Bench
) -> None:
    server.script(TASK, Reply(tool_calls=[called("fread", '{"path": "a"}')]), FORM)
    reply = await bench.turn()
    await bench.turn(transcript=reply.transcript, others_answers=Stored(value="round 2"))
    roles = [m["role"] for m in server.requests[1].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert "not run" in server.requests[1].messages[3]["content"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "fread", "arguments": {"path": "a.txt"}}',
        '<tool_call>\n{"name": "fread", "arguments": {"path": "a.txt"}}\n</tool_call>',
        'Action: fread\nAction Input: {"path": "a.txt"}',
    ],
)
async def test_a_call_written_as_text_is_made(server: ModelServer, bench: Bench, text: str) -> None:
    server.script(TASK, text, FORM)
    reply = await bench.turn()
    assert [(c.name, c.args) for c in reply.calls] == [("fread", {"path": "a.txt"})]
    results = [CallResult(id=reply.calls[0].id, output=Stored(value="seen"))]
    await bench.turn(transcript=reply.transcript, results=results)
    roles = [m["role"] for m in server.requests[1].messages]
    assert roles == ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "write_file", "arguments": {"path": "a.txt"}}',
        'I could do {"name": "fread", "arguments": {"path": "a"}} but I do not.',
    ],
)
async def test_a_written_call_with_side_effects_or_among_words_is_asked_about_and_not_made(
    server: ModelServer, bench: Bench, text: str
) -> None:
    server.script(TASK, text)
    reply = await bench.turn()
    assert (reply.calls, reply.problems) == ([], [NOT_CALLED])


async def test_an_answer_that_fits_its_schema_is_an_answer_whatever_it_looks_like(
    server: ModelServer, bench: Bench
) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name"],
    }
    server.script(TASK, '{"name": "fread", "arguments": {"path": "x"},}')
    reply = await bench.turn(output_schema=schema)
    assert (reply.calls, reply.problems) == ([], [])
    assert reply.value is not None
    assert reply.value.value == {"name": "fread", "arguments": {"path": "x"}}


async def test_equal_calls_have_equal_fingerprints_and_long_ones_that_differ_do_not(
    server: ModelServer, bench: Bench
) -> None:
    long = "x" * 1_000
    made = ['{"path": "a"}', '{ "path":"a" }', f'{{"path": "{long}1"}}', f'{{"path": "{long}2"}}']
    server.script(TASK, Reply(tool_calls=[called("fread", a, f"c{n}") for n, a in enumerate(made)]))
    marks = [c.fingerprint for c in (await bench.turn()).calls]
    assert marks[0] == marks[1]
    assert len(set(marks[1:])) == 3


async def test_a_confidence_that_may_mean_two_things_is_told(
    server: ModelServer, bench: Bench
) -> None:
    text = (
        "SUMMARY: rated by me with care\nCLAIM: it is good\nEVIDENCE: a.py:3\nDISCUSSION: none\n"
        "CONFIDENCE: %s\nRESULT: a full answer of a member\nNEXT_STEP: none"
    )
    server.script(TASK, text % "9", text % "9/10")
    reply = await bench.turn(form="member")
    assert (reply.confidence, reply.violations) == (0.5, ["CONFIDENCE:unclear"])
    reply = await bench.turn(form="member")
    assert (reply.confidence, reply.violations) == (0.9, [])


@pytest.mark.parametrize(
    ("allow", "offered"),
    [
        (None, ["echo", "nap", "ask_human", "read_output"]),
        (["nap"], ["nap", "read_output"]),
        ([], ["read_output"]),
    ],
)
def test_a_turn_offers_only_tools_of_the_runs_allow_list(
    allow: list[str] | None, offered: list[str]
) -> None:
    job = TurnJob(
        name="a",
        spec=Stored(),
        task=Stored(),
        tools=["echo", "nap", "ask_human", "read_output"],
        allow=allow,
    )
    assert allowed_tools(job) == offered
