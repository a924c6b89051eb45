"""The team machine by value: members that talk, rounds, retries, the judge. No server."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.controls import ApprovePlan, CompleteTask, GrantWanted, RaiseBudget
from planloom.planner.contract.jobs import (
    AgentCall,
    LoadedDefinition,
    Resolved,
    TaskOutput,
    TurnReply,
)
from planloom.planner.contract.requests import Lineage, TeamRequest
from planloom.planner.contract.results import TeamResult
from planloom.planner.language.catalog import Catalog, PoolSpec, ToolSpec
from planloom.planner.language.values import Outcome, Problem, Stored, Usage
from planloom.workflows.machines.shared.commands import AskModel, Refuse, Resolve, TakePermit
from planloom.workflows.machines.shared.events import (
    CancelRequested,
    Continued,
    GrantAsked,
    HistoryLong,
)
from planloom.workflows.machines.shared.machine import Failed, Identity
from planloom.workflows.machines.team import machine, speaking
from planloom.workflows.machines.team.state import TeamState
from tests.support.driving import Driver

CATALOG = Catalog(
    tools=[ToolSpec(name="echo")],
    tool_names=["echo"],
    pools=[PoolSpec(name="default", task_queue="llm")],
    tools_queue="tools",
    models={"worker": "m"},
    prices={"m": (0, 0)},
)
Made = Driver[TeamState]


def team(*ids: str, **more: Any) -> dict[str, Any]:
    return {"members": [{"id": i, "role": f"role of {i}"} for i in ids], **more}


def driver(**request: Any) -> Made:
    document = {"team": team("ann", "bob"), "task": "decide", **request}
    me = Identity("w", "w/first", document.pop("lineage", Lineage()))
    parsed = TeamRequest.model_validate(document)
    return Driver(machine, machine.begin(parsed, me, 1_000.0))


def drive(catalog: Catalog = CATALOG, /, **request: Any) -> Made:
    made = driver(**request)
    made.begin()
    made.returns("prepare", catalog)
    return made


def says(claim: str, tokens: int = 100, **more: Any) -> TurnReply:
    return TurnReply(
        transcript=Stored(blob="t"),
        text=Stored(value=f"{claim}!"),
        fields={"SUMMARY": f"{claim} in short", "CLAIM": claim},
        confidence=0.9,
        evidence=1,
        usage=Usage(input_tokens=tokens - 10, output_tokens=10, model_calls=1),
        **more,
    )


def judged(verdict: str = "trusted", **more: Any) -> TaskOutput:
    said = {"verdict": verdict, "confidence": 0.99, "reason": "fine", **more}
    return TaskOutput(output=Stored(value=said), usage=Usage(input_tokens=5, output_tokens=5))


def calls(id: str) -> TurnReply:
    return TurnReply(
        transcript=Stored(blob="t"), calls=[AgentCall(id=id, name="echo", args={}, fingerprint=id)]
    )


def finish(made: Made) -> TeamResult:
    """The judge trusts the team, and the members' own answers are put together."""
    if "judge" in made.flight:
        made.returns("judge", judged())
    if "answer" in made.flight:
        made.returns("answer", Resolved(stored=Stored(value="all together")))
    return result(made)


def result(made: Made) -> TeamResult:
    found = made.ended
    assert isinstance(found, TeamResult), found
    return found


# -- rounds ---------------------------------------------------------------------------------


