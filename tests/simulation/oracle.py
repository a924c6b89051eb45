"""Watches one run from outside: what it starts, ends and spends, against what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.compile.schema_check import check_value
from planloom.planner.contract.jobs import ToolJob
from planloom.planner.language.plan import Human
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.frontier import State, Unit
from planloom.workflows.machines.run import view
from planloom.workflows.machines.run.batches import is_batch
from planloom.workflows.machines.run.bodies import amounts_of, key_of
from planloom.workflows.machines.run.state import Question, RunState, Stage, Work
from planloom.workflows.machines.shared.account import time_lack
from planloom.workflows.machines.shared.commands import (
    AskModel,
    Command,
    JoinOutcomes,
    RunGroup,
    RunTool,
    StartChild,
    WritePlan,
)
from planloom.workflows.machines.shared.events import Broke, Event, Returned, TimeReached
from tests.simulation.accounts import Accounts
from tests.simulation.invariants import check_invariants
from tests.simulation.reading import should_run, unknown_reads
from tests.simulation.times import check_end_of_time, check_limits
from tests.simulation.violation import demand
from tests.simulation.watcher import Watcher

WORK = (RunTool, AskModel, StartChild)
"""Commands that run a body (an `AskModel` may be a summary for the joiner as well)."""


@dataclass(slots=True)
class Before:
    """What the state was before a step, as far as the step is judged by it."""

    works: dict[str, Work]
    questions: dict[str, Question]
    states: dict[TaskId, State | Outcome]
    versions: dict[TaskId, int]
    round: int
    is_stopped: bool
    is_paused: bool
    is_long: bool
    cancelled: dict[TaskId, int]
    attempts: dict[TaskId, int]


@dataclass(slots=True)
class Oracle(Watcher):
    """Checks of a run."""

    last: Before | None = None
    accounts: Accounts = field(default_factory=Accounts)
    is_end: bool = False
    """The newest event is the end of something that a unit waited for."""
    keys: dict[str, str] = field(default_factory=dict)
    """Idempotency keys by what they stand for."""
    acts: dict[str, str] = field(default_factory=dict)
    """The same the other way round."""
    has_entered: bool = False
    cancelled: dict[TaskId, int] = field(default_factory=dict)
    """Tasks that a person cancelled, with their version then."""

    @property
    def run(self) -> RunState:
        run: RunState = self.process.state
        return run

    # -- around a step ----------------------------------------------------------------------

    def before(self, event: Event) -> None:
        run = self.run
        self.last = Before(
            dict(run.works),
            dict(run.questions),
            run.frontier.states(),
            {t: r.version for t, r in run.records.items()},
            run.round,
            run.stop is not None,
            run.is_paused,
            run.is_long,
            dict(self.cancelled),
            {t: r.attempts for t, r in run.records.items()},
        )
        self.was_watched = run.stage is not Stage.PREPARING
        is_answer = isinstance(event, TimeReached) and event.key.startswith("answer:")
        self.is_end = is_answer or isinstance(event, Returned | Broke)
        self.accounts.before(run, event)
        Watcher.before(self, event)

    def control_taken(self, name: str, payload: Any) -> None:
        if name == "cancel_task":
            task = TaskId(payload.id)
            self.cancelled[task] = self.run.records[task].version

    def after(self, event: Event, commands: Sequence[Command]) -> None:
        run, last = self.run, self.last
        assert last is not None
        self._check_flights(event, commands)
        check_invariants(run)
        self._check_starts(last, commands)
        self._check_ends(last)
        self.accounts.after(run, last.works, last.states, last.questions, commands)
        self._check_attempts(last)
        self._check_entered(last)
        self._check_ready()
        Watcher.after(self, event, commands)

    def _check_flights(self, event: Event, commands: Sequence[Command]) -> None:
        run, flights = self.run, self.process.flights
        if run.stage is Stage.OVER:
            return
        self.check_timers({key: at for key, (at, _) in run.timers.items()})
        check_limits(run, self.process)
        if run.stage is not Stage.PREPARING:
            check_end_of_time(run.account, self.process.world.now)
            self.check_time(run)
            self.check_dropped(event, commands)
        self.check_pending(list(run.pending))
        started = {k for k, f in flights.items() if isinstance(f.command, StartChild)}
        known = {c.key for c in run.children.values()} - set(self.process.lost)
        demand(known <= started, "children of the state are those that run", known, started)

    # -- what starts ------------------------------------------------------------------------

    def _check_starts(self, last: Before, commands: Sequence[Command]) -> None:
        run = self.run
        new = [k for k in run.works if k not in last.works]
        if (last.is_paused and run.is_paused) or (last.is_long and run.is_long):
            demand(not new, "nothing starts while it is paused", new)
        demand(not (self.is_late and new), "nothing starts once the time is over", new)
        for key in new:
            unit = run.works[key].unit
            if unit.index is None and run.works[key].failed is None:
                verdict = should_run(run, unit)
                demand(verdict, "a task starts once its inputs have ended", key)
                strange = unknown_reads(run, unit)
                demand(not strange, "no task reads what is not there", key, strange)
        bodies = [c for c in commands if isinstance(c, WORK) and c.key.endswith("#body")]
        groups = [c for c in commands if isinstance(c, RunGroup)]
        members = [m for g in groups if g.key in run.groups for m in run.groups[g.key].members]
        if last.is_stopped and run.stop is not None:
            demand(not groups, "nothing starts once the run is stopped", groups)
            demand(not bodies, "nothing starts once the run is stopped", bodies)
        if run.stage is Stage.OVER:
            left = [c for c in commands if isinstance(c, (*WORK, WritePlan, JoinOutcomes))]
            demand(not left, "nothing starts once the run is over", left)
        for key in [*(c.key.removesuffix("#body") for c in bodies), *members]:
            task = TaskId(key.partition("[")[0])
            version = run.records[task].version if task in run.records else 0
            is_off = last.cancelled.get(task) == version and last.round == run.round
            demand(not is_off, "what a person cancelled starts nothing more", key)
        for command in bodies:
            self._check_limit(command)

    def _check_limit(self, command: Any) -> None:
        """The time limit of a task goes with its call; items of a batch have their own."""
        work = self.run.works.get(command.key.removesuffix("#body"))
        if work is None or is_batch(self.run, work.unit):
            return
        limit = self.run.tasks[work.unit.task].timeout
        demand(limit in (None, command.timeout), "a time limit goes with its call", command)

    def _check_ends(self, last: Before) -> None:
        for task, state in self.run.frontier.states().items():
            before = last.states.get(task)
            if not isinstance(before, Outcome) or before is state:
                continue
            is_new = self.run.records[task].version > last.versions[task]
            is_again = self.run.round > last.round and self._is_planned(task)
            demand(is_new or is_again, "a task ends once", task, before, state)

    def tool_sent(self, command: RunTool) -> None:
        """A tool call goes out: its key is the same in every round, and another for another act."""
        self._key_sent(self.run.works[self.run.pending[command.key].subject].unit, command.job)
        Watcher.tool_sent(self, command)

    def tool_called(self, unit: Unit, job: ToolJob) -> None:
        """In a group it has the key that it would have alone."""
        self._key_sent(unit, job)
        Watcher.tool_called(self, unit, job)

    def _key_sent(self, unit: Unit, job: ToolJob) -> None:
        run = self.run
        version = run.records[unit.task].version
        stands_for = f"{key_of(unit)} {unit.mode} {version}"
        key = job.key
        known = self.keys.setdefault(stands_for, key)
        demand(known == key, "a key does not change with attempts or rounds", known, key)
        other = self.acts.setdefault(key, stands_for)
        demand(other == stands_for, "another act has another key", other, stands_for)

    # -- what ends --------------------------------------------------------------------------

    def _check_attempts(self, last: Before) -> None:
        run = self.run
        has_moved = any(run.works.get(k) is not w for k, w in last.works.items())
        if self.is_end or has_moved or len(last.works) != len(run.works):
            return
        for task, record in run.records.items():
            if last.states.get(task) != run.frontier.state_of(task):
                continue
            if last.round != run.round or last.versions.get(task) != record.version:
                continue
            is_same = last.attempts.get(task, record.attempts) == record.attempts
            demand(is_same, "waits use up no attempt", task, record.attempts)

    # -- revisions --------------------------------------------------------------------------

    def _check_entered(self, last: Before) -> None:
        run, mode = self.run, self.run.request.approval.mode
        new = [t for t, r in run.records.items() if last.versions.get(t) != r.version]
        if not new:
            return
        number = run.entered
        if number == 0:
            is_live = run.goal is not None and run.goal.is_live
            demand(is_live, "only a plan that needs no approval starts while written", new)
            asks = mode in ("plan", "major", "always")
            demand(not asks, "no task starts before its plan is approved", new)
            return
        verdict = run.approval.verdict_on(number)
        is_rejected = verdict is not None and verdict.decision == "rejected"
        demand(not is_rejected, "no task of a rejected revision starts", number)
        is_waiting = run.approval.is_open and run.approval.revision == number
        demand(not is_waiting, "no task of a revision that waits starts", number)
        first_asks = mode in ("plan", "major") and not self.has_entered
        later_asks = mode == "replan" and self.has_entered and number > 1
        if mode == "always" or first_asks or later_asks:
            demand(verdict is not None, "no task starts before its plan is approved", number)
        self.has_entered = True

    # -- what should have started -----------------------------------------------------------

    def _check_ready(self) -> None:
        run, frontier = self.run, self.run.frontier
        if run.result is not None or run.failed is not None:
            return
        works = [w for w in run.works.values() if not frontier.is_idle(w.unit.task)]
        entries = frontier.entries
        held = sum(
            entries[w.unit.task].weight if w.unit.index is not None else 1
            for w in works
            if run.tasks[w.unit.task].human is None and not w.group
        )
        held += sum(frontier.groups.values())
        demand(held == frontier.slots, "slots are held by what runs", held, frontier.slots)
        for task, entry in frontier.entries.items():
            if entry.state is State.WAITING and not entry.is_held:
                is_ready = should_run(run, Unit(task))
                demand(not is_ready, "a task is ready once its inputs have ended", task)
            elif frontier.is_blocked(task) and self._is_planned(task):
                is_met = should_run(run, Unit(task))
                demand(not is_met, "no task is skipped for inputs that are good", task)
        if self._is_held_up():
            return
        unit = frontier.next_ready()
        if unit is not None:
            demand(self._lacks_budget(unit), "what may start has started", unit)

    def _is_planned(self, task: TaskId) -> bool:
        plan = self.run.entered_plan
        return plan is not None and plan.task(task) is not None

    def _is_held_up(self) -> bool:
        run = self.run
        is_early = run.stage in (Stage.PREPARING, Stage.ROOM, Stage.OVER)
        late = time_lack(run.account, self.process.world.now) is not None
        return is_early or late or run.is_long or run.is_paused or run.stop is not None

    def _lacks_budget(self, unit: Unit) -> bool:
        run = self.run
        _, least = amounts_of(run, unit, run.tasks[unit.task])
        free = run.account.ledger.free
        return not least.clipped_to(free).covers(least)

    # -- queries, and the end ---------------------------------------------------------------

    def queries(self, now: float) -> None:
        run = self.run
        view.progress_of(run, now)
        view.graph(run, now)
        view.plan_document(run)
        view.usage_document(run)
        view.estimate_document(run, now)
        view.outputs(run)
        view.revisions_document(run)
        view.diff(run)
        Watcher.queries(self, now)

    def ended(self) -> None:
        run, result = self.run, self.run.result
        self.accounts.ended(run)
        self._check_answers()
        if result is not None:
            parts = sum(t.usage.tokens for t in result.tasks.values()) + run.outside.tokens
            demand(result.usage.tokens == parts, "the usage of the result adds up", parts)
            ledger = run.account.ledger
            demand(result.usage.tasks == ledger.settled.tasks, "the result counts tasks", ledger)
        Watcher.ended(self)

    def _check_answers(self) -> None:
        """What people answered fits what was asked for."""
        for task, record in self.run.records.items():
            human = self.run.tasks[task].human
            schema = human.schema_ if isinstance(human, Human) else None
            stored = record.output
            if schema is None or stored is None or not stored.is_inline:
                continue
            if self.run.tasks[task].map is not None:
                continue
            if record.outcome is Outcome.SUCCEEDED and task not in self.run.request.reuse:
                demand(not check_value(stored.value, schema), "an answer fits its schema", task)
