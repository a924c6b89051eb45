"""`join_outcomes`: a decision out of a model, in every form it may write it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from planloom.activities.join import JoinActivities
from planloom.activities.models.client import ModelClient
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.patience import Patience
from planloom.planner.contract.jobs import FinishedTask, JoinJob, JoinReply
from planloom.planner.contract.settings import PoolSettings, Settings
from planloom.planner.language.values import Outcome, Stored
from tests.model_server import ModelServer, Reply


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


class Bench:
    def __init__(self, client: ModelClient, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.activities = JoinActivities(client, blobs)

    async def join(self, *finished: FinishedTask, **fields: Any) -> JoinReply:
        known = {"goal": "the ratio?", "model": "joiner-model", "rounds_left": 1}
        job = JoinJob(finished=list(finished), **(known | fields))
        return await ActivityEnvironment().run(self.activities.join_outcomes, job)


@pytest.fixture
async def bench(server: ModelServer, tmp_path: Path) -> AsyncIterator[Bench]:
    client = ModelClient(Settings(pools={"default": PoolSettings(base_url=server.url)}), {})
    yield Bench(client, BlobStore(tmp_path, patience=Patience(0.0, 0.0)))
    await client.close()


FR = FinishedTask(
    id="fr", call="search(…)", outcome=Outcome.SUCCEEDED, output=Stored(value={"n": 67})
)
ES = FinishedTask(id="es", call="search(…)", outcome=Outcome.FAILED, error="timeout: no answer")


async def test_finish_gives_the_answer_and_the_usage(server: ModelServer, bench: Bench) -> None:
    server.script("ratio?", '{"thought": "enough", "action": "finish", "answer": {"x": 1.4}}')
    reply = await bench.join(FR, ES)
    assert reply.action == "finish"
    assert reply.answer is not None
    assert reply.answer.value == {"x": 1.4}
    assert reply.thought == "enough"
    assert reply.usage.model_calls == 1
    assert server.requests[0].model == "joiner-model"
    text = server.requests[0].text
    assert '{"n": 67}' in text
    assert "timeout: no answer" in text


async def test_a_large_output_is_loaded_and_shown_cut(server: ModelServer, bench: Bench) -> None:
    server.script("ratio?", '{"action": "finish", "answer": "ok"}')
    stored = await bench.blobs.store_value("begin" + "x" * 50_000 + "the end")
    assert stored.blob is not None
    await bench.join(FR.model_copy(update={"output": stored}))
    text = server.requests[0].text
    assert "the end" in text
    assert "characters left out" in text
    assert len(text) < 10_000


async def test_a_lost_blob_is_shown_by_its_preview(server: ModelServer, bench: Bench) -> None:
    server.script("ratio?", '{"action": "finish", "answer": "ok"}')
    lost = Stored(blob="0" * 64, preview="begins so", size_bytes=9_999)
    await bench.join(FR.model_copy(update={"output": lost}))
    assert "begins so" in server.requests[0].text


async def test_a_large_answer_travels_as_a_reference(server: ModelServer, bench: Bench) -> None:
    server.script("ratio?", '{"action": "finish", "answer": "' + "y" * 5_000 + '"}')
    reply = await bench.join(FR)
    assert reply.answer is not None
    assert reply.answer.blob is not None
    assert await bench.blobs.load(reply.answer) == "y" * 5_000


@pytest.mark.parametrize("rounds_left", [2, 0])
async def test_a_replan_comes_with_its_reason_also_in_the_last_round(
    server: ModelServer, bench: Bench, rounds_left: int
) -> None:
    server.script("ratio?", "Thought: not enough\nAction: Replan(need the 2020 figure (Spain))")
    reply = await bench.join(FR, rounds_left=rounds_left)
    assert (reply.action, reply.answer) == ("replan", None)
    assert reply.feedback == "need the 2020 figure (Spain)"
    assert ("must finish" in server.requests[0].text) == (rounds_left == 0)


async def test_a_reason_without_end_is_cut_and_not_paid_again(
    server: ModelServer, bench: Bench
) -> None:
    """Found: the activity's result was more than Temporal takes, and the model was asked again."""
    said = {"action": "replan", "feedback": "é" * 900_000, "thought": "t" * 900_000}
    server.script("", json.dumps(said, ensure_ascii=False))
    reply = await bench.join()
    assert reply.action == "replan"
    assert "characters left out" in reply.feedback
    assert len(reply.model_dump_json()) < 50_000


async def test_an_answer_without_a_decision_is_repaired_twice_at_most(
    server: ModelServer, bench: Bench
) -> None:
    server.script("ratio?", "The ratio is 1.4.", "1.4!", '{"action": "finish", "answer": 1.4}')
    reply = await bench.join(FR)
    assert reply.answer is not None
    assert reply.answer.value == 1.4
    assert len(reply.problems) == 2
    assert reply.usage.model_calls == 3
    assert "no action found" in server.requests[1].last

    server.reset()
    server.script("ratio?", "The ratio is 1.4.")
    with pytest.raises(ApplicationError) as caught:
        await bench.join(FR)
    assert caught.value.type == "schema_violation"
    assert server.calls() == 3


async def test_a_decision_cut_off_is_an_error_that_says_so(
    server: ModelServer, bench: Bench
) -> None:
    server.script("ratio?", Reply(text='{"action": "finish", "answer": "half', finish="length"))
    with pytest.raises(ApplicationError, match="cut off") as caught:
        await bench.join(FR)
    assert (caught.value.type, server.calls()) == ("context_length", 2)


async def test_an_answer_in_text_that_was_cut_off_is_never_a_decision(
    server: ModelServer, bench: Bench
) -> None:
    half = "Action: Finish(The three cities are Oslo, Bergen and Tron"
    server.script("ratio?", Reply(text=half, finish="length"), half + "dheim)")
    reply = await bench.join(FR, max_tokens=100)
    assert reply.answer is not None
    assert reply.answer.value == "The three cities are Oslo, Bergen and Trondheim"
    assert [r.body["max_tokens"] for r in server.requests] == [100, 1_024]
    assert any("cut off" in p for p in reply.problems)


async def test_a_cut_off_decision_is_not_paid_again_without_more_room(
    server: ModelServer, bench: Bench
) -> None:
    paid = {"prompt_tokens": 600, "completion_tokens": 600, "total_tokens": 1_200}
    server.script("ratio?", Reply(text="Action: Finish(Os", finish="length", usage=paid))
    with pytest.raises(ApplicationError, match="cut off"):
        await bench.join(FR, max_tokens=600, tokens_max=2_150)
    assert server.calls() == 1


async def test_with_no_task_at_all_the_joiner_is_told_so(server: ModelServer, bench: Bench) -> None:
    server.script("(no task was run)", '{"action": "replan", "feedback": "no plan"}')
    assert (await bench.join()).action == "replan"