def test_members_answer_at_once_then_hear_what_all_said_before_the_round() -> None:
    made = drive(team=team("ann", "bob", "cat"))
    assert list(made.flight) == ["ann.1", "bob.1", "cat.1"]
    job = made.flight["ann.1"].job
    assert (job.form, job.task.value, job.others_answers) == ("member", "decide", None)
    assert "You are ann, role of ann of a team." in job.spec.value["system"]
    for name in ("ann", "bob", "cat"):
        assert next(iter(made.flight)) == f"{name}.1"
        made.returns(f"{name}.1", says(f"{name} says yes"))
    made.returns("bob.2", says("bob has changed his mind"))
    heard = made.flight["ann.2"].job.others_answers.value
    assert "claim: bob says yes" in heard  # as it stood before the round
    assert "Round 1." in heard
    for name in ("ann", "cat"):
        made.returns(f"{name}.2", says(f"{name} still says yes"))
    found = finish(made)
    assert [r.kind for r in found.rounds] == ["initial", "communication"]
    assert found.rounds[1].heard["ann"] == ["bob", "cat"]
    assert (found.status, found.answer) == ("completed", "all together")
    assert found.members["ann"].fields["CLAIM"] == "ann still says yes"
    assert (found.members["ann"].attempts, found.members["ann"].usage.tokens) == (2, 200)
    assert found.judge is not None
    assert (found.judge.verdict, found.judge.u_intra) == ("trusted", 0.026)
    assert len(found.judge.disagreements) == 3
    assert found.usage.tokens == 6 * 100 + 10


def test_members_at_once_stay_within_the_limit_and_a_raise_widens_it() -> None:
    made = drive(team=team("ann", "bob", "cat", "dan"), rounds=0, budget={"parallel": 2})
    assert list(made.flight) == ["ann.1", "bob.1"]
    made.returns("bob.1", says("b"))
    assert list(made.flight) == ["ann.1", "cat.1"]
    made.control("raise_budget", RaiseBudget(parallel=4))
    assert list(made.flight) == ["ann.1", "cat.1", "dan.1"]


def test_a_sequential_team_speaks_one_after_another_and_still_reads_the_round_before() -> None:
    made = drive(strategy="sequential")
    made.returns("ann.1", says("ann first"))
    assert list(made.flight) == ["bob.1"]
    assert made.flight["bob.1"].job.others_answers is None
    made.returns("bob.1", says("bob first"))
    made.returns("ann.2", says("ann second"))
    assert "claim: ann first" in made.flight["bob.2"].job.others_answers.value


def test_consensus_ends_the_rounds_early() -> None:
    made = drive(rounds=5)
    for turn in (1, 2):
        for name in ("ann", "bob"):
            made.returns(f"{name}.{turn}", says("the very same claim"))
    assert list(made.flight) == ["judge"]
    assert made.state.notes == ["consensus after round 1"]


def test_a_long_context_of_a_round_goes_behind_a_reference() -> None:
    ids = [f"m{n}" for n in range(12)]
    made = drive(team=team(*ids))
    for name in ids:
        made.returns(f"{name}.1", says(f"{name} " + "x" * 150))
    stored = made.flight["m0.heard"]
    assert isinstance(stored, Resolve)
    made.returns("m0.heard", Resolved(stored=Stored(blob="h", size_bytes=9_000)))
    assert made.flight["m0.2"].job.others_answers.blob == "h"


