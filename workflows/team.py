"""`TeamWorkflow`: members in parallel, rounds in which they hear each other, a judge at the end."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from planner.contract import (
        INVALID_REQUEST,
        CompleteTask,
        Reply,
        TeamRequest,
        TeamResult,
        usage_report,
    )
    from planner.documents import read_request
    from planner.values import Problem
    from workflows.requests import invalid, only_input
    from workflows.team_course import TeamCourse
    from workflows.tracing import fail_run_span, start_run_span


@workflow.defn(name="TeamWorkflow")
class TeamWorkflow:
    """Run one team; see docs/agents-and-teams.md."""

    @workflow.init
    def __init__(self, request: Any = None, *more: Any) -> None:
        document = {} if request is None else only_input(request, more)
        parsed, self._problems = read_request(document, TeamRequest)
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
        except ValueError as error:  # a team that cannot work as it is described
            where = Problem(path="team", code="invalid_team", message=str(error))
            refused = invalid(INVALID_REQUEST, [where])
            fail_run_span(span, refused)
            raise refused from None
        except (asyncio.CancelledError, FailureError) as error:
            if isinstance(error, FailureError) and not is_cancelled_exception(error):
                fail_run_span(span, error)
                raise
            result = course.result("cancelled", "the run was cancelled")
        span.set_attribute("planloom.status", result.status)
        span.end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    @workflow.query(description="Phase, round, members and their outcomes, usage")
    def progress(self) -> dict[str, Any]:
        return self._course.progress() if self._course is not None else {"status": "failed"}

    @workflow.query(description="Tokens, money and calls so far")
    def usage(self) -> dict[str, Any]:
        if self._course is None:
            return {}
        return usage_report(self._course.desk.used).model_dump(mode="json")

    @workflow.signal(description="Start no further turn")
    def pause(self) -> None:
        if self._course is not None:
            self._course.desk.is_paused = True

    @workflow.signal(description="Go on after a pause")
    def resume(self) -> None:
        if self._course is not None:
            self._course.desk.is_paused = False

    @workflow.signal(name="complete_task", description="Answer a member's question {id, output}")
    def complete_task_signal(self, answer: CompleteTask) -> None:
        if self._course is not None and answer.id in self._course.desk.questions:
            self._course.desk.answers[answer.id] = answer.output

    @workflow.update(name="complete_task", description="Answer a member's question {id, output}")
    async def complete_task(self, answer: CompleteTask) -> Reply:
        questions = self._course.desk.questions if self._course is not None else {}
        if self._course is None or answer.id not in questions:
            waiting = ", ".join(questions) or "none"
            message = f'complete_task: "{answer.id}" asks nothing. Waiting: {waiting}'
            raise ApplicationError(message, type="Stale", non_retryable=True)
        self._course.desk.answers[answer.id] = answer.output
        return Reply(accepted=True, message=f"{answer.id} is answered")
