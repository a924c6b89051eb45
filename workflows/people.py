"""What waits for a person in a run: questions of human tasks, and tasks that need a yes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.planner.compile.schema_check import check_value
from planloom.planner.contract.controls import ChildAsks, CompleteTask
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import Approval
from planloom.planner.language.plan import Task
from planloom.planner.language.values import JsonValue, Outcome, TaskId
from planloom.workflows.dispatch import Piece
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyFailed

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class People:
    """`questions` wait for an answer; `held` tasks wait for approval; each with what it is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.questions: dict[str, str] = {}
        """By task, or by item of a map: `which[0]`."""
        self.held: dict[TaskId, str] = {}
        self.allowed: set[TaskId] = set()
        self.answers: dict[str, CompleteTask] = {}
        self.asked: dict[str, ChildAsks] = {}
        """Questions of agents in child runs, by the id that answers them."""
        self._schemas: dict[str, dict[str, JsonValue] | None] = {}

    def hold(self, task: Task) -> None:
        """A task waits for a person's yes; the run's `timeout` of approvals counts for it too."""
        self.held[task.id] = task.description or f"{task.kind} {task.tool or ''}".strip()
        policy = self.engine.request.approval
        if policy.timeout is None or policy.on_timeout == "park":
            return
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
        key = task.id if piece.index is None else f"{task.id}[{piece.index}]"
        question = await self.engine.dispatcher.resolve(piece, human.question)
        self.questions[key] = str(question.value or question.preview)
        self._schemas[key] = human.schema_
        self.engine.on_change()
        try:
            await workflow.wait_condition(
                lambda: key in self.answers,
                timeout=task.timeout,
                timeout_summary=f"{key}: answer",
            )
        except TimeoutError:
            raise BodyFailed(f"nobody answered within {task.timeout:g} s", "timeout") from None
        finally:
            self.questions.pop(key, None)
        answer = self.answers.pop(key)
        return TaskOutput(
            output=await self.engine.dispatcher.store(answer.output),
            note=f'answered by "{answer.by}"' if answer.by else None,
        )

    async def take_child(self, asks: ChildAsks) -> None:
        """An agent of a child run asks, or has its answer; our own parent is told as well."""
        if asks.question is None:
            self.asked.pop(asks.key, None)
        elif self._is_at_work(asks.child):
            self.asked[asks.key] = asks
        else:
            return  # its question was slower than its end
        self.engine.on_change()
        await self._tell_parent(asks)

    def _is_at_work(self, child: str) -> bool:
        return any(child == c or child.startswith(f"{c}/") for c in self.engine.dispatcher.children)

    def forget(self, key: str) -> None:
        """A unit has ended: what agents of its child run asked, nobody waits for any more."""
        for name in [a for a in self.asked if a == key or a.startswith(f"{key}.")]:
            asks = self.asked.pop(name).model_copy(update={"question": None})
            job = asyncio.create_task(self._tell_parent(asks))
            job.add_done_callback(self.engine.keep_bug)

    async def _tell_parent(self, asks: ChildAsks) -> None:
        parent = self.engine.request.lineage.parent
        if parent is not None:
            task = workflow.info().workflow_id.removeprefix(f"{parent}/")
            upwards = asks.model_copy(update={"key": f"{task}.{asks.key}"})
            await doors.tell(parent, "child_asks", upwards)

    @property
    def waits(self) -> dict[str, str]:
        """Every open question by the id that answers it."""
        own = {str(t): q for t, q in self.questions.items()}
        return own | {k: a.question or "" for k, a in self.asked.items()}

    async def hand_down(self, answer: CompleteTask) -> bool:
        """Give an answer to the child run that asked; False when none did."""
        asks = self.asked.pop(answer.id, None)
        if asks is None:
            return False
        down = answer.model_copy(update={"id": asks.name})
        await doors.tell(asks.child, "complete_task", down)
        return True

    def problem_with_answer(self, answer: CompleteTask) -> str | None:
        if answer.id in self.asked:
            return None
        key = answer.id
        if key in self.answers:
            return f'complete_task: "{key}" is answered already'
        if key not in self.questions:
            waiting = f" Waiting: {', '.join(list(self.questions)[:10]) or 'none'}"
            state = self.engine.frontier.state_of(TaskId(key))
            if state is None:
                return f'complete_task: no task "{key}".{waiting}'
            return (
                f'complete_task: task "{key}" does not wait for a person; it is {state}.{waiting}'
            )
        schema = self._schemas[key]
        problems = check_value(answer.output, schema) if schema else []
        if problems:
            return "complete_task: " + "; ".join(p.line() for p in problems)
        return None

    def answer(self, answer: CompleteTask) -> None:
        self.answers[answer.id] = answer

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