def test_reports_of_who_heard_whom_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 members and 100 rounds would be more than a result may hold."""
    monkeypatch.setattr(speaking, "HEARD_NAMES_MAX", 5)
    made = drive(rounds=4, consensus=False)
    for turn in range(1, 6):
        for name in ("ann", "bob"):
            made.returns(f"{name}.{turn}", says(f"{name} {turn}"))
    found = finish(made)
    assert [len(r.heard) for r in found.rounds] == [0, 2, 2, 0, 0]
    assert found.notes == ["round 3 and later: who heard whom is as in the rounds before"]
    assert "claim: bob 3" in made.all_turns("ann")[3].job.others_answers.value


def test_a_team_of_one_has_no_rounds_and_its_answer_is_the_teams() -> None:
    made = drive(team=team("ann"), rounds=3)
    made.returns("ann.1", says("yes"))
    found = finish(made)
    assert (len(found.rounds), found.answer) == (1, "yes!")


# -- failures -------------------------------------------------------------------------------


def test_a_failed_member_is_asked_again_and_has_recovered() -> None:
    made = drive()
    made.returns("ann.1", says("yes"))
    made.breaks("bob.1", "tool", "it broke", attempts=3)
    assert list(made.flight) == ["bob.2"]
    assert made.state.phase == "retry 1"
    made.returns("bob.2", says("yes"))
    found = finish(made)
    assert (found.rounds[-1].kind, found.rounds[-1].members) == ("retry", ["bob"])
    bob = found.members["bob"]
    assert (bob.outcome, bob.recovered, bob.attempts) == (Outcome.SUCCEEDED, True, 4)
    assert found.status == "completed"


def test_a_member_whose_turn_failed_hears_the_results_of_its_calls_in_the_next_round() -> None:
    """They were dropped: the server was sent a call without its result."""
    made = drive(team={"members": [{"id": "ann", "tools": ["echo"]}, {"id": "bob"}]})
    made.returns("ann.1", calls("c1"))
    made.returns("ann.1.c1", TaskOutput(output=Stored(value="found")))
    made.returns("bob.1", says("yes"))
    made.breaks("ann.2", "unknown", "HTTP 500")
    job = made.flight["ann.3"].job
    assert [(r.id, r.output.value) for r in job.results] == [("c1", "found")]
    assert job.transcript is not None
    made.returns("ann.3", says("yes"))
    assert finish(made).members["ann"].recovered


@pytest.mark.parametrize("error_class", ["rate_limit", "capacity", "auth", "context_length"])
def test_pressure_and_what_is_for_good_are_never_asked_again(error_class: str) -> None:
    made = drive(retry_rounds=2)
    made.returns("ann.1", says("yes"))
    made.breaks("bob.1", error_class, "429 Too Many Requests")
    assert list(made.flight) == ["judge"]
    found = finish(made)
    assert (found.members["bob"].outcome, found.members["bob"].error_class) == (
        Outcome.FAILED,
        error_class,
    )
    assert (found.status, found.reason) == ("partial", "failed: bob")


def test_a_time_out_is_asked_again_once() -> None:
    made = drive(retry_rounds=2)
    made.returns("ann.1", says("yes"))
    made.breaks("bob.1", "timeout", "timed out")
    made.breaks("bob.2", "timeout", "timed out")
    assert list(made.flight) == ["judge"]
    assert finish(made).members["bob"].recovered is False


def test_all_members_failing_is_a_failed_team_without_a_judges_call() -> None:
    made = drive(retry_rounds=0)
    made.breaks("ann.1", "auth")
    made.breaks("bob.1", "auth")
    found = result(made)
    assert (found.status, found.reason) == ("failed", "0 of 2 members have an answer")
    assert found.judge is not None
    assert (found.judge.verdict, found.judge.confidence) == ("uncertain", 0.1)


def test_a_quorum_that_is_met_completes_a_team_of_which_some_failed() -> None:
    made = drive(quorum=1, retry_rounds=0)
    made.returns("ann.1", says("yes"))
    made.breaks("bob.1", "auth")
    found = finish(made)
    assert (found.status, found.answer) == ("completed", "yes!")


# -- the judge and the answer ---------------------------------------------------------------


def one_round() -> Made:
    made = drive(rounds=0)
    made.returns("ann.1", says("yes"))
    made.returns("bob.1", says("yes"))
    return made


@pytest.mark.parametrize(
    ("said", "verdict"),
    [("uncertain", "uncertain"), ("untrusted", "uncertain"), ("marvellous", "trusted")],
)
def test_a_model_judge_may_lower_and_never_raise(said: str, verdict: str) -> None:
    made = one_round()
    made.returns("judge", judged(said, answer="the judge's own"))
    found = result(made)
    assert found.judge is not None
    assert (found.judge.verdict, found.answer) == (verdict, "the judge's own")


def test_a_judge_that_fails_is_paid_and_the_formula_stands() -> None:
    made = one_round()
    made.breaks("judge", "schema_violation", "prose", usage=Usage(input_tokens=7))
    found = finish(made)
    assert found.judge is not None
    assert found.judge.verdict == "trusted"
    assert found.notes == ["judge: the formula stands; the model's answer cannot be used: prose"]
    assert found.usage.tokens == 207
    assert made.state.account.ledger.reserved == {}


def test_of_a_judges_long_answer_only_the_rest_comes_into_the_state() -> None:
    made = one_round()
    made.returns("judge", TaskOutput(output=Stored(blob="j", size_bytes=9_000)))
    brief = {"verdict": "partial", "confidence": 0.4, "reason": "so", "disagreements": ["one"]}
    made.returns("judge.brief", Resolved(stored=Stored(value=brief)))
    long = Stored(blob="a", size_bytes=20_000, preview="The whole…")
    made.returns("judge.answer", Resolved(stored=long))
    found = result(made)
    assert found.judge is not None
    assert (found.judge.verdict, found.judge.disagreements) == ("partial", ["one"])
    assert found.answer == {"preview": "The whole…", "blob": "a", "size_bytes": 20_000}
    assert found.answer_ref == long


def test_an_answer_that_only_looks_like_a_reference_is_no_reference() -> None:
    """`{"blob": …, "preview": …}` as an answer was taken for the place of a large one."""
    made = one_round()
    made.returns("judge", judged())
    mine = Stored(value={"blob": "b", "preview": "p"})
    made.returns("answer", Resolved(stored=mine))
    assert (result(made).answer, result(made).answer_ref) == (mine.value, None)


def test_a_judge_without_budget_leaves_the_formula_and_the_answer() -> None:
    made = drive(rounds=0, budget={"tokens": 2_400}, on_budget="partial")
    made.returns("ann.1", says("yes"))
    made.returns("bob.1", says("yes", tokens=2_200))
    made.returns("answer", Resolved(stored=Stored(value="both")))
    found = result(made)
    assert found.notes == ["judge: the budget leaves no room for the model; the formula stands"]
    assert (found.status, found.answer) == ("completed", "both")


def test_the_judge_reads_members_by_number_and_calls_its_own_model() -> None:
    made = drive(team=team("task", "v1.2"), rounds=0, model={"worker": "w", "judge": "j"})
    made.returns("task.1", says("one"))
    made.returns("v1.2.1", says("two"))
    call = made.flight["judge"]
    assert isinstance(call, AskModel)
    assert call.job.model == "j"
    assert call.job.context["members"] == {"task": "${m0}", "v1.2": "${m1}"}
    assert call.job.bindings.inputs["m1"].value == "two!"
    assert call.job.bindings.inputs["task"].value == "decide"


# -- forming --------------------------------------------------------------------------------


def test_a_named_team_is_loaded_with_its_strategy_and_warnings() -> None:
    made = driver(team="core")
    made.begin()
    loaded = LoadedDefinition(
        spec=Stored(value={}),
        members=[{"id": "a"}, {"id": "b"}, {"id": "off", "enabled": False}],
        strategy="sequential",
        warnings=["field x is not used"],
    )
    made.returns("load", loaded)
    made.returns("prepare", CATALOG)
    assert list(made.flight) == ["a.1"]
    assert (list(made.state.members), made.state.notes) == (["a", "b"], ["field x is not used"])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"team": team("a", "a")}, "the same id"),
        ({"team": team("a"), "quorum": 3}, "quorum 3 of 1"),
        ({"team": {"members": [{"id": "a", "depends_on": ["z"]}]}}, 'depends on "z"'),
    ],
)
def test_a_team_that_cannot_work_is_refused(request_: dict[str, Any], said: str) -> None:
    made = driver(**request_)
    made.begin()
    assert isinstance(made.ended, Failed)
    assert said in made.ended.problems[0].message


def test_an_unknown_team_is_refused_and_who_waits_for_an_answer_gets_one() -> None:
    made = driver(team="x")
    made.begin()
    made.control("approve_plan", ApprovePlan(revision=1), token=1)
    made.returns(
        "load", LoadedDefinition(problems=[Problem(path="team", code="c", message="no team")])
    )
    assert isinstance(made.ended, Failed)
    assert isinstance(made.answers[1], Refuse)


def test_the_runs_allow_list_narrows_every_member() -> None:
    members = [{"id": "a", "tools": ["echo", "nap"]}, {"id": "b", "tools": ["nap"]}]
    made = drive(team={"members": members}, tools=["echo"])
    assert [made.flight[k].job.tools for k in ("a.1", "b.1")] == [["echo"], []]


# -- people, budget, pause, cancel ----------------------------------------------------------


def ask(text: str) -> TurnReply:
    call = AgentCall(id="q", name="ask_human", args={"question": text}, fingerprint=text)
    return TurnReply(transcript=Stored(blob="t"), calls=[call])


def askers(**more: Any) -> Made:
    members = [{"id": i, "tools": ["ask_human"]} for i in ("ann", "bob")]
    return drive(team={"members": members}, rounds=0, **more)


def test_members_ask_under_their_own_ids_and_early_answers_find_them() -> None:
    made = askers(lineage=Lineage(parent="run"))
    made.control("complete_task", CompleteTask(id="bob", output="early"))
    made.returns("ann.1", ask("Well?"))
    made.returns("bob.1", ask("And?"))
    assert made.flight["bob.2"].job.results[0].output.value == "early"
    assert [(t.payload.key, t.payload.question) for t in made.told] == [("w.ann", "Well?")]
    shown = machine.progress(made.state, made.now)
    assert (shown["awaiting"], shown["detail"]) == ("human", "ann: Well?")
    made.control("complete_task", CompleteTask(id="ann", output="yes"))
    assert made.flight["ann.2"].job.results[0].output.value == "yes"


def test_an_early_answer_for_no_member_is_dropped_once_the_members_are_known() -> None:
    made = driver()
    made.control("complete_task", CompleteTask(id="zed", output="x"))
    made.begin()
    made.returns("prepare", CATALOG)
    assert made.state.questions.early == {}
    assert made.state.notes[-1] == 'signal ignored: complete_task: no member is called "zed"'


def test_a_team_without_a_plan_takes_no_decision_about_one() -> None:
    made = driver()
    made.control("approve_plan", ApprovePlan(revision=1), token=1)
    assert made.answers == {}
    made.begin()
    made.returns("prepare", CATALOG)
    refused = made.answers[1]
    assert isinstance(refused, Refuse)
    assert "no plan of subtasks" in refused.message
    made.do(GrantAsked(GrantWanted(child="w/x", name="x")))
    assert "no plan of subtasks" in made.state.notes[-1]


def test_a_team_parks_at_its_budget_and_goes_on_when_it_is_raised() -> None:
    made = drive(team=team("one", "two", "three"), rounds=0, budget={"tokens": 700})
    while made.flight:
        made.returns(next(iter(made.flight)), says("yes", tokens=230))
    shown = machine.progress(made.state, made.now)
    assert (shown["status"], shown["awaiting"]) == ("waiting", "budget")
    assert shown["usage"]["tokens"] <= 700
    made.control("raise_budget", RaiseBudget(tokens=50_000, by="ops"))
    while made.flight and "judge" not in made.flight:
        made.returns(next(iter(made.flight)), says("yes"))
    assert finish(made).status == "completed"
    assert 'budget raised by "ops": tokens 50000' in made.state.notes


def test_a_large_context_is_summed_up_once_for_all_members() -> None:
    lineage = Lineage(inputs={"rows": Stored(blob="b", size_bytes=50_000)})
    made = drive(lineage=lineage)
    assert list(made.flight) == ["ann.rows.summary"]
    made.returns("ann.rows.summary", TaskOutput(output=Stored(value="in short")))
    assert list(made.flight) == ["ann.1", "bob.1"]
    assert made.flight["bob.1"].job.summaries["rows"].value == "in short"


def test_members_whose_ids_hold_dots_never_share_a_key() -> None:
    members = [{"id": i, "tools": ["echo"]} for i in ("a", "a.1")]
    made = drive(team={"members": members}, rounds=0)
    assert list(made.flight) == ["a.1", "a.1.1"]
    made.returns("a.1", calls("1"))
    assert list(made.flight) == ["a.1.1", "a.1.1-"]
    one = made.flight["a.1.1-"].job.key
    made.returns("a.1.1", calls("c"))
    other = made.flight["a.1.1.c"].job.key
    assert (one, other) == ("w/first/a.1/1", "w/first/a.1.1/c")


def test_a_paused_team_starts_no_turn() -> None:
    made = drive()
    made.control("pause")
    made.returns("ann.1", says("a"))
    made.returns("bob.1", says("b"))
    assert made.flight == {}
    assert machine.published(made.state).status == "paused"
    made.control("resume")
    assert list(made.flight) == ["ann.2", "bob.2"]


def test_a_cancelled_team_stops_all_and_keeps_what_was_said() -> None:
    made = drive()
    made.returns("ann.1", says("ann says"))
    made.returns("bob.1", says("bob says"))
    made.returns("ann.2", says("ann says more"))
    made.do(CancelRequested())
    assert made.cancelled == ["bob.2"]
    made.cancels_land()
    found = result(made)
    assert (found.status, found.reason, found.judge) == ("cancelled", "the run was cancelled", None)
    assert {n: m.fields["CLAIM"] for n, m in found.members.items()} == {
        "ann": "ann says more",
        "bob": "bob says",
    }


def test_a_cancelled_team_never_goes_on_to_the_next_round() -> None:
    made = drive()
    made.do(CancelRequested())
    made.returns("ann.1", says("a"))
    made.returns("bob.1", says("b"))
    assert result(made).status == "cancelled"


def test_a_long_history_ends_in_the_middle_of_a_round_and_goes_on_there() -> None:
    made = drive(team=team("a", "b", "c"), budget={"parallel": 1}, consensus=False)
    for name in "abc":
        made.returns(f"{name}.1", says(f"{name} first"))
    made.do(HistoryLong())
    made.returns("a.2", says("a second"))
    assert (made.flight, machine.may_continue(made.state)) == ({}, True)
    made.do(Continued())
    assert list(made.flight) == ["b.2"]
    assert "claim: a first" in made.flight["b.2"].job.others_answers.value


LIMITED = CATALOG.model_copy(
    update={"pools": [PoolSpec(name="p", is_reserved=True, capacity_id="cap", max_calls=40)]}
)


@pytest.mark.parametrize(
    ("more", "calls"), [({}, 2), ({"strategy": "sequential"}, 1), ({"budget": {"parallel": 1}}, 1)]
)
def test_a_team_asks_for_as_much_room_as_it_has_speakers(more: dict[str, Any], calls: int) -> None:
    made = drive(LIMITED, **more)
    taken = made.flight["permit"]
    assert isinstance(taken, TakePermit)
    assert taken.job.calls == calls
    made.returns("permit", None)
    assert "ann.1" in made.flight


def test_the_page_shows_each_member_and_what_it_claims() -> None:
    made = drive(rounds=0, retry_rounds=0)
    made.returns("ann.1", says("ann | says yes"))
    assert machine.progress(made.state, made.now)["members"] == {
        "ann": "succeeded",
        "bob": "running",
    }
    made.breaks("bob.1", "auth", "no key")
    finish(made)
    page = machine.details(made.state, made.now)
    assert "**partial**" in page
    row = [c.strip() for c in page.partition("| ann")[2].split("\n")[0].split("|")]
    assert row[1:5] == ["role of ann", "succeeded", "1", "ann / says yes"]


def test_what_the_tools_of_a_member_cost_is_in_its_part_and_the_parts_are_the_whole() -> None:
    members = [{"id": "ann", "role": "x", "tools": ["echo"]}, {"id": "bob", "role": "x"}]
    made = drive(team={"members": members}, rounds=0)
    made.returns("ann.1", calls("c0"))
    used = Usage(tool_calls=1, usd_nano=5, input_tokens=7)
    made.returns("ann.1.c0", TaskOutput(output=Stored(value=1), usage=used))
    made.returns("ann.2", says("yes"))
    made.returns("bob.1", says("yes"))
    found = finish(made)
    ann, bob = found.members["ann"].usage, found.members["bob"].usage
    assert (ann.tool_calls, ann.tokens, bob.tokens) == (1, 107, 100)
    assert found.usage.tokens == ann.tokens + bob.tokens + 10  # the judge's
    assert found.usage.tool_calls == 1
