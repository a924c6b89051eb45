"""The agent machine by value: events in, commands out, no server and no event loop."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.capacity import Release, Renew
from planloom.planner.contract.controls import ChildAsks, CompleteTask, GrantWanted, RaiseBudget
from planloom.planner.contract.jobs import AgentCall, Loaded, Resolved, TaskOutput, TurnReply
from planloom.planner.contract.requests import AgentRequest, Grant, Lineage
from planloom.planner.contract.results import AgentResult
from planloom.planner.language.catalog import PoolSpec, Site, ToolSpec
from planloom.planner.language.values import Problem, Stored, Usage
from planloom.workflows.machines.agent import machine
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.shared.commands import (
    AskModel,
    LoadDefinition,
    Prepare,
    ReadOutput,
    Refuse,
    Resolve,
    RunTool,
    TakePermit,
    TakeTurn,
    Tell,
)
from planloom.workflows.machines.shared.events import (
    CancelRequested,
    Continued,
    DeadlineMoved,
    HistoryLong,
    PlannerRetried,
    SignalIgnored,
)
from planloom.workflows.machines.shared.machine import Failed, Identity
from tests.support.driving import Driver

SITE = Site(
    tools=[ToolSpec(name="echo"), ToolSpec(name="dear", cost_usd=0.5)],
    tool_names=["echo", "dear", "nap"],
    pools=[PoolSpec(name="default", task_queue="llm")],
    tools_queue="tools",
    models={"worker": "m"},
    prices={"m": (0, 0)},
)
ME = Identity("w", "w/first")


def agent(tools: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "helper", "system": "You help.", "tools": tools, **more}


def drive(site: Site = SITE, /, **request: Any) -> Driver[AgentState]:
    """An agent that has begun and knows its worker."""
    made = driver(**request)
    made.begin()
    if "prepare" in made.flight:
        made.returns("prepare", site)
    return made


def driver(me: Identity = ME, **request: Any) -> Driver[AgentState]:
    parsed = AgentRequest.model_validate({"agent": agent(["echo"]), "task": "do it", **request})
    return Driver(machine, machine.begin(parsed, me, 1_000.0))


def calls(*asked: tuple[str, dict[str, Any]], usage: int = 100, **more: Any) -> TurnReply:
    made = [
        AgentCall(id=f"c{n}", name=name, args=args, mark=f"{name} {args}", **more)
        for n, (name, args) in enumerate(asked)
    ]
    return TurnReply(transcript=Stored(blob="t"), calls=made, usage=used(usage))


def says(text: str, usage: int = 100, **more: Any) -> TurnReply:
    return TurnReply(
        transcript=Stored(blob="t"), text=Stored(value=text), usage=used(usage), **more
    )


def used(tokens: int) -> Usage:
    return Usage(input_tokens=tokens - 1, output_tokens=1, model_calls=1)


def result(made: Driver[AgentState]) -> AgentResult:
    found = made.ended
    assert isinstance(found, AgentResult), found
    return found


# -- the course -----------------------------------------------------------------------------


def test_an_agent_asks_the_worker_then_the_model_and_ends_with_its_answer() -> None:
    made = driver()
    (prepare,) = made.begin()
    assert isinstance(prepare, Prepare)
    assert (prepare.job.tools, prepare.job.is_goal) == (["echo"], False)
    (turn,) = made.returns("prepare", SITE)
    assert isinstance(turn, TakeTurn)
    assert (turn.activity_id, turn.summary) == ("helper.1", "helper.1: a turn")
    assert [p.name for p in turn.pools] == ["default"]
    job = turn.job
    assert (job.task.value, job.tools, job.model) == ("do it", ["echo"], "m")
    assert made.returns("helper.1", says("done")) == []
    found = result(made)
    assert (found.status, found.output, found.turns) == ("completed", "done", 1)
    assert (found.usage.tokens, found.usage.model_calls, found.transcript) == (100, 1, "t")


def test_a_named_agent_is_loaded_and_its_bounds_are_its_definitions() -> None:
    made = driver(agent="reviewer", model="big")
    (load,) = made.begin()
    assert isinstance(load, LoadDefinition)
    assert load.job.name == "reviewer"
    loaded = Loaded(spec=Stored(value={"system": "x"}), tools=["echo", "nap"], max_turns=2)
    made.returns("load", loaded)
    made.returns("prepare", SITE)
    assert made.flight["reviewer.1"].job.model == "big"
    made.returns("reviewer.1", calls(("echo", {"v": 1})))
    made.returns("reviewer.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight["reviewer.2"].job.is_last


def test_an_unknown_agent_is_refused_with_all_problems() -> None:
    problem = Problem(path="agent", code="unknown_agent", message='no agent "x"')
    made = driver(agent="x")
    made.begin()
    made.returns("load", Loaded(problems=[problem]))
    assert made.ended == Failed("InvalidRequest", [problem])


def test_an_unknown_tool_of_an_allow_list_is_refused_at_the_root_only() -> None:
    made = drive(tools=["ecco"], agent=agent())
    failed = made.ended
    assert isinstance(failed, Failed)
    assert failed.type == "UnknownTool"
    assert 'Did you mean "echo"?' in failed.problems[0].hint
    assert "helper.1" in drive(tools=["ecco"], lineage=Lineage(parent="p")).flight


def test_the_runs_allow_list_narrows_an_agents_tools_and_travels_with_its_calls() -> None:
    made = drive(agent=agent(["echo", "dear"]), tools=["dear", "nap"])
    assert (made.flight["helper.1"].job.tools, made.flight["helper.1"].job.allow) == (
        ["dear"],
        ["dear", "nap"],
    )
    made.returns("helper.1", calls(("dear", {}), ("echo", {})))
    assert made.flight["helper.1.c0"].job.allow == ["dear"]
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    told = made.flight["helper.2"].job.results
    assert "there is no tool" in (told[1].error or "")


def test_a_worker_that_cannot_be_asked_fails_the_agent_and_hangs_nothing() -> None:
    made = driver()
    made.begin()
    made.breaks("prepare", "timeout", "no answer")
    found = result(made)
    assert (found.status, found.error_class) == ("failed", "timeout")
    assert "no answer" in (found.reason or "")


# -- turns and calls ------------------------------------------------------------------------


def test_the_calls_of_a_turn_go_out_together_and_come_back_in_their_order() -> None:
    made = drive()
    sent = made.returns("helper.1", calls(("echo", {"v": 1}), ("echo", {"v": 2})))
    assert [type(c) for c in sent] == [RunTool, RunTool]
    first = sent[0]
    assert isinstance(first, RunTool)
    assert (first.queue, first.retry.max_attempts) == ("tools", 2)
    assert first.job.key == "w/first/helper.1/c0"
    assert made.returns("helper.1.c1", TaskOutput(output=Stored(value="two"))) == []
    made.breaks("helper.1.c0", message="order")
    job = made.flight["helper.2"].job
    assert [(r.id, r.error, r.output and r.output.value) for r in job.results] == [
        ("c0", "order", None),
        ("c1", None, "two"),
    ]
    assert (job.transcript.blob, job.spec.value, job.task.value) == ("t", {}, "")


def test_calls_with_the_same_id_have_keys_and_names_of_their_own() -> None:
    made = drive()
    twice = [AgentCall(id="x", name="echo", args={"v": n}, mark=f"{n}") for n in range(2)]
    made.returns("helper.1", TurnReply(transcript=Stored(blob="t"), calls=twice))
    assert list(made.flight) == ["helper.1.x", "helper.1.1-x"]
    large = Stored(blob="b", size_bytes=20_000)
    for key in list(made.flight):
        made.returns(key, TaskOutput(output=large))
    assert [r.name for r in made.flight["helper.2"].job.results] == ["echo.1.x", "echo.1.1-x"]


def test_more_calls_than_a_turn_may_make_are_answered_and_not_made() -> None:
    made = drive()
    made.returns("helper.1", calls(*[("echo", {"v": n}) for n in range(18)]))
    assert len(made.flight) == 16
    for key in list(made.flight):
        made.returns(key, TaskOutput(output=Stored(value=1)))
    errors = [r.error for r in made.flight["helper.2"].job.results]
    assert errors == [None] * 16 + ["at most 16 calls a turn"] * 2


def test_the_same_call_again_and_again_ends_the_talk() -> None:
    made = drive()
    for turn in (1, 2):
        made.returns(f"helper.{turn}", calls(("echo", {"v": 1})))
        made.returns(f"helper.{turn}.c0", TaskOutput(output=Stored(value=1)))
    made.returns("helper.3", calls(("echo", {"v": 1})))
    found = result(made)
    assert (found.status, found.reason) == ("partial", "echo was called 3 times alike")


def test_turns_are_bounded_and_one_that_calls_on_has_no_answer() -> None:
    made = drive(max_turns=2)
    made.returns("helper.1", calls(("echo", {"v": 1})))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight["helper.2"].job.is_last
    made.returns("helper.2", says("", problems=["empty output"]))
    found = result(made)
    assert (found.status, found.output) == ("partial", None)
    assert found.reason == "max_turns 2 is reached without an answer"


def test_a_wrong_answer_goes_back_once_with_its_problems() -> None:
    made = drive()
    made.returns("helper.1", says("prose", problems=["is no JSON"]))
    assert made.flight["helper.2"].job.problems == ["is no JSON"]
    made.returns("helper.2", says("prose", problems=["is no JSON"]))
    found = result(made)
    assert (found.status, found.error_class) == ("failed", "schema_violation")
    assert (found.output, found.reason) == ("prose", "schema_violation: is no JSON")


def test_a_turn_that_fails_for_good_is_paid_and_ends_the_talk() -> None:
    made = drive(budget={"tokens": 50_000})
    made.breaks("helper.1", "auth", "no key", usage=used(70))
    found = result(made)
    assert (found.status, found.error_class, found.reason) == ("failed", "auth", "no key")
    assert found.usage.tokens == 70
    assert made.state.account.ledger.reserved == {}


# -- large words ----------------------------------------------------------------------------


def test_large_words_are_stored_and_summed_up_before_the_first_turn() -> None:
    made = drive(context="x" * 3_000)
    (stored,) = made.flight.values()
    assert isinstance(stored, Resolve)
    big = Stored(blob="b", size_bytes=50_000)
    (asked,) = made.returns(stored.key, Resolved(stored=big))
    assert isinstance(asked, AskModel)
    assert (asked.activity_id, asked.job.cache) == ("helper.context.summary", "run")
    made.returns(asked.key, TaskOutput(output=Stored(value="in short"), usage=used(10)))
    job = made.flight["helper.1"].job
    assert (job.context, job.inputs, job.summaries["context"].value) == (
        None,
        {"context": big},
        "in short",
    )
    made.returns("helper.1", calls(("read_output", {"id": "context", "start": 5})))
    (read,) = made.flight.values()
    assert isinstance(read, ReadOutput)
    assert (read.stored, read.start, read.end) == (big, 5, 16_005)


def test_a_summary_that_cannot_be_had_is_noted_and_done_without() -> None:
    lineage = Lineage(inputs={"rows": Stored(blob="b", size_bytes=50_000)})
    made = drive(lineage=lineage)
    made.breaks("helper.rows.summary", "timeout", "too slow", usage=used(9))
    assert "helper.1" in made.flight
    assert made.state.notes == ["helper.rows: shown cut; its summary failed: too slow"]
    assert made.state.used.tokens == 9
    poor = drive(lineage=lineage, budget={"tokens": 6_000})
    assert "helper.1" in poor.flight
    assert poor.state.notes == ["helper.rows: 50,000 bytes, shown cut and without a summary"]


def test_words_that_cannot_be_stored_fail_the_agent() -> None:
    made = drive(task="x" * 3_000)
    made.breaks("helper.task", "unknown", "the store is full")
    assert (result(made).status, result(made).reason) == ("failed", "the store is full")


# -- people ---------------------------------------------------------------------------------


def asker(**more: Any) -> Driver[AgentState]:
    return drive(agent=agent(["ask_human", "echo"]), **more)


def ask(*texts: str) -> TurnReply:
    return calls(*[("ask_human", {"question": t}) for t in texts])


def test_two_questions_of_one_turn_are_asked_one_after_the_other() -> None:
    made = asker()
    made.returns("helper.1", ask("One?", "Two?"))
    assert made.machine.progress(made.state, made.now)["detail"] == "helper: One?"
    made.control("complete_task", CompleteTask(id="helper", output="1"))
    assert made.machine.progress(made.state, made.now)["detail"] == "helper: Two?"
    made.control("complete_task", CompleteTask(id="helper", output="2"))
    assert [r.output.value for r in made.flight["helper.2"].job.results] == ["1", "2"]


def test_two_quick_answers_to_two_questions_are_kept_in_order() -> None:
    """The second came in the same workflow task as the first, and was refused or lost."""
    made = asker()
    made.returns("helper.1", ask("One?"))
    made.control("complete_task", CompleteTask(id="helper", output="1"))
    made.control("complete_task", CompleteTask(id="helper", output="2", by="ann"), token=7)
    assert "its next question takes the answer" in made.answers[7].reply.message  # type: ignore[union-attr]
    made.returns("helper.2", ask("Two?"))
    assert [r.output.value for r in made.flight["helper.3"].job.results] == ["2"]
    assert 'came early by "ann"' in made.state.notes[0]


def test_an_answer_before_the_agent_has_begun_is_kept() -> None:
    """Signal-with-start: the agent was not known, and the answer was dropped."""
    made = driver(agent=agent(["ask_human"]))
    made.control("complete_task", CompleteTask(id="helper", output="blue"))
    made.begin()
    made.returns("prepare", SITE)
    made.returns("helper.1", ask("Which colour?"))
    assert made.flight["helper.2"].job.results[0].output.value == "blue"


def test_an_answer_for_somebody_else_is_refused_with_who_there_is() -> None:
    made = asker()
    made.control("complete_task", CompleteTask(id="helpr", output="x"), token=1)
    refused = made.answers[1]
    assert isinstance(refused, Refuse)
    assert 'Did you mean "helper"?' in refused.message
    made.control("complete_task", CompleteTask(id="helpr", output="x"))
    assert made.state.notes == [f"signal ignored: {refused.message}"]


def test_early_answers_are_bounded_in_number_and_size() -> None:
    made = asker()
    made.control("complete_task", CompleteTask(id="helper", output="x" * 300_000), token=1)
    assert isinstance(made.answers[1], Refuse)
    for n in range(2, 30):
        made.control("complete_task", CompleteTask(id="helper", output="x"), token=n)
    assert sum(isinstance(a, Refuse) for a in made.answers.values()) == 9


def test_a_question_that_is_long_or_holds_a_reference_is_shown_as_it_is() -> None:
    """Such arguments travel behind a reference, and `${arg0}` was what the person read."""
    made = asker()
    call = AgentCall(
        id="c",
        name="ask_human",
        args={"question": "${arg0}"},
        inputs={"arg0": Stored(value="What is ${HOME}?")},
        mark="m",
    )
    made.returns("helper.1", TurnReply(transcript=Stored(blob="t"), calls=[call]))
    assert made.state.questions.open["helper"].text == "What is ${HOME}?"


def test_the_parent_run_hears_of_a_question_and_of_its_end() -> None:
    made = driver(
        Identity("run/paint", "k"),
        agent=agent(["ask_human"]),
        lineage=Lineage(parent="run", root="run"),
    )
    made.begin()
    made.returns("prepare", SITE)
    made.returns("helper.1", ask("Which colour?"))
    asks = {"child": "run/paint", "name": "helper", "key": "paint"}
    opened = Tell("run", "child_asks", ChildAsks(**asks, question="Which colour?"))
    assert made.told == [opened]
    made.control("complete_task", CompleteTask(id="helper", output="blue"))
    assert made.told[1:] == [Tell("run", "child_asks", ChildAsks(**asks, question=None))]


def test_a_large_answer_of_a_person_is_stored_before_the_model_reads_it() -> None:
    made = asker()
    made.returns("helper.1", ask("Well?"))
    made.control("complete_task", CompleteTask(id="helper", output="x" * 5_000))
    (stored,) = made.flight.values()
    assert isinstance(stored, Resolve)
    made.returns(stored.key, Resolved(stored=Stored(blob="b", size_bytes=5_002)))
    assert made.flight["helper.2"].job.results[0].output.blob == "b"


# -- budget and time ------------------------------------------------------------------------


def test_at_its_cap_an_agent_parks_and_goes_on_when_it_is_raised() -> None:
    made = drive(budget={"tokens": 2_500})
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=2_400))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight == {}
    shown = made.machine.progress(made.state, made.now)
    assert (shown["status"], shown["awaiting"]) == ("waiting", "budget")
    assert "raise_budget lets it go on" in shown["detail"]
    made.control("raise_budget", RaiseBudget(tokens=100), token=1)
    refused = made.answers[1]
    assert isinstance(refused, Refuse)
    assert (refused.type, "below the 2,400" in refused.message) == ("BudgetExceeded", True)
    made.control("raise_budget", RaiseBudget(tokens=50_000, by="ops"))
    assert "helper.2" in made.flight
    assert made.state.notes == ['budget raised by "ops": tokens 50000']


def test_an_agent_that_is_not_to_park_ends_partial_at_its_cap() -> None:
    made = drive(budget={"tokens": 2_500}, on_budget="partial")
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=2_400))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    found = result(made)
    assert found.status == "partial"
    assert (found.reason or "").startswith("budget: helper needs")


def test_a_parked_call_goes_out_in_the_step_in_which_room_appears() -> None:
    """One call settled and another reserved between two looks, and the caller slept on."""
    made = drive(agent=agent(["dear"]), budget={"usd": 0.6})
    made.returns("helper.1", calls(("dear", {"n": 1}), ("dear", {"n": 2})))
    assert list(made.flight) == ["helper.1.c0"]
    free = TaskOutput(output=Stored(value=1), usage=Usage(tool_calls=1))
    assert [c.key for c in made.returns("helper.1.c0", free)] == ["helper.1.c1"]  # type: ignore[union-attr]


def test_every_reservation_is_settled_however_its_call_ends() -> None:
    made = drive(agent=agent(["dear"]), budget={"usd": 10, "tokens": 90_000})
    made.returns("helper.1", calls(("dear", {"n": 1}), ("dear", {"n": 2}), ("dear", {"n": 3})))
    made.breaks("helper.1.c0", "tool", usage=Usage(usd_nano=5, tool_calls=1))
    made.breaks("helper.1.c1", "cancelled", "cancelled")
    made.do(CancelRequested())
    made.cancels_land()
    assert made.state.account.ledger.reserved == {}
    assert made.state.account.ledger.settled.usd_nano == 5
    assert result(made).status == "cancelled"


def test_a_child_that_has_used_its_grant_up_asks_its_parent_once() -> None:
    lineage = Lineage(parent="run", grant=Grant(tokens=600))
    made = driver(Identity("run/a", "k"), lineage=lineage)
    made.begin()
    made.returns("prepare", SITE)
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=590))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    wanted = [t.payload for t in made.told if t.signal == "grant_wanted"]
    assert wanted == [GrantWanted(child="run/a", name="a", tokens=653)]
    made.do(SignalIgnored("noise"))
    assert len(made.told) == 1
    made.control("raise_budget", RaiseBudget(tokens=9_000, by="parent"))
    assert "helper.2" in made.flight
    assert made.state.notes == ["signal ignored: noise"]


def test_once_the_time_is_over_nothing_starts_until_there_is_more() -> None:
    made = drive(budget={"seconds": 30})
    assert made.timers == {"budget.seconds": 1_030.0}
    made.fire("budget.seconds")
    made.returns("helper.1", calls(("echo", {"v": 1})))
    assert made.flight == {}
    assert "its 30 s are over" in made.machine.progress(made.state, made.now)["detail"]
    made.control("raise_budget", RaiseBudget(seconds=90))
    assert list(made.flight) == ["helper.1.c0"]
    assert made.timers == {"budget.seconds": 1_090.0}


def test_a_moved_deadline_of_the_parent_counts_at_once() -> None:
    made = drive(lineage=Lineage(parent="run", deadline=1_010.0))
    made.fire("budget.seconds")
    made.returns("helper.1", calls(("echo", {"v": 1})))
    assert made.flight == {}
    made.do(DeadlineMoved(2_000.0))
    assert list(made.flight) == ["helper.1.c0"]


# -- pause, permit, cancel, continue-as-new -------------------------------------------------


def test_a_paused_agent_makes_no_call_and_goes_on_when_resumed() -> None:
    made = drive()
    made.control("pause")
    made.returns("helper.1", calls(("echo", {"v": 1})))
    assert made.flight == {}
    assert made.machine.view(made.state, made.now).status == "paused"
    made.control("resume", token=3)
    assert list(made.flight) == ["helper.1.c0"]


LIMITED = SITE.model_copy(
    update={"pools": [PoolSpec(name="p", is_reserved=True, capacity_id="cap", max_calls=4)]}
)


def test_room_in_a_pool_is_waited_for_renewed_and_given_back() -> None:
    made = drive(LIMITED)
    taken = made.flight["permit"]
    assert isinstance(taken, TakePermit)
    assert (taken.job.holder, taken.job.capacity_id) == ("w", "cap")
    shown = made.machine.progress(made.state, made.now)
    assert (shown["status"], shown["awaiting"]) == ("waiting", "capacity")
    made.returns("permit", None)
    assert "helper.1" in made.flight
    made.fire("permit")
    assert made.told == [Tell("cap", "renew", Renew(holder="w", ttl_seconds=300.0))]
    made.returns("helper.1", says("done"))
    assert made.told[1:] == [Tell("cap", "release", Release(holder="w"))]
    assert made.timers == {}


def test_a_child_waits_for_no_room_that_its_parent_holds() -> None:
    made = drive(LIMITED, lineage=Lineage(parent="run"))
    assert list(made.flight) == ["helper.1"]


def test_an_agent_cancelled_while_it_waits_for_room_gives_back_what_it_may_have_got() -> None:
    made = drive(LIMITED)
    made.do(CancelRequested())
    made.cancels_land()
    assert (result(made).status, result(made).reason) == ("cancelled", "the run was cancelled")
    assert made.told == [Tell("cap", "release", Release(holder="w"))]


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancel_before_anything_is_known_ends_the_agent(begun: bool) -> None:
    made = driver()
    if begun:
        made.begin()
    made.do(CancelRequested())
    made.cancels_land()
    assert result(made).status == "cancelled"
    made.begin()
    assert made.flight == {}


def test_a_cancelled_agent_waits_for_what_it_cancelled_and_says_no_more() -> None:
    made = asker(lineage=Lineage(parent="run"))
    made.returns("helper.1", calls(("ask_human", {"question": "Well?"}), ("echo", {"v": 1})))
    made.do(CancelRequested())
    assert made.cancelled == ["helper.1.c1"]
    assert [t.payload.question for t in made.told] == ["Well?", None]
    assert made.ended is None
    made.returns("helper.1.c1", TaskOutput(output=Stored(value=1)))
    assert result(made).status == "cancelled"
    assert result(made).turns == 1


def test_a_long_history_starts_nothing_and_all_goes_on_in_the_next_run() -> None:
    made = drive(LIMITED, budget={"seconds": 600})
    made.returns("permit", None)
    renewed_at = made.timers["permit"]
    made.do(HistoryLong())
    assert not made.machine.may_continue(made.state)
    made.returns("helper.1", calls(("echo", {"v": 1})))
    assert made.flight == {}
    assert made.machine.may_continue(made.state)
    made.timers.clear()
    made.do(Continued())
    assert list(made.flight) == ["helper.1.c0"]
    assert made.timers == {"permit": renewed_at, "budget.seconds": 1_600.0}


def test_an_open_question_survives_a_continue_as_new() -> None:
    made = asker()
    made.returns("helper.1", ask("Well?"))
    made.do(HistoryLong())
    assert made.machine.may_continue(made.state)
    made.do(Continued())
    made.control("complete_task", CompleteTask(id="helper", output="yes"))
    assert "helper.2" in made.flight


def test_what_comes_after_the_end_is_answered_and_changes_nothing() -> None:
    made = drive()
    made.returns("helper.1", says("done"))
    before = result(made)
    made.control("pause", token=1)
    refused = made.answers[1]
    assert isinstance(refused, Refuse)
    assert refused.message == "pause: the agent has ended: completed"
    made.do(PlannerRetried(attempt=None, token=2))  # type: ignore[arg-type]
    assert isinstance(made.answers[2], Refuse)
    made.do(CancelRequested())
    assert result(made) == before


def test_notes_are_bounded_in_number_and_length() -> None:
    """10,000 signals in a row, each of 20 KB, were all part of the result."""
    made = drive()
    for _ in range(300):
        machine.step(made.state, SignalIgnored("x" * 20_000), made.now)
    made.returns("helper.1", says("done"))
    notes = result(made).notes
    assert (len(notes), max(map(len, notes))) == (200, 500)


def test_members_report_what_their_answer_shows() -> None:
    made = drive(lineage=Lineage(parent="team", form="member"))
    assert made.flight["helper.1"].job.form == "member"
    fields = {"CLAIM": "yes"}
    made.returns("helper.1", says("x", fields=fields, confidence=0.7, evidence=2))
    found = result(made)
    assert found.fields == fields
    assert found.diagnosis is not None
    assert (found.diagnosis.confidence, found.diagnosis.evidence) == (0.7, 2)


def test_the_page_says_who_the_agent_is_and_how_it_ended() -> None:
    made = drive(tenant="acme")
    assert machine.published(made.state) == ("running", None, False)
    made.returns("helper.1", says("done"))
    seen = machine.view(made.state, made.now)
    assert (seen.status, seen.awaiting, seen.revision, seen.tenant) == (
        "completed",
        None,
        None,
        "acme",
    )
    assert "**completed**: agent helper, 1 turns, 0 tool calls" in seen.details
    later = machine.progress(made.state, made.now + 500)
    assert later["seconds"] == result(made).seconds
