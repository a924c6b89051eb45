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
from temporalio.common import Priority
from temporalio.exceptions import FailureError

from planner.catalog import Site
from planner.contract import Common, Role
from planner.jobs import AgentCall, CallResult, ToolJob, TurnJob, TurnReply
from planner.plan import Retry
from planner.values import Bindings, JsonValue, Stored, Usage
from workflows import doors
from workflows.failures import BodyCancelled, BodyFailed, failure_of
from workflows.pools import on_pools, priority_of
from workflows.record import text_bytes

REPEATS_MAX = 3
"""The same call with the same arguments, before the conversation is ended."""
REPAIRS_MAX = 1
CALLS_PER_TURN_MAX = 16
ASK_HUMAN, READ_OUTPUT = "ask_human", "read_output"
DEFAULT_MAX_TURNS = 20


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


class Desk:
    """What all conversations of one workflow share: site, caps, pause, questions to people."""

    def __init__(self, request: Common) -> None:
        self.request = request
        self.site = Site()
        self.is_paused = False
        self.room_wait: str | None = None
        """The room in a pool that all of it waits for."""
        self.questions: dict[str, str] = {}
        self.answers: dict[str, JsonValue] = {}
        self.used = Usage()
        self.reserved_tokens = 0
        grant = request.lineage.grant
        caps = [c for c in (request.budget.tokens, grant.tokens if grant else None) if c]
        self.tokens_cap = min(caps, default=None)

    def model_for(self, role: Role, named: str | None = None) -> str | None:
        asked = named or self.request.model_for(role)
        return asked or self.site.models.get(role) or self.site.models.get("worker") or None

    def place(self, name: str, summary: str) -> doors.Place:
        """Where a call of this workflow is shown; its pool gives the queue."""
        return doors.Place("", name, summary, self.priority)

    @property
    def priority(self) -> Priority:
        return priority_of(self.request.priority, self.request.tenant, self.site)

    @property
    def awaiting(self) -> str | None:
        return "capacity" if self.room_wait else "human" if self.questions else None

    def wait_for_room(self, why: str | None) -> None:
        self.room_wait = why

    def reserve(self, tokens: int, at_least: int = 64) -> int | None:
        """Tokens for one call, fewer when the cap is near; None when `at_least` are not free."""
        if self.tokens_cap is None:
            return tokens
        free = self.tokens_cap - self.used.tokens - self.reserved_tokens
        granted = min(tokens, free)
        if granted < min(tokens, at_least):
            return None
        self.reserved_tokens += granted
        return granted

    def settle(self, granted: int, usage: Usage) -> None:
        if self.tokens_cap is not None:
            self.reserved_tokens -= granted
        self.used += usage


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
        self._task = task
        self._context = context
        self._inputs = dict(inputs)
        self._run_key = run_key
        self._transcript: Stored | None = None
        self._turn = 0
        self._last_prompt = 0
        self._marks: dict[str, int] = {}

    async def say(self, heard: Stored | None = None, role: Role = "worker") -> Ended:
        """Turns until there is an answer, or a bound is reached."""
        ended = Ended("failed")
        results: list[CallResult] = []
        problems: list[str] = []
        repairs = 0
        for turn in range(1, self.persona.max_turns + 1):
            await workflow.wait_condition(lambda: not self.desk.is_paused)
            is_last = turn == self.persona.max_turns
            try:
                reply = await self._ask(results, problems, heard, is_last, role)
            except BodyCancelled:
                ended.status, ended.reason = "cancelled", "cancelled"
                break
            except BodyFailed as failed:
                self.desk.used += failed.usage
                ended.usage += failed.usage
                ended.error_class, ended.reason = failed.error_class, failed.message
                break
            if reply is None:
                ended.status = "partial"
                ended.reason = f"budget: {self.desk.tokens_cap:,} tokens are used up"
                break
            heard, problems = None, []
            ended.turns += 1
            ended.usage += reply.usage
            ended.attempts += reply.attempts
            ended.transcript = self._transcript
            if reply.calls:
                repeated = self._repeated(reply.calls)
                if repeated is not None:
                    ended.reason = f"{repeated} was called {REPEATS_MAX} times alike"
                    ended.status = "partial"
                    break
                ended.tool_calls += len(reply.calls)
                results = await self._make(reply.calls[:CALLS_PER_TURN_MAX])
                results += [
                    CallResult(id=c.id, error=f"at most {CALLS_PER_TURN_MAX} calls a turn")
                    for c in reply.calls[CALLS_PER_TURN_MAX:]
                ]
                continue
            results = []
            ended.reply = reply
            if not reply.problems:
                ended.status, ended.reason, ended.error_class = "completed", None, None
                if is_last and self.persona.max_turns > 1 and ended.tool_calls:
                    ended.reason = f"max_turns {self.persona.max_turns} is reached"
                break
            ended.error_class = "schema_violation"
            ended.reason = "; ".join(reply.problems[:5])
            if repairs == REPAIRS_MAX:
                break
            repairs += 1
            problems = reply.problems
        if ended.reply is None and ended.reason is None:
            ended.reason = f"max_turns {self.persona.max_turns} is reached without an answer"
            ended.status = "partial"
        return ended

    async def _ask(
        self,
        results: Sequence[CallResult],
        problems: Sequence[str],
        heard: Stored | None,
        is_last: bool,
        role: Role,
    ) -> TurnReply | None:
        """One turn; None when the budget leaves no room for it.

        Raises:
            BodyFailed, BodyCancelled: as the activity ended.
        """
        persona, desk = self.persona, self.desk
        model = desk.model_for(role, persona.model)
        size = text_bytes(self._task.value) + (self._context.size_bytes if self._context else 0)
        # The prompt is at least what it was the last time: history only grows.
        want = max(size // 2 + 1_500, self._last_prompt * 2 + 1_000)
        granted = desk.reserve(want, self._last_prompt + 64)
        if granted is None:
            return None
        self._turn += 1
        name = f"{persona.name}.{self._turn}"
        job = TurnJob(
            name=persona.name,
            spec=persona.spec,
            task=self._task,
            context=self._context,
            inputs=self._inputs,
            heard=heard,
            transcript=self._transcript,
            results=list(results),
            problems=list(problems),
            tools=[*persona.tools, *([READ_OUTPUT] if self._inputs else [])],
            is_last=is_last,
            form=persona.form,
            output_schema=persona.output_schema,
            role=role,
            model=model,
            tokens_max=granted if desk.tokens_cap is not None else None,
            tenant=desk.request.tenant,
        )
        try:
            place = desk.place(name, f"{name}: a turn")
            reply = await on_pools(desk.site, job, place, doors.agent_turn)
        except (BodyFailed, BodyCancelled):
            desk.settle(granted, Usage())
            raise
        desk.settle(granted, reply.usage)
        self._last_prompt = reply.usage.input_tokens
        self._transcript = reply.transcript
        return reply

    def _repeated(self, calls: Sequence[AgentCall]) -> str | None:
        for call in calls:
            self._marks[call.mark] = self._marks.get(call.mark, 0) + 1
            if self._marks[call.mark] >= REPEATS_MAX:
                return call.name
        return None

    # -- tool calls -------------------------------------------------------------------------

    async def _make(self, calls: Sequence[AgentCall]) -> list[CallResult]:
        """All calls of a turn at once; what goes wrong is told to the model."""
        jobs = [asyncio.create_task(self._one(call)) for call in calls]
        return [await job for job in jobs]

    async def _one(self, call: AgentCall) -> CallResult:
        if call.problem is not None:
            return CallResult(id=call.id, error=call.problem)
        if call.name == ASK_HUMAN and ASK_HUMAN in self.persona.tools:
            return await self._ask_person(call)
        if call.name == READ_OUTPUT and self._inputs:
            return await self._read(call)
        spec = self.desk.site.tool(call.name)
        if call.name not in self.persona.tools or spec is None:
            allowed = ", ".join(self.persona.tools) or "none"
            error = f'there is no tool "{call.name}" for you. Your tools: {allowed}'
            return CallResult(id=call.id, error=error)
        key = f"{self.persona.name}.{self._turn}.{call.id}"
        retry = Retry(max_attempts=2)
        job = ToolJob(
            task=self.persona.name,
            tool=call.name,
            args=call.args,
            bindings=Bindings(inputs=call.inputs),
            key=f"{self._run_key}/{key}",
            cache=self.desk.request.cache,
            cache_scope=self.desk.request.lineage.root or "",
            tenant=self.desk.request.tenant,
            max_attempts=retry.max_attempts,
        )
        place = doors.Place(
            self.desk.site.tools_queue, key, f"{key}: {call.name}", self.desk.priority
        )
        try:
            output = await doors.run_tool(job, place, retry, spec.timeout_seconds)
        except FailureError as error:
            failed = failure_of(error, retry.max_attempts)
            if isinstance(failed, BodyCancelled):
                return CallResult(id=call.id, error="cancelled")
            self.desk.used += failed.usage
            return CallResult(id=call.id, error=failed.message[:2_000])
        self.desk.used += output.usage
        return CallResult(id=call.id, output=output.output)

    async def _read(self, call: AgentCall) -> CallResult:
        name = str(call.args.get("id", ""))
        stored = self._inputs.get(name)
        if stored is None:
            known = ", ".join(self._inputs)
            return CallResult(id=call.id, error=f'no input "{name}". Inputs: {known}')
        start, end = call.args.get("start", 0), call.args.get("end", 16_000)
        first = start if isinstance(start, int) else 0
        last = end if isinstance(end, int) else first + 16_000
        return CallResult(id=call.id, output=await doors.read_output(stored, first, last))

    async def _ask_person(self, call: AgentCall) -> CallResult:
        name, desk = self.persona.name, self.desk
        desk.questions[name] = str(call.args.get("question", "?"))[:2_000]
        try:
            await workflow.wait_condition(lambda: name in desk.answers)
        finally:
            desk.questions.pop(name, None)
        return CallResult(id=call.id, output=Stored(value=desk.answers.pop(name)))
