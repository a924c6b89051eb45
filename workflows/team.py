"""`TeamWorkflow`: members in parallel, rounds, a judge. Handlers; its machine decides."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter

    from planloom.planner.contract.names import STALE
    from planloom.planner.contract.results import TeamResult
    from planloom.workflows.machines.run import view as run_view
    from planloom.workflows.machines.run.state import RunState
    from planloom.workflows.machines.shared.requests import read_team
    from planloom.workflows.machines.team import machine, view
    from planloom.workflows.machines.team.messages import (
        TEAM_CONTROLS,
        TEAM_NOTICES,
        TEAM_QUESTIONS,
    )
    from planloom.workflows.machines.team.state import TeamState
    from planloom.workflows.shell.handlers import with_controls
    from planloom.workflows.shell.opening import open_shell
    from planloom.workflows.shell.query_clock import query_time
    from planloom.workflows.shell.shell import Shell, live_state
    from planloom.workflows.shell.spans import in_span

ADAPTER: TypeAdapter[TeamState] = TypeAdapter(TeamState)


@workflow.defn(name="TeamWorkflow")
@with_controls(TEAM_CONTROLS, TEAM_NOTICES, TEAM_QUESTIONS)
class TeamWorkflow:
    """Run one team; see docs/how-to/agents-and-teams.md."""

    shell: Shell[TeamState] | None

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        self.shell, self._failed = open_shell(
            machine,
            ADAPTER,
            [request, *more],
            read=read_team,
            begin=machine.begin,
            search_attributes=lambda team: team.catalog.search_attributes,
        )

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> TeamResult:
        result: TeamResult = await in_span("TeamWorkflow", self.shell, self._failed)
        return result

    @property
    def _plan(self) -> RunState:
        plan = live_state(self.shell).plan
        if plan is None:
            raise ApplicationError("this team has no plan of subtasks", type=STALE)
        return plan

    @workflow.query(description="Phase, round, members and their outcomes, usage")
    def progress(self, *_: Any) -> dict[str, Any]:
        if self.shell is None:
            return {"status": "failed", "reason": self._failed.reason if self._failed else None}
        return view.progress(live_state(self.shell), query_time())

    @workflow.query(description="Tokens, money and calls so far")
    def usage(self, *_: Any) -> dict[str, Any]:
        return view.usage(live_state(self.shell))

    @workflow.query(description="Of a team on a graph: the newest revision of its subtasks")
    def plan(self, *_: Any) -> dict[str, Any] | None:
        return run_view.plan_document(self._plan)

    @workflow.query(description="Of a team on a graph: mermaid, subtasks coloured by state")
    def graph(self, *_: Any) -> str:
        return run_view.graph(self._plan, query_time())

    @workflow.query(description="Of a team on a graph: what the last revision changed")
    def diff(self, *_: Any) -> list[str]:
        return run_view.diff(self._plan)
