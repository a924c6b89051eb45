"""`AgentWorkflow`: one subagent, from its task to its answer."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from planner.contract import (
        INVALID_REQUEST,
        UNKNOWN_TOOL,
        AgentRequest,
        AgentResult,
        CompleteTask,
        Reply,
        usage_report,
    )
    from planner.definitions import AgentSpec
    from planner.documents import read_request
    from planner.jobs import LoadJob, PrepareJob
    from planner.values import Stored
    from workflows import doors
    from workflows.conversation import ASK_HUMAN, Conversation, Desk, Ended, Persona
    from workflows.requests import invalid, only_input, unknown_tools
    from workflows.run_permit import run_permit
    from workflows.tracing import fail_run_span, start_run_span


@workflow.defn(name="AgentWorkflow")
class AgentWorkflow:
    """Run one agent; see docs/agents-and-teams.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        document = {} if request is None else only_input(request, more)
        self._request, self._problems = read_request(document, AgentRequest)
        self._desk = Desk(self._request) if self._request is not None else None
        self._ended: Ended | None = None
        self._status = "running"
        self._started = workflow.now()

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> AgentResult:
        span = start_run_span("AgentWorkflow", _name_of(self._request))
        if self._request is None or self._desk is None:
            refused = invalid(INVALID_REQUEST, self._problems)
            fail_run_span(span, refused)
            raise refused
        try:
            result = await self._main(self._request, self._desk)
        except (asyncio.CancelledError, FailureError) as error:
            if isinstance(error, FailureError) and not is_cancelled_exception(error):
                fail_run_span(span, error)
                raise
            result = self._result(Ended("cancelled", reason="the run was cancelled"))
        self._status = result.status
        span.set_attribute("planloom.status", result.status)
        span.end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _main(self, request: AgentRequest, desk: Desk) -> AgentResult:
        persona = await load_persona(request, desk)
        context = None if request.context is None else Stored(value=request.context)
        inputs = dict(request.lineage.inputs)
        task = inputs.pop("task", None) or Stored(value=request.task)
        info = workflow.info()
        key = f"{info.workflow_id}/{info.first_execution_run_id}"
        talk = Conversation(desk, persona, task, context, inputs, key)
        pool = desk.site.pool_for(desk.model_for("worker", persona.model))
        async with run_permit(pool, request, 1, desk.wait_for_room):
            self._ended = await talk.say()
        return self._result(self._ended)

    def _result(self, ended: Ended) -> AgentResult:
        assert self._desk is not None
        reply = ended.reply
        output = (reply.value or reply.text) if reply is not None else None
        if reply is not None and reply.problems:
            output = reply.text
        shown: dict[str, Any] = {"output": None}
        if output is not None:
            shown = (
                {"output": output.value}
                if output.is_inline
                else {"output": None, "preview": output.preview, "blob": output.blob}
            )
        return AgentResult.model_validate(
            {
                "status": ended.status,
                **shown,
                "fields": dict(reply.fields) if reply is not None else {},
                "turns": ended.turns,
                "tool_calls": ended.tool_calls,
                "usage": usage_report(self._desk.used),
                "reason": ended.reason,
                "transcript": ended.transcript.blob if ended.transcript else None,
            }
        )

    @workflow.query(description="Status, questions that wait, usage")
    def progress(self) -> dict[str, Any]:
        desk = self._desk
        if desk is None:
            return {"status": "failed"}
        waits = desk.awaiting is not None
        return {
            "status": "paused" if desk.is_paused else "waiting" if waits else self._status,
            "awaiting": desk.awaiting,
            "detail": "; ".join(f"{n}: {q}" for n, q in desk.questions.items()) or desk.room_wait,
            "usage": usage_report(desk.used).model_dump(mode="json"),
            "seconds": (workflow.now() - self._started).total_seconds(),
        }

    @workflow.signal(description="Start no further turn")
    def pause(self) -> None:
        if self._desk is not None:
            self._desk.is_paused = True

    @workflow.signal(description="Go on after a pause")
    def resume(self) -> None:
        if self._desk is not None:
            self._desk.is_paused = False

    @workflow.signal(name="complete_task", description="Answer the agent's question {id, output}")
    def complete_task_signal(self, answer: CompleteTask) -> None:
        if self._desk is not None and answer.id in self._desk.questions:
            self._desk.answers[answer.id] = answer.output

    @workflow.update(name="complete_task", description="Answer the agent's question {id, output}")
    async def complete_task(self, answer: CompleteTask) -> Reply:
        if self._desk is None or answer.id not in self._desk.questions:
            waiting = ", ".join(self._desk.questions) if self._desk else ""
            message = f'complete_task: "{answer.id}" asks nothing. Waiting: {waiting or "none"}'
            raise ApplicationError(message, type="Stale", non_retryable=True)
        self._desk.answers[answer.id] = answer.output
        return Reply(accepted=True, message=f"{answer.id} is answered")


def _name_of(request: AgentRequest | None) -> str:
    if request is None:
        return "agent"
    return request.agent if isinstance(request.agent, str) else request.agent.id or "agent"


async def load_persona(request: AgentRequest, desk: Desk) -> Persona:
    """Who the request names, with the tools that are allowed and known.

    Raises:
        ApplicationError: `InvalidRequest` or `UnknownTool`, with all problems.
    """
    named = request.agent
    if isinstance(named, str):
        loaded = await doors.load_definition(LoadJob(kind="agent", name=named))
        if loaded.spec is None:
            raise invalid(INVALID_REQUEST, loaded.problems)
        spec, tools, model, name = loaded.spec, loaded.tools, loaded.model, named
    else:
        document = named.model_dump(mode="json", exclude_unset=True)
        spec, tools, model = Stored(value=document), named.tools, named.model
        name = named.id or "agent"
    inline = named if isinstance(named, AgentSpec) else None
    if request.tools is not None:
        tools = request.tools if tools is None else [t for t in tools if t in request.tools]
    desk.site = await doors.prepare_run(
        PrepareJob(tools=[t for t in tools or [] if t != ASK_HUMAN], is_goal=False)
    )
    asked = [*(request.tools or ()), *((inline.tools if inline else None) or ())]
    if problems := unknown_tools(asked, desk.site):
        raise invalid(UNKNOWN_TOOL, problems)
    schema = request.output_schema or (inline.output_schema if inline else None)
    return Persona(
        name=name,
        spec=spec,
        tools=tuple(tools or ()),
        model=model,
        output_schema=schema,
        max_turns=(inline.max_turns if inline and inline.max_turns else None) or request.max_turns,
    )
