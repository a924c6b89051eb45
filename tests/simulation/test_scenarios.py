"""What users of other engines suffered, in every order: kills, joins, parking, and raised budgets.

A crash is the state serialized, dropped and read back; what was in flight goes on, as on a server.
"""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import pytest

from planloom.planner.compile.fork import fork_request
from planloom.planner.contract.controls import GrantWanted, RaiseBudget
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import Reused
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run import machine, view
from planloom.workflows.machines.shared.budget import NOTHING
from planloom.workflows.machines.shared.commands import Command, RunTool, StartChild, Tell
from planloom.workflows.machines.shared.events import Continued, Event, GrantAsked, HistoryLong
from tests.simulation.kinds import KINDS
from tests.simulation.process import read_back
from tests.support.agents import calls as asks_for
from tests.support.agents import drive as drive_agent
from tests.support.agents import result as agent_result
from tests.support.agents import says
from tests.support.run_driver import Drive, plan, work

CENT = 10_000_000
PAID = Usage(tool_calls=1, usd_nano=CENT)
USED = Usage(tool_calls=1)


class Life(Drive):
    """A run that may lose its worker or continue as new at any moment."""

    def __init__(self, **request: Any) -> None:
        super().__init__(**request)
        self.started: list[str] = []
        """Tasks whose body was sent, in this order."""

    def send(self, event: Event, after: float = 0.0) -> list[Command]:
        commands = super().send(event, after)
        bodies = [c for c in commands if isinstance(c, RunTool | StartChild)]
        self.started += [c.key.removesuffix("#body") for c in bodies]
        assert self.run.account.ledger.overrun == NOTHING
        return commands

    @property
    def at_work(self) -> list[str]:
        """Tasks whose body is in flight."""
        return [k.removesuffix("#body") for k in self.run.pending if k.endswith("#body")]

    def crash(self) -> None:
        self.run = read_back(KINDS["DagWorkflow"].adapter, self.run)

    def grow(self) -> None:
        """The history is long: nothing starts until the run has continued."""
        if not self.run.is_long:
            self.send(HistoryLong())

    def go_on(self) -> None:
        """Continue as new, if nothing is in flight that would be lost."""
        if self.run.is_long and machine.may_continue(self.run):
            self.crash()
            self.send(Continued())

    def finish(self, usage: Usage = USED) -> None:
        """All that is in flight ends well, and all that follows."""
        self.go_on()
        while self.at_work:
            self.ends(self.at_work[0], 1, usage=usage)
            self.go_on()


# -- a kill with k of n siblings done ---------------------------------------------------------

SIBLINGS = ["s0", "s1", "s2", "s3", "s4"]


def fan_in(body: str) -> dict[str, Any]:
    asked = {"human": {"question": "is it?"}}
    tasks = [work(s) if body == "tool" else {"id": s, **asked} for s in SIBLINGS]
    return plan(*tasks, work("both", [f"${{{s}}}" for s in SIBLINGS]), answer="${both}")


@pytest.mark.parametrize("done", range(len(SIBLINGS) + 1))
@pytest.mark.parametrize("parallel", [2, 5])
@pytest.mark.parametrize("how", ["crash", "continue"])
def test_a_kill_with_k_of_n_siblings_done_loses_and_repeats_none(
    how: str, parallel: int, done: int
) -> None:
    life = Life(plan=fan_in("tool"), budget={"parallel": parallel})
    life.begin()
    for _ in range(done):
        life.ends(life.at_work[0], 1, usage=USED)
    if how == "crash":
        life.crash()
    else:
        life.grow()
        before = list(life.started)
        while life.at_work and not life.run.children:
            life.ends(life.at_work[0], 1, usage=USED)
        assert life.started == before, "nothing starts before it has continued"
    life.finish()
    assert life.started == [*SIBLINGS, "both"]
    result = life.result
    assert (result.status, result.usage.tool_calls, result.usage.tasks) == ("completed", 6, 6)
    assert {t.attempts for t in result.tasks.values()} == {1}


