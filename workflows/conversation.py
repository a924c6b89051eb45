"""One agent's conversation: model turns and tool calls, each an activity of its own, until it ends.

Used by `AgentWorkflow` for its agent and by `TeamWorkflow` for each member. Bounded in turns,
tokens and repeats; a failure is an outcome, never an exception among siblings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import FailureError

from planloom.planner.contract.jobs import (
    AgentCall,
    CallResult,
    ResolveJob,
    ToolJob,
    TurnJob,
    TurnReply,
)
from planloom.planner.contract.names import ASK_HUMAN, READ_OUTPUT
from planloom.planner.contract.requests import Role
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    NANO,
    Bindings,
    JsonValue,
    Stored,
    Usage,
)
from planloom.workflows.desk import Desk
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.estimates import ANSWER_TOKENS_MIN, model_amount
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.machines.shared.summing import (
    SUMMED_MAX_BYTES,
    summary_amounts,
    summary_job,
)
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyCancelled, BodyFailed, failure_of
from planloom.workflows.shell.pools import on_pools

REPEATS_MAX = 3
"""The same call with the same arguments, before the conversation is ended."""
TURN_REPAIRS_MAX = 1
CALLS_PER_TURN_MAX = 16
DEFAULT_MAX_TURNS = 20
FORM_TOKENS = 200
"""What an agent is told beside its own words: the form of its answer, its tools."""
AGENT_SHOWN_MAX_BYTES = 12_000
"""Of one value in a prompt; a larger one is cut, summed up, and opened with `read_output`."""


@dataclass(frozen=True, slots=True)
class Persona:
    """Who speaks: definition, allowed tools, model."""

    name: str
    spec: Stored
    tools: tuple[str, ...] = ()
    model: str | None = None
    form: Literal["agent", "member", "free"] = "agent"
    output_schema: dict[str, JsonValue] | None = None
    max_turns: int = DEFAULT_MAX_TURNS
    timeout: float | None = None
    """The longest that one try of a turn may take, in seconds."""
    retry: Retry | None = None


@dataclass(slots=True)
class Ended:
    """How a conversation ended. `reply` is its last answer, if there is one."""

    status: Literal["completed", "partial", "failed", "cancelled"]
    reply: TurnReply | None = None
    error_class: str | None = None
    reason: str | None = None
    turns: int = 0
    tool_calls: int = 0
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    transcript: Stored | None = None


@dataclass(slots=True)
class _Step:
    """What the next turn is told, beside the conversation so far."""

    heard: Stored | None = None
    results: list[CallResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repairs: int = 0
    is_last: bool = False


class Conversation:
    """Drives one persona from its task to its answer; `say` asks again in a later round."""

    def __init__(
        self,
        desk: Desk,
        persona: Persona,
        task: Stored,
        context: Stored | None,
        inputs: Mapping[str, Stored],
        run_key: str,
    ) -> None:
        self.desk = desk
        self.persona = persona
        self.task = task
        self._context = context
        self._inputs = dict(inputs)
        self._shelf: dict[str, Stored] = {}
        """What `read_output` opens: inputs, and outputs that were shown cut."""
        self._summaries: dict[str, Stored] = {}
        self._run_key = run_key
        self._transcript: Stored | None = None
        self._turn = 0
        self._last_prompt = 0
        self._marks: dict[str, int] = {}

    async def say(self, heard: Stored | None = None, role: Role = "worker") -> Ended:
        """Turns until there is an answer, or a bound is reached."""
        ended, step = Ended("failed"), _Step(heard)
        most = self.persona.max_turns
        while ended.turns < most + step.repairs:
            step.is_last = ended.turns + 1 >= most + step.repairs
            try:
                if not await self._goes_on(ended, step, role):
                    return ended
            except BodyCancelled:
                ended.status, ended.reason = "cancelled", "cancelled"
                return ended
        if ended.reply is None:
            ended.reason = f"max_turns {most} is reached without an answer"
            ended.status = "partial"
        return ended

    async def _goes_on(self, ended: Ended, step: _Step, role: Role) -> bool:
        """One turn, with the calls it makes; False when it was the last.

        Raises:
            BodyCancelled: the workflow is being cancelled.
        """
        reply = await self._answered(ended, step, role)
        if reply is None:
            return False
        if reply.calls:
            return await self._called(ended, step, reply)
        return not self._is_done(ended, step, reply)

    def shelve(self, name: str, stored: Stored) -> None:
        """Let the agent open a value that it is told of by name."""
        self._shelf[name] = stored

    async def _answered(self, ended: Ended, step: _Step, role: Role) -> TurnReply | None:
        """One turn's reply; None when the conversation is over without it, for the reason given."""
        try:
            if self._turn == 0:
                await self._prepare()
            reply = await self._ask(step, role)
        except BodyFailed as failed:
            ended.usage += failed.usage
            ended.error_class, ended.reason = failed.error_class, failed.message
            ended.attempts += failed.attempts
            return None
        if reply is None:
            ended.status, ended.reason = "partial", f"budget: {self.desk.lack}"
            return None
        ended.turns += 1
        ended.usage += reply.usage
        ended.attempts += reply.attempts
        ended.transcript = self._transcript
        step.heard, step.problems, step.results = None, [], []
        return reply

    async def _called(self, ended: Ended, step: _Step, reply: TurnReply) -> bool:
        """Make the calls of a turn; False when the same one came too often."""
        repeated = self._repeated(reply.calls)
        if repeated is not None:
            ended.reason = f"{repeated} was called {REPEATS_MAX} times alike"
            ended.status = "partial"
            return False
        ended.tool_calls += len(reply.calls)
        step.results = await self._make(reply.calls[:CALLS_PER_TURN_MAX])
        step.results += [
            CallResult(id=c.id, error=f"at most {CALLS_PER_TURN_MAX} calls a turn")
            for c in reply.calls[CALLS_PER_TURN_MAX:]
        ]
        return True

    def _is_done(self, ended: Ended, step: _Step, reply: TurnReply) -> bool:
        """Whether an answer ends the conversation; else what is wrong with it goes back once."""
        ended.reply = reply
        if not reply.problems:
            ended.status, ended.reason, ended.error_class = "completed", None, None
            if step.is_last and self.persona.max_turns > 1 and ended.tool_calls:
                ended.reason = f"max_turns {self.persona.max_turns} is reached"
            return True
        if step.is_last and ended.tool_calls and not (reply.text and reply.text.value):
            ended.reply = None  # it called on, and said nothing: its turns are over
            return False
        ended.error_class = "schema_violation"
        ended.reason = "schema_violation: " + "; ".join(reply.problems[:5])
        if step.repairs == TURN_REPAIRS_MAX:
            return True
        step.repairs += 1
        step.problems = reply.problems
        return False

    async def _prepare(self) -> None:
        """Large words go behind references, and very large ones are summed up, before the first
        turn: no later turn carries them again."""
        self.task = await shelved(self.task)
        if self._context is not None:
            self._context = await shelved(self._context)
            if not self._context.is_inline:
                self._inputs, self._context = {"context": self._context, **self._inputs}, None
        if not self.task.is_inline:
            self._shelf["task"] = self.task
        self._shelf |= self._inputs
        for name, stored in self._inputs.items():
            if summary := await summary_of(self.desk, f"{self.persona.name}.{name}", stored):
                self._summaries[name] = summary

    async def _ask(self, step: _Step, role: Role) -> TurnReply | None:
        """One turn; None when the budget leaves no room for it.

        Raises:
            BodyFailed, BodyCancelled: as the activity ended.
        """
        persona, desk = self.persona, self.desk
        model = desk.model_for(role, persona.model)
        self._turn += 1
        name = f"{persona.name}.{self._turn}"
        granted = await desk.reserve(name, *self._amounts(model))
        if granted is None:
            return None
        is_first = self._transcript is None
        job = TurnJob(
            name=persona.name,
            # Later turns have the opening in their transcript.
            spec=persona.spec if is_first else Stored(value={}),
            task=self.task if is_first else Stored(value=""),
            context=self._context if is_first else None,
            inputs=self._inputs if is_first else {},
            summaries=self._summaries if is_first else {},
            others_answers=step.heard,
            transcript=self._transcript,
            results=step.results,
            problems=step.problems,
            tools=[*persona.tools, *([READ_OUTPUT] if self._shelf else [])],
            is_last=step.is_last,
            form=persona.form,
            output_schema=persona.output_schema,
            role=role,
            model=model,
            retry=persona.retry,
            tokens_max=granted.tokens if desk.has_token_cap else None,
            tenant=desk.request.tenant,
        )
        try:
            place = desk.place(name, f"{name}: a turn")
            reply = await on_pools(
                desk.catalog, job, place, lambda j, p: doors.agent_turn(j, p, persona.timeout)
            )
        except BodyFailed as failed:
            desk.settle(name, failed.usage)
            raise
        except BodyCancelled:
            desk.ledger.refund(name)
            raise
        desk.settle(name, reply.usage)
        self._last_prompt = reply.usage.input_tokens
        self._transcript = reply.transcript
        return reply

    def _amounts(self, model: str | None) -> tuple[Amount, Amount]:
        """What to reserve for a turn, and the least it can do with."""
        spec = self.persona.spec
        known = [spec, self.task, *([self._context] if self._context else [])]
        size = sum(_shown_bytes(s) for s in [*known, *self._inputs.values()])
        # The prompt is at least what it was the last time: history only grows.
        prompt = max(size // 2 + FORM_TOKENS * 2, self._last_prompt * 2)
        least = self._last_prompt or size // 4 + FORM_TOKENS
        catalog = self.desk.catalog
        return (
            model_amount(catalog, model, prompt, 1_000, tasks=0),
            model_amount(catalog, model, least, ANSWER_TOKENS_MIN, tasks=0),
        )

    def _repeated(self, calls: Sequence[AgentCall]) -> str | None:
        for call in calls:
            self._marks[call.fingerprint] = self._marks.get(call.fingerprint, 0) + 1
            if self._marks[call.fingerprint] >= REPEATS_MAX:
                return call.name
        return None

    # -- tool calls -------------------------------------------------------------------------

    async def _make(self, calls: Sequence[AgentCall]) -> list[CallResult]:
        """All calls of a turn at once; what goes wrong is told to the model."""
        names = activity_names([c.id for c in calls])
        jobs = [
            asyncio.create_task(self._one(call, name))
            for call, name in zip(calls, names, strict=True)
        ]
        return [await job for job in jobs]

    async def _one(self, call: AgentCall, name: str) -> CallResult:
        if call.problem is not None:
            return CallResult(id=call.id, error=call.problem)
        if call.name == ASK_HUMAN and ASK_HUMAN in self.persona.tools:
            question = str(call.args.get("question", "?"))[:2_000]
            answer = await self.desk.ask_person(self.persona.name, question)
            return CallResult(id=call.id, output=Stored(value=answer))
        if call.name == READ_OUTPUT and self._shelf:
            return await self._read(call)
        spec = self.desk.catalog.tool(call.name)
        if call.name not in self.persona.tools or spec is None:
            allowed = ", ".join(self.persona.tools) or "none"
            error = f'there is no tool "{call.name}" for you. Your tools: {allowed}'
            return CallResult(id=call.id, error=error)
        return await self._run_tool(call, spec, f"{self.persona.name}.{self._turn}.{name}")

    async def _run_tool(self, call: AgentCall, spec: ToolSpec, key: str) -> CallResult:
        desk, retry = self.desk, Retry(max_attempts=2)
        cost = Amount(usd_nano=-int(-(spec.cost_usd or 0.0) * NANO // 1))
        if await desk.reserve(key, cost, cost) is None:
            return CallResult(id=call.id, error=f"the budget leaves no room: {desk.lack}")
        job = ToolJob(
            task=self.persona.name,
            tool=call.name,
            args=call.args,
            bindings=Bindings(inputs=call.inputs),
            key=f"{self._run_key}/{key}",
            cache=desk.request.cache,
            cache_scope=desk.request.lineage.root or "",
            tenant=desk.request.tenant,
            max_attempts=retry.max_attempts,
        )
        place = doors.Place(desk.catalog.tools_queue, key, f"{key}: {call.name}", desk.priority)
        try:
            output = await doors.run_tool(job, place, retry, spec.timeout_seconds)
        except FailureError as error:
            failed = failure_of(error, retry.max_attempts)
            desk.settle(key, failed.usage or Usage())
            return CallResult(id=call.id, error=_told(failed)[:2_000])
        desk.settle(key, output.usage)
        result = CallResult(id=call.id, output=output.output)
        if not output.output.is_inline and output.output.size_bytes > AGENT_SHOWN_MAX_BYTES:
            result = result.model_copy(update={"name": f"{call.name}.{self._turn}.{call.id[:40]}"})
            self._shelf[result.name] = output.output
        return result

    async def _read(self, call: AgentCall) -> CallResult:
        name = str(call.args.get("id", ""))
        stored = self._shelf.get(name)
        if stored is None:
            known = ", ".join(self._shelf)
            return CallResult(id=call.id, error=f'no output "{name}". There are: {known}')
        start, end = call.args.get("start", 0), call.args.get("end")
        first = start if isinstance(start, int) else 0
        last = end if isinstance(end, int) else first + 16_000
        try:
            return CallResult(id=call.id, output=await doors.read_output(stored, first, last))
        except FailureError as error:
            return CallResult(id=call.id, error=_told(failure_of(error, 1))[:500])


def _told(failed: BodyFailed | BodyCancelled) -> str:
    """What the model is told of a call that went wrong.

    Raises:
        BodyCancelled: nobody is told any more.
    """
    if isinstance(failed, BodyCancelled):
        raise failed
    return failed.message


def _shown_bytes(stored: Stored) -> int:
    return (
        text_bytes(stored.value)
        if stored.is_inline
        else min(stored.size_bytes, AGENT_SHOWN_MAX_BYTES)
    )


def activity_names(ids: Sequence[str]) -> list[str]:
    """The ids that a model gave its calls, as parts of activity ids: bounded, and each once.

    Two activities of one id at a time would hang the run, and models do repeat themselves.
    """
    found: list[str] = []
    for n, id in enumerate(ids):
        plain = id if 0 < len(id) <= 64 and id not in found else f"{n}-{id[:32]}"
        found.append(plain if plain not in found else f"{n}-")
    return found


async def shelved(stored: Stored) -> Stored:
    """A large value behind a reference: turns carry it by its name only."""
    if not stored.is_inline or text_bytes(stored.value) <= INLINE_MAX_BYTES:
        return stored
    bound = Bindings(inputs={"it": stored})
    job = ResolveJob(value="${it}", bindings=bound, inline_max_bytes=INLINE_MAX_BYTES)
    return (await doors.resolve_value(job)).stored


async def summary_of(desk: Desk, name: str, stored: Stored) -> Stored | None:
    """A model's summary of what is too large to be shown whole; by content, so made once.

    None for what is small enough, or when no summary can be had: then its beginning must do.
    """
    if stored.is_inline or stored.size_bytes <= AGENT_SHOWN_MAX_BYTES:
        return None
    model = desk.model_for("worker")
    key = f"{name}.summary"
    want, least = summary_amounts(desk.catalog, model, stored)
    if stored.size_bytes > SUMMED_MAX_BYTES or not desk.may_reserve_now(key, want, least):
        desk.note(f"{name}: {stored.size_bytes:,} bytes, shown cut and without a summary")
        return None
    scope = desk.request.lineage.root or workflow.info().workflow_id
    job = summary_job(key, stored, model=model, request=desk.request, scope=scope)
    try:
        output = await on_pools(
            desk.catalog, job, desk.place(key, key), lambda j, p: doors.ask_model(j, p, None)
        )
    except BodyFailed as failed:
        desk.settle(key, failed.usage)
        desk.note(f"{name}: shown cut; its summary failed: {failed.message[:200]}")
        return None
    except BodyCancelled:
        desk.ledger.refund(key)
        raise
    desk.settle(key, output.usage)
    return output.output
