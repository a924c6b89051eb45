"""`DagWorkflow`: one durable run of a plan or a goal. Thin: handlers here, decisions elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from planloom.planner.contract.controls import ChildAsks, GrantWanted, Reply
    from planloom.planner.contract.jobs import PlannedBatch, PlannerAttempt, PlannerPrefix
    from planloom.planner.contract.names import INVALID_REQUEST
    from planloom.planner.contract.results import RunResult
    from planloom.workflows.changes import Changes
    from planloom.workflows.controls import Control
    from planloom.workflows.requests import only_input, request_from
    from planloom.workflows.run import Run
    from planloom.workflows.shell.tracing import fail_run_span, start_run_span


@workflow.defn(name="DagWorkflow")
class DagWorkflow:
    """Run a goal, a plan or a template; see docs/contract.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        # State stands before the first handler runs, which may be before `run`.
        parsed, self._problems = request_from(only_input(request, more))
        self._run = Run(parsed, workflow.now(), Changes()) if parsed is not None else None

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> RunResult:
        span = start_run_span("DagWorkflow")
        if self._run is None:
            fail_run_span(span, self._problems)
            raise self._problems
        self._run.engine.context = contextvars.copy_context()
        try:
            result = await self._run.main()
        except asyncio.CancelledError:
            result = await self._run.cancelled()
        except FailureError as error:
            fail_run_span(span, error)
            raise
        span.set_attribute("planloom.status", result.status)
        span.set_attribute("planloom.revision", result.revision)
        span.end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    # -- queries ----------------------------------------------------------------------------

    @workflow.query(description="Status, counts, states of all tasks, usage")
    def progress(self) -> dict[str, Any]:
        return self._live.view.progress().model_dump(mode="json")

    @workflow.query(description="The plan of the newest revision")
    def plan(self) -> dict[str, Any] | None:
        return self._live.view.plan_document()

    @workflow.query(description="The graph as mermaid, tasks coloured by state")
    def graph(self) -> str:
        return self._live.view.graph()

    @workflow.query(description="Tokens, money and calls so far, and what is reserved")
    def usage(self) -> dict[str, Any]:
        return self._live.view.usage_document()

    @workflow.query(description="Low, likely and worst cost and time, beside the actual")
    def estimate(self) -> dict[str, Any] | None:
        return self._live.view.estimate_document()

    @workflow.query(description="What the last revision changed")
    def diff(self) -> list[str]:
        return self._live.view.diff()

    @workflow.query(description="Finished tasks with their outcome and output, for a fork")
    def outputs(self) -> dict[str, Any]:
        return self._live.view.outputs()

    @workflow.query(description="All revisions: plan, why, by whom")
    def revisions(self) -> list[dict[str, Any]]:
        return self._live.view.revisions_document()

    # -- signals and updates of one name ----------------------------------------------------

    @property
    def _live(self) -> Run:
        if self._run is None:
            raise ApplicationError("the request was refused", type=INVALID_REQUEST)
        return self._run

    async def _signal(self, control: Control[Any], payload: Any) -> None:
        await control.signal(payload, self._live.engine.note)

    @workflow.signal(name="approve_plan", description="Approve a revision {revision, by?, note?}")
    async def approve_plan_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["approve_plan"], payload)

    @workflow.update(name="approve_plan", description="Approve a revision {revision, by?, note?}")
    async def approve_plan(self, payload: Any = None) -> Reply:
        return await self._live.controls["approve_plan"].update(payload)

    @approve_plan.validator
    def _check_approve_plan(self, payload: Any = None) -> None:
        self._live.controls["approve_plan"].validate(payload)

    @workflow.signal(name="reject_plan", description="Reject a revision {revision, reason?}")
    async def reject_plan_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["reject_plan"], payload)

    @workflow.update(name="reject_plan", description="Reject a revision {revision, reason?}")
    async def reject_plan(self, payload: Any = None) -> Reply:
        return await self._live.controls["reject_plan"].update(payload)

    @reject_plan.validator
    def _check_reject_plan(self, payload: Any = None) -> None:
        self._live.controls["reject_plan"].validate(payload)

    @workflow.signal(name="edit_plan", description="Edit the plan {revision, plan|patch}")
    async def edit_plan_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["edit_plan"], payload)

    @workflow.update(name="edit_plan", description="Edit the plan {revision, plan|patch}")
    async def edit_plan(self, payload: Any = None) -> Reply:
        return await self._live.controls["edit_plan"].update(payload)

    @edit_plan.validator
    def _check_edit_plan(self, payload: Any = None) -> None:
        self._live.controls["edit_plan"].validate(payload)

    @workflow.signal(name="request_replan", description="Ask for another plan {feedback}")
    async def request_replan_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["request_replan"], payload)

    @workflow.update(name="request_replan", description="Ask for another plan {feedback}")
    async def request_replan(self, payload: Any = None) -> Reply:
        return await self._live.controls["request_replan"].update(payload)

    @request_replan.validator
    def _check_request_replan(self, payload: Any = None) -> None:
        self._live.controls["request_replan"].validate(payload)

    @workflow.signal(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["raise_budget"], payload)

    @workflow.update(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget(self, payload: Any = None) -> Reply:
        return await self._live.controls["raise_budget"].update(payload)

    @raise_budget.validator
    def _check_raise_budget(self, payload: Any = None) -> None:
        self._live.controls["raise_budget"].validate(payload)

    @workflow.signal(name="pause", description="Start nothing new; what runs goes on")
    async def pause_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["pause"], payload)

    @workflow.update(name="pause", description="Start nothing new; what runs goes on")
    async def pause(self, payload: Any = None) -> Reply:
        return await self._live.controls["pause"].update(payload)

    @workflow.signal(name="resume", description="Go on after a pause")
    async def resume_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["resume"], payload)

    @workflow.update(name="resume", description="Go on after a pause")
    async def resume(self, payload: Any = None) -> Reply:
        return await self._live.controls["resume"].update(payload)

    @workflow.signal(name="cancel_task", description="Cancel one task {id}")
    async def cancel_task_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["cancel_task"], payload)

    @workflow.update(name="cancel_task", description="Cancel one task {id}")
    async def cancel_task(self, payload: Any = None) -> Reply:
        return await self._live.controls["cancel_task"].update(payload)

    @cancel_task.validator
    def _check_cancel_task(self, payload: Any = None) -> None:
        self._live.controls["cancel_task"].validate(payload)

    @workflow.signal(name="complete_task", description="Answer a human task {id, output}")
    async def complete_task_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["complete_task"], payload)

    @workflow.update(name="complete_task", description="Answer a human task {id, output}")
    async def complete_task(self, payload: Any = None) -> Reply:
        return await self._live.controls["complete_task"].update(payload)

    @complete_task.validator
    def _check_complete_task(self, payload: Any = None) -> None:
        self._live.controls["complete_task"].validate(payload)

    @workflow.signal(name="approve_task", description="Let a task run, or not {id, approve?}")
    async def approve_task_signal(self, payload: Any = None) -> None:
        await self._signal(self._live.controls["approve_task"], payload)

    @workflow.update(name="approve_task", description="Let a task run, or not {id, approve?}")
    async def approve_task(self, payload: Any = None) -> Reply:
        return await self._live.controls["approve_task"].update(payload)

    @approve_task.validator
    def _check_approve_task(self, payload: Any = None) -> None:
        self._live.controls["approve_task"].validate(payload)

    # -- child runs speak to their parent ----------------------------------------------------

    @workflow.signal(name="grant_wanted", description="A child run has used its grant up")
    async def grant_wanted(self, wanted: GrantWanted) -> None:
        self._live.engine.grants.take(wanted)

    @workflow.signal(name="child_asks", description="An agent of a child run asks a person")
    async def child_asks(self, asks: ChildAsks) -> None:
        await self._live.engine.people.take_child(asks)

    @workflow.signal(name="deadline_moved", description="The parent run has more time, or less")
    async def deadline_moved(self, deadline: float | None = None) -> None:
        await self._live.engine.time.move(deadline)

    # -- the planner activity speaks to its run ---------------------------------------------

    @workflow.signal(name="plan_written", description="Tasks the planner has finished writing")
    async def plan_written(self, batch: PlannedBatch) -> None:
        self._live.take_batch(batch)

    @workflow.update(name="planner_attempt", description="A later planner attempt begins")
    async def planner_attempt(self, attempt: PlannerAttempt) -> PlannerPrefix:
        return self._live.take_attempt(attempt)
