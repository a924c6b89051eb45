"""`planloom eval`: the shipped goals can be reached, models are compared, caps hold."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from typing import Any

import pytest

from planloom import Client
from planloom.console.evaluation import (
    SETS,
    Candidate,
    Caps,
    EvalGoal,
    Expect,
    evaluate,
    is_right,
    load_set,
    shipped_sets,
)
from planloom.console.evaluation_report import compared
from planloom.planner.language.plan import Plan
from tests.cli.test_cli import planloom_cli
from tests.model_server import Reply, Seen
from tests.support.harness import Planloom

SHAPES = load_set("shapes")
PLAN = Plan.model_validate(
    {
        "tasks": [
            {"id": "a", "tool": "calculate", "args": {"expression": "1"}},
            {"id": "b", "tool": "calculate", "args": {"expression": "2"}},
        ]
    }
)


def add_data(planloom: Planloom) -> None:
    shutil.copy(SETS.parent / "data" / "seattle-weather.csv", planloom.workspace)


def test_the_second_set_has_five_goals_of_each_shape() -> None:
    assert shipped_sets() == ["basics", "shapes"]
    counts = Counter(goal.shape for goal in SHAPES.goals)
    assert set(counts.values()) == {5}
    assert list(counts) == [
        "parallel",
        "chain",
        "fan-in",
        "map",
        "nested",
        "needs-replan",
        "needs-tool-choice",
        "no-plan",
    ]
    assert len({goal.id for goal in SHAPES.goals}) == 40


@pytest.mark.parametrize(
    ("answer", "expect", "right"),
    [
        ("The result is 1,024.5 m", {"number": 1024.5}, True),
        ("1024", {"number": 1024.5, "tolerance": 0.1}, False),
        ('"Yes."', {"equals": "yes"}, True),
        ("yes", {"uses": ["calculate"]}, True),
        ("yes", {"uses": ["query_sql"]}, False),
        ("yes", {"avoids": ["calculate"]}, False),
        ("yes", {"max_tasks": 1}, False),
        ("yes", {"max_tasks": 2, "min_width": 2}, True),
        ("yes", {"min_width": 3}, False),
    ],
)
def test_an_answer_is_right_when_it_and_its_plan_are_as_expected(
    answer: str, expect: dict[str, Any], right: bool
) -> None:
    assert is_right(answer, Expect.model_validate(expect), PLAN) == right


async def test_every_shipped_goal_is_reached_by_its_own_solution(planloom: Planloom) -> None:
    """A wrong expectation would mark every model down."""
    add_data(planloom)
    for goal in SHAPES.goals:
        assert goal.solution is not None
        if asked := re.search(r'ask\("([^"]+)"', goal.solution):
            said = goal.expect.equals or goal.expect.contains
            planloom.model.script(asked[1], str(said))
        planloom.model.script(goal.goal, goal.solution)
    async with planloom.worker():
        rows = await evaluate(
            Client(planloom.client, planloom.task_queue), SHAPES, [Candidate()], Caps(), parallel=8
        )
    assert [(r.id, r.answer, r.reason) for r in rows if not r.right] == []
    assert all(r.at_once and r.tokens for r in rows)
    assert all(
        r.width >= (g.expect.min_width or 0) for r, g in zip(rows, SHAPES.goals, strict=True)
    )
    assert max(r.tokens for r in rows) <= Caps().tokens
    (summary,) = compared(rows, [Candidate()])
    assert summary["right_by_shape"]["nested"] == [5, 5]


GOALS = """
name: small
goals:
  - id: sum
    shape: fan-in
    goal: two sums
    tools: [calculate]
    expect: {equals: "5", min_width: 2}
  - {id: word, shape: no-plan, goal: one word, tools: [calculate], expect: {equals: hello 7}}
