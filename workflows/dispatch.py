"""Carries out one body of a task: chooses its door, binds its inputs, reads what came back.

Nothing here decides what runs next: it turns a body into one activity or child workflow and gives
back a `TaskOutput`, or raises `BodyFailed` or `BodyCancelled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

from planloom.planner.contract.jobs import AskJob, ResolveJob, TaskOutput, ToolJob
from planloom.planner.contract.requests import (
    AgentRequest,
    Common,
    Grant,
    Lineage,
    RunRequest,
    TeamRequest,
)
from planloom.planner.contract.results import AgentResult, RunResult, TeamResult, UsageReport
from planloom.planner.contract.retries import RETRY_TABLE
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.plan import Ask, Body, Retry, Task
from planloom.planner.language.references import resolve, roots_of
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    NANO,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    TaskId,
    Usage,
)
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyCancelled, BodyFailed, failure_of
from planloom.workflows.shell.pools import on_pools, priority_of

LITERAL_INLINE_BYTES = 6_000
"""Longer arguments of a body are stored once, for all items of its map and all its attempts."""
DEADLINE = "deadline_moved"
"""The signal that a parent run has more time, or less."""
BINDINGS_INLINE_BYTES = 12_000
"""Wider fan-ins go behind one reference, so that no history event grows with the plan."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be carried out: a task's body, or one item of its map, or its alternative."""

    task: Task
    body: Body
    name: str
    """Activity id: the task's id, with the item's index, `.fallback`, or the round."""
    item: Stored | None = None
    is_item_of_list: bool = False
    index: int | None = None
    grant: Grant | None = None
    max_tokens: int | None = None
    """What the budget leaves for a model's answer."""
    tokens_max: int | None = None
    """What was reserved for the whole of it, repairs and retries included."""
    revision: int = 0
    """The newest revision when it started."""


