"""What starts and when: speculation, approvals, budget."""

from __future__ import annotations

from planloom.planner.language.values import Outcome, Usage
from planloom.workflows.machines.shared.commands import Cancel, DropTimer, RunTool, SetTimer
from planloom.workflows.machines.shared.events import Begun, CancelRequested
from tests.support.run_driver import Drive, plan, work

COST = Usage(usd_nano=10_000_000, tool_calls=1)


def pay(id: str, **fields: object) -> dict[str, object]:
    """A task that costs a cent."""
    return {"id": id, "tool": "pay", "args": {"key": "k"}, **fields}


# -- speculation ----------------------------------------------------------------------------


def test_a_branch_that_has_run_ahead_holds_no_budget_while_its_condition_is_open() -> None:
    """It held its reservation: whoever decides its condition waited for it, and nobody knew."""
    guess = pay("b", when="a.outcome == 'succeeded'", speculate=True)
    drive = Drive(plan=plan(pay("a", approval=True), guess), budget={"usd": 0.02, "tasks": 3})
    drive.begin()
    assert drive.sent(RunTool) == ["b#body"]
    drive.ends("b", 1, usage=COST)
    assert drive.run.account.ledger.reserved == {}
    drive.control("approve_task", id="a")
    assert drive.sent(RunTool) == ["a#body"]
    drive.ends("a", 1, usage=COST)
    result = drive.result
    assert (result.usage.usd, result.usage.tasks) == (0.02, 2)
    assert result.tasks["b"].usage.usd == 0.01


def test_a_branch_is_decided_in_the_step_in_which_its_condition_is_known() -> None:
    """`c` fails as it begins, in the step that `a` ends: nobody looked at `b` again."""
    guess = work("b", when="c.outcome == 'failed'", speculate=True)
    drive = Drive(
        plan=plan(work("a"), work("c", "${item}", map="${a.none}"), guess), retry_rounds=0
    )
    drive.begin()
    drive.ends("b", 1)
    drive.ends("a", {"none": None})
    assert drive.outcome("c") is Outcome.FAILED
    assert drive.outcome("b") is Outcome.SUCCEEDED


def test_a_branch_that_ran_ahead_and_failed_is_paid_for_when_the_run_is_cancelled() -> None:
    guess = work("b", when="a.outcome == 'succeeded'", speculate=True)
    drive = Drive(plan=plan(work("a"), guess))
    drive.begin()
    drive.breaks("b#body", "tool", usage=Usage(input_tokens=7, model_calls=1))
    drive.send(CancelRequested())
    drive.cancelled("a#body")
    assert drive.result.usage.tokens == 7
    assert drive.result.tasks["b"].outcome is Outcome.CANCELLED


def test_a_branch_that_runs_ahead_and_is_cancelled_ends_though_its_result_was_on_its_way() -> None:
    guess = work("b", when="a.outcome == 'succeeded'", speculate=True)
    drive = Drive(plan=plan(work("a"), guess))
    drive.begin()
    drive.send(CancelRequested())
    assert drive.sent(Cancel) == ["a#body", "b#body"]
    drive.ends("b", 1)
    drive.cancelled("a#body")
    assert drive.result.status == "cancelled"


# -- tasks that need a yes ------------------------------------------------------------------


def test_an_approved_task_whose_inputs_failed_takes_its_fallback() -> None:
    """After the yes its body ran, over inputs that had no value."""
    other = {"tool": "work", "args": {"key": "other"}}
    task = work("b", "${a}", approval=True, fallback=other)
    drive = Drive(plan=plan(work("a"), task), retry_rounds=0)
    drive.begin()
    drive.breaks("a#body", "refused")
    drive.control("approve_task", id="b")
    assert drive.command(RunTool).job.args == {"key": "other"}


def test_a_task_cancelled_while_it_waits_for_a_yes_leaves_no_timer() -> None:
    policy = {"mode": "never", "timeout": 60, "on_timeout": "approve"}
    drive = Drive(plan=plan(work("a", approval=True), work("b")), approval=policy)
    drive.begin()
    assert drive.sent(SetTimer) == ["approve:a"]
    drive.control("cancel_task", id="a")
    assert drive.sent(DropTimer) == ["approve:a"]
    assert drive.run.timers == {}


def test_a_plan_that_was_approved_early_leaves_no_timer() -> None:
    policy = {"mode": "plan", "timeout": 60, "on_timeout": "reject"}
    drive = Drive(plan=plan(work("a")), approval=policy)
    drive.send(Begun())
    drive.control("approve_plan", revision=1)
    drive.returns("prepared", drive.catalog)
    assert drive.sent(RunTool) == ["a#body"]
    assert drive.run.timers == {}


# -- early end ------------------------------------------------------------------------------


def test_stop_when_is_looked_at_in_the_step_in_which_a_task_ends_as_it_begins() -> None:
    """Only the next event made it look."""
    drive = Drive(
        plan=plan(
            work("a"),
            work("b", "${item}", map="${a.none}"),
            work("c"),
            stop_when="b.outcome == 'failed'",
        ),
        retry_rounds=0,
    )
    drive.begin()
    drive.ends("a", {"none": None})
    assert drive.sent(Cancel) == ["c#body"]


# -- what an earlier run made ---------------------------------------------------------------


def test_what_is_reused_is_a_cache_hit_of_the_run_as_well() -> None:
    reuse = {"a": {"outcome": "succeeded", "output": {"value": 1}}}
    drive = Drive(plan=plan(work("a"), work("b")), reuse=reuse)
    drive.begin()
    drive.ends("b", 2, outcome=Outcome.CACHED, usage=Usage(cache_hits=1))
    result = drive.result
    assert result.usage.cache_hits == 2
    assert sum(t.usage.cache_hits for t in result.tasks.values()) == 2
