"""The activity `write_plan`: one planner call, its tasks handed over while the model writes.

The core, `PlanWriter`, knows no Temporal: it is given a function that hands batches over. What is
handed over is never taken back: a retry goes on after it (DESIGN §7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from planloom.activities.finished_tasks import load_finished_tasks
from planloom.activities.models.attempt import Attempt, Target, attempt_model, model_for
from planloom.activities.models.chat import ChatReply, ChatRequest, estimate_tokens
from planloom.activities.models.client import ModelClient, ModelError
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.threads import computed
from planloom.planner.compile.tool_arguments import meant_arguments
from planloom.planner.contract.jobs import (
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlannerAttempt,
    PlannerPrefix,
    PlanReply,
)
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import Problem, Usage
from planloom.planner.prompts.planner import planner_messages
from planloom.planner.syntax.calls.parser import CallsParser, ParsedEnd, call_text
from planloom.planner.syntax.json_stream import JsonPlanParser
from planloom.planner.syntax.plan_schema import plan_schema

log = logging.getLogger("planloom.planner")

FLUSH_SECONDS = 0.005
"""Pause between two signals: what is parsed meanwhile goes in one, and history stays small."""
SIGNAL_FAILURES_MAX = 3
"""Signals that may fail before only the result is relied on: it carries the whole plan anyway."""
DRAIN_SECONDS = 5.0
BEAT_CHARS = 400
PIECE_CHARS = 5_000
"""So much is read before others have their turn: a tenth of a second at most."""
"""Text between two notes of what was paid so far."""
PLAN_TEXT_MAX_BYTES = 400_000
"""A plan travels as text and as tasks, and goes back with its problems: together below 2 MiB."""
PLAN_TOKENS_MAX = 16_384
"""Asked for when nothing else limits a planner call: a model in a loop ends there. A plan that is
cut there goes on in the next call."""
SIGNAL = "plan_written"
UPDATE = "planner_attempt"

Emit = Callable[[list[PlannedTask]], Awaitable[None]]


class Registry(Protocol):
    """What is needed of the tool registry."""

    @property
    def specs(self) -> list[ToolSpec]: ...


class Runs(Protocol):
    """What is needed of Temporal's client: a handle of the run that the plan is for."""

    def get_workflow_handle(
        self, workflow_id: str, *, run_id: str | None = None
    ) -> WorkflowHandle[Any, Any]: ...


class Outbox:
    """Hands parsed tasks over in order, in batches; reading the model never waits for it."""

    def __init__(self, emit: Emit | None, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._emit = emit
        self._flush_seconds = flush_seconds
        self._waiting: list[PlannedTask] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def put(self, tasks: Sequence[PlannedTask]) -> None:
        """Send soon: at once if nothing was sent in the last few milliseconds."""
        if tasks and self._emit is not None and self._failures < SIGNAL_FAILURES_MAX:
            self._waiting.extend(tasks)
            self._idle.clear()
            self._wake.set()

    async def __aenter__(self) -> Outbox:
        if self._emit is not None:
            self._task = asyncio.create_task(self._run(self._emit))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        # After a good end the result follows at once, with all that still waits here. After a
        # failure nothing follows: the next attempt must find these tasks accepted.
        if self._task is not None:
            if isinstance(exc, Exception):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), DRAIN_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, emit: Emit) -> None:
        while self._failures < SIGNAL_FAILURES_MAX:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                await emit(batch)
            except RPCError as error:
                log.warning("plan_written was not delivered: %s", error.message)
                self._failures += 1
                self._waiting = batch + self._waiting
                self._wake.set()
            if not self._waiting:
                self._idle.set()
            await asyncio.sleep(self._flush_seconds)
        self._idle.set()