@dataclass(slots=True)
class Dispatcher:
    """The shell's hands. `value_of` gives a finished task's output, or None when it has none."""

    request: RunRequest
    catalog: Catalog
    value_of: Callable[[str], Stored | None]
    root: str
    run_key: str
    deadline: Callable[[], float | None]
    """When nothing new may start in a child run, in seconds since 1970."""
    cast: dict[str, AgentSpec] = field(default_factory=dict)
    """Agents that only this run knows: the members of a team whose subtasks it runs."""
    cast_fields: dict[str, Any] = field(default_factory=dict)
    """What their requests say beside task and context."""
    spoken: dict[str, AgentResult] = field(default_factory=dict)
    """Their last results, by task."""
    failed_members: dict[str, list[str]] = field(default_factory=dict)
    """Of teams with an answer, by task."""
    children: dict[str, asyncio.Task[None] | None] = field(default_factory=dict)
    """Ids of child runs at work, with what is still being told to one."""
    stored: dict[str, tuple[JsonValue, Stored]] = field(default_factory=dict)
    """Long literal values that were stored already, by their body."""
    storing: dict[str, asyncio.Lock] = field(default_factory=dict)

    # -- choosing ---------------------------------------------------------------------------

    def model_for(self, role: str, named: str | None = None) -> str | None:
        """The model of a call: the task's own, the request's for the role, or the catalog's."""
        asked = named or self.request.model_for(role)  # type: ignore[arg-type]
        return asked or self.catalog.models.get(role) or self.catalog.models.get("worker") or None

    def pool_for(self, model: str | None) -> str:
        return self.catalog.pool_for(model).name

    def priority(self, task: Task | None = None) -> Priority:
        name = (task.priority if task else None) or self.request.priority
        return priority_of(name, self.request.tenant, self.catalog)

    def _place(self, piece: Piece, queue: str, summary: str) -> doors.Place:
        words = piece.task.description or summary
        return doors.Place(queue, piece.name, f"{piece.name}: {words}", self.priority(piece.task))

    def retry_for(self, task: Task, spec: ToolSpec | None) -> Retry:
        if task.retry is not None:
            return task.retry
        if spec is not None and spec.side_effects and not spec.idempotent:
            # A second attempt finds the first one's claim and asks what became of it.
            return Retry(max_attempts=2)
        return doors.RETRY_DEFAULT

    # -- binding ----------------------------------------------------------------------------

    async def bindings(self, piece: Piece, *values: JsonValue) -> Bindings:
        """What the references in `values` stand for, as history may carry it."""
        inputs: dict[str, Stored] = {}
        for value in values:
            for root in roots_of(value):
                stored = self.value_of(root)
                if root not in inputs and stored is not None:
                    inputs[root] = stored
                elif root not in inputs and root not in ("item", "index"):
                    inputs[root] = Stored()
        given: dict[str, Any] = {"inputs": inputs} if inputs else {}
        if piece.index is not None:
            given |= {"item": piece.item, "index": piece.index}
        if piece.is_item_of_list:
            given["is_item_of_list"] = True
        bound = Bindings(**given)
        size = sum(120 + (text_bytes(s.value) if s.is_inline else 240) for s in inputs.values())
        if size > BINDINGS_INLINE_BYTES:
            bound = await doors.pack_bindings(bound)
        return bound

    async def store(self, value: JsonValue) -> Stored:
        """A value as history carries it; what looks like a reference in it stays as it is.

        Raises:
            BodyFailed: it cannot be stored.
        """
        if text_bytes(value) <= INLINE_MAX_BYTES:
            return Stored(value=value)
        given = Bindings(inputs={"given": Stored(value=value)})
        try:
            return (await doors.resolve_value(ResolveJob(value="${given}", bindings=given))).stored
        except FailureError as error:  # a local activity's own, without an ActivityError around it
            raise failure_of(error, 1) from error

    async def literal(self, piece: Piece, value: JsonValue) -> Stored | None:
        """What a body says itself, when that is long; None when it may stand in the job."""
        if text_bytes(value) <= LITERAL_INLINE_BYTES:
            return None
        key = piece.task.id if piece.body is piece.task else f"{piece.task.id}.fallback"
        async with self.storing.setdefault(key, asyncio.Lock()):
            before = self.stored.get(key)
            if before is None or before[0] != value:
                self.stored[key] = before = (value, await self.store(value))
        return before[1]

    async def resolve(self, piece: Piece, value: JsonValue, limit: int | None = None) -> Stored:
        """A value with its references resolved; without an activity when all of it is inline."""
        return (await self._resolve(piece, value, "value", limit))[0]

    async def resolve_list(self, piece: Piece, value: JsonValue) -> tuple[Stored, int]:
        """A list and its length.

        Raises:
            BodyFailed: the value is no list.
        """
        stored, count = await self._resolve(piece, value, "list", None)
        return stored, count

    async def _resolve(
        self, piece: Piece, value: JsonValue, mode: str, limit: int | None
    ) -> tuple[Stored, int]:
        bound = await self.bindings(piece, value)
        inline = bound.bundle is None and all(s.is_inline for s in bound.inputs.values())
        if inline and (bound.item is None or bound.item.is_inline):
            scope: dict[str, JsonValue] = {k: s.value for k, s in bound.inputs.items()}
            if bound.item is not None and bound.index is not None:
                items = bound.item.value
                picked = items[bound.index] if bound.is_item_of_list else items  # type: ignore[index]
                scope |= {"item": picked, "index": bound.index}
            found = _resolved_inline(value, scope)
            if text_bytes(found) <= (limit or BINDINGS_INLINE_BYTES):
                if mode == "list" and not isinstance(found, list):
                    raise BodyFailed(_no_list(piece.task.id, found), "tool")
                return Stored(value=found), len(found) if isinstance(found, list) else 0
        try:
            reply = await doors.resolve_value(
                ResolveJob.model_validate(
                    {"value": value, "mode": mode, "bindings": bound, "inline_max_bytes": limit}
                )
            )
        except FailureError as error:  # a local activity's own, without an ActivityError around it
            raise failure_of(error, 1) from error
        return reply.stored, reply.count or 0

    # -- carrying out -----------------------------------------------------------------------

    async def carry_out(self, piece: Piece) -> TaskOutput:
        """Run one body to its end.

        Raises:
            BodyFailed: it failed after its retries.
            BodyCancelled: it was cancelled.
        """
        attempts = self.retry_for(piece.task, None).max_attempts
        try:
            match piece.body.kind:
                case "tool":
                    return await self._tool(piece)
                case "ask":
                    return await self._ask(piece, piece.body.ask_body())
                case "agent":
                    return await self._agent(piece)
                case "team":
                    return await self._team(piece)
                case _:
                    return await self._plan(piece)
        except FailureError as error:
            raise failure_of(error, attempts) from error

    async def _tool(self, piece: Piece) -> TaskOutput:
        body, task = piece.body, piece.task
        if body.tool == "ask":
            # The built-in tool `ask` is the body `ask`, written as a call.
            return await self._ask(piece, ask_from_args(body.args))
        spec = self.catalog.tool(body.tool or "")
        retry = self.retry_for(task, spec)
        job = await self._tool_job(piece, retry)
        timeout = task.timeout or (spec.timeout_seconds if spec else None)
        if spec is not None and spec.local:
            return await doors.run_local_tool(job, retry, timeout)
        queue = self.catalog.tools_queue
        if spec is not None and spec.pool:
            queue = self._pool_queue(spec.pool)
        place = self._place(piece, queue, f"{body.tool}({_brief(body.args)})")
        return await doors.run_tool(job, place, retry, timeout)

    async def _tool_job(self, piece: Piece, retry: Retry) -> ToolJob:
        """What is not set does not travel: history has one of these a task."""
        task, args, cache = piece.task, piece.body.args, piece.task.cache or self.request.cache
        bound = await self.bindings(piece, args)
        more: dict[str, Any] = {"cache": cache, "cache_scope": self.root} if cache != "off" else {}
        if (literal := await self.literal(piece, dict(args))) is not None:
            more["literal"] = literal
        elif args:
            more["args"] = args
        if bound.model_fields_set:
            more["bindings"] = bound
        if self.request.tenant is not None:
            more["tenant"] = self.request.tenant
        return ToolJob(
            task=task.id,
            tool=piece.body.tool or "",
            key=f"{self.run_key}/{piece.name}",
            revision=piece.revision,
            max_attempts=retry.max_attempts,
            **more,
        )

    async def _ask(self, piece: Piece, ask: Ask) -> TaskOutput:
        task = piece.task
        model = self.model_for("worker", ask.model)
        said: JsonValue = {"prompt": ask.prompt, "context": ask.context, "system": ask.system}
        literal = await self.literal(piece, said)
        job = AskJob(
            task=task.id,
            revision=piece.revision,
            prompt=ask.prompt if literal is None else "",
            context=ask.context if literal is None else None,
            system=ask.system if literal is None else None,
            literal=literal,
            model=model,
            max_tokens=piece.max_tokens or ask.max_tokens,
            output_schema=ask.output_schema,
            bindings=await self.bindings(piece, ask.prompt, ask.context, ask.system),
            cache=task.cache or self.request.cache,
            cache_scope=self.root,
            tenant=self.request.tenant,
            max_attempts=(task.retry or doors.RETRY_DEFAULT).max_attempts,
            retry=task.retry,
            tokens_max=piece.tokens_max,
        )
        place = self._place(piece, "", f"ask {model or ''}: {ask.prompt}")
        return await on_pools(
            self.catalog, job, place, lambda j, p: doors.ask_model(j, p, task.timeout)
        )

    def _pool_queue(self, name: str) -> str:
        return next((p.task_queue for p in self.catalog.pools if p.name == name), "")

    def _lineage(self, piece: Piece, **more: Any) -> Lineage:
        if (deadline := self.deadline()) is not None:
            more["deadline"] = deadline
        return Lineage(
            parent=workflow.info().workflow_id,
            root=self.root,
            depth=self.request.lineage.depth + 1,
            grant=piece.grant,
            **more,
        )

    def _common(self, piece: Piece) -> dict[str, Any]:
        request = self.request
        return {
            "model": request.model,
            "tools": request.tools,
            "on_budget": request.on_budget,
            "priority": piece.task.priority or request.priority,
            "tenant": request.tenant,
            "cache": request.cache,
        }

    async def _child(self, kind: str, piece: Piece, request: Common, result: type[Any]) -> Any:
        timeout = piece.task.timeout
        id = f"{workflow.info().workflow_id}/{piece.name}"
        self.children[id] = None
        try:
            child = await workflow.start_child_workflow(
                kind,
                request,
                id=id,
                result_type=result,
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                execution_timeout=timedelta(seconds=timeout) if timeout else None,
                static_summary=(piece.task.description or piece.name)[:96],
                priority=self.priority(piece.task),
            )
            if self.deadline() != request.lineage.deadline:
                # It was moved while the child was being started, when no signal reached it.
                late = doors.tell(id, DEADLINE, self.deadline())
                self.children[id] = asyncio.create_task(late)
            return await child
        finally:
            self.children.pop(id, None)

    async def tell_children(self, signal: str) -> None:
        """A signal for every child run at work; one that has just ended needs none."""
        for id in list(self.children):
            await doors.tell(id, signal)

    async def tell_deadline(self) -> None:
        """Every child run at work has the deadline that a new one would get."""
        for id in list(self.children):
            await doors.tell(id, DEADLINE, self.deadline())

    async def _plan(self, piece: Piece) -> TaskOutput:
        body = piece.body
        params = await self.resolve(piece, body.args)
        small = params.is_inline
        named = {"template": body.plan} if isinstance(body.plan, str) else {"plan": body.plan}
        request = RunRequest.model_validate(
            {
                **self._common(piece),
                **named,
                "params": params.value if small else {},
                "on_failure": self.request.on_failure,
                "retry_rounds": self.request.retry_rounds,
                "budget": {"parallel": self.request.budget.parallel},
                "lineage": self._lineage(piece, params=None if small else params),
            }
        )
        found: RunResult = await self._child("DagWorkflow", piece, request, RunResult)
        has_answer = found.answer is not None
        good = found.status == "completed" or (found.status == "partial" and has_answer)
        output = found.answer_ref or Stored(value=found.answer)
        return _child_output(found.status, good, output, found.usage, found.reason)

    async def _words(self, piece: Piece) -> tuple[dict[str, Any], Lineage]:
        """An agent's or team's arguments; large ones travel as inputs that it can read."""
        args = {k: v for k, v in piece.body.args.items() if k not in ("task", "context")}
        task = await self.resolve(piece, piece.body.args.get("task", piece.task.description))
        inputs: dict[str, Stored] = {}
        context = piece.body.args.get("context")
        if context is not None:
            inputs["context"] = await self.resolve(piece, context, limit=2_000)
        fields: dict[str, Any] = {**self._common(piece)}
        resolved = await self.resolve(piece, args)
        if isinstance(resolved.value, dict):
            fields |= resolved.value
        if task.is_inline:
            fields["task"] = str(task.value)
        else:
            fields["task"], inputs["task"] = task.preview or "", task
        small = inputs.get("context")
        if small is not None and small.is_inline:
            fields["context"] = small.value
            del inputs["context"]
        return fields, self._lineage(piece, inputs=inputs)

    async def _agent(self, piece: Piece) -> TaskOutput:
        fields, lineage = await self._words(piece)
        named = piece.body.agent
        member = self.cast.get(named) if isinstance(named, str) else None
        if member is not None:
            fields = {**self.cast_fields, **fields}
            lineage = lineage.model_copy(update={"form": "member"})
        request = _checked(
            AgentRequest, {**fields, "agent": member or named, "lineage": lineage}, piece
        )
        found: AgentResult = await self._child("AgentWorkflow", piece, request, AgentResult)
        if member is not None:
            self.spoken[piece.task.id] = found
        output = stored_of(found.output, found.preview, found.blob)
        has_output = found.output is not None or found.blob is not None
        good = found.status in ("completed", "partial") and has_output
        return _child_output(
            found.status, good, output, found.usage, found.reason, found.error_class
        )

    async def _team(self, piece: Piece) -> TaskOutput:
        fields, lineage = await self._words(piece)
        request = _checked(
            TeamRequest, {**fields, "team": piece.body.team, "lineage": lineage}, piece
        )
        found: TeamResult = await self._child("TeamWorkflow", piece, request, TeamResult)
        failed = [m for m, r in found.members.items() if r.outcome is Outcome.FAILED]
        self.failed_members[piece.task.id] = failed
        output = _answer_stored(found.answer)
        good = found.status in ("completed", "partial") and found.answer is not None
        return _child_output(found.status, good, output, found.usage, found.reason)


