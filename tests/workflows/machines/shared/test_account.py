"""The budget account of one workflow, and of a tree of them."""

from __future__ import annotations

from planloom.planner.contract.controls import GrantWanted, RaiseBudget
from planloom.planner.contract.requests import Grant, Lineage, RunRequest
from planloom.planner.language.values import Usage
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.account import Account, Parked, open_account
from planloom.workflows.machines.shared.budget import NOTHING, Amount
from planloom.workflows.machines.shared.commands import Tell
from planloom.workflows.machines.shared.machine import Identity

NOW = 1_000.0


def opened(**budget: object) -> Account:
    request = RunRequest.model_validate({"goal": "x", "budget": budget})
    return open_account(request, Identity("run", "k"), NOW)


def test_a_call_that_used_too_much_while_others_hold_budget_is_no_bug_of_ours() -> None:
    """The ledger's own check failed, and with it the workflow task, for ever."""
    own = opened(tokens=1_000)
    account.reserve(own, "a", Amount(400), Amount(400), NOW)
    account.reserve(own, "b", Amount(600), Amount(600), NOW)
    account.settle(own, "a", Usage(input_tokens=700))
    assert own.ledger.overrun == Amount(300)
    assert own.ledger.beyond == Amount(300)
    assert own.ledger.free.tokens == 0


def test_a_child_that_holds_nothing_of_a_kind_is_granted_none_of_it() -> None:
    """A raise of zero dollars is none: it could not be sent."""
    own = opened(tokens=1_000, usd=1.0)
    account.reserve(own, "a", Amount(500, 0, 1), Amount(500, 0, 1), NOW)
    account.take_wanted(own, GrantWanted(child="run/a", name="a", tokens=100))
    (told,) = account.grant_more(own)
    assert isinstance(told, Tell)
    assert told.payload == RaiseBudget(tokens=900, by="parent")


def test_a_parent_only_gives_more() -> None:
    own = opened(tokens=1_000, tasks=3)
    account.raise_caps(own, RaiseBudget(tokens=10, tasks=5, by="parent"))
    assert (own.ledger.caps.tokens, own.ledger.caps.tasks) == (1_000, 5)


def test_the_raise_that_helps_is_enough_for_what_lacks_and_names_nothing_else() -> None:
    own = opened(tokens=1_000, usd=0.5, tasks=1)
    account.reserve(own, "a", Amount(100, 0, 1), NOTHING, NOW)
    least = Amount(5_000, 0, 1)
    assert account.raise_that_helps(own, least, NOW) == {"tokens": 5_100, "tasks": 2}
    assert account.raise_that_helps(own, Amount(10), NOW) == {}


def test_the_raise_that_helps_with_time_names_more_than_has_passed() -> None:
    own = opened(seconds=10)
    assert account.raise_that_helps(own, NOTHING, NOW + 75) == {"seconds": 85.0}


def test_who_waits_for_time_asks_the_parent_for_no_budget() -> None:
    lineage = Lineage(parent="boss", grant=Grant(tokens=10), deadline=NOW - 1)
    own = open_account(RunRequest(goal="x"), Identity("boss/run", "k", lineage), NOW)
    account.reserve(own, "a", Amount(5), Amount(5), NOW)
    assert account.ask_for_parked(own) == []


def test_who_is_given_room_and_is_held_up_otherwise_asks_for_no_more() -> None:
    """A child that was paused asked again after every answer, for twice as much each time."""
    own = open_account(
        RunRequest(goal="x"),
        Identity("boss/run", "k", Lineage(parent="boss", grant=Grant(tasks=1))),
        NOW,
    )
    account.reserve(own, "a", Amount(tasks=1), Amount(tasks=1), NOW)
    account.reserve(own, "b", Amount(tasks=1), Amount(tasks=1), NOW)
    own.parked["b"] = Parked(Amount(tasks=1), Amount(tasks=1), lack="b needs 1 task; 0 of 1 free")
    assert len(account.ask_for_parked(own)) == 1
    account.raise_caps(own, RaiseBudget(tasks=3, by="parent"))
    assert account.ask_for_parked(own) == []  # it is still parked, but lacks nothing
