"""The time of a run, and what is shown when it or the budget lacks."""

from __future__ import annotations

import json
import shlex

from planloom.planner.contract.controls import GrantWanted, RaiseBudget
from planloom.planner.contract.requests import Grant, Lineage
from planloom.planner.language.values import Usage
from planloom.workflows.machines.run import view
from planloom.workflows.machines.shared.commands import Refuse, RunTool, Tell, WritePlan
from planloom.workflows.machines.shared.events import DeadlineMoved, GrantAsked, HistoryLong
from tests.support.run_driver import START, Drive, plan, work


def shown_raise(drive: Drive) -> dict[str, object]:
    """The payload of the `raise_budget` that is shown."""
    found = [w for w in view.open_waits(drive.run, drive.now) if w.kind == "budget"]
    words = shlex.split(found[0].command)
    assert words[words.index("--name") + 1] == "raise_budget"
    return json.loads(words[words.index("--input") + 1])


def test_a_run_whose_time_is_over_before_it_knows_its_tools_says_so_and_waits() -> None:
    """No timer was set for a time that was over, and nothing ever happened."""
    drive = Drive(plan=plan(work("a")), budget={"seconds": 1})
    drive.begin(after=5.0)
    assert drive.sent(RunTool) == []
    assert view.awaiting(drive.run) == "budget"
    drive.control("raise_budget", **shown_raise(drive))
    assert drive.sent(RunTool) == ["a#body"]


def test_a_deadline_in_the_past_holds_a_child_run_until_it_moves() -> None:
    lineage = Lineage(parent="boss", deadline=START + 60)
    drive = Drive(plan=plan(work("a"), work("b", "${a}")), lineage=lineage)
    drive.begin()
    drive.send(DeadlineMoved(START - 1))
    drive.ends("a", 1)
    assert drive.sent(RunTool) == []
    drive.send(DeadlineMoved(START + 60))
    assert drive.sent(RunTool) == ["b#body"]


def test_a_planner_that_waits_for_time_asks_its_parent_for_no_budget() -> None:
    """It asked again after every answer, until the parent had none left."""
    lineage = Lineage(parent="boss", deadline=START - 1, grant=Grant(tokens=100_000))
    drive = Drive(goal="reach it", lineage=lineage)
    drive.begin()
    assert (drive.sent(WritePlan), [c for c in drive.commands if isinstance(c, Tell)]) == ([], [])
    drive.send(DeadlineMoved(START + 60))
    assert drive.sent(WritePlan) == ["planner.1"]


def test_the_raise_that_is_shown_is_of_the_cap_that_lacks() -> None:
    """It named the tokens, of which there were enough."""
    budget = {"tokens": 100_000, "tasks": 1}
    drive = Drive(plan=plan(work("a"), work("b")), budget={**budget, "parallel": 1})
    drive.begin()
    drive.ends("a", 1)
    assert shown_raise(drive) == {"tasks": 2}
    drive.control("raise_budget", **shown_raise(drive))
    assert drive.sent(RunTool) == ["b#body"]


def test_the_raise_that_is_shown_is_enough() -> None:
    """Twice the cap was less than what was spent and needed."""
    drive = Drive(plan=plan({"id": "a", "ask": "x" * 400}), budget={"tokens": 20})
    drive.begin()
    drive.control("raise_budget", **shown_raise(drive))
    assert "a#body" in drive.run.pending


def test_a_child_run_without_budget_shows_the_run_that_it_is_part_of() -> None:
    lineage = Lineage(parent="boss", grant=Grant(tasks=1))
    drive = Drive(plan=plan(work("a"), work("b")), lineage=lineage, budget={"parallel": 1})
    drive.begin()
    drive.ends("a", 1)
    (wait,) = view.open_waits(drive.run, drive.now)
    assert wait.command == "temporal workflow query --workflow-id boss --type progress"


def test_nobody_but_its_parent_gives_a_child_run_more_than_its_grant() -> None:
    """A person's raise on a child run passed the cap of the whole."""
    lineage = Lineage(parent="boss", grant=Grant(tokens=10))
    drive = Drive(plan=plan(work("a")), lineage=lineage)
    drive.begin()
    refused = drive.control("raise_budget", tokens=1_000)
    assert isinstance(refused, Refuse)
    assert refused.message.endswith("raise that of boss")
    drive.control("raise_budget", tokens=1_000, by="parent")
    assert drive.run.account.ledger.caps.tokens == 1_000