"""
SUM = 'a = calculate("1 + 1")\nb = calculate("1 + 2")\nc = calculate("${a} + ${b}")\n'
SUM_JSON = json.dumps(
    {
        "tasks": [
            {"id": "a", "tool": "calculate", "args": {"expression": "1 + 1"}},
            {"id": "b", "tool": "calculate", "args": {"expression": "1 + 2"}},
            {"id": "c", "tool": "calculate", "args": {"expression": "${a} + ${b}"}},
        ],
        "answer": "${c}",
    }
)


WORD_JSON = json.dumps(
    {
        "tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "7"}}],
        "answer": "hello ${a}",
    }
)


def _is(goal: str, seen: Seen, *, in_json: bool) -> bool:
    """Whether it is the planner's call for this goal, in this syntax."""
    return goal in seen.text and ('"tasks"' in seen.text) == in_json


async def test_two_models_and_both_syntaxes_are_compared(planloom: Planloom) -> None:
    """`good` plans well in both syntaxes; `weak` needs a repair in calls, and plans no JSON."""
    model = planloom.model
    for name in ("good", "weak"):
        reply = 'a = calculate("7")\njoin(answer="hello ${a}")'
        model.script(lambda seen: _is("one word", seen, in_json=False), reply, model=name)
    model.script(lambda seen: _is("two sums", seen, in_json=True), SUM_JSON, model="good")
    model.script(lambda seen: _is("one word", seen, in_json=True), WORD_JSON, model="good")
    model.script("two sums", SUM + 'join(answer="${c}")', model="good")
    model.script(lambda seen: _is("", seen, in_json=True), "I cannot plan", model="weak")
    model.script("two sums", "c = sum_up(1)\njoin(c)", SUM + 'join(answer="${c}")', model="weak")
    (planloom.folder / "goals.yaml").write_text(GOALS)
    options = ("--model", "good", "--model", "weak", "--syntax", "calls", "--syntax", "json")
    async with planloom.worker():
        done = await planloom_cli(planloom, "eval", "goals.yaml", *options, "--json")
        shown = await planloom_cli(planloom, "eval", "goals.yaml", *options)
    assert done.code == 1, done
    found = json.loads(done.out)
    by = {(c["model"], c["syntax"]): c for c in found["compare"]}
    assert [r for r in found["goals"] if r["model"] == "good" and not r["right"]] == []
    assert list(by) == [("good", "calls"), ("good", "json"), ("weak", "calls"), ("weak", "json")]
    assert by["good", "calls"]["plans_at_once"] == by["good", "calls"]["answers_right"] == 1.0
    assert by["good", "json"]["right_by_shape"]["fan-in"] == [1, 1]
    assert by["weak", "calls"]["plans_after_repair"] == 0.5
    assert by["weak", "json"]["right_by_shape"] == {"fan-in": [0, 1], "no-plan": [0, 1]}
    first = by["good", "calls"]["first_task_seconds_median"]
    assert 0 <= first < by["good", "calls"]["seconds_median"] + 1
    assert "valid at once" in shown.out
    assert "right by shape" in shown.out
    assert "sum (weak json)" in shown.err


async def test_caps_of_a_goal_and_of_the_whole_hold(planloom: Planloom) -> None:
    goals = [EvalGoal(id=f"g{n}", goal=f"goal {n}", tools=["calculate"]) for n in range(6)]
    planloom.model.script("", Reply(text="no plan " * 200, obeys_limit=False))
    few = SHAPES.model_copy(update={"goals": goals})
    caps = Caps(tokens=8_000, total_tokens=12_000)
    async with planloom.worker():
        rows = await evaluate(
            Client(planloom.client, planloom.task_queue), few, [Candidate()], caps, parallel=3
        )
    assert 0 < sum(r.is_run for r in rows) < 6, [(r.tokens, r.reason) for r in rows]
    assert sum(r.tokens for r in rows) <= 12_000
    assert max(r.tokens for r in rows) <= 8_000
    assert not any(r.right for r in rows)
    assert all("cap" in r.reason for r in rows if not r.is_run)
    (summary,) = compared(rows, [Candidate()])
    assert summary["not_run"] == sum(not r.is_run for r in rows)


async def test_a_wrong_use_is_one_line_with_a_hint(planloom: Planloom) -> None:
    done = await planloom_cli(planloom, "eval", "--syntax", "xml")
    assert (done.code, done.out) == (2, "")
    assert 'no syntax "xml": give calls or json' in done.err
