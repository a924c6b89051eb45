"""Whether a replan fits what the budget leaves."""

from __future__ import annotations

import pytest

from planloom.planner.language.plan import Plan
from planloom.workflows.machines.run.replan_cost import cost_of_replan
from planloom.workflows.machines.shared.budget import Caps
from tests.support.run_driver import CATALOG, plan, work

ASKS = [{"id": f"q{n}", "ask": {"prompt": "why?"}} for n in range(3)]
TASKS = Plan.model_validate(plan(work("a"), *ASKS)).tasks


def cost(free: Caps, finished: tuple[str, ...] = ()) -> str | None:
    return cost_of_replan(TASKS, finished, free, CATALOG, "m").problem


def test_a_replan_without_caps_is_worth_its_cost_in_words() -> None:
    found = cost_of_replan(TASKS, (), Caps(), CATALOG, "m")
    assert found.problem is None
    assert found.words.startswith("about ")
    assert found.words.endswith("for 4 tasks")
    assert "$" in found.words


def test_what_has_finished_costs_nothing() -> None:
    words = cost_of_replan(TASKS, ("a", "q0"), Caps(), CATALOG, "m").words
    assert words.endswith("for 2 tasks")


def test_a_plan_with_nothing_new_is_no_replan() -> None:
    every = ("a", "q0", "q1", "q2")
    assert cost(Caps(), every) == "the new plan has nothing left to do"


@pytest.mark.parametrize(
    ("free", "says"),
    [
        (Caps(tasks=3), "its 4 tasks are more than the 3 the budget leaves"),
        (Caps(tokens=10), "of the 10 that are left"),
        (Caps(usd_nano=1_000), "of the $0.0000 that are left"),
    ],
)
def test_what_is_lacking_is_said(free: Caps, says: str) -> None:
    assert says in (cost(free) or "")


def test_a_model_without_a_price_is_not_held_against_a_cap_of_money() -> None:
    found = cost_of_replan(TASKS, (), Caps(usd_nano=1), CATALOG, "unpriced")
    assert found.problem is None
    assert "$" not in found.words
