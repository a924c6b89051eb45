"""`AgentWorkflow`: one subagent, from its task to its answer. Handlers; its machine decides."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter

    from planloom.planner.contract.results import AgentResult
    from planloom.workflows.machines.agent import machine, view
    from planloom.workflows.machines.agent.messages import AGENT_CONTROLS, AGENT_NOTICES
    from planloom.workflows.machines.agent.state import AgentState
    from planloom.workflows.machines.shared.requests import read_agent
    from planloom.workflows.shell.handlers import with_controls
    from planloom.workflows.shell.opening import open_shell
    from planloom.workflows.shell.query_clock import query_time
    from planloom.workflows.shell.shell import Shell, live_state
    from planloom.workflows.shell.spans import in_span

ADAPTER: TypeAdapter[AgentState] = TypeAdapter(AgentState)


@workflow.defn(name="AgentWorkflow")
@with_controls(AGENT_CONTROLS, AGENT_NOTICES)
class AgentWorkflow:
    """Run one agent; see docs/how-to/agents-and-teams.md."""

    shell: Shell[AgentState] | None

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        self.shell, self._failed = open_shell(
            machine,
            ADAPTER,
            [request, *more],
            read=read_agent,
            begin=machine.begin,
            search_attributes=lambda agent: agent.catalog.search_attributes,
        )

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> AgentResult:
        is_known = self.shell is not None and self.shell.is_read
        name = view.name_of(live_state(self.shell).request) if is_known else "agent"
        result: AgentResult = await in_span("AgentWorkflow", self.shell, self._failed, name)
        return result

    @workflow.query(description="Status, what is awaited, usage")
    def progress(self, *_: Any) -> dict[str, Any]:
        if self.shell is None:
            return {"status": "failed", "reason": self._failed.reason if self._failed else None}
        return view.progress(live_state(self.shell), query_time())

    @workflow.query(description="Tokens, money and calls so far")
    def usage(self, *_: Any) -> dict[str, Any]:
        return view.usage(live_state(self.shell))
