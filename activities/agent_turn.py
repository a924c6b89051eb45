"""The activity `agent_turn`: one model turn of an agent or of a team's member.

The whole conversation is a blob; history holds its reference, the calls the model asks for, and
short fields of an answer.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Protocol

from temporalio import activity

from planloom.activities.agent_tools import OfferedTools, agent_call
from planloom.activities.models.attempt import (
    ATTEMPTS_MAX,
    Attempt,
    Target,
    attempt_model,
    model_for,
    whole_reply,
)
from planloom.activities.models.chat import ChatReply, ChatRequest, Message
from planloom.activities.models.client import ModelClient
from planloom.activities.models.context_window import cut_to_fit
from planloom.activities.resolve import read_output
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.threads import computed
from planloom.planner.compile.answers import AnswerSchema
from planloom.planner.contract.jobs import CallResult, TurnJob, TurnReply
from planloom.planner.contract.names import READ_OUTPUT
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.references import as_text
from planloom.planner.language.values import JsonValue, Stored
from planloom.planner.prompts.history import accepted_history, with_note
from planloom.planner.prompts.text import DATA_RULE, fenced
from planloom.planner.syntax.labelled import (
    AGENT_LIMITS,
    AGENT_MIN_CHARS,
    AGENT_REQUIRED,
    CONFIDENCE_DEFAULT,
    LABELS,
    MEMBER_LIMITS,
    MEMBER_MIN_CHARS,
    MEMBER_REQUIRED,
    clip,
    conflict_signals,
    contradiction_signals,
    evidence_count,
    field_violations,
    parse_confidence,
    parse_labelled,
    problem_with,
    repair_member,
)

AGENT_CONTEXT_MAX_CHARS = 12_000
"""Of a context in the prompt; the rest is opened with `read_output`."""
SUMMED_HEAD_CHARS = 2_000
"""Of a value that is shown by its summary."""
RESULT_MAX_CHARS = 12_000
PART_MAX_CHARS = 16_000
"""What `read_output` gives at once."""
ANSWER_MAX_CHARS = 200_000
TURN_ANSWER_TOKENS = 512
"""Kept free for the answer when a conversation is cut to fit its model."""
FIELD_MAX_CHARS = 400
LAST_TURN = "No more tool calls: answer now."
MEMBER_FORM = """Answer in this form, every label at the start of a line:
SUMMARY: one sentence
CLAIM: what you hold to be true
EVIDENCE: what it rests on (file:line, source, figure), separated by semicolons
DISCUSSION: doubts, and what others said
CONFIDENCE: 0 to 1
RESULT: your whole answer
NEXT_STEP: what should be done, or none"""
AGENT_FORM = """End with your answer in this form, every label at the start of a line:
SUMMARY: one sentence
RESULT: your whole answer
NEXT_STEP: what should be done, or none"""


class Registry(Protocol):
    """What is needed of the tool registry."""

    @property
    def specs(self) -> list[ToolSpec]: ...


class TurnActivities:
    """What a worker registers for agents and teams."""

    def __init__(self, client: ModelClient, registry: Registry, blobs: BlobStore) -> None:
        self._client = client
        self._registry = registry
        self._blobs = blobs

    @activity.defn(name="agent_turn")
    async def agent_turn(self, job: TurnJob) -> TurnReply:
        """One turn: the calls to make, or the answer with what is wrong with it.

        Raises:
            ApplicationError: its type is the error class; details hold the usage paid so far.
        """
        target = Target(
            job.pool,
            job.model,
            max_attempts=job.retry.max_attempts if job.retry else ATTEMPTS_MAX,
            retry=job.retry,
            tokens_max=job.tokens_max,
            before=job.before,
            has_fallback=self._client.has_fallback(job.pool),
        )
        return await attempt_model(lambda attempt: self._turn(job, attempt), self._client, target)

    @activity.defn(name="read_output")
    async def read_output(self, stored: Stored, start: int, end: int) -> Stored:
        """A part of a large value, for an agent that asks for it."""
        text = await read_output(self._blobs, stored, start, min(end, start + PART_MAX_CHARS))
        return await self._blobs.store_value(text)

    async def _turn(self, job: TurnJob, attempt: Attempt) -> TurnReply:
        model = await model_for(self._client, job.model, job.role, job.pool)
        attempt.model = model
        messages = accepted_history(await self._messages(job))
        offered = OfferedTools(self._registry.specs, allowed_tools(job))
        # Some servers refuse a conversation with tool calls that comes without the tools.
        has_tools = not job.is_last or any(m.get("tool_calls") for m in messages)
        tools = offered.definitions if has_tools else []
        is_free = not tools or job.is_last
        request = ChatRequest(
            model=model,
            messages=cut_to_fit(
                messages, self._client.settings.context_window(model), TURN_ANSWER_TOKENS
            ),
            max_tokens=job.max_tokens,
            tools=tools or None,
            tool_choice="none" if tools and job.is_last else None,
            response_schema=job.output_schema if job.output_schema and is_free else None,
            timeout_seconds=attempt.timeout_seconds,
        )
        reply = await whole_reply(self._client, job.pool, request, attempt)
        written_problem = None
        size = len(reply.text)
        if not await computed(size, _is_answer, reply, job):
            reply, written_problem = await computed(size, offered.with_written_calls, reply)
        if job.is_last:  # it was told so: what it calls now is not run
            reply = replace(reply, tool_calls=())
        size = sum(len(call.arguments) for call in reply.tool_calls)
        calls = await computed(size, offered.read, reply)
        messages.append(offered.message_of(_bounded(reply), calls))
        transcript = await self._blobs.store_value(json.loads(json.dumps(messages)), 0)
        if calls:
            return TurnReply(
                transcript=transcript,
                calls=[await agent_call(call, self._blobs) for call in calls],
                is_cut_off=reply.is_cut_off,
                notes=list(reply.notes),
                usage=attempt.total,
                attempts=attempt.number,
            )
        return await self._answer(job, reply, transcript, attempt, written_problem)

    # -- the conversation -------------------------------------------------------------------

    async def _messages(self, job: TurnJob) -> list[Message]:
        if job.transcript is None:
            messages = await self._opening(job)
        else:
            loaded = await self._blobs.load(job.transcript)
            assert isinstance(loaded, list)
            messages = [dict(m) for m in loaded if isinstance(m, dict)]
        for result in job.results:
            content = await self._result_text(result)
            messages.append({"role": "tool", "tool_call_id": result.id, "content": content})
        if job.others_answers is not None:
            others_answers = as_text(await self._blobs.load(job.others_answers))
            messages.append({"role": "user", "content": others_answers})
        if job.problems:
            wrong = "\n".join(f"- {p}" for p in job.problems)
            text = f"Your answer cannot be taken:\n{wrong}\nWrite the whole of it again."
            return with_note(messages, text)
        return with_note(messages, LAST_TURN) if job.is_last else messages

    async def _opening(self, job: TurnJob) -> list[Message]:
        spec = AgentSpec.model_validate(await self._blobs.load(job.spec))
        system = spec.system or spec.description or "You are a careful assistant."
        form = {"agent": AGENT_FORM, "member": MEMBER_FORM, "free": ""}[job.form]
        if job.output_schema is not None:
            schema = json.dumps(job.output_schema, ensure_ascii=False)
            form = f"Answer with one JSON value by this schema, and nothing else:\n{schema}"
        task = as_text(await self._blobs.load(job.task))
        parts = [f"# Task\n{_cut(task, AGENT_CONTEXT_MAX_CHARS, 'task')}"]
        if job.context is not None:
            text = as_text(await self._blobs.load(job.context))
            shown = f"# Context\n{_cut(text, AGENT_CONTEXT_MAX_CHARS, 'context')}"
            parts.append(fenced("context", shown))
        for name, stored in job.inputs.items():
            parts.append(await self._input(name, stored, job.summaries.get(name)))
        if len(parts) > 1:
            parts.append(DATA_RULE)
        if form:
            parts.append(f"# Form\n{form}")
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    async def _input(self, name: str, stored: Stored, summary: Stored | None) -> str:
        """A value by its name: whole, or summed up and cut, and then opened with `read_output`."""
        text = as_text(await self._blobs.load(stored))
        if summary is None:
            shown = f"# Input {name}\n{_cut(text, AGENT_CONTEXT_MAX_CHARS, name)}"
        else:
            shown = (
                f"# Input {name}, summed up\n{as_text(await self._blobs.load(summary))}\n\n"
                f"# Input {name}, its beginning\n{_cut(text, SUMMED_HEAD_CHARS, name)}"
            )
        return fenced("input", shown)

    async def _result_text(self, result: CallResult) -> str:
        note = f"\n\n({result.note})" if result.note else ""
        if result.error is not None:
            return _as_data(result, f"error: {result.error}") + note
        value = await self._blobs.load(result.output) if result.output is not None else None
        return _as_data(result, _cut(as_text(value), RESULT_MAX_CHARS, result.name)) + note

    # -- what the model says ----------------------------------------------------------------

    async def _answer(
        self,
        job: TurnJob,
        reply: ChatReply,
        transcript: Stored,
        attempt: Attempt,
        problem_before: str | None,
    ) -> TurnReply:
        text, problems = _bounded(reply).text, list[str]()
        value: Stored | None = None
        violations: list[str] = []
        labels = AGENT_REQUIRED if job.form == "agent" else LABELS
        if problem_before is not None:
            problems = [problem_before]
        elif reply.is_cut_off:
            problems = [f"{_cut_words(reply)}: say it in fewer words"]
        elif job.output_schema is not None:
            value, problems = await self._by_schema(text, job.output_schema)
        elif job.form != "free":
            limits = MEMBER_LIMITS if job.form == "member" else AGENT_LIMITS
            fields = await computed(len(text), parse_labelled, text, labels)
            violations = field_violations(fields, limits)
            text, problem = await computed(len(text), _in_form, text, job.form)
            problems = [problem] if problem else []
        elif not text.strip():
            problems = ["empty output"]
        if problems and job.problems:
            self._client.report_schema_violation(job.pool)
        fields = await computed(len(text), parse_labelled, text, labels)
        stored = await self._blobs.store_value(text)
        confidence = parse_confidence(fields.get("CONFIDENCE"))
        if fields.get("CONFIDENCE") and confidence is None:
            violations.append("CONFIDENCE:unclear")
        return TurnReply(
            transcript=transcript,
            text=stored,
            value=value,
            fields={k: clip(v, FIELD_MAX_CHARS) for k, v in fields.items()},
            confidence=CONFIDENCE_DEFAULT if confidence is None else confidence,
            evidence=evidence_count(fields, text),
            contradictions=contradiction_signals(text),
            conflicts=conflict_signals(text),
            problems=problems,
            violations=violations,
            is_cut_off=reply.is_cut_off,
            notes=list(reply.notes),
            usage=attempt.total,
            attempts=attempt.number,
        )

    async def _by_schema(
        self, text: str, schema: dict[str, JsonValue]
    ) -> tuple[Stored | None, list[str]]:
        try:
            found, problems = await computed(len(text), AnswerSchema(schema).read, text)
        except ValueError as error:
            return None, [str(error)]
        return (None, problems) if problems else (await self._blobs.store_value(found), [])


def _as_data(result: CallResult, text: str) -> str:
    """What came from outside says that it is data; other tools are the operator's own."""
    return f"{fenced('output', text)}\n{DATA_RULE}" if result.is_outside else text


