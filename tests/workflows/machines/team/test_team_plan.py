"""A team on a graph by value: its subtasks run on the run machine, inside the team's state."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.controls import (
    ApprovePlan,
    ChildAsks,
    CompleteTask,
    Pause,
    RaiseBudget,
    RejectPlan,
    Resume,
)
from planloom.planner.contract.jobs import JoinReply, Resolved
from planloom.planner.contract.requests import AgentRequest, Grant, Lineage, TeamRequest
from planloom.planner.contract.results import AgentResult, Diagnosis, TeamResult, UsageReport
from planloom.planner.language.catalog import Catalog, PoolSpec
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run.children import inputs_of
from planloom.workflows.machines.shared.commands import Answer, StartChild
from planloom.workflows.machines.shared.events import (
    CancelRequested,
    Continued,
    HistoryLong,
    QuestionOfChild,
)
from planloom.workflows.machines.shared.machine import Identity
from planloom.workflows.machines.team import machine
from planloom.workflows.machines.team.state import TeamState
from planloom.workflows.machines.team.subtasks import plan_of, task_ids
from tests.support.driving import Driver
from tests.workflows.machines.team.test_team_machine import CATALOG, finish, judged, says

Made = Driver[TeamState]
GRAPH = [
    {"id": "sum", "role": "x", "task": "Sum up", "depends_on": ["build"]},
    {"id": "build", "role": "x", "task": "Build", "depends_on": ["look"]},
    {"id": "look", "role": "x", "task": "Look"},
]


def driver(**request: Any) -> Made:
    document = {"team": {"members": GRAPH}, "task": "Replace it", **request}
    me = Identity("w", "w/first", document.pop("lineage", Lineage()))
    parsed = TeamRequest.model_validate(document)
    return Driver(machine, machine.begin(parsed, me, 1_000.0))


def drive(catalog: Catalog = CATALOG, /, **request: Any) -> Made:
    made = driver(**request)
    made.begin()
    made.returns("prepare", catalog)
    return made


def answers(claim: str, **more: Any) -> AgentResult:
    usage = UsageReport(tokens=50, input_tokens=40, output_tokens=10, model_calls=1)
    return AgentResult(
        status="completed",
        output=f"{claim}!",
        fields={"CLAIM": claim, "SUMMARY": claim},
        usage=usage,
        diagnosis=Diagnosis(confidence=0.8, evidence=1),
        **more,
    )


def fails(error_class: str, reason: str) -> AgentResult:
    return AgentResult(status="failed", error_class=error_class, reason=reason)


def at_work(made: Made) -> list[str]:
    """Subtasks whose children run, and other commands in flight."""
    return [key.removesuffix("#body") for key in made.flight]


def ends(made: Made, task: str, result: AgentResult) -> None:
    """The child of a subtask ends."""
    made.returns(f"{task}#body", result)


def child(made: Made, task: str) -> StartChild:
    command = made.flight[f"{task}#body"]
    assert isinstance(command, StartChild)
    return command


def states(made: Made) -> dict[str, str]:
    found: dict[str, str] = machine.progress(made.state, made.now)["members"]
    return found


# -- the graph ------------------------------------------------------------------------------


def test_each_subtask_is_a_child_that_is_told_what_it_waits_for() -> None:
    made = drive()
    assert at_work(made) == ["look"]
    look = child(made, "look")
    assert (look.kind, look.id) == ("AgentWorkflow", "w/look")
    ends(made, "look", answers("look found it"))
    build = child(made, "build")
    request, lineage = inputs_of(  # type: ignore[misc]
        build, {n: Stored(value=v) for n, v in build.values.items() if n != "context"}
    )
    assert isinstance(request, AgentRequest)
    assert (lineage.form, request.task) == (
        "member",
        "Build\n\n(The team's whole task: Replace it)",
    )
    assert build.values["context"] == "# Result of look\n${look}"
    assert build.bindings.inputs["look"].value == "look found it!"


def test_progress_shows_each_member_as_it_works() -> None:
    """Every member was shown as waiting until the whole plan had ended."""
    made = drive()
    assert states(made) == {"sum": "waiting", "build": "waiting", "look": "running"}
    ends(made, "look", answers("look found it"))
    assert states(made) == {"sum": "waiting", "build": "running", "look": "succeeded"}
    ends(made, "build", fails("auth", "no key"))
    assert made.state.stage == "judging"
    assert states(made) == {"sum": "skipped", "build": "failed", "look": "succeeded"}


def test_a_member_that_recovers_frees_those_who_waited_and_is_reported_so() -> None:
    """`recovered` stayed false, and the retry round was in no report."""
    made = drive()
    ends(made, "look", fails("schema_violation", "schema_violation: empty output"))
    assert at_work(made) == ["look"]
    assert child(made, "look").id == "w/look.r2"
    ends(made, "look", answers("look found it"))
    ends(made, "build", answers("build did it"))
    ends(made, "sum", answers("sum is done"))
    found = finish(made)
    assert found.status == "completed"
    assert {m: r.recovered for m, r in found.members.items()} == {
        "sum": False,
        "build": False,
        "look": True,
    }
    assert [(r.kind, r.members) for r in found.rounds] == [
        ("initial", ["sum", "build", "look"]),
        ("retry", ["look", "build", "sum"]),
    ]
    assert found.members["look"].attempts == 2


@pytest.mark.parametrize("error_class", ["rate_limit", "capacity", "auth"])
def test_a_member_on_a_graph_is_not_asked_again_after_a_final_429(error_class: str) -> None:
    """The run's own table gave a rate limit another round: members are asked by §2e, never."""
    made = drive(retry_rounds=2)
    ends(made, "look", fails(error_class, "429 Too Many Requests"))
    found = finish(made)
    assert [r.kind for r in found.rounds] == ["initial"]
    assert found.members["look"].outcome is Outcome.FAILED
    assert found.members["sum"].outcome is Outcome.SKIPPED


