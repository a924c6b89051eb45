"""Child runs that are not simulated by their own machine: agents, teams, and some sub-plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from planloom.planner.contract.controls import (
    ChildAsks,
    CompleteTask,
    GrantWanted,
    RaiseBudget,
)
from planloom.planner.contract.results import (
    AgentResult,
    MemberReport,
    RunResult,
    TeamResult,
    UsageReport,
)
from planloom.planner.language.values import NANO, Outcome
from planloom.workflows.machines.shared.commands import StartChild, Tell
from planloom.workflows.machines.shared.events import Failure, Returned
from tests.simulation.chance import seconds, weighted
from tests.simulation.effects import CLASSES, random_value, store

if TYPE_CHECKING:
    from tests.simulation.process import Flight, Process


@dataclass(slots=True)
class Child:
    """A child that asks for budget, asks people, waits when it is told to, and ends somehow."""

    process: Process
    """Its parent."""
    flight: Flight
    random: Random
    plans: list[str] = field(default_factory=list)
    """What it does still: `want`, `ask`, `end`."""
    is_paused: bool = False
    is_parked: bool = False
    is_asking: bool = False
    is_cancelled: bool = False
    is_over: bool = False
    deadline: float | None = None
    tokens: int | None = None
    usd_nano: int | None = None
    tasks: int | None = None
    number: int = 0

    @property
    def id(self) -> str:
        assert isinstance(self.flight.command, StartChild)
        return self.flight.command.id

    @property
    def parent(self) -> str:
        return self.process.id

    def start(self) -> None:
        command = self.flight.command
        assert isinstance(command, StartChild)
        lineage = command.lineage
        self.deadline = lineage.deadline
        grant = lineage.grant
        if grant is not None:
            self.tokens, self.usd_nano, self.tasks = grant.tokens, grant.usd_nano, grant.tasks
        random = self.random
        if random.random() < 0.3 and grant is not None:
            self.plans.append("want")
        if random.random() < 0.2:
            self.plans.append("ask")
        if random.random() < 0.1 and grant is not None:
            self.plans.append("want")
        self.plans.append("end")
        self._soon()

    def _later(self, after: float, what: Any) -> None:
        self.process.world.at(self.process.world.now + after, what)

    def _soon(self) -> None:
        self.number = number = self.process.world.next_number()

        def go() -> None:
            if self.number == number and not self.is_over:
                self._go()

        self._later(seconds(self.random), go)

    @property
    def _is_late(self) -> bool:
        return self.deadline is not None and self.deadline <= self.process.world.now

    def _go(self) -> None:
        if self.is_paused or self.is_parked or self.is_asking or self._is_late:
            return  # it goes on when it is told something
        match self.plans.pop(0):
            case "want":
                self._want()
            case "ask":
                self._ask()
            case _:
                self._end()

    def _want(self) -> None:
        if self.tokens is None and self.usd_nano is None and self.tasks is None:
            self._soon()
            return
        self.is_parked = True
        tokens = self.random.choice([10, 500, 20_000]) if self.tokens is not None else 0
        wanted = GrantWanted(
            child=self.id,
            name=self.id.removeprefix(f"{self.parent}/"),
            tokens=tokens,
            usd_nano=1_000 if self.usd_nano is not None else 0,
            tasks=1 if self.tasks is not None else 0,
        )
        self._tell("grant_wanted", wanted)

    def _ask(self) -> None:
        self.is_asking = True
        self._tell("child_asks", self._asks("what now?"))

    def _asks(self, question: str | None) -> ChildAsks:
        task = self.id.removeprefix(f"{self.parent}/")
        is_team = self.flight.command.kind == "TeamWorkflow"  # type: ignore[union-attr]
        name = "first" if is_team else "me"
        key = f"{task}.{name}" if is_team else task
        return ChildAsks(child=self.id, name=name, key=key, question=question)

    def _tell(self, signal: str, payload: Any) -> None:
        self.process.world.tell(self, Tell(self.parent, signal, payload))

    # -- what it is told --------------------------------------------------------------------

    def receive(self, signal: str, payload: Any) -> None:
        if self.is_over:
            return
        match payload:
            case RaiseBudget():
                self.tokens = payload.tokens if payload.tokens is not None else self.tokens
                if payload.usd is not None:
                    self.usd_nano = int(payload.usd * NANO)
                self.tasks = payload.tasks if payload.tasks is not None else self.tasks
                self.is_parked = False
            case CompleteTask():
                if not self.is_asking:
                    return
                self.is_asking = False
                self._tell("child_asks", self._asks(None))
            case _ if signal in ("pause", "resume"):
                self.is_paused = signal == "pause"
            case _ if signal == "deadline_moved":
                self.deadline = payload["at"]
        self._soon()

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.is_over:
            return
        if self.random.random() < 0.2:
            self._later(seconds(self.random), self._end)  # it was about to end anyway
        else:
            self._later(seconds(self.random), self._end_cancelled)

    def lose(self, failed: Failure) -> None:
        """It is gone without a word: the parent hears of it only while it is its own."""
        if self.is_over:
            return
        self.is_over = True
        self.process.lose(self.flight, failed)

    # -- its end ----------------------------------------------------------------------------

    def _end_cancelled(self) -> None:
        if not self.is_over:
            self._ended("cancelled", is_good=False)

    def _end(self) -> None:
        if self.is_over:
            return
        random = self.random
        # An adopted one has nobody who hears of it at once.
        if random.random() < (0.3 if self.flight.is_adopted else 0.03):
            self.lose(Failure("terminated", "unknown"))
            return
        fails = self.process.world.case.fails
        status = weighted(
            random, {"completed": 8, "partial": 1 + fails, "failed": 8 * fails, "rejected": fails}
        )
        self._ended(status, is_good=status == "completed" or random.random() < 0.3)

    def _ended(self, status: str, *, is_good: bool) -> None:
        self.is_over = True
        process, random = self.process, self.random
        answer = store(process, random_value(random)) if is_good else None
        usage = self._usage()
        why = None if status == "completed" else f"it is {status}"
        result: Any
        match self.flight.command.kind:  # type: ignore[union-attr]
            case "AgentWorkflow":
                result = AgentResult(
                    status=status,
                    output=answer.value if answer and answer.is_inline else None,
                    **({"output_ref": answer} if answer and not answer.is_inline else {}),
                    usage=usage,
                    reason=why,
                    error_class=random.choice([None, *CLASSES]) if status == "failed" else None,
                )
            case kind:
                ref = {"answer_ref": answer} if answer and not answer.is_inline else {}
                shown = answer.value if answer and answer.is_inline else None
                if ref:
                    shown = {"blob": answer.blob}  # type: ignore[union-attr]
                common = {"status": status, "answer": shown, "usage": usage, "reason": why, **ref}
                result = RunResult(**common) if kind == "DagWorkflow" else _team(common, random)
        process.end(self.flight, Returned(self.flight.key, result))

    def _usage(self) -> UsageReport:
        """No more than it was lent."""
        random, share = self.random, self.random.random()
        tokens = int((self.tokens if self.tokens is not None else 5_000) * share)
        nano = int((self.usd_nano if self.usd_nano is not None else 1_000_000) * share)
        tasks = int((self.tasks if self.tasks is not None else 3) * share)
        return UsageReport(
            tokens=tokens,
            input_tokens=tokens - tokens // 3,
            output_tokens=tokens // 3,
            usd=nano / NANO,
            model_calls=random.choice([0, 1, 5]),
            tool_calls=random.choice([0, 2]),
            cache_hits=random.choice([0, 0, 1]),
            unpriced_calls=random.choice([0, 0, 0, 1]),
            tasks=tasks,
        )


def _team(common: dict[str, Any], random: Random) -> TeamResult:
    outcome = random.choice([Outcome.SUCCEEDED, Outcome.FAILED])
    return TeamResult(**common, members={"first": MemberReport(outcome=outcome)})
