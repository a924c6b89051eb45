"""Drives one machine by hand: events in, commands out. After each step the state is read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from planloom.planner.language.values import Usage
from planloom.workflows.machines.shared.commands import Answer as Answered
from planloom.workflows.machines.shared.commands import (
    Cancel,
    Command,
    DropTimer,
    Refuse,
    SetTimer,
    TakeTurn,
    Tell,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    ControlTaken,
    Event,
    Failure,
    Returned,
    TimeReached,
)

S = TypeVar("S")


class Driver(Generic[S]):
    """One workflow: its state, what is in flight, its timers, and all that it said."""

    def __init__(self, machine: Any, state: S, now: float = 1_000.0) -> None:
        self.machine, self.state, self.now = machine, state, now
        self.flight: dict[str, Any] = {}
        """Commands whose end has not come yet, by key, in the order they were given."""
        self.timers: dict[str, float] = {}
        self.told: list[Tell] = []
        self.cancelled: list[str] = []
        self.answers: dict[int, Answered | Refuse] = {}
        self.all: list[Command] = []
        self._adapter = TypeAdapter(type(state))

    def do(self, event: Event, seconds: float = 1.0) -> list[Command]:
        """One event, `seconds` after the last; its commands."""
        self.now += seconds
        self._read_back()
        commands: Sequence[Command] = self.machine.step(self.state, event, self.now)
        for command in commands:
            self._take(command)
        self.all += commands
        self._check()
        return list(commands)

    def begin(self) -> list[Command]:
        return self.do(Begun())

    def returns(self, key: str, value: Any, seconds: float = 1.0) -> list[Command]:
        """The command `key` ends well."""
        del self.flight[key]
        return self.do(Returned(key, value), seconds)

    def breaks(
        self, key: str, error_class: str = "tool", message: str = "it broke", **more: Any
    ) -> list[Command]:
        """The command `key` fails, or is cancelled."""
        del self.flight[key]
        return self.do(Broke(key, Failure(message, error_class, **more)))

    def control(self, name: str, payload: Any = None, token: int | None = None) -> list[Command]:
        return self.do(ControlTaken(name, payload, token))

    def fire(self, key: str) -> list[Command]:
        """The timer goes off."""
        self.now = max(self.now, self.timers.pop(key))
        return self.do(TimeReached(key), 0.0)

    def cancels_land(self) -> None:
        """All that was cancelled ends as cancelled."""
        for key in [k for k in self.cancelled if k in self.flight]:
            self.breaks(key, "cancelled", "cancelled", usage=Usage())

    def all_turns(self, name: str) -> list[Any]:
        """Every turn of a persona so far."""
        return [c for c in self.all if isinstance(c, TakeTurn) and c.job.name == name]

    @property
    def ended(self) -> Any:
        return self.machine.ended(self.state)

    def _read_back(self) -> None:
        text = self._adapter.dump_json(self.state, exclude_unset=True)
        read = self._adapter.validate_json(text)
        assert read == self.state, "a state is equal after it was written and read"
        self.state = read

    def _take(self, command: Command) -> None:
        match command:
            case SetTimer(key=key, at=at):
                self.timers[key] = at
            case DropTimer(key=key):
                self.timers.pop(key, None)
            case Cancel(key=key):
                self.cancelled.append(key)
            case Tell():
                self.told.append(command)
            case Answered(token=token) | Refuse(token=token):
                assert token not in self.answers, "an update is answered once"
                self.answers[token] = command
            case _:
                key = command.key
                assert key not in self.flight, f"{key} is in flight already"
                self.flight[key] = command

    def _check(self) -> None:
        state: Any = self.state
        state.account.ledger.check()
        if self.ended is not None:
            return
        run = getattr(state, "plan", None)
        of_plan = set(run.pending) if run is not None else set()
        if run is None or run.result is not None:
            assert set(state.pending) == set(self.flight) - of_plan
            assert set(state.waiting) == set(state.account.parked)
        else:
            assert set(state.pending) | of_plan == set(self.flight)
        assert not set(state.pending) & set(state.waiting)
