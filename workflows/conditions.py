"""Conditions over outcomes as they are now: `when` of a task, `stop_when` of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.exceptions import ActivityError

from planner.conditions import evaluate, roots_of_condition
from planner.jobs import ResolveJob
from planner.plan import Task
from planner.values import Bindings
from workflows import doors
from workflows.failures import BodyFailed, failure_of

if TYPE_CHECKING:
    from workflows.engine import Engine


class Conditions:
    """Judges conditions by a run's outcomes and outputs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def is_wanted(self, task: Task) -> bool:
        """Whether a task's `when` lets it run.

        Raises:
            BodyFailed: the condition does not fit the values that came.
        """
        if task.when is None:
            return True
        try:
            return await self.holds(task.when)
        except BodyFailed as failed:
            raise BodyFailed(f"when: {failed.message}", failed.error_class) from failed

    async def holds(self, condition: str) -> bool:
        """Whether a condition is true now.

        Raises:
            BodyFailed, BodyCancelled: it does not fit the values, or they could not be read.
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
        except ActivityError as error:
            raise failure_of(error, 1) from error
