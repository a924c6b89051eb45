"""`write_plan`: tasks are handed over while the model writes; a retry goes on after them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from planloom.activities.models.answer_stream import OnText
from planloom.activities.models.attempt import Attempt
from planloom.activities.models.chat import ChatReply, ChatRequest
from planloom.activities.models.client import ModelClient, ModelError
from planloom.activities.models.heartbeats import Attempts, Heartbeat
from planloom.activities.write_plan import (
    PIECE_CHARS,
    Outbox,
    PlanActivities,
    PlanWriter,
    allowed_tools,
)
from planloom.planner.contract.jobs import (
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlannerAttempt,
    PlannerPrefix,
    PlanReply,
)
from planloom.planner.contract.settings import PoolSettings, Settings
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Problem, TaskId, Usage
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer, Reply
from tests.support.waiting import until

QUERY = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
TOOLS = [ToolSpec(name="search", parameters=QUERY), ToolSpec(name="send", side_effects=True)]
PLAN = """\
a = search(query="one")
b = search(query="two")
c = search(query="${a} and ${b}")
join(c)
"""


class StandInRegistry:
    """Stands where the tool registry does."""

    specs = TOOLS


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
async def client(server: ModelServer) -> AsyncIterator[ModelClient]:
    made = ModelClient(Settings(pools={"default": PoolSettings(base_url=server.url)}), {})
    yield made
    await made.close()


def job(**fields: Any) -> PlanJob:
    known = {"call": 1, "goal": "find it", "revision": 1, "model": "planner-model"}
    return PlanJob(**(known | fields))


def attempt(before: Attempts | None = None) -> Attempt:
    return Attempt(before or Attempts(), Heartbeat(), 30.0)


def written(task_id: str) -> PlannedTask:
    task = Task(id=TaskId(task_id), tool="search", args={"query": task_id})
    return PlannedTask(task=task, text=f'{task_id} = search(query="{task_id}")')


@dataclasses.dataclass
class Inbox:
    """Takes batches as the workflow would, and notes when they came."""

    seconds: float = 0.0
    batches: list[list[str]] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)

    async def emit(self, tasks: list[PlannedTask]) -> None:
        await asyncio.sleep(self.seconds)
        self.batches.append([t.task.id for t in tasks])
        self.times.append(time.monotonic())

    @property
    def tasks(self) -> list[str]:
        return [t for batch in self.batches for t in batch]


@pytest.mark.parametrize("chunking", ["char", "token", "line", "2 lines", "whole"])
async def test_the_plan_is_the_same_at_every_chunking(
    server: ModelServer, client: ModelClient, chunking: str
) -> None:
    server.script("find it", Reply(text=PLAN, chunking=chunking))
    reply = await PlanWriter(client, TOOLS, Inbox().emit).write(job(), "m", [], attempt())
    assert [t.task.id for t in reply.tasks] == ["a", "b", "c"]
    assert reply.join_only == ["c"]
    assert (reply.is_complete, reply.is_cut_off, reply.problems) == (True, False, [])
    assert reply.usage.tokens == server.tokens_paid()
    assert server.requests[0].body["stream"] is True


async def test_each_task_is_handed_over_before_the_next_line_is_written(
    server: ModelServer, client: ModelClient
) -> None:
    first, rest = PLAN.split("\n", 1)
    server.script("find it", Reply(text=[first + "\n", 1.0, rest]))
    inbox = Inbox()
    reply = await PlanWriter(client, TOOLS, inbox.emit).write(job(), "m", [], attempt())
    assert inbox.batches[0] == ["a"]
    assert time.monotonic() - inbox.times[0] > 0.5  # handed over in the pause
    assert reply.first_task_seconds is not None
    assert reply.seconds - reply.first_task_seconds > 0.5


async def test_tasks_that_come_together_go_in_one_batch() -> None:
    began, release = asyncio.Event(), asyncio.Event()
    inbox = Inbox()

    async def slow(tasks: list[PlannedTask]) -> None:
        began.set()
        await release.wait()
        await inbox.emit(tasks)

    async with Outbox(slow, flush_seconds=0.001) as outbox:
        outbox.put([written("t0")])
        await began.wait()
        for i in range(1, 60):
            outbox.put([written(f"t{i}")])
        release.set()
        await until(lambda: len(inbox.tasks) == 60)
    assert inbox.batches == [["t0"], [f"t{i}" for i in range(1, 60)]]


async def test_without_streaming_nothing_is_handed_over_and_the_reply_has_it_all(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", PLAN)
    inbox = Inbox()
    reply = await PlanWriter(client, TOOLS, inbox.emit).write(job(stream=False), "m", [], attempt())
    assert inbox.batches == []
    assert len(reply.tasks) == 3
    assert "stream" not in server.requests[0].body


async def test_what_was_parsed_before_a_stream_breaks_has_been_handed_over(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", Reply(text=PLAN, chunking="line", fault="cut_stream", cut_after=3))
    inbox = Inbox(seconds=0.1)
    with pytest.raises(ModelError) as caught:
        await PlanWriter(client, TOOLS, inbox.emit).write(job(), "m", [], attempt())
    assert inbox.tasks == ["a", "b"]
    assert caught.value.usage is not None


async def test_a_continuation_begins_with_what_was_accepted_and_repeats_none_of_it(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", PLAN)  # a model that starts all over
    inbox = Inbox()
    problems = [Problem(path="plan", code="cut_off", message="cut off")]
    accepted = [written("a"), written("b")]
    reply = await PlanWriter(client, TOOLS, inbox.emit).write(
        job(problems=problems), "m", accepted, attempt()
    )
    assert [t.task.id for t in reply.tasks] == ["a", "b", "c"]
    assert reply.tasks[:2] == accepted
    # What is parsed just before the end may travel in the reply alone.
    assert inbox.tasks in ([], ["c"])
    roles = [m["role"] for m in server.requests[0].messages]
    assert roles == ["system", "user", "assistant", "user"]


async def test_a_plan_cut_off_at_the_limit_says_where(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", PLAN)
    reply = await PlanWriter(client, TOOLS).write(job(max_tokens=10), "m", [], attempt())
    assert reply.is_cut_off
    assert [t.task.id for t in reply.tasks] == ["a"]
    assert [p.code for p in reply.problems] == ["cut_off"]


@pytest.mark.parametrize("text", ["I cannot plan this.", "", "Ich weiß es nicht."])
async def test_an_answer_that_is_no_plan_is_a_problem_and_no_exception(
    server: ModelServer, client: ModelClient, text: str
) -> None:
    server.script("find it", text)
    reply = await PlanWriter(client, TOOLS).write(job(), "m", [], attempt())
    assert (reply.tasks, [p.code for p in reply.problems]) == ([], ["no_tasks"])


async def test_the_json_syntax_gives_the_same_plan(
    server: ModelServer, client: ModelClient
) -> None:
    server.script(
        "find it",
        '{"tasks": [{"id": "a", "tool": "search", "args": {"query": "one"}},\n'
        ' {"id": "b", "tool": "search", "args": {"query": "${a}"}}], "answer": "${b}"}',
    )
    inbox = Inbox()
    reply = await PlanWriter(client, TOOLS, inbox.emit).write(
        job(syntax="json"), "m", [], attempt()
    )
    assert [t.task.id for t in reply.tasks] == ["a", "b"]
    assert (reply.answer, reply.has_answer, reply.problems) == ("${b}", True, [])
    assert server.requests[0].body["response_format"]["type"] == "json_schema"


async def test_what_earlier_attempts_paid_is_reported_as_wasted(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", PLAN)
    before = Attempts(failures=1, usage=Usage(input_tokens=70, output_tokens=30, model_calls=1))
    reply = await PlanWriter(client, TOOLS).write(job(), "m", [], attempt(before))
    assert reply.wasted_tokens == 100
    assert reply.usage.tokens == 100 + server.tokens_paid()


def test_the_planner_is_shown_the_allowed_tools_only() -> None:
    assert [t.name for t in allowed_tools(TOOLS, ["search"])] == ["search"]
    assert [t.name for t in allowed_tools(TOOLS, None)] == ["search", "send"]


async def test_an_outbox_gives_up_signals_but_not_the_plan() -> None:
    tries = 0

    async def broken(_: list[PlannedTask]) -> None:
        nonlocal tries
        tries += 1
        raise RPCError("gone", RPCStatusCode.NOT_FOUND, b"")

    async with Outbox(broken, flush_seconds=0.001) as outbox:
        outbox.put([written("a")])
        await until(lambda: tries == 3)
        outbox.put([written("b")])
    assert tries == 3


# The shell, on a real server.


@workflow.defn(name="PlanningProbe", sandboxed=False)
class PlanningProbe:
    """Does what DagWorkflow does with batches and attempts, and nothing else."""

    def __init__(self) -> None:
        self.accepted: list[PlannedTask] = []
        self.batches: list[PlannedBatch] = []
        self.attempts: list[int] = []

    @workflow.run
    async def run(self, job: PlanJob) -> dict[str, Any]:
        reply = await workflow.execute_activity(
            "write_plan",
            job,
            result_type=PlanReply,
            start_to_close_timeout=timedelta(seconds=20),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(maximum_attempts=0),
        )
        return {
            "reply": reply.model_dump(mode="json"),
            "streamed": [t.task.id for t in self.accepted],
            "attempts": self.attempts,
            "batches": [[b.attempt, b.seq] for b in self.batches],
        }

    @workflow.signal
    async def plan_written(self, batch: PlannedBatch) -> None:
        self.batches.append(batch)
        self.accepted += batch.tasks

    @workflow.update
    async def planner_attempt(self, attempt: PlannerAttempt) -> PlannerPrefix:
        if attempt.call != 1:
            raise ApplicationError("planner call was replaced", type="Stale", non_retryable=True)
        self.attempts.append(attempt.attempt)
        return PlannerPrefix(accepted=list(self.accepted))


@pytest.fixture
async def temporal() -> AsyncIterator[Client]:
    program = Path(__file__).parents[2] / ".venv/bin/temporal"
    async with await WorkflowEnvironment.start_local(
        data_converter=data_converter(), dev_server_existing_path=str(program)
    ) as env:
        yield env.client


async def probe(temporal: Client, client: ModelClient, asked: PlanJob) -> dict[str, Any]:
    activities = PlanActivities(client, temporal, StandInRegistry())
    queue = f"q-{uuid4()}"
    async with Worker(
        temporal,
        task_queue=queue,
        workflows=[PlanningProbe],
        activities=[activities.write_plan],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        result: dict[str, Any] = await temporal.execute_workflow(
            PlanningProbe.run, asked, id=f"w-{uuid4()}", task_queue=queue
        )
        return result


async def test_a_broken_planner_goes_on_from_the_accepted_prefix(
    server: ModelServer, client: ModelClient, temporal: Client
) -> None:
    server.script("Your answer broke off", 'c = search(query="${a} ${b}")\njoin(c)\n')
    server.script("find it", Reply(text=PLAN, chunking="line", fault="cut_stream", cut_after=3))
    found = await probe(temporal, client, job())
    reply = PlanReply.model_validate(found["reply"])
    assert [t.task.id for t in reply.tasks] == ["a", "b", "c"]
    assert (found["attempts"], reply.attempt) == ([2], 2)
    assert found["streamed"][:2] == ["a", "b"]
    assert reply.wasted_tokens > 0
    shown = server.requests[1].messages[2]
    assert shown["role"] == "assistant"
    assert 'a = search(query="one")\nb = search(query="two")' in shown["content"]


async def test_a_call_that_was_replaced_ends_for_good(
    server: ModelServer, client: ModelClient, temporal: Client
) -> None:
    server.script("find it", Reply(status=500))
    with pytest.raises(WorkflowFailureError) as caught:
        await probe(temporal, client, job(call=2))
    assert isinstance(caught.value.cause, ActivityError)
    assert isinstance(caught.value.cause.cause, ApplicationError)
    assert caught.value.cause.cause.type == "cancelled"
    assert server.calls() == 1


async def test_without_a_run_to_tell_the_activity_still_answers(
    server: ModelServer, client: ModelClient
) -> None:
    server.script("find it", PLAN)
    activities = PlanActivities(client, None, StandInRegistry())
    reply = await ActivityEnvironment().run(activities.write_plan, job(tools=["search"]))
    assert len(reply.tasks) == 3
    assert "send(" not in server.requests[0].messages[0]["content"]


class StubPrices:
    """Everything is free."""

    def charge(self, model: str, pool: str, usage: Usage) -> Usage:
        return usage


async def test_a_plan_that_comes_at_once_is_read_piece_by_piece() -> None:
    """A million characters in one body held all runs of a worker up for eight seconds."""
    turns = 0

    class AtOnce:
        prices = StubPrices()

        async def chat(self, pool: str, request: ChatRequest, on_text: OnText) -> ChatReply:
            nonlocal turns
            reading = asyncio.ensure_future(on_text("---\n" * (10 * PIECE_CHARS // 4)))
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
            return ChatReply(text="", usage=Usage(model_calls=1))

    client: Any = AtOnce()
    reply = await PlanWriter(client, TOOLS, Inbox().emit).write(job(), "m", [], attempt())
    assert not reply.is_complete
    assert turns >= 10
