"""Agents and teams under random events: whatever comes, in any order, they end and add up."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from planloom.planner.contract.controls import CompleteTask, Pause, RaiseBudget, Resume
from planloom.planner.contract.jobs import AgentCall, JoinReply, Resolved, TaskOutput, TurnReply
from planloom.planner.contract.requests import AgentRequest, TeamRequest
from planloom.planner.contract.results import AgentResult, Diagnosis, TeamResult, UsageReport
from planloom.planner.language.values import Stored, Usage
from planloom.workflows.machines.agent import machine as agents
from planloom.workflows.machines.run.children import usage_from_report
from planloom.workflows.machines.shared.commands import (
    AskModel,
    JoinOutcomes,
    LookAtChild,
    Prepare,
    ReadOutput,
    Resolve,
    RunTool,
    StartChild,
    TakePermit,
    TakeTurn,
)
from planloom.workflows.machines.shared.events import (
    CancelRequested,
    Continued,
    HistoryLong,
    SignalIgnored,
)
from planloom.workflows.machines.shared.machine import Identity
from planloom.workflows.machines.team import machine as teams
from tests.support.agents import CATALOG
from tests.support.driving import Driver

STEPS_MAX = 400
TOOLS = ["echo", "dear", "ask_human"]
CLASSES = ["timeout", "rate_limit", "auth", "schema_violation", "unknown", "tool"]
LARGE = Stored(blob="large", size_bytes=30_000, preview="…", media="text")


class Chance:
    """Answers every command in some way that could happen, and sends some controls."""

    def __init__(self, made: Driver[Any], random: Random) -> None:
        self.made, self.random = made, random
        self.paid = Usage()

    def answer(self, key: str) -> None:
        """One command in flight ends, well or not."""
        command = self.made.flight[key]
        is_basic = isinstance(command, Prepare | TakePermit | Resolve | LookAtChild)
        if not is_basic and self.random.random() < 0.2:
            usage = self._usage()
            self._pay(usage)
            self.made.breaks(key, self.random.choice(CLASSES), "it broke", usage=usage)
            return
        value = self._value(command)
        usage = getattr(value, "usage", None)
        if isinstance(usage, UsageReport):
            usage = usage_from_report(usage)
        self._pay(usage or Usage())
        self.made.returns(key, value)

    def _pay(self, usage: Usage) -> None:
        self.paid += usage

    def _usage(self) -> Usage:
        tokens = self.random.randint(1, 60)
        return Usage(input_tokens=tokens, output_tokens=tokens, model_calls=1)

    def _value(self, command: Any) -> Any:
        stored = self.random.choice([Stored(value="x"), LARGE])
        match command:
            case Prepare():
                return CATALOG
            case TakePermit():
                return None
            case Resolve():
                return Resolved(stored=stored)
            case ReadOutput():
                return Stored(value="part")
            case RunTool():
                return TaskOutput(output=stored, usage=Usage(tool_calls=1))
            case AskModel() if command.key == "judge":
                said: Any = {"verdict": "partial", "reason": "so"}
                output = Stored(value=said) if self.random.random() < 0.7 else LARGE
                return TaskOutput(output=output, usage=self._usage())
            case AskModel():
                return TaskOutput(output=Stored(value="in short"), usage=self._usage())
            case TakeTurn():
                return self._turn(command)
            case StartChild():
                return self._child()
            case LookAtChild():
                return "RUNNING"
            case JoinOutcomes():
                return JoinReply(action="finish", answer=Stored(value="joined"))
            case _:
                raise AssertionError(command)

    def _turn(self, command: TakeTurn) -> TurnReply:
        transcript, usage = Stored(blob="t"), self._usage()
        if not command.job.is_last and self.random.random() < 0.5:
            names = [*TOOLS, "read_output", "no_such_tool"]
            calls = [
                AgentCall(
                    id=self.random.choice(["c", "c", f"c{n}", "1"]),
                    name=self.random.choice(names),
                    args={"id": "large", "question": "Well?"},
                    fingerprint=f"{self.random.randint(0, 9)}",
                )
                for n in range(self.random.randint(1, 3))
            ]
            return TurnReply(transcript=transcript, calls=calls, usage=usage)
        problems = ["is no JSON"] if self.random.random() < 0.2 else []
        claim = self.random.choice(["yes", "no"])
        return TurnReply(
            transcript=transcript,
            text=Stored(value=claim),
            fields={"CLAIM": claim},
            confidence=0.9,
            problems=problems,
            usage=usage,
        )

    def _child(self) -> AgentResult:
        used = UsageReport(tokens=20, input_tokens=10, output_tokens=10, model_calls=1)
        if self.random.random() < 0.3:
            error = self.random.choice(CLASSES)
            return AgentResult(status="failed", reason="so", error_class=error, usage=used)
        return AgentResult(
            status="completed",
            output="fine",
            fields={"CLAIM": "yes"},
            usage=used,
            diagnosis=Diagnosis(confidence=0.8),
        )

    def control(self) -> None:
        """A person does something, sensible or not."""
        ids = ["helper", "ann", "bob", "cat", "nobody", *self.made.state.questions.open]
        match self.random.randrange(6):
            case 0:
                self.made.control("pause", Pause())
            case 1:
                self.made.control("resume", Resume())
            case 2 | 3:
                given = CompleteTask(id=self.random.choice(ids), output=self.random.random())
                self.made.control("complete_task", given)
            case 4:
                raised = RaiseBudget(tokens=self.random.choice([1, 700, 5_000]))
                self.made.control("raise_budget", raised)
            case _:
                self.made.do(SignalIgnored("there is no signal x"))

    def continue_as_new(self) -> None:
        """The history is long; another run goes on once nothing is in flight."""
        self.made.do(HistoryLong())
        while not self.made.machine.may_continue(self.made.state) and self.made.ended is None:
            self.answer(self.random.choice(self._awaited()))
        if self.made.ended is None:
            self.made.timers.clear()
            self.made.do(Continued())

    def _awaited(self) -> list[str]:
        """What a continue-as-new waits for: children go on."""
        keys = list(self.made.flight)
        return [k for k in keys if not isinstance(self.made.flight[k], StartChild)] or keys

    def run(self, events: int, cancels_at: int | None) -> None:
        """Random events, then help until the end."""
        for n in range(events):
            if self.made.ended is not None:
                return
            if n == cancels_at:
                self.made.do(CancelRequested())
                self.made.cancels_land()
                continue
            self._one_event()
        for _ in range(STEPS_MAX):
            if self.made.ended is not None:
                return
            self._help()
        raise AssertionError("it does not end")

    def _one_event(self) -> None:
        dice = self.random.random()
        if dice < 0.06:
            self.continue_as_new()
        elif dice < 0.25 or not self.made.flight:
            self.control()
        elif dice < 0.3 and self.made.timers:
            self.made.fire(self.random.choice(list(self.made.timers)))
        else:
            self.answer(self.random.choice(list(self.made.flight)))

    def _help(self) -> None:
        """Everything that may be waited for is given."""
        self.made.control("resume", Resume())
        if self.made.ended is None:
            raised = RaiseBudget(tokens=10**9, usd=10**6, seconds=10**6)
            self.made.control("raise_budget", raised)
        for asker in list(self.made.state.questions.open):
            self.made.control("complete_task", CompleteTask(id=asker, output="yes"))
        for key in list(self.made.flight):
            if self.made.ended is None and key in self.made.flight:
                self.answer(key)

    def check_end(self) -> None:
        """All that was paid is in the usage, and nothing is left reserved."""
        ledger = self.made.state.account.ledger
        assert ledger.reserved == {}
        assert ledger.usage.tokens == self.paid.tokens
        assert ledger.usage.tool_calls == self.paid.tool_calls
        if (cap := ledger.caps.tokens) is not None:
            assert ledger.settled.tokens <= cap or ledger.overrun.tokens > 0


def requests(random: Random) -> dict[str, Any]:
    chosen: dict[str, Any] = {"task": random.choice(["do it", "x" * 3_000])}
    if random.random() < 0.5:
        chosen["budget"] = random.choice([{"tokens": 900}, {"tokens": 3_000}, {"seconds": 20}])
    if random.random() < 0.3:
        chosen["on_budget"] = "partial"
    if random.random() < 0.3:
        chosen["context"] = "y" * 4_000
    return chosen


RANDOM = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # To shrink a case takes minutes; the seed that is printed finds it again.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    print_blob=True,
)
MOMENTS = st.one_of(st.none(), st.integers(0, 25))


@RANDOM
@given(st.randoms(use_true_random=False), MOMENTS)
def test_an_agent_ends_and_adds_up(random: Random, cancels_at: int | None) -> None:
    spec = {"id": "helper", "system": "s", "tools": TOOLS}
    parsed = AgentRequest.model_validate({"agent": spec, "max_turns": 6, **requests(random)})
    made = Driver(agents, agents.begin(parsed, Identity("w", "k"), 1_000.0))
    chance = Chance(made, random)
    made.begin()
    chance.run(30, cancels_at)
    assert isinstance(made.ended, AgentResult)
    chance.check_end()


@RANDOM
@given(st.randoms(use_true_random=False), MOMENTS)
def test_a_team_ends_and_adds_up(random: Random, cancels_at: int | None) -> None:
    members = [{"id": i, "tools": TOOLS} for i in ("ann", "bob", "cat")]
    more: dict[str, Any] = {
        "rounds": random.randint(0, 2),
        "retry_rounds": random.randint(0, 2),
        "strategy": random.choice(["parallel", "sequential"]),
        "max_turns": 4,
    }
    chance = team_of(random, members, more)
    chance.made.begin()
    chance.run(40, cancels_at)
    chance.check_end()
    found = chance.made.ended
    assert isinstance(found, TeamResult)
    assert sum(m.usage.tokens for m in found.members.values()) <= found.usage.tokens


@RANDOM
@given(st.randoms(use_true_random=False), MOMENTS)
def test_a_team_on_a_graph_ends_and_adds_up(random: Random, cancels_at: int | None) -> None:
    members = [
        {"id": "ann", "task": "A"},
        {"id": "bob", "task": "B", "depends_on": ["ann"]},
        {"id": "cat", "task": "C", "depends_on": random.choice([["ann"], ["bob"], []])},
    ]
    more: dict[str, Any] = {
        "retry_rounds": random.randint(0, 2),
        "rounds": random.randint(0, 1),
        "replan": {"max_rounds": random.randint(0, 1)},
    }
    chance = team_of(random, members, more)
    chance.made.begin()
    chance.run(30, cancels_at)
    assert isinstance(chance.made.ended, TeamResult)
    chance.check_end()


def team_of(random: Random, members: list[dict[str, Any]], more: dict[str, Any]) -> Chance:
    document = {"team": {"members": members}, **requests(random), **more}
    parsed = TeamRequest.model_validate(document)
    made = Driver(teams, teams.begin(parsed, Identity("w", "k"), 1_000.0))
    return Chance(made, random)
