"""`DagWorkflow`: one durable run of a plan or a goal. Handlers here, decisions in its machine."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter

    from planloom.planner.contract.results import RunResult
    from planloom.workflows.machines.run import machine, view
    from planloom.workflows.machines.run.messages import RUN_CONTROLS, RUN_NOTICES, RUN_QUESTIONS
    from planloom.workflows.machines.run.state import RunState
    from planloom.workflows.machines.shared.requests import read_run
    from planloom.workflows.shell.handlers import with_controls
    from planloom.workflows.shell.opening import open_shell
    from planloom.workflows.shell.query_clock import query_time
    from planloom.workflows.shell.shell import Shell, live_state
    from planloom.workflows.shell.spans import in_span

ADAPTER: TypeAdapter[RunState] = TypeAdapter(RunState)


@workflow.defn(name="DagWorkflow")
@with_controls(RUN_CONTROLS, RUN_NOTICES, RUN_QUESTIONS)
class DagWorkflow:
    """Run a goal, a plan or a template; see docs/contract.md."""

    shell: Shell[RunState] | None

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        # State stands before the first handler runs, which may be before `run`.
        self.shell, self._failed = open_shell(
            machine,
            ADAPTER,
            [request, *more],
            read=read_run,
            begin=machine.begin,
            search_attributes=lambda run: run.catalog.search_attributes,
        )

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> RunResult:
        result: RunResult = await in_span("DagWorkflow", self.shell, self._failed)
        return result

    @property
    def _run(self) -> RunState:
        return live_state(self.shell)

    @workflow.query(description="Status, what is awaited and how to answer it, states, usage")
    def progress(self, *_: Any) -> dict[str, Any]:
        if self.shell is None:
            return {"status": "failed", "reason": self._failed.reason if self._failed else None}
        return view.progress_of(self._run, query_time()).model_dump(mode="json")

    @workflow.query(description="The plan of the newest revision")
    def plan(self, *_: Any) -> dict[str, Any] | None:
        return view.plan_document(self._run)

    @workflow.query(description="The graph as mermaid, tasks coloured by state")
    def graph(self, *_: Any) -> str:
        return view.graph(self._run, query_time())

    @workflow.query(description="Tokens, money and calls so far, and what is reserved")
    def usage(self, *_: Any) -> dict[str, Any]:
        return view.usage_document(self._run)

    @workflow.query(description="Low, likely and worst cost and time, beside the actual")
    def estimate(self, *_: Any) -> dict[str, Any] | None:
        return view.estimate_document(self._run, query_time())

    @workflow.query(description="What the last revision changed")
    def diff(self, *_: Any) -> list[str]:
        return view.diff(self._run)

    @workflow.query(description="Finished tasks with their outcome and output, for a fork")
    def outputs(self, *_: Any) -> dict[str, Any]:
        return view.outputs(self._run)

    @workflow.query(description="Each task as it stands: state, times, usage, output or preview")
    def tasks(self, *given: Any) -> dict[str, Any]:
        wanted = given[0].get("ids") if given and isinstance(given[0], dict) else None
        ids = [str(i) for i in wanted] if isinstance(wanted, list) else None
        return view.tasks_document(self._run, query_time(), ids)

    @workflow.query(description="All revisions: plan, why, by whom")
    def revisions(self, *_: Any) -> list[dict[str, Any]]:
        return view.revisions_document(self._run)
