"""Agents and teams beside a goal: limits by facts/agents.md §2b and §3, tasks of their own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from planloom.planner.compile.expand import (
    expand_request,
    members_at_once,
    parallel_of,
    pool_limit,
    teams_at_once,
    without_disabled,
)
from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.definitions import Limits
from tests.support.linear import assert_linear, repeated


@pytest.mark.parametrize(
    ("limit", "expected"), [(2.9, 2), (0, 1), (-3, 1), (99, 5), (math.nan, 1), (math.inf, 1)]
)
def test_the_limit_of_a_pool_of_five(limit: float, expected: int) -> None:
    assert pool_limit(limit, 5) == expected


@pytest.mark.parametrize(
    ("limits", "teams", "largest", "expected"),
    [
        # limits teams 3, teammates 6, llm 6; 3 teams, largest 6 members
        (Limits(teams=3, members=6, calls=6), 3, 6, (3, 2)),
        # the same under a penalty of 1: 3 / 2 and then 6 calls for the one team that runs
        (Limits(teams=1, members=3, calls=6), 3, 6, (1, 3)),
        # limits teams 1, teammates 3, llm 4; 3 teams, largest 5
        (Limits(teams=1, members=3, calls=4), 3, 5, (1, 3)),
        (Limits(calls=2), 3, 5, (2, 1)),
        (Limits(), 3, 5, (3, 5)),
    ],
)
def test_two_levels_of_limits_of_2b(
    limits: Limits, teams: int, largest: int, expected: tuple[int, int]
) -> None:
    assert (teams_at_once(limits, teams), members_at_once(limits, teams, largest)) == expected


def expand(**request: Any) -> list[dict[str, Any]]:
    plan, problems = expand_request(RunRequest.model_validate({"goal": "Look", **request}))
    assert problems == []
    assert plan is not None
    return [t.model_dump(exclude_unset=True) for t in plan.tasks]


def test_each_agent_gets_the_goal_or_a_task_of_its_own_in_order() -> None:
    agents = ["tester", {"agent": "tester", "task": "Break ${it}", "args": {"max_turns": 3}}]
    first, second = expand(agents=agents, context="from ${here}")
    assert first["args"] == {"task": "Look", "context": "from $${here}"}
    assert (second["id"], second["agent"]) == ("tester-2", "tester")
    assert second["args"]["task"] == "Break $${it}"
    assert second["args"]["max_turns"] == 3


def test_each_team_gets_its_share_of_the_calls() -> None:
    tasks = expand(teams=["a", {"team": "b", "task": "Other"}], limits={"calls": 6})
    assert [t["args"]["budget"] for t in tasks] == [{"parallel": 3}, {"parallel": 3}]
    assert tasks[1]["args"]["task"] == "Other"


def test_the_limits_bound_what_runs_at_once() -> None:
    def parallel(**request: Any) -> int:
        return parallel_of(RunRequest.model_validate({"goal": "x", **request}))

    assert parallel(agents=["a", "b", "c"], limits={"agents": 2}) == 2
    assert parallel(teams=["a", "b", "c"], limits={"teams": 1, "calls": 6}) == 1
    assert parallel(teams=["a", "b"], budget={"parallel": 1}) == 1
    assert parallel() == 100


def test_entries_that_are_switched_off_are_left_out_and_named() -> None:
    """A disabled id of `subagentIds` was called unknown, and the whole call was refused."""
    agents = ["tester", "off", {"agent": "off", "task": "x"}, {"id": "mine", "system": "s"}]
    request = RunRequest.model_validate({"goal": "Look", "agents": agents})
    kept, dropped, problems = without_disabled(request, ["off", "other"], ["tester"])
    assert [e if isinstance(e, str) else e.id for e in kept.agents or []] == ["tester", "mine"]
    assert (dropped, problems, kept.teams) == (["off", "off"], [], None)
    same, _, _ = without_disabled(request, ["other"], [])
    assert same is request


def test_nobody_left_is_a_problem_of_its_own() -> None:
    request = RunRequest.model_validate({"goal": "Look", "teams": ["off"]})
    _, _, problems = without_disabled(request, [], ["off"])
    assert [(p.path, p.code) for p in problems] == [("teams", "no_enabled_teams")]
    assert "none of them is enabled: off" in problems[0].message


def test_thousands_of_one_name_get_ids_at_once() -> None:
    """Found: 8,000 agents of one name took 5 s of workflow code, 16,000 took 20 s."""

    def read(text: str) -> object:
        agents = text.split()
        return expand_request(RunRequest.model_validate({"goal": "g", "agents": agents}))

    assert_linear(read, repeated("a "), 8_000)
    plan, _ = expand_request(RunRequest(goal="g", agents=["a", "a-2", "a", "a"]))
    assert plan is not None
    assert [task.id for task in plan.tasks] == ["a", "a-2", "a-3", "a-4"]