def _resolved_inline(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    try:
        return resolve(value, scope)
    except Exception as error:  # a path that does not fit the value that came
        raise BodyFailed(str(error), "tool") from error


def _checked(model: type[Any], fields: Mapping[str, Any], piece: Piece) -> Any:
    try:
        return model.model_validate(fields)
    except ValueError as error:
        raise BodyFailed(f"tasks.{piece.task.id}.args: {error}", "tool") from error


def stored_of(value: JsonValue, preview: str | None, blob: str | None) -> Stored:
    if blob is None:
        return Stored(value=value)
    return Stored(blob=blob, preview=preview, media="text")


def _answer_stored(answer: JsonValue) -> Stored:
    if isinstance(answer, dict) and "blob" in answer and "preview" in answer:
        return Stored.model_validate({k: v for k, v in answer.items() if k in Stored.model_fields})
    return Stored(value=answer)


def _child_output(
    status: str,
    good: bool,
    output: Stored,
    usage: UsageReport,
    reason: str | None,
    error_class: str | None = None,
) -> TaskOutput:
    spent, tasks = usage_from_report(usage), 1 + usage.tasks
    if status == "cancelled":
        raise BodyCancelled(reason or "cancelled", spent, tasks)
    if not good:
        failed = BodyFailed(reason or f"ended {status} without an answer", error_class or "tool")
        failed.usage, failed.tasks = spent, tasks
        raise failed
    return TaskOutput(
        output=output,
        outcome=Outcome.SUCCEEDED,
        usage=spent,
        tasks=tasks,
        note=None if status == "completed" else f"{status}: {reason}",
    )


def usage_from_report(report: UsageReport) -> Usage:
    """What a child reports, as our own usage: money back in nano-dollars, rounded up."""
    return Usage(
        input_tokens=report.input_tokens,
        output_tokens=report.output_tokens,
        usd_nano=-int(-report.usd * NANO // 1),
        model_calls=report.model_calls,
        tool_calls=report.tool_calls,
        cache_hits=report.cache_hits,
        is_priced=report.unpriced_calls == 0,
    )


def is_worth_a_round(failed: BodyFailed, catalog: Catalog) -> bool:
    """Whether another DAG-level round may mend it."""
    if catalog.dag_retry is not None:
        return failed.error_class in catalog.dag_retry
    rule = RETRY_TABLE.get(failed.error_class)  # type: ignore[call-overload]
    return bool(rule and rule.dag_retry)


def ask_from_args(args: Mapping[str, JsonValue]) -> Ask:
    """The built-in tool `ask` as the body it stands for; a prompt that is data is shown as data."""
    prompt, context = args.get("prompt"), args.get("context")
    if isinstance(prompt, str):
        return Ask.model_validate({**args})
    given = prompt if context is None else {"request": prompt, "context": context}
    rest = {k: v for k, v in args.items() if k not in ("prompt", "context")}
    return Ask.model_validate(
        {"prompt": "Answer the request that the data below states.", "context": given, **rest}
    )


def _no_list(task: TaskId, found: JsonValue) -> str:
    kind = "null" if found is None else type(found).__name__
    return f"tasks.{task}.map: needs a list; found {kind}"


def _brief(args: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{k}={v}" for k, v in list(args.items())[:4])


def rounds_name(piece: Piece, round_number: int) -> Piece:
    """The same piece in a later DAG-level round: its activity id says so."""
    return piece if round_number == 0 else replace(piece, name=f"{piece.name}.r{round_number + 1}")


def outputs_text(outputs: Sequence[Stored | None]) -> int:
    """Rough size of a map's output."""
    return sum(text_bytes(s.value) if s and s.is_inline else 300 for s in outputs)
