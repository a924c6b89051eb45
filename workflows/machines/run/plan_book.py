"""The book of a planning: which planner call and attempt counts, and what it has accepted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from planloom.planner.contract.jobs import PlannedBatch, PlannedTask, PlannerAttempt, PlannerPrefix
from planloom.planner.language.values import Problem, TaskId

PLAN_REPAIRS_MAX = 2
"""How often a plan that does not compile goes back to the model."""


@dataclass(slots=True)
class PlanBook:
    """One planning: several calls when the model must fix or continue it, each with attempts.

    Only the newest attempt of the newest call is heard; a batch is taken once.
    """

    call: int = 0
    attempt: int = 1
    seq: int = -1
    accepted: list[PlannedTask] = field(default_factory=list)
    rejected: list[Problem] = field(default_factory=list)
    seen: set[TaskId] = field(default_factory=set)
    stale: int = 0
    attempts_lost: int = 0
    is_called_off: bool = False
    """The open call was cancelled: what it still says is not heard."""

    def open_call(self) -> int:
        """A new planner call; what was accepted stays."""
        self.call += 1
        self.attempt, self.seq, self.is_called_off = 1, -1, False
        self.rejected = []
        self.seen = {t.task.id for t in self.accepted}
        return self.call

    def take_attempt(self, new: PlannerAttempt) -> PlannerPrefix | None:
        """A later attempt begins: it goes on after what is accepted. None: it is stale itself."""
        if new.call != self.call or new.attempt < self.attempt or self.is_called_off:
            return None
        if new.attempt > self.attempt:
            self.attempt, self.seq = new.attempt, -1
            self.attempts_lost += 1
            self.rejected = []
            self.seen = {t.task.id for t in self.accepted}
        return PlannerPrefix(accepted=list(self.accepted))

    def take_batch(self, batch: PlannedBatch) -> list[PlannedTask]:
        """The tasks of a batch that are new; none of a stale or repeated one."""
        is_heard = (batch.call, batch.attempt) == (self.call, self.attempt)
        if not is_heard or batch.seq <= self.seq or self.is_called_off:
            self.stale += 1
            return []
        self.seq = batch.seq
        return self.fresh(batch.tasks)

    def fresh(self, tasks: list[PlannedTask]) -> list[PlannedTask]:
        """Those not seen before in this call, accepted or refused; marks them seen."""
        new = []
        for planned in tasks:
            if planned.task.id not in self.seen:
                self.seen.add(planned.task.id)
                new.append(planned)
        return new

    def accept(self, planned: PlannedTask) -> None:
        self.accepted.append(planned)

    def refuse(self, problems: list[Problem]) -> None:
        self.rejected.extend(problems)