class PlanWriter:
    """Has a model write a plan and parses it while it comes."""

    def __init__(
        self, client: ModelClient, tools: Sequence[ToolSpec], emit: Emit | None = None
    ) -> None:
        self._client = client
        self._tools = tools
        self._emit = emit

    async def write(
        self, job: PlanJob, model: str, accepted: Sequence[PlannedTask], attempt: Attempt
    ) -> PlanReply:
        """One call. `accepted` was written before; the reply's tasks begin with it.

        Raises:
            ModelError: the call failed; what was parsed until then has been handed over.
        """
        started = time.monotonic()
        parser = self._parser(job, accepted)
        written: list[PlannedTask] = []
        first: float | None = None
        size = sum(len(t.text.encode()) for t in accepted)
        accepted_ids = {t.task.id for t in accepted}

        def take(tasks: list[PlannedTask]) -> None:
            nonlocal first, size
            # A model that starts all over writes the accepted tasks again.
            fresh: list[PlannedTask] = []
            for task in (t for t in tasks if t.task.id not in accepted_ids):
                size += len(task.text.encode())
                if size <= PLAN_TEXT_MAX_BYTES:
                    fresh.append(task)
            if fresh and first is None:
                first = time.monotonic() - started
            written.extend(fresh)
            outbox.put(fresh)

        async with Outbox(self._emit if job.stream else None) as outbox:
            request = self._request(job, model, accepted, attempt)

            def feed(text: str) -> bool:
                take(parser.feed(text))
                return parser.is_over

            reply = await self._chat(job, request, attempt, feed)
            # A plan that was read to its end is whole, whatever was cut behind it.
            is_cut_off = reply.is_cut_off and not parser.is_over
            end: ParsedEnd = await computed(len(reply.text), parser.close, is_cut_off=is_cut_off)
            take(end.late)
        if size > PLAN_TEXT_MAX_BYTES:
            end.problems.insert(0, _too_large(size))
        return PlanReply(
            tasks=[*accepted, *written],
            answer=end.answer,
            has_answer=end.has_answer,
            join_only=end.join_only,
            stop_when=end.stop_when,
            is_complete=end.is_complete,
            is_cut_off=is_cut_off,
            problems=end.problems,
            warnings=end.warnings,
            usage=attempt.total,
            seconds=time.monotonic() - started,
            first_task_seconds=first,
            wasted_tokens=attempt.before.usage.tokens,
        )

    def _parser(
        self, job: PlanJob, accepted: Sequence[PlannedTask]
    ) -> CallsParser | JsonPlanParser:
        earlier_calls = {str(t.task.id): call_text(t.task) for t in accepted}
        earlier_calls |= {t.id: t.call for t in job.finished}
        kept = [t.task.id for t in job.kept]
        if job.syntax == "json":
            return JsonPlanParser(
                self._tools, earlier=list(earlier_calls), kept=kept, meant=meant_arguments
            )
        return CallsParser(
            self._tools,
            earlier=earlier_calls,
            agents=job.agents or None,
            teams=job.teams or None,
            template_names=job.template_names or None,
            kept=kept,
            meant=meant_arguments,
        )

    def _request(
        self, job: PlanJob, model: str, accepted: Sequence[PlannedTask], attempt: Attempt
    ) -> ChatRequest:
        messages = planner_messages(job, self._tools, accepted)
        return ChatRequest(
            model=model,
            messages=messages,
            max_tokens=attempt.room(messages, job.max_tokens or PLAN_TOKENS_MAX),
            response_schema=self._schema(job) if job.syntax == "json" else None,
            stream=job.stream,
            timeout_seconds=attempt.timeout_seconds,
        )

    def _schema(self, job: PlanJob) -> dict[str, Any]:
        return plan_schema(
            self._tools,
            agents=job.agents or (),
            teams=job.teams or (),
            template_names=job.template_names or (),
        )

    async def _chat(
        self,
        job: PlanJob,
        request: ChatRequest,
        attempt: Attempt,
        feed: Callable[[str], bool],
    ) -> ChatReply:
        """The call, its text handed to `feed`; once that returns true nothing more is read."""
        prompt_tokens = estimate_tokens(request.messages)
        chars, due = 0, 0  # the prompt is paid with the first word

        async def on_text(text: str) -> bool:
            nonlocal chars, due
            is_over = False
            for at in range(0, len(text), PIECE_CHARS):
                if at:  # an endpoint that does not stream gives all at once
                    await asyncio.sleep(0)
                is_over = feed(text[at : at + PIECE_CHARS])
                if is_over:
                    break
            chars += len(text)
            if chars >= due:
                due = chars + BEAT_CHARS
                so_far = Usage(input_tokens=prompt_tokens, output_tokens=chars // 4, model_calls=1)
                attempt.is_writing(self._client.prices.charge(request.model, job.pool, so_far))
            return is_over

        reply = await self._client.chat(job.pool, request, on_text)
        attempt.paid(reply.usage)
        return reply


def _too_large(size: int) -> Problem:
    return Problem(
        path="plan",
        code="too_large",
        message=f"{size:,} bytes of tasks; at most {PLAN_TEXT_MAX_BYTES:,}: the rest is left out",
        hint="Let tools read large values from files, and pass them on by reference.",
    )


class PlanActivities:
    """What a worker registers for planning. `temporal` is the client by which signals go out."""

    def __init__(
        self,
        client: ModelClient,
        temporal: Runs | None,
        registry: Registry,
        blobs: BlobStore | None = None,
    ) -> None:
        self._client = client
        self._temporal = temporal
        self._registry = registry
        self._blobs = blobs

    @activity.defn(name="write_plan")
    async def write_plan(self, job: PlanJob) -> PlanReply:
        """One attempt of a planner call; see `PlanJob` for the protocol.

        Raises:
            ApplicationError: its type is the error class; `cancelled` when another call or attempt
                has replaced this one.
        """
        target = Target(job.pool, job.model, tokens_max=job.tokens_max)
        return await attempt_model(lambda attempt: self._write(job, attempt), self._client, target)

    async def _write(self, job: PlanJob, attempt: Attempt) -> PlanReply:
        number = activity.info().attempt
        model = await model_for(self._client, job.model, "planner", job.pool)
        attempt.model = model
        handle = self._handle() if job.stream else None
        accepted = list(job.accepted)
        if handle is not None and number > 1:
            accepted = (await _accepted_so_far(handle, job, number)).accepted
        emit = None if handle is None else _signals(handle, job.call, number)
        if self._blobs is not None:
            finished = await load_finished_tasks(self._blobs, job)
            job = job.model_copy(update={"finished": finished, "finished_ref": None})
        writer = PlanWriter(self._client, allowed_tools(self._registry.specs, job.tools), emit)
        reply = await writer.write(job, model, accepted, attempt)
        return reply.model_copy(update={"attempt": number})

    def _handle(self) -> WorkflowHandle[Any, Any] | None:
        info = activity.info()
        if self._temporal is None or info.workflow_id is None:
            return None
        return self._temporal.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)


