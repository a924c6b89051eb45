"""One workflow in the world: the state of its machine, and what it has in flight."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from planloom.workflows.machines.shared.commands import (
    Answer,
    Cancel,
    Command,
    DropTimer,
    Refuse,
    Resolve,
    SetTimer,
    StartChild,
    Tell,
    WritePlan,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    Continued,
    ControlTaken,
    Event,
    Failure,
    HistoryLong,
    TimeReached,
)
from tests.simulation.effects import end_of
from tests.simulation.kinds import KINDS, pending_of
from tests.simulation.planner_calls import PlannerCall
from tests.simulation.violation import Violation
from tests.simulation.watcher import Watcher

if TYPE_CHECKING:
    from tests.simulation.world import World

PERPETUAL = ("permit", "children", "budget.seconds")
"""Timers that are set again and again, or only stop the run: they bring nothing on."""
LOST_CHILD = "unknown"


def written(adapter: TypeAdapter[Any], state: Any) -> bytes:
    """The state as a continue-as-new carries it."""
    return adapter.dump_json(state, exclude_unset=True, by_alias=True)


def read_back(adapter: TypeAdapter[Any], state: Any) -> Any:
    """The state after it was serialized, dropped and read back."""
    back = adapter.validate_json(written(adapter, state))
    if back != state:
        raise Violation("a state that is read back is equal", _difference(state, back))
    return back


def _difference(one: Any, two: Any) -> str:
    names = [n for n in one.__dataclass_fields__ if getattr(one, n) != getattr(two, n)]
    return "; ".join(f"{n}: {getattr(one, n)!r} != {getattr(two, n)!r}" for n in names)[:3000]


class Timer(NamedTuple):
    """A timer that runs."""

    number: int
    at: float


@dataclass(slots=True)
class Flight:
    """A command that has been started and has not ended."""

    key: str
    command: Command
    number: int
    end: Event | None = None
    """What it will end in, when that is decided already."""
    since: float = 0.0
    is_cancelled: bool = False
    is_adopted: bool = False
    work: Any = None
    """Who carries it out, where that takes more than one event: a planner call, a child."""


@dataclass(slots=True)
class Process:
    """A workflow of one machine. The world gives it events; it gives the world commands."""

    world: World
    id: str
    kind: str
    """Its workflow type."""
    state: Any
    parent: tuple[Any, str] | None = None
    """Whose child it is, and the key of the command that started it."""
    flights: dict[str, Flight] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    """Adopted children that are gone without a word, by the key that started them."""
    timers: dict[str, Timer] = field(default_factory=dict)
    tokens: dict[int, str] = field(default_factory=dict)
    """Updates that have no answer yet."""
    replies: dict[int, Answer | Refuse] = field(default_factory=dict)
    tells: int = 0
    """Signals of its own that are under way."""
    steps: int = 0
    is_draining: bool = False
    is_dead: bool = False
    """It was terminated, or its time was over: nothing reaches it any more."""
    counts: dict[str, int] = field(default_factory=dict)
    oracle: Watcher = field(init=False)
    machine: Any = field(init=False)
    first: Any = field(init=False)
    """The state before anything happened, for a replay."""

    def __post_init__(self) -> None:
        self.machine = KINDS[self.kind].machine
        self.oracle = KINDS[self.kind].watcher(self)
        self.oracle.is_replayed = self.world.random("replay", self.id).random() < 0.05
        if self.oracle.is_replayed:
            self.first = deepcopy(self.state)

    @property
    def is_over(self) -> bool:
        return self.is_dead or self.machine.ended(self.state) is not None

    @property
    def stage(self) -> str:
        """Where it stands in its course; an agent has no stages."""
        return str(getattr(self.state, "stage", ""))

    def mark_overrun(self) -> None:
        """A call used more than was reserved, for it and for all above it."""
        self.oracle.may_overrun = True
        if self.parent is not None:
            self.parent[0].mark_overrun()

    def states(self) -> list[Any]:
        """Its state, and the first one where that is kept."""
        return [self.state, self.first] if self.oracle.is_replayed else [self.state]

    def text(self) -> bytes:
        """Its state, to be compared."""
        return written(KINDS[self.kind].adapter, self.state)

    # -- events -----------------------------------------------------------------------------

    def begin(self) -> None:
        self.apply(Begun())

    def apply(self, event: Event) -> None:
        """One step of the machine, its commands, and everything that must hold after it."""
        if self.is_dead:
            return
        was_over = self.is_over
        self.world.note(self, event)
        self.steps += 1
        self.oracle.before(event)
        commands = self.machine.step(self.state, event, self.world.now)
        for command in commands:
            self._carry_out(command)
        self.oracle.after(event, commands)
        if was_over:
            return
        if self.is_over:
            self._ended()
            return
        self.carry_over()
        if self.parent is None:
            self.world.after_event(self)

    def control(self, name: str, payload: Any, *, is_update: bool) -> Answer | Refuse | None:
        """Send a signal or an update; the answer, when it comes at once."""
        if self.is_over:
            return None
        token = self.world.next_token() if is_update else None
        if token is not None:
            self.tokens[token] = name
            if self.world.random("checks", token).random() < 0.7:
                refusal = self.oracle.check(name, payload)
                if refusal is not None:  # the validator refuses it: the machine hears nothing
                    del self.tokens[token]
                    return Refuse(token, refusal.message, refusal.type)
        self.apply(ControlTaken(name, payload, token))
        return self.replies.get(token) if token is not None else None

    def carry_over(self) -> None:
        """Continue as new when the history is long, or lose the state and read it back."""
        if self.is_over:
            return
        case = self.world.case
        is_due = any(n == self.steps for n in case.long_after)
        if is_due and not self.is_draining:
            self.is_draining = True
            self.apply(HistoryLong())
            return
        if self.is_draining and self._may_continue():
            self.is_draining = False
            self.timers.clear()
            for key, flight in list(self.flights.items()):
                if isinstance(flight.command, StartChild):
                    flight.is_adopted = True
                else:
                    del self.flights[key]  # what the machine waits for no more is lost
            self._read_back()
            self.apply(Continued())
        elif case.carried and self.world.random(self.id, self.steps).random() < case.carried:
            self._read_back()

    def _read_back(self) -> None:
        self.state = read_back(KINDS[self.kind].adapter, self.state)

    def _may_continue(self) -> bool:
        if self.tokens or self.tells or not self.machine.may_continue(self.state):
            return False
        for key in pending_of(self.state):
            flight = self.flights.get(key)
            if flight is not None and not isinstance(flight.command, StartChild):
                raise Violation("a continue-as-new loses nothing", f"{key} is in flight")
        return True

    def _ended(self) -> None:
        self.oracle.ended()
        self.world.process_ended(self)

    # -- commands ---------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case Answer() | Refuse():
                if self.tokens.pop(command.token, None) is None:
                    raise Violation("an update is answered once", f"{command}")
                self.replies[command.token] = command
            case Tell():
                self.world.tell(self, command)
            case SetTimer():
                key, number = command.key, self.world.next_number()
                timer = self.timers[key] = Timer(number, command.at)

                def fire() -> None:
                    if self.timers.get(key) is timer and not self.is_over:
                        del self.timers[key]
                        self.apply(TimeReached(key))

                # A server's timer is never early; it is late while no worker is there.
                late = self.world.random("late", self.id, key, number)
                after = late.choice([0.0, 0.0, 0.0, 0.3, 20.0])
                self.world.at(command.at + after, fire, is_idle=key in PERPETUAL)
            case DropTimer():
                self.timers.pop(command.key, None)
            case Cancel():
                self._cancel(command.key)
            case _:
                self._start(command)

    def _start(self, command: Any) -> None:
        key = command.key
        self.lost.pop(key, None)
        if key in self.flights:
            raise Violation("a key in flight is unique", key)
        number, now = self.world.next_number(), self.world.now
        flight = self.flights[key] = Flight(key, command, number, since=now)
        self.counts[key] = self.counts.get(key, 0) + 1
        match command:
            case WritePlan():
                flight.work = PlannerCall(self, flight)
                flight.work.start()
            case StartChild():
                flight.work = self.world.start_child(self, flight)
            case _:
                random = self.world.random(self.id, key, self.counts[key])
                after, flight.end = end_of(self, command, random)
                self.end(flight, flight.end, after)

    def lose(self, flight: Flight, failed: Failure) -> None:
        """A child is gone without a word: an adopted one tells nobody."""
        if flight.is_adopted:
            self.flights.pop(flight.key, None)
            self.lost[flight.key] = failed.message
        else:
            self.end(flight, Broke(flight.key, failed))

    def end(self, flight: Flight, event: Event, after: float = 0.0) -> None:
        """The command of `flight` ends with `event`, `after` seconds from now."""
        number = flight.number

        def happen() -> None:
            if self.flights.get(flight.key) is flight and flight.number == number:
                del self.flights[flight.key]
                if not self.is_over:
                    self.apply(event)

        self.world.at(self.world.now + after, happen)

    def _cancel(self, key: str) -> None:
        flight = self.flights.get(key)
        if flight is None and key in self.lost:
            return
        if flight is None:
            raise Violation("only what is in flight is cancelled", key)
        if flight.is_cancelled:
            return
        flight.is_cancelled = True
        if isinstance(flight.command, StartChild):
            flight.work.cancel()
            return
        random = self.world.random(self.id, "cancel", key, self.counts[key])
        how = random.random()
        # A look-up takes milliseconds: a cancel mostly comes too late for it.
        is_quick = isinstance(flight.command, Resolve)
        if how < (0.75 if is_quick else 0.25) and flight.end is not None:
            end = flight.end  # it was on its way already
        else:
            end = Broke(key, Failure("cancelled", "cancelled"))
        flight.number = self.world.next_number()  # its own end is not heard any more
        if flight.work is not None:
            flight.work.cancel()
        self.end(flight, end, 0.0 if how < 0.8 else random.uniform(0.1, 20))

    # -- signals of other runs --------------------------------------------------------------

    def receive(self, signal: str, payload: Any) -> None:
        """A signal of the parent, or of a child."""
        if self.is_over:
            return
        event = self.world.event_of(signal, payload)
        self.apply(event)

    def cancel(self) -> None:
        self.world.cancel_process(self)