@pytest.mark.parametrize("done", range(len(SIBLINGS) + 1))
def test_a_kill_with_k_of_n_questions_answered_leaves_the_rest_open(done: int) -> None:
    """The others never ran, and nothing said so."""
    life = Life(plan=fan_in("human"))
    life.begin()
    for name in SIBLINGS[:done]:
        life.control("complete_task", id=name, output="yes")
    life.crash()
    life.grow()
    life.go_on()
    open = [f"{s}: is it?" for s in SIBLINGS[done:]]
    assert [w.what for w in view.open_waits(life.run, life.now)] == open
    for name in SIBLINGS[done:]:
        assert life.started == []
        life.control("complete_task", id=name, output="yes")
    life.finish()
    assert (life.started, life.result.status) == (["both"], "completed")


@pytest.mark.parametrize("done", range(4))
@pytest.mark.parametrize("is_long", [False, True])
def test_a_kill_with_k_of_n_calls_of_an_agent_done_loses_and_repeats_none(
    is_long: bool, done: int
) -> None:
    """The driver reads the state back before every event."""
    made = drive_agent()
    made.returns("helper.1", asks_for(*(("echo", {"v": n}) for n in range(4))))
    keys = list(made.flight)
    for key in keys[:done]:
        made.returns(key, TaskOutput(output=Stored(value=key)))
    if is_long:
        made.do(HistoryLong())
    for key in keys[done:]:
        assert next(iter(made.flight)) == key
        made.returns(key, TaskOutput(output=Stored(value=key)))
    if is_long:
        assert made.flight == {}
        assert made.machine.may_continue(made.state)
        made.do(Continued())
    results = made.flight["helper.2"].job.results
    assert [r.output.value for r in results] == keys
    made.returns("helper.2", says("done"))
    assert agent_result(made).tool_calls == 4


# -- a join met by an approval, a crash and a continue-as-new at once --------------------------


@pytest.mark.parametrize("order", list(permutations(["ends", "approves", "crashes", "grows"])))
def test_a_join_is_run_once_whatever_meets_it(order: tuple[str, ...]) -> None:
    """A join fired early or twice after a restore, or never after a wait for a person."""
    both = work("both", ["${a}", "${b}"], approval=True)
    life = Life(plan=plan(work("a"), work("b"), both, answer="${both}"))
    life.begin()
    life.ends("a", 1, usage=USED)
    for what in order:
        match what:
            case "ends":
                life.ends("b", 2, usage=USED)
            case "approves":
                life.control("approve_task", id="both")
            case "crashes":
                life.crash()
            case _:
                life.grow()
        is_met = order.index(what) >= max(order.index("ends"), order.index("approves"))
        if "both" in life.started:
            assert is_met
        else:
            assert life.run.is_long or not is_met, "it starts with the last of what it waits for"
    life.finish()
    assert life.started == ["a", "b", "both"]
    assert life.result.status == "completed"
    assert {t.attempts for t in life.result.tasks.values()} == {1}


@pytest.mark.parametrize("order", list(permutations(["written", "approves", "crashes", "grows"])))
def test_a_revision_is_entered_once_whatever_meets_its_approval(order: tuple[str, ...]) -> None:
    life = Life(goal="reach it", approval="plan")
    life.begin()
    life.writes(work("a"))
    for what in order:
        match what:
            case "written":
                life.wrote(work("a"), work("b", "${a}"))
            case "approves":
                life.control("approve_plan", revision=1, by="ops")
            case "crashes":
                life.crash()
            case _:
                life.grow()
        life.go_on()
        is_approved = order.index(what) >= max(order.index("written"), order.index("approves"))
        assert is_approved or life.started == []
    life.finish()
    assert life.started == ["a", "b"]