def test_a_member_on_a_graph_is_asked_again_once_after_a_time_out() -> None:
    """The run's own table gave it every round."""
    made = drive(retry_rounds=2)
    ends(made, "look", fails("timeout", "timed out"))
    ends(made, "look", fails("timeout", "timed out"))
    found = finish(made)
    assert [r.kind for r in found.rounds] == ["initial", "retry"]
    assert found.members["look"].outcome is Outcome.FAILED


def test_the_worker_is_asked_for_all_that_a_planner_may_use() -> None:
    made = driver(subtasks="plan", tools=["echo"])
    made.begin()
    job = made.flight["prepare"].job
    assert (job.is_goal, job.allow) == (True, ["echo"])


def test_a_sequential_team_does_one_subtask_at_a_time() -> None:
    members = [{"id": i, "task": i} for i in ("one", "two")] + [
        {"id": "end", "depends_on": ["one", "two"]}
    ]
    made = drive(team={"members": members, "strategy": "sequential"})
    assert at_work(made) == ["one"]
    ends(made, "one", answers("x"))
    assert at_work(made) == ["two"]


def test_large_results_go_to_a_child_under_their_own_names() -> None:
    made = drive()
    large = Stored(blob="b", size_bytes=40_000, media="text", preview="CLAIM…")
    ends(made, "look", answers("x").model_copy(update={"output": None, "output_ref": large}))
    build = child(made, "build")
    assert build.values["context"] == "# Result of look\n(see input look)"
    assert build.bindings.inputs == {}
    given = {name: Stored(value=value) for name, value in build.values.items()}
    request, lineage = inputs_of(build, given)  # type: ignore[misc]
    assert isinstance(request, AgentRequest)
    assert lineage.inputs == {"look": large}
    assert request.context == "# Result of look\n(see input look)"


def test_a_large_context_of_the_team_is_stored_once_and_named_in_each_subtask() -> None:
    made = drive(context="x" * 5_000)
    stored = Stored(blob="c", size_bytes=5_002)
    made.returns("team.context", Resolved(stored=stored))
    look = child(made, "look")
    assert look.values["context"] == '# Context\n${"team.context"}'
    assert look.bindings.inputs["team.context"] == stored


def test_a_large_task_of_a_child_team_reaches_its_subtasks_whole() -> None:
    """Only its preview did: the plan was made of the request alone."""
    task = Stored(blob="t", size_bytes=9_000)
    made = drive(lineage=Lineage(inputs={"task": task}))
    look = child(made, "look")
    assert look.values["task"] == 'Look\n\n(The team\'s whole task: ${"team.task"})'
    assert look.bindings.inputs["team.task"] == task


def test_members_called_like_a_plans_own_words_get_other_task_ids() -> None:
    """A member called "index" with a dependent refused the whole team."""
    assert task_ids(["index", "index_", "join", "a"]) == {
        "index": "index__",
        "index_": "index_",
        "join": "join_",
        "a": "a",
    }
    members = [{"id": "index", "task": "A"}, {"id": "b", "task": "B", "depends_on": ["index"]}]
    parsed = TeamRequest.model_validate({"team": {"members": members}, "task": "t"})
    assert not isinstance(parsed.team, str)
    plan = plan_of(parsed, parsed.team.members, [])
    assert [(t.id, t.agent) for t in plan.tasks] == [("index_", "index"), ("b", "b")]
    assert plan.tasks[1].args["context"] == "# Result of index\n${index_}"


