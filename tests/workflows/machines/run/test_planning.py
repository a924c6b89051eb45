"""A plan as it is written: refused tasks and their readers, calls that are called off."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.controls import RequestReplan
from planloom.planner.contract.jobs import JoinReply
from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Stored, Usage
from planloom.workflows.machines.run.narrowing import narrowed
from planloom.workflows.machines.shared.commands import Cancel, JoinOutcomes, RunTool, WritePlan
from planloom.workflows.machines.shared.events import CancelRequested, ControlTaken
from tests.support.run_driver import Drive, work

REFUSED = {"id": "a", "tool": "work", "args": {"kee": "wrong"}}


def test_a_reader_of_a_refused_task_waits_for_its_repair() -> None:
    """It ran with null in the place of what it read."""
    drive = Drive(goal="reach it")
    drive.begin()
    drive.writes(REFUSED, work("b", "B-${a}"))
    assert drive.sent(RunTool) == []
    drive.wrote(REFUSED, work("b", "B-${a}"))
    assert drive.command(WritePlan).job.problems[0].path == "tasks.a.args.key"
    drive.writes(work("a"), call=2)
    assert drive.sent(RunTool) == ["a#body"]
    drive.wrote(work("a"), call=2)
    drive.ends("a", "x")
    assert drive.command(RunTool).job.bindings.inputs == {"a": Stored(value="x")}


def test_a_reader_that_waited_for_a_repair_may_be_written_once_more() -> None:
    """It was taken in twice: the workflow task failed for ever."""
    drive = Drive(goal="reach it")
    drive.begin()
    drive.writes(REFUSED, work("b", "${a}"))
    drive.wrote(REFUSED, work("b", "${a}"))
    drive.writes(work("a"), call=2)
    drive.wrote(work("a"), work("b", "${a}"), call=2)
    assert list(drive.run.tasks) == ["a", "b"]


def test_a_reader_that_is_written_otherwise_with_the_repair_replaces_the_one_that_waited() -> None:
    drive = Drive(goal="reach it")
    drive.begin()
    drive.writes(REFUSED, work("b", "${a}"))
    drive.wrote(REFUSED, work("b", "${a}"))
    drive.writes(work("a"), work("b", "otherwise"), call=2)
    assert drive.run.tasks["b"].args == {"key": "otherwise"}  # type: ignore[index]
    assert drive.sent(RunTool) == ["a#body", "b#body"]


def test_a_planner_that_is_called_off_is_charged_no_more_than_was_reserved() -> None:
    drive = Drive(goal="reach it", budget={"tokens": 2_200})
    drive.begin()
    reserved = drive.run.account.ledger.reserved["planner.1"].tokens
    long = {**work("a"), "description": "x" * 9_000}
    from planloom.planner.contract.jobs import PlannedBatch, PlannedTask
    from planloom.workflows.machines.shared.events import PlanWritten

    task = PlannedTask(task=Task.model_validate(long), text="x" * 9_000)
    drive.send(PlanWritten(PlannedBatch(call=1, attempt=1, seq=0, tasks=[task])))
    drive.send(CancelRequested())
    drive.cancelled("planner.1")
    assert drive.run.account.ledger.usage.tokens == reserved
    assert drive.run.account.ledger.overrun.tokens == 0


def test_a_planner_that_is_called_off_is_not_charged_for_what_an_earlier_call_wrote() -> None:
    drive = Drive(goal="reach it")
    drive.begin()
    drive.wrote(work("a"), REFUSED | {"id": "b"}, usage=Usage(output_tokens=50, model_calls=1))
    prompt = drive.run.planning.prompt_tokens  # type: ignore[union-attr]
    drive.send(CancelRequested())
    drive.cancelled("planner.2")
    assert drive.run.account.ledger.usage.output_tokens == 50
    assert drive.run.account.ledger.usage.input_tokens == prompt


def test_a_joiner_that_is_asked_while_the_run_is_cancelled_is_paid() -> None:
    """The run ended before it, and its usage was lost."""
    drive = Drive(goal="reach it")
    drive.begin()
    drive.wrote(work("a"))
    drive.ends("a", 1)
    key = drive.command(JoinOutcomes).key
    drive.send(CancelRequested())
    assert drive.sent(Cancel) == [key]
    assert drive.run.result is None
    reply = JoinReply(action="finish", answer=Stored(value=1), usage=Usage(input_tokens=9))
    drive.returns(key, reply)
    assert (drive.result.status, drive.result.usage.tokens) == ("cancelled", 9)


def test_a_joiner_without_budget_ends_the_run_where_it_is_to_end() -> None:
    drive = Drive(goal="reach it", budget={"tokens": 2_500, "on_budget": "partial"})
    drive.begin()
    drive.wrote(work("a"), usage=Usage(input_tokens=2_200, model_calls=1))
    drive.ends("a", "x" * 1_500)
    assert drive.result.status == "partial"
    assert drive.result.reason.startswith("budget: joiner")


def test_a_planner_widens_neither_priority_nor_cache_of_its_run() -> None:
    """Its line `a = work("x", _priority="critical", _cache="shared")` came before all other runs,
    and its result was left for them."""
    wide = {"priority": "critical", "cache": "shared"}
    sub = {"tasks": [work("x", **wide)]}
    drive = Drive(goal="reach it", priority="low", cache="run")
    drive.begin()
    drive.wrote(
        work("a", **wide),
        {"id": "s", "plan": sub, **wide},
        work("f", fallback={"plan": sub}),
        work("low", priority="background", cache="off"),
    )
    tasks = drive.run.tasks
    for id in ("a", "s"):
        assert not tasks[id].model_fields_set & {"priority", "cache"}  # type: ignore[index]
    assert "critical" not in str([t.model_dump() for t in tasks.values()])
    assert "shared" not in str([t.model_dump() for t in tasks.values()])
    assert tasks["low"].priority == "background"  # type: ignore[index]
    assert tasks["low"].cache == "off"  # type: ignore[index]


def test_what_a_person_gave_a_task_stays_when_the_planner_repeats_it() -> None:
    request = RunRequest.model_validate({"goal": "x"})
    task = Task.model_validate(work("a", priority="high", cache="shared"))
    assert narrowed(task, request, known=task) is task
    assert narrowed(task, request, known=Task.model_validate(work("a"))).priority is None


def test_a_task_that_the_planner_repeats_is_narrowed_inside() -> None:
    """Found: its own priority was the one it had, and so that of its sub-plan was not looked at."""
    request = RunRequest.model_validate({"goal": "x"})
    known = Task.model_validate({"id": "s", "plan": {"tasks": [work("x")]}})
    wide = Task.model_validate({"id": "s", "plan": {"tasks": [work("x", priority="critical")]}})
    assert "critical" not in str(narrowed(wide, request, known=known).model_dump())
    below = Task.model_validate(
        work("f", fallback={"plan": {"tasks": [work("x", priority="critical")]}})
    )
    known = Task.model_validate(work("f", fallback=7))
    assert "critical" not in str(narrowed(below, request, known=known).model_dump())
    assert narrowed(wide, request, known=wide) is wide  # as a person may have given it


def test_a_task_that_waits_for_a_persons_yes_still_does_when_the_planner_repeats_it() -> None:
    drive = Drive(plan={"tasks": [work("a"), work("b", "x${a}", approval=True)]}, joiner=True)
    drive.begin()
    drive.send(ControlTaken("request_replan", RequestReplan(feedback="otherwise")))
    drive.ends("a", 1)
    drive.wrote(work("b", "y${a}"))
    assert drive.run.tasks["b"].args == {"key": "y${a}"}  # type: ignore[index]
    assert drive.sent(RunTool) == []
    assert list(drive.run.held) == ["b"]


def test_a_yes_is_for_the_task_as_it_was_written() -> None:
    """Found: a task that was allowed, failed and was written otherwise acted unasked."""
    drive = Drive(plan={"tasks": [work("a"), work("b", "1", approval=True)]}, joiner=True)
    drive.begin()
    drive.control("approve_task", id="b")
    assert drive.sent(RunTool) == ["b#body"]
    drive.breaks("b#body")
    drive.send(ControlTaken("request_replan", RequestReplan(feedback="otherwise")))
    drive.ends("a", 1)
    drive.wrote(work("b", "1000"))
    assert drive.sent(RunTool) == []
    assert list(drive.run.held) == ["b"]


def test_an_early_yes_is_for_the_task_as_it_was_written_too() -> None:
    drive = Drive(plan={"tasks": [work("a"), work("b", "1 ${a}", approval=True)]})
    drive.begin()
    drive.control("approve_task", id="b")
    plan = {"tasks": [work("a"), work("b", "1000 ${a}", approval=True)]}
    drive.control("edit_plan", revision=1, plan=plan)
    drive.ends("a", 1)
    assert drive.sent(RunTool) == []
    assert list(drive.run.held) == ["b"]
    assert any("early approval was not used" in note for note in drive.run.notes)


def test_an_early_answer_is_for_the_question_as_it_was_written() -> None:
    def asking(question: str) -> dict[str, Any]:
        return {"tasks": [work("a"), {"id": "q", "human": question, "depends_on": ["a"]}]}

    drive = Drive(plan=asking("May it look?"))
    drive.begin()
    drive.control("complete_task", id="q", output="yes")
    drive.control("edit_plan", revision=1, plan=asking("May it pay?"))
    drive.ends("a", 1)
    assert drive.run.questions["q"].text == "May it pay?"
