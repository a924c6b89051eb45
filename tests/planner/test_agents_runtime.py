"""Requests in the words of the agents runtime; docs/explanation/from-mekann.md maps them all."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.agents_runtime import agent_document, run_document, team_document
from planloom.planner.contract.requests import AgentRequest, RunRequest, TeamRequest
from planloom.planner.syntax.documents import read_request
from planloom.workflows.machines.shared.requests import read_agent, read_run, read_team
from tests.support.linear import assert_linear, repeated


def test_subagent_run() -> None:
    theirs = {
        "task": "look",
        "subagentId": "researcher",
        "extraContext": "here",
        "timeoutMs": 90_000,
        "retry": {"maxRetries": 2, "initialDelayMs": 800, "maxDelayMs": 10_000, "multiplier": 2},
        "ulTaskId": "x",
    }
    request, problems = read_request(agent_document(theirs), AgentRequest)
    assert problems == []
    assert request is not None
    assert (request.agent, request.context, request.timeout) == ("researcher", "here", 90.0)
    assert request.retry is not None
    assert (request.retry.max_attempts, request.retry.initial_seconds) == (3, 0.8)
    assert (request.retry.backoff, request.retry.max_seconds) == (2, 10)


@pytest.mark.parametrize(
    ("rounds", "ours"), [(0, 0), (1, 1), (2, 2), (9, 2), (1.9, 1), (-1, 0), ("many", 1)]
)
def test_agent_team_run(rounds: Any, ours: int) -> None:
    theirs = {
        "task": "decide",
        "teamId": "core-delivery",
        "strategy": "SEQUENTIAL",
        "sharedContext": "all",
        "communicationRounds": rounds,
        "failedMemberRetryRounds": 2,
        "timeoutMs": 0,
    }
    request, problems = read_request(team_document(theirs), TeamRequest)
    assert problems == []
    assert request is not None
    assert (request.team, request.context, request.strategy) == (
        "core-delivery",
        "all",
        "sequential",
    )
    assert (request.rounds, request.retry_rounds, request.timeout) == (ours, 2, None)


def test_subagent_run_parallel_cleans_its_list() -> None:
    theirs = {"task": "look", "subagentIds": [" tester ", "", "tester", "reviewer"]}
    assert run_document(theirs) == {"goal": "look", "agents": ["tester", "reviewer"]}


def test_agent_team_run_parallel_gives_each_its_rounds() -> None:
    theirs = {"task": "look", "teamIds": ["a", "b"], "communicationRounds": 0}
    found = run_document(theirs)
    assert found["teams"][1] == {"team": "b", "args": {"rounds": 0}}
    assert read_request(found, RunRequest)[1] == []


def test_agent_team_run_dag_takes_the_proposals_plan() -> None:
    plan = {
        "tasks": [
            {"id": "a", "description": "Find it", "assignedAgent": "lead"},
            {"id": "b", "description": "Do it", "assignedAgent": "builder", "dependencies": ["a"]},
        ]
    }
    beside = {"tasks": [{"id": t, "description": t} for t in "ab"], "dependencies": {"b": ["a"]}}
    found = team_document({"task": "t", "teamId": "core-delivery", "plan": plan})
    assert found["subtasks"][1] == {
        "id": "b",
        "task": "Do it",
        "member": "builder",
        "depends_on": ["a"],
    }
    assert read_request(found, TeamRequest)[1] == []
    assert team_document({"plan": beside})["subtasks"][1]["depends_on"] == ["a"]


def test_our_own_words_stay_as_they_are_and_both_at_once_are_refused() -> None:
    ours = {"agent": "tester", "task": "x"}
    assert agent_document(ours) == ours
    both = agent_document({**ours, "subagentId": "reviewer"})
    assert "subagentId" in read_request(both, AgentRequest)[1][0].line()
    assert agent_document(None) is None


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (read_agent, {"retry": {"maxRetries": [1]}}),
        (read_agent, {"retry": {"initialDelayMs": "soon"}}),
        (read_agent, {"retry": {"multiplier": None, "maxDelayMs": True}}),
        (read_agent, {"retry": {"maxRetries": "1" * 5_000}}),
        (read_agent, {"retry": {"maxDelayMs": 10**400}}),
        (read_team, {"teamId": "x", "plan": {"tasks": [{"id": ["a"]}], "dependencies": {}}}),
        (
            read_team,
            {"teamId": "x", "plan": {"tasks": [{"id": "a"}], "dependencies": [{"to": []}]}},
        ),
        (read_run, {"teamIds": [{}], "task": "t", "retry": {"maxRetries": {}}}),
        (read_run, {"subagentIds": [["a"], {"b": 1}], "task": "t"}),
    ],
)
def test_a_foreign_request_of_any_values_is_read_or_refused(read: Any, document: Any) -> None:
    """Found: `{"retry": {"maxRetries": [1]}}` failed its workflow task for ever."""
    found = read({"agent": "x", "task": "t", **document} if read is read_agent else document)
    assert getattr(found, "problems", None) or found.retry is not None


def test_a_foreign_request_is_read_in_linear_time() -> None:
    """Found: 30,000 ids, or 5,000 tasks and pairs of them, took 4 to 5 s of workflow code."""

    def ids(text: str) -> object:
        return run_document({"subagentIds": [f"a{n}" for n in range(len(text))], "task": "t"})

    def pairs(text: str) -> object:
        tasks = [{"id": f"a{n}"} for n in range(len(text))]
        beside = [{"from": "a", "to": "b"}] * len(text)
        return team_document({"teamId": "x", "plan": {"tasks": tasks, "dependencies": beside}})

    assert_linear(ids, repeated("x"), 20_000)
    assert_linear(pairs, repeated("x"), 5_000)
