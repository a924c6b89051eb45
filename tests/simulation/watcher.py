"""Watches one workflow from outside, whatever its machine: what holds of runs, agents and teams."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planloom.planner.contract.controls import Pause, RaiseBudget
from planloom.planner.contract.jobs import ToolJob
from planloom.planner.walk.frontier import Unit
from planloom.workflows.machines.run.state import RunState, Stage
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.account import (
    PARENT,
    TIMER,
    Account,
    ends_at,
    time_lack,
)
from planloom.workflows.machines.shared.budget import NOTHING, Caps, Ledger
from planloom.workflows.machines.shared.commands import (
    AskModel,
    Command,
    DropTimer,
    JoinOutcomes,
    Refuse,
    RunTool,
    StartChild,
    TakeTurn,
    Tell,
    WritePlan,
)
from planloom.workflows.machines.shared.events import ControlTaken, DeadlineMoved, Event, Returned
from planloom.workflows.machines.shared.machine import Failed, Refusal
from tests.simulation.times import Heard, check_clock, check_heard, hear
from tests.simulation.violation import Violation, demand

if TYPE_CHECKING:
    from tests.simulation.process import Process

PAID = (RunTool, AskModel, StartChild, TakeTurn, WritePlan, JoinOutcomes)
"""Commands that cost something, or act."""


@dataclass(slots=True)
class Watcher:
    """Checks of one process that do not depend on its machine."""

    process: Process
    may_overrun: bool = False
    """A call used more than was reserved for it."""
    is_cancelled: bool = False
    caps: Caps | None = None
    cap_seconds: float | None = None
    rooms: int = 0
    """Permits of a pool that it holds."""
    heard: dict[str, Heard] = field(default_factory=dict)
    """What its child runs were told."""
    is_handled: bool = False
    """A person paused it, or let it go on, beside the run that it is part of."""
    is_paused: bool = False
    """What the controls that were taken have made of it."""
    was_watched: bool = False
    """A run (of a team, its plan) was at work before the newest event."""
    was_late: bool = False
    """Its time was over before the newest event."""
    sent: set[str] = field(default_factory=set)
    """Keys under which a tool that acts was called."""
    is_replayed: bool = False
    commands: list[list[Command]] = field(default_factory=list)
    story: list[tuple[float, Event]] = field(default_factory=list)
    came: list[Event] = field(default_factory=list)
    """Copies of the events, as they came."""

    @property
    def state(self) -> Any:
        return self.process.state

    @property
    def account(self) -> Account:
        account: Account = self.state.account
        return account

    # -- around a step ----------------------------------------------------------------------

    def before(self, event: Event) -> None:
        """Remember what the step is judged by."""
        if self.is_replayed:
            self.came.append(deepcopy(event))
        if self.caps is None:
            self.caps, self.cap_seconds = self.account.ledger.caps, self.account.cap_seconds
        self.was_late = time_lack(self.account, self.process.world.now) is not None
        if isinstance(event, ControlTaken):
            self._expect(event)
        elif isinstance(event, Returned) and event.key == permit.KEY:
            self.rooms += 1

    def _expect(self, event: ControlTaken) -> None:
        """What a control will change, if it is taken."""
        payload = event.payload
        if self.check(event.name, payload) is not None:
            return
        if isinstance(payload, RaiseBudget) and self.caps is not None:
            ledger = Ledger(self.caps)
            ledger.raise_caps(payload)
            if payload.by == PARENT:
                ledger.keep_caps(self.caps, may_grow=not self.account.has_own_cap)
            is_first = ledger.caps.but(self.caps) != Caps()
            if is_first and (payload.by == PARENT or self._has_children()):
                self.process.mark_overrun()  # what was used until now had no limit
            self.caps = ledger.caps
            if payload.seconds is not None:
                self.cap_seconds = payload.seconds
        if event.name in ("pause", "resume"):
            self.is_paused = event.name == "pause"
        self.control_taken(event.name, payload)

    def _has_children(self) -> bool:
        flights = self.process.flights.values()
        return any(isinstance(f.command, StartChild) for f in flights)

    def control_taken(self, name: str, payload: Any) -> None:
        """A control is going to be taken."""

    def after(self, event: Event, commands: Sequence[Command]) -> None:
        """Raises:
        Violation: a rule does not hold after the step.
        """
        ledger = self.account.ledger
        self.rooms -= sum(isinstance(c, Tell) and c.signal == "release" for c in commands)
        if not self.may_overrun:
            demand(ledger.overrun == NOTHING, "settled + reserved <= cap", ledger)
        demand(ledger.caps == self.caps, "only a raise changes a cap", ledger.caps)
        is_same = self.account.cap_seconds == self.cap_seconds
        demand(is_same, "only a raise changes a cap", self.account.cap_seconds)
        hear(self.heard, commands)
        if self.process.machine.ended(self.state) is None:
            is_same = self.state.is_paused == self.is_paused
            demand(is_same, "only a person pauses, or lets go on", event)
            check_heard(self.heard, self.process, self.account, is_paused=self.is_paused)
            self._check_bound(ledger.caps)
        if self.is_replayed:
            self.story.append((self.process.world.now, event))
            self.commands.append(list(commands))
        self._look()

    def _check_bound(self, caps: Caps) -> None:
        """What its run has a cap of, a child has one of too, once it has heard of it."""
        process = self.process
        if process.parent is None:
            return
        above, world = process.parent[0], process.world
        if world.last_told.get((above.id, process.id), 0.0) < world.now:
            unbound = above.oracle.account.ledger.caps.but(caps)
            demand(unbound.tokens is None, "a child is bound by the caps of its run", unbound)
            demand(unbound.usd_nano is None, "a child is bound by the caps of its run", unbound)
            told = above.oracle.heard[process.id]
            demand(self.account.deadline == told.deadline, "a child keeps to its run's time", told)
            is_same = self.is_handled or self.state.is_paused == told.is_paused
            demand(is_same, "a child is paused once it has heard of it", told)

    @property
    def is_late(self) -> bool:
        """Whether the time was over before the newest event, and is still."""
        return self.was_late and time_lack(self.account, self.process.world.now) is not None

    def check_dropped(self, event: Event, commands: Sequence[Command]) -> None:
        """A run hears of the end of its time by its timer, also while it is to continue as new."""
        may_move = isinstance(event, DeadlineMoved)
        may_move |= isinstance(event, ControlTaken) and isinstance(event.payload, RaiseBudget)
        is_dropped = self.was_watched and DropTimer(TIMER) in commands and not may_move
        demand(not is_dropped, "the timer of the time fires, unless the time moves", event)

    def check_timers(self, timers: dict[str, float]) -> None:
        """Timers that the state knows are those that run."""
        check_clock(self.process, self.account, timers)

    def check_time(self, run: RunState) -> None:
        """The end of a run's time is seen, or a timer is on its way to tell of it."""
        end, now = ends_at(run.account), self.process.world.now
        if end is None or end > now or run.stage in (Stage.PREPARING, Stage.OVER):
            return
        is_seen = run.is_time_up or run.stop is not None or run.ending is not None
        demand(is_seen or TIMER in self.process.timers, "the end of the time is seen", end)

    def check_pending(self, keys: Sequence[str]) -> None:
        """What the state waits for is in flight."""
        for key in keys:
            is_known = key in self.process.flights or key in self.process.lost
            demand(is_known, "what is pending is in flight", key)

    # -- what the world asks ----------------------------------------------------------------

    def tool_sent(self, command: RunTool) -> None:
        """A tool call goes out."""
        spec = self.state.catalog.tool(command.job.tool)
        if spec is not None and spec.side_effects and not spec.idempotent:
            key = command.job.key
            demand(key not in self.sent, "a side effect acts at most once", key)
            self.sent.add(key)

    def tool_called(self, unit: Unit, job: ToolJob) -> None:
        """A tool is called in a group."""
        spec = self.state.catalog.tool(job.tool)
        is_safe = spec is not None and not spec.side_effects
        demand(is_safe, "a side effect is in no group", unit, job.key)

    def child_sent(self, command: StartChild) -> None:
        """A child has what its run has."""
        tenant = self.state.request.tenant
        demand(command.fields["tenant"] == tenant, "a child has its run's tenant", tenant)

    def complain(self, rule: str, what: str) -> None:
        raise Violation(rule, what)

    def check(self, name: str, payload: Any) -> Refusal | None:
        """Ask the check of an update."""
        refusal: Refusal | None = self.process.machine.check(
            self.state, name, payload, self.process.world.now
        )
        return refusal

    def queries(self, now: float) -> None:
        """Every query once."""
        machine = self.process.machine
        machine.details(self.state, now)
        machine.published(self.state)

    def _look(self) -> None:
        """Every query, now and then: none changes anything."""
        process = self.process
        random = process.world.random("look", process.id, process.steps)
        if random.random() > 0.03:
            return
        text = process.text()
        self.queries(process.world.now)
        self.check("pause", Pause())
        demand(process.text() == text, "a query changes nothing")

    # -- the end ----------------------------------------------------------------------------

    def ended(self) -> None:
        """Raises:
        Violation: something is left at the end.
        """
        process = self.process
        demand(not process.tokens, "every update is answered", process.tokens)
        for key, flight in process.flights.items():
            is_paid = isinstance(flight.command, PAID)
            demand(not is_paid, "nothing is in flight at the end", key)
        demand(not process.timers, "no timer runs at the end", process.timers)
        demand(self.rooms <= 0, "room in a pool goes back at the end", self.rooms)
        result = process.machine.ended(self.state)
        if isinstance(result, Failed):
            return
        ledger = self.account.ledger
        demand(not ledger.reserved, "all is settled at the end", ledger.reserved)
        demand(result.usage.tokens == ledger.usage.tokens, "the result tells its usage", result)
        if self.is_cancelled:
            demand(result.status == "cancelled", "a cancelled run ends so", result.status)
        again = type(result).model_validate_json(result.model_dump_json(exclude_unset=True))
        demand(again == result, "a result can be sent")
        self._late()

    def _late(self) -> None:
        """An update that comes with the end is refused, and changes nothing."""
        process, token = self.process, self.process.world.next_token()
        before = process.text()
        control = ControlTaken("pause", Pause(), token)
        (refused,) = process.machine.step(self.state, control, process.world.now)
        is_refused = isinstance(refused, Refuse) and refused.token == token
        demand(is_refused, "a late update is refused", refused)
        demand(process.text() == before, "nothing changes after the end")

    def finished(self) -> None:
        """The whole story once more: the same commands and the same end, as in a replay."""
        if not self.is_replayed:
            return
        first = self.process.first
        for n, (now, event) in enumerate(self.story):
            demand(event == self.came[n], "an event stays as it came", event)
            commands = self.process.machine.step(first, event, now)
            demand(commands == self.commands[n], "a replay gives the same commands", event)
        demand(first == self.state, "a replay gives the same state")