def allowed_tools(specs: Sequence[ToolSpec], allow: Sequence[str] | None) -> list[ToolSpec]:
    """The tools a planner is shown: those of the allow-list, or all."""
    return [s for s in specs if allow is None or s.name in allow]


def _signals(handle: WorkflowHandle[Any, Any], call: int, attempt: int) -> Emit:
    seq = 0

    async def emit(tasks: list[PlannedTask]) -> None:
        nonlocal seq
        await handle.signal(SIGNAL, PlannedBatch(call=call, attempt=attempt, seq=seq, tasks=tasks))
        seq += 1

    return emit


async def _accepted_so_far(
    handle: WorkflowHandle[Any, Any], job: PlanJob, attempt: int
) -> PlannerPrefix:
    """What the workflow has accepted; from now on it hears no earlier attempt."""
    try:
        prefix: PlannerPrefix = await handle.execute_update(
            UPDATE,
            PlannerAttempt(call=job.call, attempt=attempt),
            id=f"planner-{job.call}-{attempt}",
            result_type=PlannerPrefix,
        )
    except WorkflowUpdateFailedError as error:
        raise ApplicationError(
            f"planner call {job.call}, attempt {attempt} was replaced: {error.cause}",
            type="cancelled",
            non_retryable=True,
        ) from None
    except RPCError as error:
        raise ModelError("unknown", f"the run did not answer: {error.message}") from None
    return prefix