# -- people, budget, cancel -----------------------------------------------------------------


def test_approval_is_asked_before_any_subtask_and_an_early_one_counts() -> None:
    made = drive(approval="plan")
    assert made.flight == {}
    assert machine.progress(made.state, made.now)["awaiting"] == "approval"
    made.control("approve_plan", ApprovePlan(revision=1, by="ops"), token=1)
    assert isinstance(made.answers[1], Answer)
    assert at_work(made) == ["look"]


def test_decisions_that_come_before_the_plan_are_kept_as_what_they_are() -> None:
    """Read back, a rejection must not become an approval."""
    parsed = TeamRequest.model_validate(
        {"team": {"members": GRAPH}, "task": "t", "approval": "plan"}
    )
    made = Driver(machine, machine.begin(parsed, Identity("w", "k"), 1_000.0))
    made.begin()
    made.control("reject_plan", RejectPlan(revision=1), token=9)
    made.returns("prepare", CATALOG)
    found = made.ended
    assert isinstance(found, TeamResult)
    assert found.status == "rejected"
    assert isinstance(made.answers[9], Answer)


def test_a_pause_before_the_plan_holds_it() -> None:
    parsed = TeamRequest.model_validate({"team": {"members": GRAPH}, "task": "t"})
    made = Driver(machine, machine.begin(parsed, Identity("w", "k"), 1_000.0))
    made.begin()
    made.control("pause", Pause())
    made.returns("prepare", CATALOG)
    assert made.flight == {}
    made.control("resume", Resume())
    assert at_work(made) == ["look"]


def test_a_question_of_a_member_is_shown_and_its_answer_handed_down() -> None:
    made = drive()
    asks = ChildAsks(child="w/look", name="look", key="look", question="Which?")
    made.do(QuestionOfChild(asks))
    shown = machine.progress(made.state, made.now)
    assert (shown["awaiting"], shown["detail"]) == ("human", "look: Which?")
    made.control("complete_task", CompleteTask(id="look", output="that"))
    assert made.told[-1].run == "w/look"
    assert made.told[-1].payload.output == "that"


def test_one_account_pays_for_the_plan_the_rounds_and_the_judge() -> None:
    made = drive(budget={"tokens": 90_000}, rounds=1)
    for name in ("look", "build", "sum"):
        grant = child(made, name).lineage.grant
        assert isinstance(grant, Grant)
        assert grant.tokens == 20_000
        ends(made, name, answers(name))
    assert at_work(made) == ["sum.1", "build.1", "look.1"]
    inputs = made.flight["look.1"].job.inputs
    assert inputs["my_result"].value == "look!"
    for name in ("look", "build", "sum"):
        made.returns(f"{name}.1", says("agreed"))
    found = finish(made)
    assert found.usage.tokens == 3 * 50 + 3 * 100 + 10
    assert made.state.account.ledger.settled.tokens == found.usage.tokens
    assert sum(m.usage.tokens for m in found.members.values()) == 450
    assert [r.kind for r in found.rounds] == ["initial", "communication"]


def test_a_plan_that_parks_goes_on_when_the_teams_budget_is_raised() -> None:
    made = drive(budget={"tokens": 540})
    ends(made, "look", answers("x"))
    shown = machine.progress(made.state, made.now)
    assert (made.flight, shown["awaiting"]) == ({}, "budget")
    made.control("raise_budget", RaiseBudget(tokens=90_000))
    assert at_work(made) == ["build"]


def test_a_cancelled_team_on_a_graph_keeps_what_was_said() -> None:
    made = drive()
    ends(made, "look", answers("look found it"))
    made.do(CancelRequested())
    made.cancels_land()
    found = made.ended
    assert isinstance(found, TeamResult)
    assert (found.status, found.reason) == ("cancelled", "the run was cancelled")
    assert found.members["look"].fields["CLAIM"] == "look found it"
    assert found.tasks["look"].outcome is Outcome.SUCCEEDED
    assert made.state.account.ledger.reserved == {}


def test_a_long_history_keeps_the_children_of_the_plan_and_adopts_them() -> None:
    made = drive()
    made.do(HistoryLong())
    assert machine.may_continue(made.state)
    assert machine.children(made.state) == {"look#body": "w/look"}
    made.do(Continued())
    ends(made, "look", answers("look found it"))
    assert at_work(made) == ["build"]


