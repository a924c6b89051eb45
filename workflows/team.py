"""`TeamWorkflow`: members in parallel, rounds in which they hear each other, a judge at the end."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from planloom.planner.contract.agents_runtime import team_document
    from planloom.planner.contract.controls import ChildAsks, GrantWanted, Reply
    from planloom.planner.contract.jobs import PlannedBatch, PlannerAttempt, PlannerPrefix
    from planloom.planner.contract.names import INVALID_REQUEST, STALE
    from planloom.planner.contract.requests import TeamRequest
    from planloom.planner.contract.results import TeamResult, usage_report
    from planloom.planner.syntax.documents import read_request
    from planloom.workflows.requests import invalid, only_input
    from planloom.workflows.run import Run
    from planloom.workflows.shell.failures import BodyCancelled, is_cancellation
    from planloom.workflows.shell.tracing import fail_run_span, start_run_span
    from planloom.workflows.team_course import TeamCourse


@workflow.defn(name="TeamWorkflow")
class TeamWorkflow:
    """Run one team; see docs/agents-and-teams.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        document = {} if request is None else only_input(request, more)
        parsed, self._problems = read_request(team_document(document), TeamRequest)
        self._course = TeamCourse(parsed, workflow.now()) if parsed is not None else None

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> TeamResult:
        course = self._course
        span = start_run_span("TeamWorkflow")
        if course is None:
            refused = invalid(INVALID_REQUEST, self._problems)
            fail_run_span(span, refused)
            raise refused
        try:
            result = await course.main()
        except (asyncio.CancelledError, BodyCancelled, FailureError) as error:
            if not is_cancellation(error):
                fail_run_span(span, error)
                raise
            result = await course.cancelled()
        span.set_attribute("planloom.status", result.status)
        span.end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    @property
    def _live(self) -> TeamCourse:
        if self._course is None:
            raise ApplicationError("the request was refused", type=INVALID_REQUEST)
        return self._course

    @property
    def _plan_run(self) -> Run:
        plan = self._live.plan
        if plan is None:
            raise ApplicationError("this team has no plan of subtasks", type=STALE)
        return plan.run

    # -- queries ----------------------------------------------------------------------------

    @workflow.query(description="Phase, round, members and their outcomes, usage")
    def progress(self) -> dict[str, Any]:
        return self._course.progress() if self._course is not None else {"status": "failed"}

    @workflow.query(description="Tokens, money and calls so far")
    def usage(self) -> dict[str, Any]:
        return usage_report(self._live.desk.used).model_dump(mode="json")

    @workflow.query(description="Of a team on a graph: the newest revision of its subtasks")
    def plan(self) -> dict[str, Any] | None:
        return self._plan_run.view.plan_document()

    @workflow.query(description="Of a team on a graph: mermaid, subtasks coloured by state")
    def graph(self) -> str:
        return self._plan_run.view.graph()

    @workflow.query(description="Of a team on a graph: what the last revision changed")
    def diff(self) -> list[str]:
        return self._plan_run.view.diff()

    # -- signals and updates of one name ----------------------------------------------------

    async def _signal(self, name: str, payload: Any) -> None:
        course = self._live
        try:
            await course.control(name).signal(payload, course.desk.note)
        except ApplicationError as error:
            course.desk.note(f"signal ignored: {error.message}")

    async def _update(self, name: str, payload: Any) -> Reply:
        return await self._live.control(name).update(payload)

    def _validate(self, name: str, payload: Any) -> None:
        self._live.control(name).validate(payload)

    @workflow.signal(name="pause", description="Start no further turn")
    async def pause_signal(self, payload: Any = None) -> None:
        await self._signal("pause", payload)

    @workflow.update(name="pause", description="Start no further turn")
    async def pause(self, payload: Any = None) -> Reply:
        return await self._update("pause", payload)

    @pause.validator
    def _check_pause(self, payload: Any = None) -> None:
        self._validate("pause", payload)

    @workflow.signal(name="resume", description="Go on after a pause")
    async def resume_signal(self, payload: Any = None) -> None:
        await self._signal("resume", payload)

    @workflow.update(name="resume", description="Go on after a pause")
    async def resume(self, payload: Any = None) -> Reply:
        return await self._update("resume", payload)

    @resume.validator
    def _check_resume(self, payload: Any = None) -> None:
        self._validate("resume", payload)

    @workflow.signal(name="complete_task", description="Answer a member's question {id, output}")
    async def complete_task_signal(self, payload: Any = None) -> None:
        await self._signal("complete_task", payload)

    @workflow.update(name="complete_task", description="Answer a member's question {id, output}")
    async def complete_task(self, payload: Any = None) -> Reply:
        return await self._update("complete_task", payload)

    @complete_task.validator
    def _check_complete_task(self, payload: Any = None) -> None:
        self._validate("complete_task", payload)

    @workflow.signal(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget_signal(self, payload: Any = None) -> None:
        await self._signal("raise_budget", payload)

    @workflow.update(name="raise_budget", description="New caps, as totals {tokens?, usd?, …}")
    async def raise_budget(self, payload: Any = None) -> Reply:
        return await self._update("raise_budget", payload)

    @raise_budget.validator
    def _check_raise_budget(self, payload: Any = None) -> None:
        self._validate("raise_budget", payload)

    @workflow.signal(name="approve_plan", description="Approve the subtasks {revision, by?, note?}")
    async def approve_plan_signal(self, payload: Any = None) -> None:
        await self._signal("approve_plan", payload)

    @workflow.update(name="approve_plan", description="Approve the subtasks {revision, by?, note?}")
    async def approve_plan(self, payload: Any = None) -> Reply:
        return await self._update("approve_plan", payload)

    @approve_plan.validator
    def _check_approve_plan(self, payload: Any = None) -> None:
        self._validate("approve_plan", payload)

    @workflow.signal(name="reject_plan", description="Reject the subtasks {revision, reason?}")
    async def reject_plan_signal(self, payload: Any = None) -> None:
        await self._signal("reject_plan", payload)

    @workflow.update(name="reject_plan", description="Reject the subtasks {revision, reason?}")
    async def reject_plan(self, payload: Any = None) -> Reply:
        return await self._update("reject_plan", payload)

    @reject_plan.validator
    def _check_reject_plan(self, payload: Any = None) -> None:
        self._validate("reject_plan", payload)

    @workflow.signal(name="edit_plan", description="Edit the subtasks {revision, plan|patch}")
    async def edit_plan_signal(self, payload: Any = None) -> None:
        await self._signal("edit_plan", payload)

    @workflow.update(name="edit_plan", description="Edit the subtasks {revision, plan|patch}")
    async def edit_plan(self, payload: Any = None) -> Reply:
        return await self._update("edit_plan", payload)

    @edit_plan.validator
    def _check_edit_plan(self, payload: Any = None) -> None:
        self._validate("edit_plan", payload)

    @workflow.signal(name="request_replan", description="Ask for other subtasks {feedback}")
    async def request_replan_signal(self, payload: Any = None) -> None:
        await self._signal("request_replan", payload)

    @workflow.update(name="request_replan", description="Ask for other subtasks {feedback}")
    async def request_replan(self, payload: Any = None) -> Reply:
        return await self._update("request_replan", payload)

    @request_replan.validator
    def _check_request_replan(self, payload: Any = None) -> None:
        self._validate("request_replan", payload)

    @workflow.signal(name="cancel_task", description="Cancel one subtask {id}")
    async def cancel_task_signal(self, payload: Any = None) -> None:
        await self._signal("cancel_task", payload)

    @workflow.update(name="cancel_task", description="Cancel one subtask {id}")
    async def cancel_task(self, payload: Any = None) -> Reply:
        return await self._update("cancel_task", payload)

    @cancel_task.validator
    def _check_cancel_task(self, payload: Any = None) -> None:
        self._validate("cancel_task", payload)

    @workflow.signal(name="deadline_moved", description="The parent run has more time, or less")
    async def deadline_moved(self, deadline: Any = None) -> None:
        self._live.desk.clock.deadline = (deadline or {}).get("at")
        if self._live.plan is not None:
            await self._live.plan.run.engine.time.raised()

    # -- child runs and the planner activity speak to their run -------------------------------

    def _heard_by(self, name: str) -> Run | None:
        """Who a signal of theirs is for. A stray one is noted: raising would end the team."""
        try:
            return self._plan_run
        except ApplicationError as error:
            self._live.desk.note(f"signal ignored: {name}: {error.message}")
            return None

    @workflow.signal(name="grant_wanted", description="A subtask has used its grant up")
    async def grant_wanted(self, wanted: GrantWanted) -> None:
        if run := self._heard_by("grant_wanted"):
            run.engine.grants.take(wanted)

    @workflow.signal(name="child_asks", description="An agent of a subtask asks a person")
    async def child_asks(self, asks: ChildAsks) -> None:
        if run := self._heard_by("child_asks"):
            await run.engine.people.take_child(asks)

    @workflow.signal(name="plan_written", description="Subtasks the planner has finished writing")
    async def plan_written(self, batch: PlannedBatch) -> None:
        if run := self._heard_by("plan_written"):
            run.take_batch(batch)

    @workflow.update(name="planner_attempt", description="A later planner attempt begins")
    async def planner_attempt(self, attempt: PlannerAttempt) -> PlannerPrefix:
        return self._plan_run.take_attempt(attempt)