# -- parking while siblings end, in every order ------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(["s0", "s1", "s2", "raise"])))
@pytest.mark.parametrize("failing", [None, "s1"])
def test_a_parked_task_starts_once_whatever_order_its_siblings_end_in(
    failing: str | None, order: tuple[str, ...]
) -> None:
    """A stop for the budget inside a parallel group became a failure that nothing could resume."""
    tasks = [{"id": s, "tool": "pay", "args": {"key": s}} for s in SIBLINGS]
    life = Life(plan=plan(*tasks), budget={"usd": 0.035}, retry_rounds=0)
    life.begin()
    assert life.started == ["s0", "s1", "s2"]
    for what in order:
        life.crash()
        if what == "raise":
            life.control("raise_budget", usd=0.05)
        elif what == failing:
            life.breaks(f"{what}#body", usage=PAID)
        else:
            life.ends(what, 1, usage=PAID)
        if not life.at_work:
            shown = view.progress_of(life.run, life.now)
            assert (shown.awaiting, shown.status) == ("budget", "waiting")
    assert life.started == SIBLINGS
    life.finish(PAID)
    outcomes = {t: r.outcome for t, r in life.result.tasks.items()}
    failed = {failing: Outcome.FAILED} if failing else {}
    assert outcomes == dict.fromkeys(SIBLINGS, Outcome.SUCCEEDED) | failed
    assert {t.attempts for t in life.result.tasks.values()} == {1}
    assert life.result.usage.usd == 0.05


# -- a raise after fork, rerun and continue-as-new ---------------------------------------------

NAMES = ["a", "b", "c", "d", "e"]
CHAIN = plan(
    *(
        {"id": n, "tool": "pay", "args": {"key": f"${{{m}}}"}}
        for m, n in pairwise(["params", *NAMES])
    )
)


def again_from(first: Life, again: list[str]) -> Life:
    """A fork of a run that has ended (`again` and all behind it), or its rerun of what failed."""
    outputs = {t: Reused.model_validate(o) for t, o in view.outputs(first.run).items()}
    current = first.run.plan
    assert current is not None
    left = again or [t.id for t in current.tasks if t.id not in outputs]
    document, problems = fork_request("first", current, outputs, left, request=first.run.request)
    assert document is not None, problems
    return Life(**document | {"on_budget": "park"})


@pytest.mark.parametrize("order", list(permutations(["raise", "crash", "grow"])))
@pytest.mark.parametrize(("again", "left"), [(["a"], NAMES), (["b"], NAMES[1:]), ([], NAMES[2:])])
def test_a_raise_helps_after_fork_rerun_and_continue_as_new(
    again: list[str], left: list[str], order: tuple[str, ...]
) -> None:
    """The gate came before the replay; budgets of parts began at nothing; the last use was lost."""
    first = Life(plan=CHAIN, budget={"usd": 0.025}, on_budget="partial", retry_rounds=0)
    first.begin()
    first.finish(PAID)
    assert (first.started, first.result.status) == (["a", "b"], "partial")

    second = again_from(first, again)
    second.begin()
    second.finish(PAID)
    assert second.started == left[:2]
    assert view.progress_of(second.run, second.now).awaiting == "budget"
    for what in order:
        match what:
            case "raise":
                second.control("raise_budget", usd=0.05)
            case "crash":
                second.crash()
            case _:
                second.grow()
                second.go_on()
    second.finish(PAID)
    assert second.started == left
    assert second.result.status == "completed"
    assert second.result.usage.usd == pytest.approx(0.01 * len(left))


@pytest.mark.parametrize("order", list(permutations(["raise", "crash", "grow"])))
def test_a_child_that_wants_more_gets_it_after_a_continue_as_new(order: tuple[str, ...]) -> None:
    child = {"id": "c", "plan": plan(work("inner")), "estimate": {"tokens": 1_000}}
    life = Life(plan=plan(child), budget={"tokens": 20_000})
    life.begin()
    assert life.started == ["c"]
    held = life.run.account.ledger.held.tokens
    life.send(GrantAsked(GrantWanted(child="run/c", name="c", tokens=30_000)))
    told: list[Any] = []
    for what in order:
        match what:
            case "raise":
                life.control("raise_budget", tokens=60_000)
                told += [c.payload for c in life.commands if isinstance(c, Tell)]
            case "crash":
                life.crash()
            case _:
                life.grow()
                life.go_on()
                told += [c.payload for c in life.commands if isinstance(c, Tell)]
    (raised,) = [t for t in told if isinstance(t, RaiseBudget)]
    assert raised.tokens is not None
    assert raised.tokens >= held + 30_000
    assert life.started == ["c"]
