"""The world of one case: a clock, what is still to happen, and every workflow in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from planloom.planner.contract.controls import (
    ApproveTask,
    ChildAsks,
    CompleteTask,
    GrantWanted,
    Pause,
    RaiseBudget,
    Resume,
)
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.requests import Common, Lineage
from planloom.planner.language.values import NANO, JsonValue
from planloom.workflows.machines.run.children import INLINE_MAX, inputs_of
from planloom.workflows.machines.shared.commands import StartChild, Tell
from planloom.workflows.machines.shared.events import (
    Broke,
    CancelRequested,
    ControlTaken,
    DeadlineMoved,
    Event,
    Failure,
    GrantAsked,
    QuestionOfChild,
    Returned,
)
from planloom.workflows.machines.shared.machine import Failed, Identity
from tests.simulation.cases import Case
from tests.simulation.catalog import catalog_for
from tests.simulation.chance import Chance, seconds
from tests.simulation.children import Child
from tests.simulation.effects import bound, store
from tests.simulation.kinds import KINDS, kind_of
from tests.simulation.people import People
from tests.simulation.process import Flight, Process
from tests.simulation.violation import Violation

START = 1_000_000.0
EVENTS_MAX = 6_000
"""A run that has not ended by then does not end."""
ROOT = "run"


@dataclass(slots=True)
class World:
    """Deterministic: equal cases go equally."""

    case: Case
    chance: Chance = field(init=False)
    now: float = START
    queue: list[tuple[float, float, int, Callable[[], None], bool]] = field(default_factory=list)
    number: int = 0
    events: int = 0
    processes: dict[str, Process] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    """How children ended, as the server says."""
    blobs: dict[str, JsonValue] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    cut: dict[tuple[str, str], int] = field(default_factory=dict)
    """Answers that were cut off: after how many tokens, by workflow and activity."""
    """Of acts by their idempotency key: `open` or `done`."""
    story: list[tuple[float, str, Event | str]] = field(default_factory=list)
    busy: int = 0
    """How much of the queue brings anything on."""
    order: Random = field(init=False)
    people: People = field(init=False)
    last_told: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = Chance(self.case.seed)
        self.order = self.chance.of("order")
        self.people = People(self)

    # -- small things -----------------------------------------------------------------------

    def random(self, *names: object) -> Random:
        return self.chance.of(*names)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    next_token = next_number

    def note(self, process: Process, event: Event | str) -> None:
        self.events += 1
        self.story.append((self.now, process.id, event))

    def at(self, when: float, happen: Callable[[], None], *, is_idle: bool = False) -> None:
        """Let something happen; at equal times in any order."""
        item = (max(when, self.now), self.order.random(), self.next_number(), happen, is_idle)
        heappush(self.queue, item)
        self.busy += not is_idle

    # -- the course -------------------------------------------------------------------------

    @property
    def root(self) -> Process:
        return self.processes[ROOT]

    def run(self) -> Process:
        """The whole run; gives the root as it ended.

        Raises:
            Violation: something that must hold did not.
        """
        case = self.case
        given = dict(case.request)
        lineage = Lineage.model_validate(given.pop("lineage", {}))  # a child of one that is played
        request: Any = KINDS[case.kind].request.model_validate(given)
        process = self._process(ROOT, request, None, lineage)
        is_run = case.kind == "DagWorkflow"
        if is_run and case.is_handed_catalog and lineage.parent is None:
            for state in process.states():
                state.has_site = True
                state.catalog = catalog_for(prepare_job(request), self.random("catalog"))
        process.begin()
        while not process.is_over:
            if self.events > EVENTS_MAX:
                raise Violation("a run ends", f"{self.events} events: {process.stage}")
            if not self.busy and not self._people_are_slow():
                self.people.answer()
            else:
                self.next()
        process.oracle.finished()
        return process

    def _people_are_slow(self) -> bool:
        """Whether the budget's time is over first, or a permit is renewed."""
        return bool(self.queue) and self.order.random() < 0.2

    def next(self) -> None:
        self.now, _, _, happen, is_idle = heappop(self.queue)
        self.busy -= not is_idle
        happen()

    def after_event(self, process: Process) -> None:
        """What people do right after the newest event of the root."""
        if process.id == ROOT:
            self.people.stimulate(process)

    def _process(self, id: str, request: Common, parent: Any, lineage: Lineage) -> Process:
        kind, identity = kind_of(request), Identity(id, f"{id}/first", lineage)
        state = KINDS[kind].machine.begin(request, identity, self.now)
        process = self.processes[id] = Process(self, id, kind, state, parent)
        return process

    # -- children ---------------------------------------------------------------------------

    def start_child(self, process: Process, flight: Flight) -> Any:
        """A child run: simulated by its own machine, or played."""
        command = flight.command
        assert isinstance(command, StartChild)
        if self.status_of(command.id) == "RUNNING":
            raise Violation("a child's id is its own", command.id)
        process.oracle.child_sent(command)
        values = {}
        for name, value in command.values.items():
            try:
                limit = INLINE_MAX.get(name, 12_000)
                values[name] = store(process, bound(process, value, command.bindings), limit)
            except ValueError as error:
                process.end(flight, Broke(flight.key, Failure(str(error), "tool")))
                return _Nobody()
        inputs = inputs_of(command, values)
        if isinstance(inputs, Failure):
            process.end(flight, Broke(flight.key, inputs))
            return _Nobody()
        return self._started(process, flight, command, *inputs)

    def _started(
        self,
        process: Process,
        flight: Flight,
        command: StartChild,
        request: Common,
        lineage: Lineage,
    ) -> Any:
        random = self.random("child", command.id)
        # What a batch of a map gives back only the machine can say.
        is_machine = not command.values or random.random() < self.case.runs_children
        if is_machine:
            child = self._process(command.id, request, (process, flight), lineage)
            self.at(self.now + random.choice([0.0, 0.1]), lambda: self._begin(child))
            return child
        played = self.children[command.id] = Child(process, flight, random)
        played.start()
        return played

    def _begin(self, child: Process) -> None:
        if not child.is_over and child.steps == 0:
            child.begin()

    def terminate(self, child: Process, status: str, failed: Failure) -> None:
        """A child run is gone without a word, and all below it."""
        assert child.parent is not None
        parent, flight = child.parent
        self._kill(child, status)
        parent.lose(flight, failed)

    def _kill(self, process: Process, status: str) -> None:
        process.is_dead = True
        self.statuses[process.id] = status
        for flight in process.flights.values():
            if isinstance(flight.work, Process):
                self._kill(flight.work, "TERMINATED")
            elif isinstance(flight.work, Child):
                flight.work.is_over = True

    def status_of(self, id: str) -> str:
        """The server's word for a child's status."""
        if id in self.children:
            return "COMPLETED" if self.children[id].is_over else "RUNNING"
        if id in self.processes and not self.processes[id].is_over:
            return "RUNNING"
        return self.statuses.get(id, "COMPLETED")

    def process_ended(self, process: Process) -> None:
        """A run is over: its parent is told."""
        process.timers.clear()
        if process.parent is None:
            return
        parent, flight = process.parent
        ended = process.machine.ended(process.state)
        if isinstance(ended, Failed):
            lines = "; ".join(p.line() for p in ended.problems)
            parent.end(flight, Broke(flight.key, Failure(lines, ended.type)))
        else:
            parent.end(flight, Returned(flight.key, ended))

    def cancel_process(self, process: Process) -> None:
        """A child run is cancelled by its parent."""

        def cancel() -> None:
            if process.is_over:
                return
            if process.steps == 0:  # it had not begun yet
                self._kill(process, "CANCELED")
                assert process.parent is not None
                parent, flight = process.parent
                parent.end(flight, Broke(flight.key, Failure("cancelled", "cancelled")))
                return
            process.oracle.is_cancelled = True
            process.apply(CancelRequested())

        self.at(self.now + self.order.choice([0.0, 0.05]), cancel)

    # -- signals between runs ---------------------------------------------------------------

    def tell(self, sender: Any, tell: Tell) -> None:
        """A signal to another run: in the order it was sent; one that is gone needs it no more."""
        pair = (sender.id, tell.run)
        at = max(self.last_told.get(pair, 0.0), self.now + self.order.choice([0.0, 0.0, 0.02, 1]))
        self.last_told[pair] = at + 1e-6
        if isinstance(sender, Process):
            sender.tells += 1

        def arrive() -> None:
            if isinstance(sender, Process):
                sender.tells -= 1
                sender.carry_over()
            target: Any = self.processes.get(tell.run) or self.children.get(tell.run)
            if target is not None:
                if isinstance(target, Process) and target.steps == 0 and not target.is_over:
                    target.begin()  # a signal that comes first waits for the first event
                target.receive(tell.signal, tell.payload)
            elif tell.run == "boss":
                self.people.boss(tell)

        self.at(at, arrive)

    @staticmethod
    def event_of(signal: str, payload: Any) -> Event:
        """The event that a signal of another run is."""
        match payload:
            case GrantWanted():
                return GrantAsked(payload)
            case ChildAsks():
                return QuestionOfChild(payload)
            case RaiseBudget() | CompleteTask() | ApproveTask():
                return ControlTaken(signal, payload)
            case _ if signal == "deadline_moved":
                return DeadlineMoved(payload["at"])
            case _ if signal in ("pause", "resume"):
                return ControlTaken(signal, Pause() if signal == "pause" else Resume())
        raise TypeError(f"{signal}: {payload!r}")


class _Nobody:
    """Carries out what has ended already."""

    def cancel(self) -> None:
        pass


__all__ = ["NANO", "ROOT", "START", "World", "seconds"]
