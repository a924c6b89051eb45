"""The activity `join_outcomes`: a model decides from outcomes, finish or replan."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from planloom.activities.cut_answers import has_more_room, wider_limit
from planloom.activities.finished_tasks import load_finished_tasks
from planloom.activities.models.attempt import Attempt, Target, attempt_model, model_for
from planloom.activities.models.chat import ChatRequest
from planloom.activities.models.client import ModelClient, ModelError
from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.threads import computed
from planloom.planner.contract.controls import FEEDBACK_MAX_CHARS
from planloom.planner.contract.jobs import FinishedTask, JoinJob, JoinReply
from planloom.planner.language.values import JsonValue
from planloom.planner.prompts.ask import repair_messages
from planloom.planner.prompts.joiner import Look, cut_outputs, joiner_messages
from planloom.planner.prompts.text import as_text, clip_text
from planloom.planner.syntax.joiner import JOIN_SCHEMA, JoinDecision, check_look, parse_join

JOIN_REPAIRS_MAX = 2
"""How often an answer without a decision goes back to the model."""
THOUGHT_MAX_CHARS = 2_000
LOAD_MAX_BYTES = 1_000_000
"""A longer output is shown by its preview: it would be cut to a fraction of a percent anyway."""


@dataclass(frozen=True, slots=True)
class ParsedDecision:
    """A decision, and what was wrong with the answers before it."""

    decision: JoinDecision
    problems: list[str]


class JoinActivities:
    """What a worker registers for joining."""

    def __init__(self, client: ModelClient, blobs: BlobStore) -> None:
        self._client = client
        self._blobs = blobs

    @activity.defn(name="join_outcomes")
    async def join_outcomes(self, job: JoinJob) -> JoinReply:
        """One attempt of a joiner call. A replan in the last round is returned as such.

        Raises:
            ApplicationError: its type is the error class; `schema_violation` when no decision
                came out of the model within the repairs.
        """
        target = Target(job.pool, job.model, tokens_max=job.tokens_max)
        return await attempt_model(lambda attempt: self._join(job, attempt), self._client, target)

    async def _join(self, job: JoinJob, attempt: Attempt) -> JoinReply:
        model = await model_for(self._client, job.model, "joiner", job.pool)
        attempt.model = model
        finished = await load_finished_tasks(self._blobs, job)
        outputs = await load_outputs(self._blobs, finished, job.looked)
        look = Look(job.looks_left, job.looked, job.question, await self._summaries(job))
        messages = joiner_messages(
            job.goal,
            finished,
            outputs,
            rounds_left=job.rounds_left,
            context=job.context,
            feedback=job.feedback,
            look=look,
        )
        cut = cut_outputs(finished, outputs, look)
        decided = await decide(self._client, job, model, messages, attempt, cut)
        decision = decided.decision
        answer = None
        if decision.action == "finish":
            answer = await self._blobs.store_value(decision.answer)
        return JoinReply(
            action=decision.action,
            answer=answer,
            feedback=clip_text(decision.feedback, FEEDBACK_MAX_CHARS),
            **({"ids": list(decision.ids), "question": decision.question} if decision.ids else {}),
            thought=clip_text(decision.thought, THOUGHT_MAX_CHARS),
            usage=attempt.total,
            problems=decided.problems,
        )

    async def _summaries(self, job: JoinJob) -> dict[str, str]:
        summaries: dict[str, str] = {}
        for task, summary in job.summaries.items():
            with contextlib.suppress(BlobError):  # then the output's ends must do
                summaries[task] = as_text(await self._blobs.load(summary))
        return summaries


async def load_outputs(
    blobs: BlobStore, finished: list[FinishedTask], looked: Sequence[str] = ()
) -> dict[str, JsonValue]:
    """The outputs of good tasks by id; those too large, or lost, are left to their previews.

    Of what the joiner asked for the ends are shown, however large it is.
    """
    outputs: dict[str, JsonValue] = {}

    async def load(task: FinishedTask) -> None:
        if not task.outcome.is_good or task.output is None:
            return
        is_large = not task.output.is_inline and task.output.size_bytes > LOAD_MAX_BYTES
        if is_large and task.id not in looked:
            return
        with contextlib.suppress(BlobError):  # the prompt says that only the beginning is known
            outputs[task.id] = await blobs.load(task.output)

    # Together: each that is gone is waited for.
    await asyncio.gather(*(load(task) for task in finished))
    return outputs


async def decide(
    client: ModelClient,
    job: JoinJob,
    model: str,
    messages: list[dict[str, Any]],
    attempt: Attempt,
    cut: Sequence[str] = (),
) -> ParsedDecision:
    """The model's decision; an answer without one is shown its problem, at most twice.

    So is one that asks to look at other outputs than those that were `cut`. An answer that its
    limit cut off is tried once more with more room, where the reservation has it.

    Raises:
        ModelError: no decision, or an answer cut off at its limit.
    """
    problems: list[str] = []
    repairs_left, limit, was_cut = JOIN_REPAIRS_MAX, job.max_tokens, False
    while True:
        request = ChatRequest(
            model=model,
            messages=messages,
            max_tokens=attempt.room(messages, limit),
            response_schema=JOIN_SCHEMA,
            timeout_seconds=attempt.timeout_seconds,
        )
        reply = await client.chat(job.pool, request)
        attempt.paid(reply.usage)
        size = len(reply.text)
        parsed = await computed(size, parse_join, reply.text, is_cut_off=reply.is_cut_off)
        if isinstance(parsed, JoinDecision):
            wrong = check_look(parsed, cut, job.looks_left)
            if not wrong:
                return ParsedDecision(parsed, problems)
            parsed = wrong
        lines = [p.line() for p in parsed]
        problems += lines
        written = reply.usage.output_tokens
        if reply.is_cut_off:
            limit = wider_limit(limit, written)
            if was_cut or not has_more_room(attempt.room(messages, limit), written):
                why = f"the decision was cut off after {written} tokens"
                raise ModelError("context_length", why, cut_at=written)
            was_cut = True
        elif repairs_left:
            repairs_left -= 1
            messages = [*messages, *repair_messages(reply.text, lines)]
        else:
            why = f"no decision after {JOIN_REPAIRS_MAX} repairs: {problems[-1]}"
            raise ModelError("schema_violation", why)