def test_a_look_at_a_child_that_outlives_the_plan_holds_no_continue_as_new_up() -> None:
    """The run's answer to it never came, and the team could not continue as new any more."""
    members = [{"id": "one", "task": "A"}, {"id": "two", "task": "B", "depends_on": ["one"]}]
    made = drive(team={"members": members}, budget={"tokens": 540})
    made.do(HistoryLong())
    made.do(Continued())
    made.fire("children")
    made.control("raise_budget", RaiseBudget(tokens=1_000))
    ends(made, "one", answers("one"))
    ends(made, "two", answers("two").model_copy(update={"usage": UsageReport(input_tokens=900)}))
    assert list(made.flight) == ["look.w/one"]  # the judge waits for budget
    assert machine.may_continue(made.state)


def test_more_members_may_speak_at_once_after_a_raise_while_the_plan_runs() -> None:
    made = drive(rounds=1, budget={"parallel": 1})
    made.control("raise_budget", RaiseBudget(parallel=3))
    for name in ("look", "build", "sum"):
        ends(made, name, answers(name))
    assert at_work(made) == ["sum.1", "build.1", "look.1"]


def test_a_joiners_answer_is_the_teams() -> None:
    made = drive(replan={"max_rounds": 1})
    for name in ("look", "build", "sum"):
        ends(made, name, answers(name))
    (join,) = made.flight
    reply = JoinReply(action="finish", answer=Stored(value="all is done"), usage=Usage())
    made.returns(join, reply)
    made.returns("judge", judged())
    found = made.ended
    assert isinstance(found, TeamResult)
    assert (found.status, found.answer) == ("completed", "all is done")


def test_a_team_on_a_graph_takes_its_room_itself() -> None:
    limited = CATALOG.model_copy(
        update={"pools": [PoolSpec(name="p", is_reserved=True, capacity_id="cap", max_calls=9)]}
    )
    made = drive(limited)
    assert at_work(made) == ["permit"]
    made.returns("permit", None)
    assert at_work(made) == ["look"]
    assert list(made.timers) == ["permit"]


def test_time_that_is_over_before_its_timer_fires_holds_the_plan() -> None:
    """The team dropped the timer that its plan waited for: it showed no lack, and hung."""
    made = drive(budget={"seconds": 60})
    asks = ChildAsks(child="w/look", name="look", key="look", question="Well?")
    made.do(QuestionOfChild(asks), seconds=60.0)
    made.fire("budget.seconds")
    waits = machine.progress(made.state, made.now)["waits"]
    assert "raise_budget" in [w["command"].split("--name ")[1].split()[0] for w in waits]
    made.control("raise_budget", RaiseBudget(seconds=600))
    ends(made, "look", answers("look found it"))
    assert at_work(made) == ["build"]


def test_a_plan_that_reaches_the_team_s_own_cap_ends_and_asks_no_parent_for_more() -> None:
    """It asked for ever: each time the parent gave, and the cap of the team's own stayed."""
    above = Lineage(parent="boss", root="boss", depth=1, grant=Grant(tokens=9_000))
    made = drive(budget={"tokens": 540}, lineage=above)
    used = UsageReport(tokens=500, input_tokens=400, output_tokens=100, model_calls=1)
    ends(made, "look", answers("look found it").model_copy(update={"usage": used}))
    found = made.ended
    assert isinstance(found, TeamResult)
    assert (found.status, found.answer) == ("partial", "look found it!")
    assert "budget: " in (found.reason or "")
    assert [tell.signal for tell in made.told if tell.run == "boss"] == []


def test_a_plan_in_a_grant_alone_asks_its_parent_for_more() -> None:
    above = Lineage(parent="boss", root="boss", depth=1, grant=Grant(tokens=540))
    made = drive(lineage=above)
    used = UsageReport(tokens=500, input_tokens=400, output_tokens=100, model_calls=1)
    ends(made, "look", answers("look found it").model_copy(update={"usage": used}))
    assert [tell.signal for tell in made.told if tell.run == "boss"] == ["grant_wanted"]
    made.control("raise_budget", RaiseBudget(tokens=9_000, by="parent"))
    assert at_work(made) == ["build"]


def test_a_teams_usage_tells_the_subtasks_that_were_started() -> None:
    made = drive(lineage=Lineage(parent="p", grant=Grant(tasks=9)))
    for key, claim in (("look", "1"), ("build", "2"), ("sum", "3")):
        made.returns(f"{key}#body", answers(claim))
    finish(made)
    assert made.state.result is not None
    assert made.state.result.usage.tasks == 3
