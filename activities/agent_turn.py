"""The activity `agent_turn`: one model turn of an agent or of a team's member.

The whole conversation is a blob; history holds its reference, the calls the model asks for, and
short fields of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from temporalio import activity

from planloom.activities.models.attempt import (
    ATTEMPTS_MAX,
    Attempt,
    Target,
    attempt_model,
    model_for,
)
from planloom.activities.models.chat import ChatReply, ChatRequest, Message
from planloom.activities.models.client import ModelClient
from planloom.activities.models.context_window import cut_to_fit
from planloom.activities.models.structured import json_from_text, schema_problems
from planloom.activities.resolve import read_output
from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract.jobs import AgentCall, CallResult, TurnJob, TurnReply
from planloom.planner.contract.names import ASK_HUMAN, READ_OUTPUT
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.references import as_text
from planloom.planner.language.values import JsonValue, Stored
from planloom.planner.syntax.labelled import (
    AGENT_LIMITS,
    AGENT_MIN_CHARS,
    AGENT_REQUIRED,
    CONFIDENCE_DEFAULT,
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
_PSEUDO: dict[str, dict[str, Any]] = {
    ASK_HUMAN: {
        "description": "Ask the person who started this; use it only when you cannot go on.",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    },
    READ_OUTPUT: {
        "description": "Read a part of a large value that was shown cut.",
        "properties": {
            "id": {"type": "string", "description": "its name"},
            "start": {"type": "integer"},
            "end": {"type": "integer"},
        },
        "required": ["id"],
    },
}
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
        messages = await self._messages(job)
        names = allowed_tools(job)
        specs = [s for s in self._registry.specs if s.name in names and s.name != "ask"]
        tools = [] if job.is_last else _definitions(specs, names)
        request = ChatRequest(
            model=model,
            messages=cut_to_fit(
                messages, self._client.settings.context_window(model), TURN_ANSWER_TOKENS
            ),
            max_tokens=attempt.room(messages, job.max_tokens),
            tools=tools or None,
            response_schema=job.output_schema if job.output_schema and not tools else None,
            timeout_seconds=attempt.timeout_seconds,
        )
        reply = await self._client.chat(job.pool, request)
        attempt.paid(reply.usage)
        messages.append(_bounded(reply).as_message())
        transcript = await self._blobs.store_value(json.loads(json.dumps(messages)), 0)
        if reply.tool_calls and not job.is_last:
            calls = [await self._call(c.id, c.name, c.arguments) for c in reply.tool_calls]
            return TurnReply(
                transcript=transcript, calls=calls, usage=attempt.total, attempts=attempt.number
            )
        return await self._answer(job, reply, transcript, attempt)

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
            messages.append({"role": "user", "content": text})
        if job.is_last and not job.problems:
            messages.append({"role": "user", "content": "No more tool calls: answer now."})
        return messages

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
            parts.append(f"# Context\n{_cut(text, AGENT_CONTEXT_MAX_CHARS, 'context')}")
        for name, stored in job.inputs.items():
            parts.append(await self._input(name, stored, job.summaries.get(name)))
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
            return f"# Input {name}\n{_cut(text, AGENT_CONTEXT_MAX_CHARS, name)}"
        summed = as_text(await self._blobs.load(summary))
        return (
            f"# Input {name}, summed up\n{summed}\n\n# Input {name}, its beginning\n"
            f"{_cut(text, SUMMED_HEAD_CHARS, name)}"
        )

    async def _result_text(self, result: CallResult) -> str:
        if result.error is not None:
            return f"error: {result.error}"
        value = await self._blobs.load(result.output) if result.output is not None else None
        return _cut(as_text(value), RESULT_MAX_CHARS, result.name)

    # -- what the model wants, or says ------------------------------------------------------

    async def _call(self, id: str, name: str, arguments: str) -> AgentCall:
        try:
            args = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            problem = f"the arguments are no JSON: {error.msg}"
            return AgentCall(
                id=id, name=name, fingerprint=f"{name} {arguments[:200]}", problem=problem
            )
        if not isinstance(args, dict):
            problem = "the arguments must be a JSON object"
            return AgentCall(
                id=id, name=name, fingerprint=f"{name} {arguments[:200]}", problem=problem
            )
        kept: dict[str, JsonValue] = {}
        inputs: dict[str, Stored] = {}
        for n, (key, value) in enumerate(args.items()):
            stored = await self._blobs.store_value(value)
            has_reference = "${" in json.dumps(value)
            if stored.is_inline and not has_reference:
                kept[key] = value
            else:  # large, or with text that must not be read as a reference
                kept[key], inputs[f"arg{n}"] = f"${{arg{n}}}", stored
        fingerprint = f"{name} {json.dumps(args, sort_keys=True)}"[:400]
        return AgentCall(id=id, name=name, args=kept, inputs=inputs, fingerprint=fingerprint)

    async def _answer(
        self, job: TurnJob, reply: ChatReply, transcript: Stored, attempt: Attempt
    ) -> TurnReply:
        text, problems = _bounded(reply).text, list[str]()
        value: Stored | None = None
        violations: list[str] = []
        if job.output_schema is not None:
            value, problems = await self._by_schema(text, job.output_schema)
        elif job.form != "free":
            limits = MEMBER_LIMITS if job.form == "member" else AGENT_LIMITS
            violations = field_violations(parse_labelled(text), limits)
            text, problem = _in_form(text, job.form)
            problems = [problem] if problem else []
        elif not text.strip():
            problems = ["empty output"]
        if problems and job.problems:
            self._client.report_schema_violation(job.pool)
        fields = parse_labelled(text)
        stored = await self._blobs.store_value(text)
        confidence = parse_confidence(fields.get("CONFIDENCE"))
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
            usage=attempt.total,
            attempts=attempt.number,
        )

    async def _by_schema(
        self, text: str, schema: dict[str, JsonValue]
    ) -> tuple[Stored | None, list[str]]:
        try:
            parsed = json_from_text(text)
        except ValueError as error:
            return None, [str(error)]
        problems = schema_problems(parsed, schema)
        return (None, problems) if problems else (await self._blobs.store_value(parsed), [])


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

    A look into a large value of its own is always allowed.
    """
    allow = job.allow
    return [t for t in job.tools if allow is None or t in allow or t == READ_OUTPUT]


def _definitions(specs: Sequence[ToolSpec], allowed: Sequence[str]) -> list[dict[str, Any]]:
    made = [_definition(s.name, s.description, dict(s.parameters)) for s in specs]
    for name, pseudo in _PSEUDO.items():
        if name in allowed:
            schema = {"type": "object", **{k: pseudo[k] for k in ("properties", "required")}}
            made.append(_definition(name, pseudo["description"], schema))
    return made


def _definition(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    schema = parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }
