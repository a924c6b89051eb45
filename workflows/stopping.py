"""How a run, or one task of it, is stopped: by a person, by enough being known, by failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.planner.compile.passes.prune import is_kept_for_itself
from planloom.planner.contract.jobs import PlanReply
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.values import Outcome, TaskId
from planloom.workflows.machines.run.frontier import State

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class Stopping:
    """`reason` is why the run was stopped; `why` is why single tasks were cancelled."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reason: str | None = None
        self.why: dict[TaskId, str] = {}
        self._join: list[TaskId] | None = None
        self._missing: TaskId | None = None
        """One that the joiner still waits for."""
        self.planner: workflow.ActivityHandle[PlanReply] | None = None
        """The planner's call, while it writes."""
        self.has_called_off = False

    def problem_with(self, task: TaskId) -> str | None:
        state = self.engine.frontier.state_of(task)
        if state is None:
            known = ", ".join(self.engine.tasks)[:200]
            return f'cancel_task: no task "{task}". Tasks: {known}'
        if isinstance(state, Outcome):
            return f'cancel_task: task "{task}" has ended: {state}'
        return None

    def cancel(self, task: TaskId, reason: str) -> None:
        """Cancel one task that has not ended."""
        self.why[task] = reason
        if self.engine.frontier.state_of(task) is State.RUNNING:
            units = [u for u in self.engine.jobs if u.task == task]
            if self.engine.records[task].item_outcomes:
                self.engine.frontier.abandon_units(task)
            for unit in units:
                self.engine.jobs[unit].cancel()
            if not units and task not in self.engine.maps.closing:
                self.engine.maps.close(self.engine.tasks[task])
            return
        self.engine.people.held.pop(task, None)
        record = self.engine.records[task]
        record.outcome, record.ended, record.reason = Outcome.CANCELLED, self.engine.now(), reason
        self.engine.take_settled(self.engine.frontier.settle(task, Outcome.CANCELLED))
        self.engine.pump()

    def stop(self, reason: str) -> None:
        """Start nothing more and cancel what runs: the end of the run is decided."""
        if self.reason is None:
            self.reason = reason
        self.engine.frontier.is_stopped = True
        self.engine.lack = None
        self._cancel_waiting()
        for unit in list(self.engine.jobs):
            self.engine.jobs[unit].cancel()
        if self.planner is not None:
            self.has_called_off = self.planner.cancel()

    def _cancel_waiting(self) -> None:
        """What has not started is cancelled."""
        # Readers before what they read, so that each is cancelled and none skipped for the other.
        for task in reversed(self.engine.frontier.unfinished()):
            if self.engine.frontier.state_of(task) in (State.WAITING, State.READY):
                record = self.engine.records[task]
                record.outcome, record.ended = Outcome.CANCELLED, self.engine.now()
                record.reason = self.reason
                self.engine.people.held.pop(task, None)
                self.engine.take_settled(self.engine.frontier.settle(task, Outcome.CANCELLED))

    def sweep(self) -> None:
        """After a stop, when nothing runs: maps whose items did not all start end too."""
        self._cancel_waiting()
        for task in self.engine.frontier.unfinished():
            self.engine.frontier.abandon_units(task)
            self.engine.records[task].reason = self.reason
            self.engine.maps.finish(self.engine.tasks[task], Outcome.CANCELLED, None)

    async def check(self) -> None:
        """End early once `stop_when` is true, or the joiner's inputs are there."""
        if self.reason is not None or not self._may_look():
            return
        condition = self.condition
        if condition is not None and await self.engine.conditions.is_met(condition):
            self.stop(f"stop_when: {condition}")
        elif self._may_join_early():
            assert self.engine.plan is not None
            self.stop("early join: " + ", ".join(self.engine.plan.join or ()))

    async def check_at_once(self) -> None:
        """The same when a revision is entered: enough may have been known before it was written."""
        outcomes = self.engine.frontier.outcomes()
        if self._may_join_early() or (self.condition is not None and outcomes):
            await self.check()

    @property
    def condition(self) -> str | None:
        """The plan's `stop_when`, else the request's."""
        plan = self.engine.plan
        return (plan.stop_when if plan is not None else None) or self.engine.request.stop_when

    def _may_look(self) -> bool:
        """While the plan is being written, only once all that the condition reads is in it."""
        if self.engine.plan is not None:
            return True
        condition = self.engine.request.stop_when
        if condition is None:
            return False
        known = {*self.engine.tasks, *self.engine.values}
        return all(r in known for r in roots_of_condition(condition))

    def _lacks(self, task: TaskId | None) -> bool:
        if task is None:
            return False
        outcome = self.engine.frontier.outcome_of(task)
        return outcome is None or not outcome.is_good

    def _may_join_early(self) -> bool:
        """All that the joiner is shown is there, and what still runs changes nothing outside."""
        wanted = self.engine.plan.join if self.engine.plan is not None else None
        if not wanted or not self.engine.frontier.is_closed:
            return False
        if self._join is not wanted:
            self._join, self._missing = wanted, None
        if self._lacks(self._missing):
            return False  # still the same one: a thousand tasks ask a thousand times
        self._missing = next((t for t in wanted if self._lacks(t)), None)
        if self._missing is not None:
            return False
        left = self.engine.frontier.unfinished()
        return bool(left) and not any(
            is_kept_for_itself(self.engine.tasks[t], self.engine.catalog) for t in left
        )
