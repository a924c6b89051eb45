"""The joiner: what it looks at, what it decides, and where a run ends that may not replan."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.jobs import JoinReply, Resolved, TaskOutput
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run.state import Stage
from planloom.workflows.machines.shared.commands import AskModel, JoinOutcomes, WritePlan
from tests.support.run_driver import Drive, plan, work

LARGE = Stored(blob="b" * 64, size_bytes=90_000, preview="…")
HUGE = Stored(blob="c" * 64, size_bytes=900_000_000, preview="…")
PAID = Usage(input_tokens=10, output_tokens=5, model_calls=1)


def ran(*outputs: Any, **request: Any) -> Drive:
    """A run for a goal whose tasks a0, a1, … have ended with these outputs."""
    drive = Drive(goal="reach it", **request)
    drive.begin()
    drive.wrote(*[work(f"a{n}") for n in range(len(outputs))])
    for n, output in enumerate(outputs):
        stored = output if isinstance(output, Stored) else Stored(value=output)
        drive.returns(f"a{n}#body", TaskOutput(output=stored))
    return drive


def decides(drive: Drive, action: Any, **fields: Any) -> None:
    """The joiner that was asked in the last step answers."""
    reply = JoinReply(action=action, usage=PAID, **fields)
    drive.returns(drive.command(JoinOutcomes).key, reply)


# -- finish ---------------------------------------------------------------------------------


def test_the_joiner_is_shown_what_ended_and_its_answer_is_the_runs() -> None:
    drive = ran(1, 2)
    job = drive.command(JoinOutcomes).job
    assert [(t.id, t.output) for t in job.finished] == [
        ("a0", Stored(value=1)),
        ("a1", Stored(value=2)),
    ]
    decides(drive, "finish", answer=Stored(value="three"))
    assert (drive.result.status, drive.result.answer) == ("completed", "three")
    assert drive.result.usage.tokens == PAID.tokens


def test_the_joiner_is_shown_the_tasks_that_the_plan_names_and_what_failed() -> None:
    acts = {"id": "c", "tool": "post", "args": {"key": "k"}}
    drive = Drive(plan=plan(work("a"), work("b", "${a}"), acts, join=["b"]), joiner=True)
    drive.begin()
    drive.breaks("c#body", "refused")
    drive.ends("a", 1)
    drive.ends("b", 2)
    assert [t.id for t in drive.command(JoinOutcomes).job.finished] == ["b", "c"]


# -- look -----------------------------------------------------------------------------------


def test_the_joiner_looks_at_an_output_and_is_asked_again_with_it() -> None:
    drive = ran("x" * 9_000, 2)
    first = drive.command(JoinOutcomes)
    decides(drive, "look", ids=["a0"], question="how long?")
    again = drive.command(JoinOutcomes)
    assert again.key != first.key
    assert (again.job.looked, again.job.question) == (["a0"], "how long?")
    assert again.job.looks_left == first.job.looks_left - 1
    decides(drive, "finish", answer=Stored(value="long"))
    assert drive.result.usage.tokens == 2 * PAID.tokens


def test_an_output_too_large_to_be_shown_is_summed_up_for_the_joiners_question() -> None:
    drive = ran(LARGE, 2)
    decides(drive, "look", ids=["a0"], question="who?")
    summary = drive.command(AskModel)
    assert summary.job.bindings.inputs["question"] == Stored(value="who?")
    drive.returns(summary.key, TaskOutput(output=Stored(value="it was she"), usage=PAID))
    assert drive.command(JoinOutcomes).job.summaries == {"a0": Stored(value="it was she")}
    decides(drive, "finish", answer=Stored(value="she"))
    assert drive.result.usage.tokens == 3 * PAID.tokens


def test_a_summary_that_fails_is_done_without() -> None:
    drive = ran(LARGE)
    decides(drive, "look", ids=["a0"])
    drive.breaks(drive.command(AskModel).key, "refused", usage=PAID)
    assert not drive.command(JoinOutcomes).job.summaries
    assert "a0: its summary for the joiner failed: it failed" in drive.run.notes
    decides(drive, "finish", answer=Stored(value="?"))
    assert drive.result.usage.tokens == 3 * PAID.tokens


def test_an_output_too_large_for_any_summary_is_not_summed_up() -> None:
    drive = ran(HUGE)
    decides(drive, "look", ids=["a0"])
    assert drive.sent(AskModel) == []
    assert any("900,000,000 bytes are too many" in n for n in drive.run.notes)


def test_a_summary_waits_for_budget_and_goes_out_when_there_is_some() -> None:
    budget = {"tokens": 12_000, "on_budget": "park"}
    drive = ran(LARGE, budget=budget)
    decides(drive, "look", ids=["a0"])
    assert drive.sent(AskModel) == []
    drive.control("raise_budget", tokens=900_000)
    assert len(drive.sent(AskModel)) == 1


# -- replan ---------------------------------------------------------------------------------


def test_a_replan_tells_the_planner_why() -> None:
    drive = ran(1)
    decides(drive, "replan", feedback="the other one too")
    job = drive.command(WritePlan).job
    assert "the other one too" in str(job.model_dump())
    drive.wrote(work("a0"), work("b"), call=2)
    drive.ends("b", 2)
    decides(drive, "finish", answer=Stored(value=2))
    assert (drive.result.status, drive.result.revision) == ("completed", 2)


def test_a_replan_beyond_the_rounds_ends_partial_with_what_there_is() -> None:
    drive = ran(1, replan={"max_rounds": 0})
    decides(drive, "replan", feedback="more")
    assert (drive.result.status, drive.result.answer) == ("partial", {"a0": 1})
    assert "max_rounds 0 is used up" in drive.result.reason


def test_a_replan_that_repeats_a_revision_is_not_taken() -> None:
    drive = ran(1)
    decides(drive, "replan", feedback="again")
    drive.wrote(work("a0"), call=2)
    assert drive.result.status == "partial"
    assert "the new plan" in drive.result.reason


def test_a_joiner_that_fails_ends_the_run_with_what_it_has() -> None:
    drive = ran(1)
    drive.breaks(drive.command(JoinOutcomes).key, "auth", usage=PAID)
    assert (drive.result.status, drive.result.answer) == ("partial", {"a0": 1})
    assert drive.result.reason == "joiner: it failed"
    assert drive.result.usage.tokens == PAID.tokens


# -- stop_when ------------------------------------------------------------------------------


def test_a_condition_that_stays_unmet_is_planned_for_again() -> None:
    drive = ran(1, stop_when="${a0} == `9`")
    assert "stop_when is not met: ${a0} == `9`" in str(drive.command(WritePlan).job.model_dump())
    drive.wrote(work("a0"), work("b"), call=2)
    assert drive.run.stage is Stage.RUNNING


def test_a_condition_that_stays_unmet_in_the_last_round_ends_partial() -> None:
    drive = ran(1, stop_when="${a0} == `9`", replan={"max_rounds": 0})
    assert drive.result.status == "partial"
    assert drive.result.reason.startswith("stop_when is not met: ${a0} == `9`, and max_rounds 0")


def test_a_condition_that_cannot_be_read_when_all_has_run_counts_as_unmet() -> None:
    drive = ran(LARGE, stop_when="length(${a0}) > `1`", replan={"max_rounds": 0})
    drive.breaks("stop_when", "tool")
    drive.breaks("unmet", "tool")
    drive.returns("answer", Resolved(stored=LARGE))
    assert drive.result.reason.startswith("stop_when is not met: it failed")
    assert drive.outcome("a0") is Outcome.SUCCEEDED
