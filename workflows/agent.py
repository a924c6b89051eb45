"""`AgentWorkflow`: one subagent, from its task to its answer."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from planloom.planner.contract.agents_runtime import agent_document
    from planloom.planner.contract.controls import Reply
    from planloom.planner.contract.jobs import LoadJob, PrepareJob
    from planloom.planner.contract.names import INVALID_REQUEST, UNKNOWN_TOOL
    from planloom.planner.contract.requests import AgentRequest
    from planloom.planner.contract.results import AgentResult, usage_report
    from planloom.planner.language.definitions import AgentSpec
    from planloom.planner.language.values import Stored
    from planloom.planner.syntax.documents import read_request
    from planloom.workflows.conversation import Conversation, Ended, Persona
    from planloom.workflows.desk import Desk
    from planloom.workflows.machines.run.status import markdown_page
    from planloom.workflows.machines.shared.requests import own_tools, unknown_tools
    from planloom.workflows.requests import invalid, only_input
    from planloom.workflows.run_permit import run_permit
    from planloom.workflows.shell import activities as doors
    from planloom.workflows.shell.failures import BodyCancelled, is_cancellation
    from planloom.workflows.shell.tracing import fail_run_span, start_run_span


@workflow.defn(name="AgentWorkflow")
class AgentWorkflow:
    """Run one agent; see docs/agents-and-teams.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        document = {} if request is None else only_input(request, more)
        self._request, self._problems = read_request(agent_document(document), AgentRequest)
        self._desk: Desk | None = None
        if self._request is not None:
            self._desk = Desk(self._request, workflow.now())
            self._desk.on_change = self._show
        self._ended: Ended | None = None
        self._status = "running"

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> AgentResult:
        span = start_run_span("AgentWorkflow", _name_of(self._request))
        if self._request is None or self._desk is None:
            refused = invalid(INVALID_REQUEST, self._problems)
            fail_run_span(span, refused)
            raise refused
        try:
            result = await self._main(self._request, self._desk)
        except (asyncio.CancelledError, BodyCancelled, FailureError) as error:
            if not is_cancellation(error):
                fail_run_span(span, error)
                raise
            result = self._result(Ended("cancelled", reason="the run was cancelled"))
        self._status, self._desk.lack = result.status, None
        self._show()
        span.set_attribute("planloom.status", result.status)
        span.end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _main(self, request: AgentRequest, desk: Desk) -> AgentResult:
        persona = await load_persona(request, desk)
        self._show()
        context = None if request.context is None else Stored(value=request.context)
        inputs = dict(request.lineage.inputs)
        task = inputs.pop("task", None) or Stored(value=request.task)
        info = workflow.info()
        key = f"{info.workflow_id}/{info.first_execution_run_id}"
        talk = Conversation(desk, persona, task, context, inputs, key)
        pool = desk.catalog.pool_for(desk.model_for("worker", persona.model))
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
        if output is not None and output.is_inline:
            shown = {"output": output.value}
        elif output is not None:
            shown = {"output": None, "preview": output.preview, "blob": output.blob}
        diagnosis = None
        if reply is not None and self._desk.request.lineage.form == "member":
            names = ("confidence", "violations", "evidence", "contradictions", "conflicts")
            diagnosis = {n: getattr(reply, n) for n in names}
        return AgentResult.model_validate(
            {
                "status": ended.status,
                **shown,
                "fields": dict(reply.fields) if reply is not None else {},
                "turns": ended.turns,
                "tool_calls": ended.tool_calls,
                "usage": usage_report(self._desk.used),
                "seconds": round(self._desk.now(), 3),
                "notes": self._desk.notes,
                "reason": ended.reason,
                "error_class": ended.error_class,
                "transcript": ended.transcript.blob if ended.transcript else None,
                "diagnosis": diagnosis,
            }
        )

    def _show(self) -> None:
        desk, request = self._desk, self._request
        if desk is None or request is None:
            return
        word = desk.status_word(self._status)
        desk.show(word)
        told = f"**{word}**: agent {_name_of(request)}"
        if ended := self._ended:
            told += f", {ended.turns} turns, {ended.tool_calls} tool calls"
            told += f"; {ended.reason}" if ended.reason else ""
        waits = desk.awaiting, desk.awaiting_detail()
        workflow.set_current_details(markdown_page(request.task, told, waits))

    @property
    def _live(self) -> Desk:
        if self._desk is None:
            raise ApplicationError("the request was refused", type=INVALID_REQUEST)
        return self._desk

    @workflow.query(description="Status, what is awaited, usage")
    def progress(self) -> dict[str, Any]:
        desk = self._desk
        if desk is None:
            return {"status": "failed"}
        return {
            "status": desk.status_word(self._status),
            "awaiting": desk.awaiting,
            "detail": desk.awaiting_detail(),
            "usage": usage_report(desk.used).model_dump(mode="json"),
            "seconds": desk.now(),
            "notes": desk.notes[-20:],
        }

    @workflow.query(description="Tokens, money and calls so far")
    def usage(self) -> dict[str, Any]:
        return usage_report(self._live.used).model_dump(mode="json")

    # -- signals and updates of one name ----------------------------------------------------

    async def _signal(self, name: str, payload: Any) -> None:
        await self._live.controls[name].signal(payload, self._live.note)

    @workflow.signal(name="pause", description="Start no further turn")
    async def pause_signal(self, payload: Any = None) -> None:
        await self._signal("pause", payload)

    @workflow.update(name="pause", description="Start no further turn")
    async def pause(self, payload: Any = None) -> Reply:
        return await self._live.controls["pause"].update(payload)

    @workflow.signal(name="resume", description="Go on after a pause")
    async def resume_signal(self, payload: Any = None) -> None:
        await self._signal("resume", payload)

    @workflow.update(name="resume", description="Go on after a pause")
    async def resume(self, payload: Any = None) -> Reply:
        return await self._live.controls["resume"].update(payload)

    @workflow.signal(name="complete_task", description="Answer the agent's question {id, output}")
    async def complete_task_signal(self, payload: Any = None) -> None:
        await self._signal("complete_task", payload)

    @workflow.update(name="complete_task", description="Answer the agent's question {id, output}")
    async def complete_task(self, payload: Any = None) -> Reply:
        return await self._live.controls["complete_task"].update(payload)

    @complete_task.validator
    def _check_complete_task(self, payload: Any = None) -> None:
        self._live.controls["complete_task"].validate(payload)

    @workflow.signal(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget_signal(self, payload: Any = None) -> None:
        await self._signal("raise_budget", payload)

    @workflow.update(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget(self, payload: Any = None) -> Reply:
        return await self._live.controls["raise_budget"].update(payload)

    @raise_budget.validator
    def _check_raise_budget(self, payload: Any = None) -> None:
        self._live.controls["raise_budget"].validate(payload)

    @workflow.signal(name="deadline_moved", description="The parent run has more time, or less")
    async def deadline_moved(self, deadline: Any = None) -> None:
        self._live.clock.deadline = (deadline or {}).get("at")


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
        max_turns = loaded.max_turns or request.max_turns
        schema = request.output_schema or loaded.output_schema
    else:
        document = named.model_dump(mode="json", exclude_unset=True)
        spec, tools, model = Stored(value=document), named.tools, named.model
        name = named.id or "agent"
        max_turns = named.max_turns or request.max_turns
        schema = request.output_schema or named.output_schema
    inline = named if isinstance(named, AgentSpec) else None
    if request.tools is not None:
        tools = request.tools if tools is None else [t for t in tools if t in request.tools]
    models = [m for m in (model, desk.request.model_for("worker")) if m]
    desk.catalog = await doors.prepare_run(
        PrepareJob(tools=own_tools(tools or []), models=models, is_goal=False)
    )
    asked = [*(request.tools or ()), *((inline.tools if inline else None) or ())]
    if request.lineage.parent is None and (problems := unknown_tools(asked, desk.catalog)):
        raise invalid(UNKNOWN_TOOL, problems)
    return Persona(
        name=name,
        spec=spec,
        tools=tuple(tools or ()),
        model=model,
        form=request.lineage.form,
        output_schema=schema,
        max_turns=max_turns if "max_turns" not in request.model_fields_set else request.max_turns,
        timeout=request.timeout,
        retry=request.retry,
    )
