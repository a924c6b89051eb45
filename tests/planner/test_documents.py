"""Documents in: a plan or all its problems, where people look for them, and nothing secret."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from planloom.planner.contract.controls import EditPlan
from planloom.planner.contract.requests import RunRequest, TeamRequest
from planloom.planner.language.plan import TASKS_MAX
from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import (
    DOCUMENT_PROBLEMS_MAX,
    bounded_problems,
    read_plan,
    read_request,
)

RIGHT = {"tasks": [{"id": "a", "tool": "x"}]}


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def found(document: Any) -> list[tuple[str, str]]:
    plan, problems = read_plan(document)
    assert (plan is None) == bool(problems)
    return [(p.path, p.code) for p in problems]


def asked(document: Any, model: Any = RunRequest) -> list[tuple[str, str]]:
    request, problems = read_request(document, model)
    assert (request is None) == bool(problems)
    return [(p.path, p.code) for p in problems]


def with_task(**task: Any) -> dict[str, Any]:
    return {"tasks": [{"id": "a", **task}]}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("", "not_json"),
        ("tasks: []", "not_json"),
        ("[" * 100_000, "too_deep"),
        ('{"tasks": [{"id": "a", "tool": "x", "args": {"n": ' + "9" * 5_000 + "}}]}", "not_json"),
        ('{"tasks": [{"id": "a", "tool": "x", "args": {"n": NaN}}]}', "not_json"),
        ("x" * 3_000_000, "too_big"),
        ([], "not_a_plan"),
        (None, "not_a_plan"),
        (with_task(tool="x", args={"n": float("inf")}), "not_json"),
        (with_task(tool="x", args={"q": nested(200)}), "too_deep"),
        (with_task(tool="x", args={"q": nested(50_000)}), "too_deep"),
        (with_task(tool="x", args={"q": "x" * 3_000_000}), "too_big"),
    ],
)
def test_what_cannot_be_read_is_one_clear_problem(document: Any, code: str) -> None:
    assert found(document) == [("plan", code)]


def test_values_may_nest_as_deep_as_people_write() -> None:
    assert found(with_task(tool="x", args={"q": nested(80)})) == []
    assert found(json.dumps(RIGHT)) == []


@pytest.mark.parametrize(
    ("task", "path", "code", "hint"),
    [
        ({"ask": {"promt": "x"}}, "tasks.a.ask.promt", "extra_forbidden", '"prompt"'),
        ({"human": {"question": "x", "schma": {}}}, "tasks.a.human.schma", "", '"schema"'),
        ({"team": {"members": []}}, "tasks.a.team.members", "too_short", ""),
        ({"plan": {"tasks": [{"id": "b", "tol": "x"}]}}, "tasks.a.plan.tasks.b.tol", "", '"tool"'),
        ({"tool": "x", "depend_on": []}, "tasks.a.depend_on", "", '"depends_on"'),
        ({"tool": "x", "requires": "al"}, "tasks.a.requires", "literal_error", '"all"'),
        ({"tool": "x", "args": [1]}, "tasks.a.args", "dict_type", ""),
        ({"tool": "x", "fallback": {"tool": 3}}, "tasks.a.fallback.tool", "string_type", '"3"'),
        ({"tool": 3}, "tasks.a.tool", "string_type", 'in quotes: "3"'),
    ],
)
def test_one_mistake_is_told_once_at_its_place_with_its_remedy(
    task: dict[str, Any], path: str, code: str, hint: str
) -> None:
    _, problems = read_plan(with_task(**task))
    at_path = [p for p in problems if p.path == path]
    assert at_path, [p.line() for p in problems]
    assert at_path[0].code == (code or "extra_forbidden")
    assert hint in at_path[0].hint
    assert not any(p.code in ("string_type", "model_type") and p.path != path for p in problems)


def test_a_wrong_fallback_task_hides_nothing_else() -> None:
    document = {
        "tasks": [
            {"id": "a", "tool": "x", "fallback": {"ask": {"prompt": 3}}, "timeout": "soon"},
            {"id": "b", "tool": "x", "fallback": {"tool": "y", "args": 4}},
        ]
    }
    assert set(found(document)) == {
        ("tasks.a.timeout", "value_error"),
        ("tasks.a.fallback.ask.prompt", "string_type"),
        ("tasks.b.fallback.args", "dict_type"),
    }


def test_a_message_shows_short_values_and_never_long_ones() -> None:
    key = "sk-0123456789abcdefghijklmnop"
    for document in (
        with_task(tool="x", args=key),
        with_task(tool="x", timeout=key * 3),
        with_task(ask={"promt": key, "max_tokens": key}),
        with_task(tool="x", requires=key),
        {**RIGHT, "version": key},
    ):
        _, problems = read_plan(document)
        assert problems
        assert all(key not in p.line() for p in problems)
    _, problems = read_plan({**RIGHT, "version": 2})
    assert "found 2" in problems[0].message


def test_a_plan_that_is_too_large_does_not_hide_what_else_is_wrong() -> None:
    tasks = [{"id": f"t{n}", "tool": "x"} for n in range(TASKS_MAX + 1)]
    assert asked({"plan": {"tasks": tasks}, "budget": {"tokens": -1}, "contxt": 1}) == [
        ("budget.tokens", "greater_than_equal"),
        ("contxt", "extra_forbidden"),
        ("plan.tasks", "too_many"),
    ]


def test_a_deep_or_endless_value_anywhere_in_a_request_is_refused() -> None:
    assert asked({"goal": "x", "context": nested(50_000)}) == [("context", "too_deep")]
    assert asked({"goal": nested(50_000)})[-1] == ("goal", "too_deep")
    assert asked({"plan": RIGHT, "params": {"x": float("nan")}}) == [("params", "not_json")]
    assert asked({"goal": "x", "context": nested(80)}) == []


def test_every_request_of_the_contract_is_read_the_same_way() -> None:
    edit = {"revision": 1, "plan": {"tasks": [{"id": "a", "tol": "x"}]}}
    assert asked(edit, EditPlan) == [("plan.tasks.a.tol", "extra_forbidden")]
    wrong = {"team": {"members": [{"id": "m", "depends_on": "n"}]}, "task": "x", "round": 3}
    assert asked(wrong, TeamRequest) == [
        ("team.members[0].depends_on", "list_type"),
        ("round", "extra_forbidden"),
    ]


def test_hundreds_of_mistakes_are_told_in_short_and_said_to_be_more() -> None:
    _, problems = read_plan({"tasks": [{"id": f"t{n}"} for n in range(1_500)]})
    assert len(problems) == DOCUMENT_PROBLEMS_MAX + 1
    assert problems[-1].code == "more"
    assert bounded_problems(problems) == problems
    (long,) = bounded_problems([Problem(path="p", code="c", message="m" * 9_000)])
    assert len(long.message) == 500


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("arguments", "args"),
        ("parameters", "args"),
        ("inputs", "args"),
        ("tool_name", "tool"),
        ("function", "tool"),
        ("name", "id"),
        ("dependencies", "depends_on"),
        ("if", "when"),
        ("for_each", "map"),
        ("argz", "args"),
        ("tol", "tool"),
    ],
)
def test_a_field_that_others_call_so_is_answered_with_ours(field: str, meant: str) -> None:
    _, problems = read_plan({"tasks": [{"id": "a", "tool": "x", field: "y"}]})
    assert [(p.code, p.hint) for p in problems] == [("extra_forbidden", f'Did you mean "{meant}"?')]


@pytest.mark.parametrize("field", ["agents", "teams", "tools"])
def test_a_list_without_end_is_refused_at_once(field: str) -> None:
    """Found: 450,000 wrong agents took 10 s of workflow code, which fails its workflow task."""
    for value in (1, "a", {"agent": {"tools": [1] * 20_000}}):
        count = 450_000 if isinstance(value, int | str) else 1
        began = time.process_time()
        request, problems = read_request({"goal": "g", field: [value] * count}, RunRequest)
        assert time.process_time() - began < 2
        assert request is None
        assert problems