def _is_answer(reply: ChatReply, job: TurnJob) -> bool:
    """Whether an answer fits the schema that was asked for, whatever it looks like else."""
    if job.output_schema is None or reply.tool_calls:
        return False
    try:
        return not AnswerSchema(job.output_schema).read(reply.text)[1]
    except ValueError:
        return False


def _in_form(text: str, form: str) -> tuple[str, str | None]:
    """The text in its form: as it is, wrapped, or with what is wrong with it."""
    required, least = (
        (MEMBER_REQUIRED, MEMBER_MIN_CHARS)
        if form == "member"
        else (AGENT_REQUIRED, AGENT_MIN_CHARS)
    )
    problem = problem_with(text, required, least)
    if problem is None:
        return text, None
    if form == "agent":  # the form is asked for, not insisted on: any answer is an answer
        return text, None if text.strip() else "empty output"
    if form == "member" and parse_labelled(text).get("RESULT"):
        return text, None
    repaired = repair_member(text)
    return (text, problem) if repaired is None else (repaired, None)


def _cut_words(reply: ChatReply) -> str:
    return f"the answer was cut off at its limit, after {reply.usage.output_tokens:,} tokens"


def _bounded(reply: ChatReply) -> ChatReply:
    """An answer as it is kept: an endless one is cut, and says so."""
    if len(reply.text) <= ANSWER_MAX_CHARS:
        return reply
    mark = f"\n… (cut: the answer had {len(reply.text):,} characters)"
    return replace(reply, text=reply.text[:ANSWER_MAX_CHARS] + mark)


def _cut(text: str, chars_max: int, name: str) -> str:
    if len(text) <= chars_max:
        return text
    opens = f'; read_output("{name}", start, end) opens it' if name else ""
    return f"{text[:chars_max]}\n… (cut: {chars_max:,} of {len(text):,} characters{opens})"


def allowed_tools(job: TurnJob) -> list[str]:
    """What a turn may call, checked against the run's allow-list once more.

    Reading its own large values is always allowed.
    """
    allow = job.allow
    return [t for t in job.tools if allow is None or t in allow or t == READ_OUTPUT]
