"""The activity `ask_model`: one model call of an `ask` task, or a summary."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from temporalio import activity

from planloom.activities.models.attempt import (
    Attempt,
    Target,
    attempt_model,
    model_for,
    whole_reply,
)
from planloom.activities.models.client import ChatReply, ChatRequest, ModelClient, ModelError
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache, cache_key
from planloom.activities.storage.threads import computed
from planloom.planner.compile.answers import AnswerSchema, SchemaUnusableError
from planloom.planner.contract.jobs import AskJob, TaskOutput
from planloom.planner.language.values import JsonValue, Outcome, Usage
from planloom.planner.prompts.ask import ASK, ask_messages, data_apart, repair_messages
from planloom.planner.prompts.text import as_text

ASK_REPAIRS_MAX = 1
"""Repair rounds for an answer that does not fit its schema."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one ask came to. `note` says what a person should know of it."""

    value: JsonValue
    usage: Usage
    note: str | None = None


class ModelActivities:
    """What a worker registers for `ask` tasks."""

    def __init__(
        self,
        client: ModelClient,
        blobs: BlobStore,
        cache: ResultCache | None = None,
    ) -> None:
        self._client = client
        self._blobs = blobs
        self._cache = cache

    @activity.defn(name="ask_model")
    async def ask_model(self, job: AskJob) -> TaskOutput:
        """One attempt of a model call, with heartbeats; waits for an endpoint cost no attempt.

        Raises:
            ApplicationError: its type is the error class; details hold the usage paid so far.
        """
        target = Target(
            job.pool,
            job.model,
            job.max_attempts,
            job.retry,
            job.tokens_max,
            job.before,
            has_fallback=self._client.has_fallback(job.pool),
        )
        return await attempt_model(lambda attempt: self._ask(job, attempt), self._client, target)

    async def _ask(self, job: AskJob, attempt: Attempt) -> TaskOutput:
        started = time.monotonic()
        model = await model_for(self._client, job.model, job.role, job.pool)
        attempt.model = model
        request = await self._request(job, model, attempt.timeout_seconds)
        made: list[Answer] = []

        async def run() -> CacheEntry:
            answer = await ask(self._client, job.pool, request, attempt)
            made.append(answer)
            output = await self._blobs.store_value(answer.value)
            seconds = time.monotonic() - started
            return CacheEntry(output=output, usage=answer.usage, seconds=seconds, name=model)

        if self._cache is None or job.cache == "off":
            entry, is_hit = await run(), False
        else:
            entry, is_hit = await self._cache.get_or_run(_key(job, request), run)
        seconds = time.monotonic() - started
        if is_hit:
            return TaskOutput(
                output=entry.output,
                outcome=Outcome.CACHED,
                usage=Usage(cache_hits=1),
                attempts=attempt.number,
                seconds=seconds,
                saved_usd_nano=entry.usage.usd_nano,
                saved_tokens=entry.usage.tokens,
            )
        return TaskOutput(
            output=entry.output,
            usage=attempt.total,
            attempts=attempt.number,
            seconds=seconds,
            note=made[0].note,
        )

    async def _request(self, job: AskJob, model: str, timeout_seconds: float) -> ChatRequest:
        written: JsonValue = {"prompt": job.prompt, "context": job.context, "system": job.system}
        if job.literal is not None:
            written = await self._blobs.load(job.literal)
        assert isinstance(written, dict)
        if job.outside:
            prompt, data = data_apart(as_text(written["prompt"]), job.outside)
            system = written["system"]
            if system is not None:
                system, more = data_apart(as_text(system), job.outside)
                data |= more
            written = {**written, "prompt": prompt, "system": system, "data": data}
        try:
            bound = await self._blobs.bind(written, job.bindings)
        except ValueError as error:  # a reference that leads nowhere: it will at no attempt
            raise ModelError("refused", str(error)) from None  # before the model is paid
        assert isinstance(bound, dict)
        system = bound["system"]
        messages = ask_messages(
            as_text(bound["prompt"]),
            context=bound["context"],
            data=bound.get("data"),  # type: ignore[arg-type]
            system=None if system is None else as_text(system),
            schema=job.output_schema,
        )
        return ChatRequest(
            model=model,
            messages=messages,
            max_tokens=job.max_tokens,
            response_schema=job.output_schema,
            timeout_seconds=timeout_seconds,
        )


def _key(job: AskJob, request: ChatRequest) -> str:
    args: JsonValue = json.loads(
        json.dumps([request.messages, request.max_tokens, request.response_schema, job.pool])
    )
    return cache_key(
        "ask",
        request.model,
        ASK.version,
        args,
        mode=job.cache,
        scope=job.cache_scope,
        tenant=job.tenant,
    )


async def ask(client: ModelClient, pool: str, request: ChatRequest, attempt: Attempt) -> Answer:
    """One question answered: text, or JSON that fits `request.response_schema`.

    An answer that does not fit is repaired once, shown all its problems. One that its limit cut off
    is asked for once more with more room; what is still cut is an error, never an answer.

    Raises:
        ModelError: also for an empty answer; usage already paid is in `attempt`.
    """
    schema = _usable_schema(request.response_schema)
    reply = await whole_reply(client, pool, request, attempt)
    if schema is None:
        return _text_answer(reply, attempt)
    for repairs_left in range(ASK_REPAIRS_MAX, -1, -1):
        if reply.is_cut_off and not _is_json(reply.text):
            raise _cut_off(reply, "JSON cut off")
        value, problems = await computed(len(reply.text), _fitted, reply, schema)
        if not problems:
            return Answer(value, attempt.usage, _note_of(reply))
        if repairs_left:
            again = [*request.messages, *repair_messages(reply.text, problems)]
            reply = await whole_reply(client, pool, replace(request, messages=again), attempt)
    raise ModelError("schema_violation", f"answer does not fit its schema: {problems[0]}")


def _text_answer(reply: ChatReply, attempt: Attempt) -> Answer:
    if reply.is_cut_off:
        what = "cut off" if reply.text.strip() else "cut off before any answer"
        raise _cut_off(reply, what)
    if reply.text.strip():
        return Answer(reply.text, attempt.usage, _note_of(reply))
    thought = f": {len(reply.reasoning):,} characters of reasoning came" if reply.reasoning else ""
    raise ModelError("schema_violation", f"the answer is empty{thought}")


def _cut_off(reply: ChatReply, what: str) -> ModelError:
    written = reply.usage.output_tokens
    text = f"{what} after {written:,} tokens: raise max_tokens"
    return ModelError("context_length", text, cut_at=written)


def _note_of(reply: ChatReply) -> str | None:
    notes = list(reply.notes)
    if reply.is_usage_estimated:
        notes.append("the endpoint reported no usage: estimated from the lengths")
    return "; ".join(notes) or None


def _is_json(text: str) -> bool:
    """Whether the limit came just after the end."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _usable_schema(schema: Mapping[str, JsonValue] | None) -> AnswerSchema | None:
    try:
        return None if schema is None else AnswerSchema(schema)
    except SchemaUnusableError as error:
        raise ModelError("refused", str(error)) from None  # before the model is paid


def _fitted(reply: ChatReply, schema: AnswerSchema) -> tuple[JsonValue, list[str]]:
    try:
        return schema.read(reply.text)
    except ValueError as error:
        return None, [str(error)]
