"""What `watch` shows: levels, counts, seconds, caps, and the command that answers each wait."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from planloom.console.live_actions import keys_for
from planloom.console.live_view import Shown, answer_command, live_view, plain_line, wait_lines
from planloom.planner.contract.results import OpenWait, Progress
from planloom.planner.language.plan import Plan

PLAN = Plan.model_validate(
    {
        "tasks": [
            {"id": "a", "tool": "x"},
            {"id": "b", "tool": "x", "args": {"v": "${a}"}},
            {"id": "c", "tool": "x", "map": "${a}"},
            {"id": "d", "tool": "x", "args": {"v": "${b} ${c}"}},
        ]
    }
)
APPROVAL = OpenWait(
    kind="approval",
    what="approval of revision 2",
    since=1.0,
    command="temporal …",
    update="approve_plan",
    input={"revision": 2},
)


def progress(**more: Any) -> Progress:
    given = {
        "status": "running",
        "revision": 1,
        "seconds": 75.0,
        "counts": {"succeeded": 1, "running": 2, "waiting": 1},
        "tasks": {"a": "succeeded", "b": "running", "c": "running", "d": "waiting"},
        "running_seconds": {"b": 3.25, "c": 61.0},
        "items": {"c": {"succeeded": 8, "running": 4}},
        "usage": {"tokens": 1200, "usd": 0.5},
        "goal": "Do it",
    }
    return Progress.model_validate(given | more)


def drawn(shown: Shown, width: int = 80, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(live_view(shown, width, height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_tasks_stand_by_level_with_items_seconds_and_caps() -> None:
    lines = drawn(Shown("trip", progress(), PLAN, {"tokens": 5000, "usd": 1.0}))
    assert lines[0] == "running  1/4 tasks  1m 15s  1,200 of 5,000 tokens  $0.5000 of $1"
    assert lines[1] == "Do it"
    assert [line.split() for line in lines[2:]] == [
        ["✓", "a"],
        ["│"],
        ["▶", "b", "3.2s"],
        ["▶", "c", "8/12", "1m", "01s"],
        ["│"],
        ["·", "d"],
    ]
    assert any("← b, c" in line for line in drawn(Shown("trip", progress(), PLAN), width=110))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    tasks = [{"id": f"a_task_with_a_rather_long_name_{n}", "tool": "x"} for n in range(5)]
    plan = Plan.model_validate({"tasks": tasks})
    states = {t.id: "running" for t in plan.tasks}
    wait = APPROVAL.model_copy(update={"what": "word " * 40})
    now = progress(tasks=states, goal="long " * 50, waits=[wait.model_dump()])
    lines = drawn(Shown("a-run-with-a-long-id", now, plan, keys=["[a]pprove", "[q]uit"]), width)
    assert max(map(len, lines)) <= width
    assert sum("▶" in line for line in lines) == 5


def test_a_large_plan_is_cut_level_by_level_and_what_runs_stays() -> None:
    tasks = [{"id": f"t{n}", "tool": "x"} for n in range(300)]
    plan = Plan.model_validate({"tasks": tasks})
    states = {f"t{n}": "succeeded" for n in range(300)} | {"t299": "running", "t150": "failed"}
    lines = drawn(Shown("trip", progress(tasks=states, items={}), plan), height=24)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "▶ t299" in text
    assert "✗ t150" in text
    assert "succeeded" in lines[-1]


def test_each_wait_has_the_command_that_answers_it() -> None:
    question = APPROVAL.model_copy(
        update={"kind": "human", "update": "complete_task", "input": {"id": "q[1]", "output": "…"}}
    )
    task = APPROVAL.model_copy(update={"update": "approve_task", "input": {"id": "b"}})
    money = APPROVAL.model_copy(
        update={"update": "raise_budget", "input": {"tokens": 9000, "usd": 2.5}}
    )
    room = APPROVAL.model_copy(update={"update": None, "command": "planloom capacity"})
    assert [answer_command("my trip", w) for w in (APPROVAL, question, task, money, room)] == [
        "planloom approve 'my trip'",
        "planloom complete 'my trip' 'q[1]' '…'",
        "planloom approve 'my trip' --task b",
        "planloom budget 'my trip' --tokens 9000 --usd 2.5",
        "planloom capacity",
    ]
    shown = drawn(Shown("trip", progress(waits=[APPROVAL.model_dump()]), PLAN))
    assert shown[-2:] == ["? approval of revision 2", "  planloom approve trip"]


def test_keys_are_those_that_do_something_now() -> None:
    assert keys_for(progress()) == ["p", "q"]
    assert keys_for(progress(status="paused")) == ["s", "q"]
    assert keys_for(progress(waits=[APPROVAL.model_dump()])) == ["a", "r", "e", "p", "q"]


def test_plain_lines_tell_the_same() -> None:
    now = progress(waits=[APPROVAL.model_dump()])
    assert plain_line(now, {"tokens": 5000}) == (
        "running: 1 succeeded, 2 running, 1 waiting, c 8/12, 1,200 of 5,000 tokens, $0.5000"
    )
    assert wait_lines("trip", now.waits) == [
        "waiting for approval: approval of revision 2: planloom approve trip"
    ]


def test_a_team_shows_its_members() -> None:
    now = progress(tasks={}, counts={}, items={}, phase="round 2", members={"one": "running"})
    assert drawn(Shown("t", now))[-1].split() == ["▶", "one", "running"]