def told(drive: Drive) -> dict[str, RaiseBudget]:
    """What children are told of their budget in the last step."""
    return {c.run: c.payload for c in drive.commands if isinstance(c, Tell)}


def test_a_cap_where_there_was_none_binds_the_children_at_work() -> None:
    """Seeds 56308 and 73290: a team that began without a cap went on without one."""
    agent = {"id": "a", "agent": "helper", "args": {"task": "think"}}
    sub = {"id": "s", "plan": plan(work("x"), work("y")), "args": {}}
    drive = Drive(plan=plan(agent, sub, work("w")))
    drive.begin()
    assert drive.command_of("s#body").lineage.grant == Grant()
    drive.control("raise_budget", tokens=50_000, tasks=20)
    assert told(drive) == {
        "run/a": RaiseBudget(tokens=20_000, by="parent"),
        "run/s": RaiseBudget(tokens=20_000, tasks=2, by="parent"),
    }
    drive.control("raise_budget", tokens=60_000)
    assert told(drive) == {}, "they ask for more themselves"
    wanted = GrantWanted(child="run/a", name="a", tokens=15_000)
    drive.send(GrantAsked(wanted))
    assert told(drive) == {"run/a": RaiseBudget(tokens=20_000 + 20_000, by="parent")}


def test_a_child_hands_a_first_cap_on_to_its_own_children() -> None:
    lineage = Lineage(parent="boss", grant=Grant())
    sub = {"id": "s", "plan": plan(work("x")), "args": {}}
    drive = Drive(plan=plan(sub, work("w")), lineage=lineage)
    drive.begin()
    drive.control("raise_budget", tokens=30_000, by="parent")
    assert told(drive) == {"run/s": RaiseBudget(tokens=20_000, by="parent")}


def test_a_map_over_no_list_fails_alone_where_the_cap_of_tasks_is_used_up() -> None:
    drive = Drive(plan=plan(work("n"), work("m", "${item}", map="${n}")), budget={"tasks": 1})
    drive.begin()
    drive.ends("n", {"no": "list"})
    assert (drive.result.status, drive.result.usage.tasks) == ("partial", 1)


def test_a_child_run_that_used_too_much_asks_for_that_as_well() -> None:
    """The parent's raise was below what was used: it was refused, and nobody asked again."""
    lineage = Lineage(parent="boss", grant=Grant(tokens=300))
    ask = {"id": "b", "ask": {"prompt": "x", "max_tokens": 64}, "depends_on": ["a"]}
    drive = Drive(plan=plan({"id": "a", "ask": "x"}, ask), lineage=lineage)
    drive.begin()
    drive.ends("a", 1, usage=Usage(input_tokens=900, model_calls=1))
    (asked,) = [c for c in drive.commands if isinstance(c, Tell)]
    needed = drive.run.lack_least.tokens
    assert asked.payload.tokens == 600 + needed
    drive.control("raise_budget", tokens=400, by="parent")
    assert [c.signal for c in drive.commands if isinstance(c, Tell)] == ["grant_wanted"]
    drive.control("raise_budget", tokens=300 + asked.payload.tokens, by="parent")
    assert "b#body" in drive.run.pending


def test_a_replan_that_is_asked_for_when_the_time_is_over_does_not_lift_its_end() -> None:
    """The plan was approved after that, and the run waited for nothing, for ever."""
    budget = {"seconds": 60, "on_budget": "partial"}
    drive = Drive(goal="reach it", budget=budget, approval="plan")
    drive.begin()
    drive.wrote(work("a"))
    drive.fires("budget.seconds", after=60.0)
    drive.control("request_replan", feedback="otherwise")
    drive.control("approve_plan", revision=1)
    assert (drive.result.status, drive.result.reason) == ("partial", "budget: its 60 s are over")


def test_a_replan_asked_for_after_the_end_of_the_time_opens_nothing_again() -> None:
    """Two replans were asked for: the second forgot that the run was being stopped."""
    drive = Drive(
        plan=plan(work("a"), work("b")), joiner=True, budget={"seconds": 5, "on_budget": "partial"}
    )
    drive.begin()
    drive.signal("request_replan", feedback="otherwise")
    assert drive.sent(WritePlan) == ["planner.1"]
    drive.signal("request_replan", feedback="otherwise")
    drive.fires("budget.seconds", after=6.0)
    drive.send(HistoryLong())
    drive.cancelled("a#body")
    drive.cancelled("planner.1")
    assert drive.run.stop is not None
    assert drive.sent(WritePlan) == []
    drive.cancelled("b#body")
    assert drive.run.result is not None
    assert drive.run.result.status == "partial"
