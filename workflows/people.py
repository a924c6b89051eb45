"""What waits for a person in a run: questions of human tasks, and tasks that need a yes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporalio import workflow

from planner.contract import Approval, CompleteTask
from planner.jobs import TaskOutput
from planner.plan import Task
from planner.schema_check import check_value
from planner.values import Outcome, Stored, TaskId
from workflows.dispatch import Piece
from workflows.failures import BodyFailed

if TYPE_CHECKING:
    from workflows.engine import Engine


class People:
    """`questions` wait for an answer; `held` tasks wait for approval; each with what it is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.questions: dict[TaskId, str] = {}
        self.held: dict[TaskId, str] = {}
        self.allowed: set[TaskId] = set()
        self.answers: dict[TaskId, CompleteTask] = {}

    def hold(self, task: Task) -> None:
        """A task waits for a person's yes; the run's `timeout` of approvals counts for it too."""
        self.held[task.id] = task.description or f"{task.kind} {task.tool or ''}".strip()
        policy = self.engine.request.approval
        if policy.timeout is None or policy.on_timeout == "park":
            return
        if workflow.patched("task-approvals-expire"):
            job = asyncio.create_task(self._expire(task.id, policy))
            job.add_done_callback(self.engine.keep_bug)

    async def _expire(self, task: TaskId, policy: Approval) -> None:
        try:
            await workflow.wait_condition(
                lambda: task not in self.held,
                timeout=policy.timeout,
                timeout_summary=f"{task}: approval",
            )
        except TimeoutError:
            self.decide(task, policy.on_timeout == "approve", None, "nobody decided in time")
            self.engine.on_change()

    async def ask(self, piece: Piece) -> TaskOutput:
        task, human = piece.task, piece.body.human_body()
        question = await self.engine.dispatcher.resolve(piece, human.question)
        self.questions[task.id] = str(question.value or question.preview)
        try:
            await workflow.wait_condition(
                lambda: task.id in self.answers,
                timeout=task.timeout,
                timeout_summary=f"{task.id}: answer",
            )
        except TimeoutError:
            raise BodyFailed(f"nobody answered within {task.timeout:g} s", "timeout") from None
        finally:
            self.questions.pop(task.id, None)
        answer = self.answers.pop(task.id)
        return TaskOutput(
            output=Stored(value=answer.output),
            note=f'answered by "{answer.by}"' if answer.by else None,
        )

    def problem_with_answer(self, answer: CompleteTask) -> str | None:
        task_id = TaskId(answer.id)
        task = self.engine.tasks.get(task_id)
        if task is None:
            return f'complete_task: no task "{answer.id}"'
        if task_id not in self.questions:
            state = self.engine.frontier.state_of(task_id)
            return f'complete_task: task "{answer.id}" does not wait for a person; it is {state}'
        schema = task.human_body().schema_ if task.human is not None else None
        problems = check_value(answer.output, schema) if schema else []
        if problems:
            return "complete_task: " + "; ".join(p.line() for p in problems)
        return None

    def answer(self, answer: CompleteTask) -> None:
        self.answers[TaskId(answer.id)] = answer

    def decide(self, task: TaskId, approve: bool, by: str | None, note: str | None) -> None:
        """A person let a held task run, or not."""
        self.held.pop(task)
        who = f' by "{by}"' if by else ""
        if approve:
            self.allowed.add(task)
            self.engine.frontier.release(task)
        else:
            record = self.engine.records[task]
            record.outcome, record.ended = Outcome.CANCELLED, self.engine.now()
            record.reason = f"not approved{who}" + (f": {note}" if note else "")
            self.engine.take_settled(self.engine.frontier.settle(task, Outcome.CANCELLED))
        self.engine.pump()
