"""Conditions of a run: `when` of a task, and `stop_when`, over the outcomes so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.exceptions import FailureError

from planloom.planner.contract.jobs import ResolveJob
from planloom.planner.language.conditions import evaluate, roots_of_condition
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Bindings, TaskId
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyFailed, failure_of

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class Conditions:
    """Asked of one run; a condition over large values is evaluated where blobs can be read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def wants(self, task: Task) -> bool:
        """Whether a task's `when` lets it run.

        Raises:
            BodyFailed: as `holds`.
        """
        try:
            return task.when is None or await self.holds(task.when)
        except BodyFailed as failed:
            failed.message = f"when: {failed.message}"
            raise

    async def holds(self, condition: str) -> bool:
        """Whether a condition is true now.

        Raises:
            BodyFailed: it does not fit the values, such as a length of null.
        """
        engine = self.engine
        roots = roots_of_condition(condition, {*engine.tasks, *engine.values})
        outcomes = {str(t): o.value for t, o in engine.frontier.outcomes().items() if t in roots}
        found = {r: s for r in roots if (s := engine.value_of(r)) is not None}
        try:
            if all(s.is_inline for s in found.values()):
                return evaluate(condition, outcomes, {r: s.value for r, s in found.items()})
        except ValueError as error:
            raise BodyFailed(str(error), "tool") from error
        job = ResolveJob(
            value=condition,
            mode="condition",
            bindings=Bindings(inputs=found),
            outcomes=outcomes,
        )
        try:
            return bool((await doors.resolve_value(job)).stored.value)
        except FailureError as error:
            raise failure_of(error, 1) from error

    async def is_met(self, condition: str) -> bool:
        """As `holds`; what cannot be evaluated is not met, and noted once nothing can mend it."""
        engine = self.engine
        try:
            return await self.holds(condition)
        except BodyFailed as failed:
            text = f"stop_when: {failed.message}; taken as not true"
            roots = roots_of_condition(condition, engine.tasks)
            has_all = all(engine.frontier.outcome_of(TaskId(r)) for r in roots)
            if has_all and text not in engine.notes:
                engine.note(text)
            return False
