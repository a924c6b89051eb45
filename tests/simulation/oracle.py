"""Watches one run from outside: what it starts, ends and spends, against what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planloom.planner.contract.controls import RaiseBudget
from planloom.planner.contract.jobs import ToolJob
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.frontier import State, Unit
from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.run import view
from planloom.workflows.machines.run.bodies import key_of
from planloom.workflows.machines.run.state import Question, RunState, Stage, Work
from planloom.workflows.machines.shared.account import PARENT, TIMER, time_lack
from planloom.workflows.machines.shared.budget import Caps, Ledger
from planloom.workflows.machines.shared.commands import (
    AskModel,
    Command,
    JoinOutcomes,
    RunGroup,
    RunTool,
    StartChild,
    WritePlan,
)
from planloom.workflows.machines.shared.events import (
    Broke,
    Continued,
    ControlTaken,
    Event,
    Returned,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Refusal
from tests.simulation.accounts import Accounts
from tests.simulation.invariants import check_cap, check_invariants
from tests.simulation.reading import should_run
from tests.simulation.violation import Violation, demand

if TYPE_CHECKING:
    from tests.simulation.process import Process

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
    entered: int
    cancelled: dict[TaskId, int]
    attempts: dict[TaskId, int]


@dataclass(slots=True)
class Oracle:
    """Checks of one process."""

    process: Process
    may_overrun: bool = False
    """A call used more than was reserved for it."""
    is_cancelled: bool = False
    last: Before | None = None
    caps: Caps | None = None
    cap_seconds: float | None = None
    accounts: Accounts = field(default_factory=Accounts)
    is_end: bool = False
    """The newest event is the end of something that a unit waited for."""
    keys: dict[str, str] = field(default_factory=dict)
    """Idempotency keys by what they stand for."""
    acts: dict[str, str] = field(default_factory=dict)
    """The same the other way round."""
    sent: set[str] = field(default_factory=set)
    """Keys under which a tool that acts was called."""
    approved: set[int] = field(default_factory=set)
    has_entered: bool = False
    cancelled: dict[TaskId, int] = field(default_factory=dict)
    """Tasks that a person cancelled, with their version then."""
    is_replayed: bool = False
    commands: list[list[Command]] = field(default_factory=list)
    story: list[tuple[float, Event]] = field(default_factory=list)

    @property
    def run(self) -> RunState:
        return self.process.state

    # -- around a step ----------------------------------------------------------------------

    def before(self, event: Event) -> None:
        run = self.run
        if self.caps is None:
            self.caps, self.cap_seconds = run.account.ledger.caps, run.account.cap_seconds
        self.last = Before(
            dict(run.works),
            dict(run.questions),
            run.frontier.states(),
            {t: r.version for t, r in run.records.items()},
            run.round,
            run.stop is not None,
            run.is_paused,
            run.is_long,
            run.entered,
            dict(self.cancelled),
            {t: r.attempts for t, r in run.records.items()},
        )
        is_answer = isinstance(event, TimeReached) and event.key.startswith("answer:")
        self.is_end = is_answer or isinstance(event, Returned | Broke)
        self.accounts.before(run, event)
        if isinstance(event, ControlTaken):
            self._expect(event)

    def _expect(self, event: ControlTaken) -> None:
        """What a control will change, if the run takes it."""
        payload = event.payload
        if run_machine.check(self.run, event.name, payload, self.process.world.now) is not None:
            return
        if isinstance(payload, RaiseBudget) and self.caps is not None:
            ledger = Ledger(self.caps)
            ledger.raise_caps(payload)
            if payload.by == PARENT:
                ledger.keep_caps(self.caps)
            self.caps = ledger.caps
            if payload.seconds is not None:
                self.cap_seconds = payload.seconds
        if event.name == "cancel_task":
            task = TaskId(payload.id)
            self.cancelled[task] = self.run.records[task].version

    def after(self, event: Event, commands: Sequence[Command]) -> None:
        """Raises:
        Violation: a rule does not hold after the step.
        """
        run, last = self.run, self.last
        assert last is not None
        self._check_flights()
        check_invariants(run)
        if not self.may_overrun:
            check_cap(run)
        ledger = run.account.ledger
        demand(ledger.caps == self.caps, "only a raise changes a cap", ledger.caps)
        is_same = run.account.cap_seconds == self.cap_seconds
        demand(is_same, "only a raise changes a cap", run.account.cap_seconds)
        self._check_starts(last, commands)
        self._check_ends(last)
        self.accounts.after(run, last.works, last.states, last.questions, commands)
        self._check_attempts(last)
        self._check_entered(last)
        self._check_ready()
        if self.is_replayed:
            self.story.append((self.process.world.now, event))
            self.commands.append(list(commands))
        self._look()

    def _check_flights(self) -> None:
        run, flights = self.run, self.process.flights
        if run.stage is Stage.OVER:
            return
        timers = {*run.timers, *([TIMER] if run.account.timer_at is not None else [])}
        demand(timers == set(self.process.timers), "timers of the state are those that run", timers)
        started = {k for k, f in flights.items() if isinstance(f.command, StartChild)}
        known = {c.key for c in run.children.values()} - set(self.process.lost)
        demand(known <= started, "children of the state are those that run", known, started)
        for key in run.pending:
            is_known = key in flights or key in self.process.lost
            demand(is_known, "what is pending is in flight", key)

    # -- what starts ------------------------------------------------------------------------

    def _check_starts(self, last: Before, commands: Sequence[Command]) -> None:
        run = self.run
        new = [k for k in run.works if k not in last.works]
        if (last.is_paused and run.is_paused) or (last.is_long and run.is_long):
            demand(not new, "nothing starts while it is paused", new)
        for key in new:
            unit = run.works[key].unit
            if unit.index is None and run.works[key].failed is None:
                verdict = should_run(run, unit)
                demand(verdict, "a task starts once its inputs have ended", key)
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

    def _check_ends(self, last: Before) -> None:
        for task, state in self.run.frontier.states().items():
            before = last.states.get(task)
            if not isinstance(before, Outcome) or before is state:
                continue
            is_new = self.run.records[task].version > last.versions[task]
            is_again = self.run.round > last.round
            demand(is_new or is_again, "a task ends once", task, before, state)

    def tool_sent(self, command: RunTool) -> None:
        """A tool call goes out: its key is the same in every round, and another for another act."""
        self.tool_called(self.run.works[self.run.pending[command.key].subject].unit, command.job)

    def tool_called(self, unit: Unit, job: ToolJob) -> None:
        """The same, alone or in a group; a group holds no side effects."""
        run = self.run
        version = run.records[unit.task].version
        stands_for = f"{key_of(unit)} {unit.mode} {version}"
        key = job.key
        known = self.keys.setdefault(stands_for, key)
        demand(known == key, "a key does not change with attempts or rounds", known, key)
        other = self.acts.setdefault(key, stands_for)
        demand(other == stands_for, "another act has another key", other, stands_for)
        spec = run.catalog.tool(job.tool)
        assert spec is not None
        work = run.works.get(key_of(unit))
        is_alone = work is not None and not work.group
        demand(is_alone or not spec.side_effects, "a side effect is in no group", key)
        if spec.side_effects and not spec.idempotent:
            demand(key not in self.sent, "a side effect acts at most once", key)
            self.sent.add(key)

    def child_sent(self, command: StartChild) -> None:
        """A child has what its run has, and no more than was set aside for it."""
        run = self.run
        demand(command.fields["tenant"] == run.request.tenant, "a child has its run's tenant")

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

    def complain(self, rule: str, what: str) -> None:
        raise Violation(rule, what)

    def raised_by_parent(self, payload: RaiseBudget) -> None:
        """Nothing to expect beside what any raise does."""

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
        held = sum(1 for w in works if run.tasks[w.unit.task].human is None and not w.group)
        held += sum(frontier.groups.values())
        demand(held == frontier.slots, "slots are held by what runs", held, frontier.slots)
        for task, entry in frontier.entries.items():
            if entry.state is State.WAITING and not entry.is_held:
                from planloom.planner.walk.frontier import Unit

                is_ready = should_run(run, Unit(task))
                demand(not is_ready, "a task is ready once its inputs have ended", task)
        if self._is_held_up():
            return
        unit = frontier.next_ready()
        if unit is not None:
            demand(self._lacks_budget(unit), "what may start has started", unit)

    def _is_held_up(self) -> bool:
        run = self.run
        is_early = run.stage in (Stage.PREPARING, Stage.ROOM, Stage.OVER)
        late = time_lack(run.account, self.process.world.now) is not None
        return is_early or late or run.is_long or run.is_paused or run.stop is not None

    def _lacks_budget(self, unit: Any) -> bool:
        from planloom.workflows.machines.run.bodies import amounts_of

        run = self.run
        _, least = amounts_of(run, unit, run.tasks[unit.task])
        free = run.account.ledger.free
        return not least.clipped_to(free).covers(least)

    # -- queries and checks -----------------------------------------------------------------

    def check(self, name: str, payload: Any) -> Refusal | None:
        """Ask the check of an update."""
        return run_machine.check(self.run, name, payload, self.process.world.now)

    def _look(self) -> None:
        """Every query, now and then."""
        process, run, now = self.process, self.run, self.process.world.now
        random = process.world.random("look", process.id, process.steps)
        if random.random() > 0.03:
            return
        text = repr(run)
        view.progress_of(run, now)
        view.graph(run, now)
        view.plan_document(run)
        view.usage_document(run)
        view.estimate_document(run, now)
        view.outputs(run)
        view.revisions_document(run)
        view.diff(run)
        view.view(run, now)
        view.published(run)
        demand(repr(run) == text, "a query changes nothing")

    # -- the end ----------------------------------------------------------------------------

    def ended(self) -> None:
        """Raises:
        Violation: something is left at the end of the run.
        """
        process, run = self.process, self.run
        self.accounts.ended(run)
        self._check_result()
        demand(not process.tokens, "every update is answered", process.tokens)
        for key, flight in process.flights.items():
            is_work = isinstance(flight.command, (*WORK, WritePlan, JoinOutcomes))
            demand(not is_work, "nothing is in flight at the end", key)
        demand(not process.timers, "no timer runs at the end", process.timers)
        if self.is_cancelled and run.result is not None:
            demand(run.result.status == "cancelled", "a cancelled run ends so", run.result.status)

    def _check_result(self) -> None:
        """What the result says is what was counted, and it can be sent."""
        run, result = self.run, self.run.result
        if result is None:
            return
        parts = sum(t.usage.tokens for t in result.tasks.values()) + run.outside.tokens
        demand(result.usage.tokens == parts, "the usage of the result adds up", parts)
        ledger = run.account.ledger
        demand(result.usage.tasks == ledger.settled.tasks, "the result counts tasks", ledger)
        again = type(result).model_validate_json(result.model_dump_json(exclude_unset=True))
        demand(again == result, "a result can be sent", "")

    def finished(self) -> None:
        """The whole story once more: the same commands and the same end, as in a replay."""
        if not self.is_replayed:
            return
        first = self.process.first
        for n, (now, event) in enumerate(self.story):
            commands = run_machine.step(first, event, now)
            demand(commands == self.commands[n], "a replay gives the same commands", event)
        demand(first == self.run, "a replay gives the same state")


__all__ = ["Continued", "Oracle", "Violation"]
