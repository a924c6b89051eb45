"""The agent machine by value: people, budget and time, pause, permit, cancel, continue-as-new."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.capacity import Release, Renew
from planloom.planner.contract.controls import ChildAsks, CompleteTask, GrantWanted, RaiseBudget
from planloom.planner.contract.jobs import (
    AgentCall,
    Resolved,
    TaskOutput,
    TurnReply,
)
from planloom.planner.contract.requests import Grant, Lineage
from planloom.planner.language.catalog import PoolSpec
from planloom.planner.language.values import NANO, Stored, Usage
from planloom.workflows.machines.agent import machine
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.shared.budget import Caps
from planloom.workflows.machines.shared.commands import (
    Refuse,
    Resolve,
    TakePermit,
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
from planloom.workflows.machines.shared.machine import Identity, Published
from tests.support.agents import CATALOG, agent, calls, drive, driver, result, says
from tests.support.driving import Driver

# -- people ---------------------------------------------------------------------------------


def asker(**more: Any) -> Driver[AgentState]:
    return drive(agent=agent(["ask_human", "echo"]), **more)


def ask(*texts: str) -> TurnReply:
    return calls(*[("ask_human", {"question": t}) for t in texts])


def test_two_questions_of_one_turn_are_asked_one_after_the_other() -> None:
    made = asker()
    made.returns("helper.1", ask("One?", "Two?"))
    shown = made.machine.progress(made.state, made.now)
    assert (shown["awaiting"], shown["detail"]) == ("human", "helper: One?")
    command = "temporal workflow signal --workflow-id w --name complete_task"
    assert shown["waits"][0]["command"].startswith(command)
    assert shown["waits"][0]["since"] == 3.0
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
    made.returns("prepare", CATALOG)
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
        fingerprint="m",
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
    made.returns("prepare", CATALOG)
    made.returns("helper.1", ask("Which colour?"))
    asks = {"child": "run/paint", "name": "helper", "key": "paint"}
    opened = Tell("run", "child_asks", ChildAsks(**asks, question="Which colour?"))
    assert made.told == [opened]
    made.control("complete_task", CompleteTask(id="helper", output="blue"))
    assert made.told[1:] == [Tell("run", "child_asks", ChildAsks(**asks, question=None))]


def test_the_parent_run_hears_of_one_question_after_the_other() -> None:
    made = asker(lineage=Lineage(parent="run"))
    made.returns("helper.1", ask("One?", "Two?"))
    assert [t.payload.question for t in made.told] == ["One?"]
    made.control("complete_task", CompleteTask(id="helper", output="1"))
    made.control("complete_task", CompleteTask(id="helper", output="2"))
    assert [t.payload.question for t in made.told] == ["One?", "Two?", None]


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
    made.returns("prepare", CATALOG)
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=590))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    wanted = [t.payload for t in made.told if t.signal == "grant_wanted"]
    assert wanted == [GrantWanted(child="run/a", name="a", tokens=653)]
    made.do(SignalIgnored("noise"))
    assert len(made.told) == 1
    made.control("raise_budget", RaiseBudget(tokens=9_000, by="parent"))
    assert "helper.2" in made.flight
    assert made.state.notes == ["signal ignored: noise"]


def test_a_first_cap_below_what_a_child_has_used_makes_it_ask_for_both() -> None:
    made = driver(Identity("run/a", "k"), lineage=Lineage(parent="run", grant=Grant()))
    made.begin()
    made.returns("prepare", CATALOG)
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=5_000))
    made.control("raise_budget", RaiseBudget(tokens=600, by="parent"))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight == {}
    (wanted,) = [t.payload for t in made.told if t.signal == "grant_wanted"]
    assert wanted.tokens > 5_000 - 600
    made.control("raise_budget", RaiseBudget(tokens=600 + wanted.tokens, by="parent"))
    assert "helper.2" in made.flight


def test_a_first_cap_of_its_run_leaves_an_agents_own_cap_as_it_is() -> None:
    lineage = Lineage(parent="run", grant=Grant())
    made = driver(Identity("run/a", "k"), lineage=lineage, budget={"tokens": 5_000})
    made.begin()
    made.control("raise_budget", RaiseBudget(tokens=20_000, usd=1, by="parent"))
    assert made.state.account.ledger.caps == Caps(tokens=5_000, usd_nano=NANO)


def test_a_paused_child_does_not_ask_its_parent_for_more_and_more() -> None:
    """It took nothing while paused: each grant made it ask again, until its parent had none."""
    lineage = Lineage(parent="run", grant=Grant(tokens=600))
    made = driver(Identity("run/a", "k"), lineage=lineage)
    made.begin()
    made.returns("prepare", CATALOG)
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=590))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    made.control("pause")
    made.control("raise_budget", RaiseBudget(tokens=9_000, by="parent"))
    assert [t.signal for t in made.told] == ["grant_wanted"]
    made.control("resume")
    assert "helper.2" in made.flight


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
    assert made.machine.published(made.state).status == "paused"
    made.control("resume", token=3)
    assert list(made.flight) == ["helper.1.c0"]


LIMITED = CATALOG.model_copy(
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


def test_an_agent_cancelled_at_its_cap_waits_for_nothing_more() -> None:
    made = drive(budget={"tokens": 2_500})
    made.returns("helper.1", calls(("echo", {"v": 1}), usage=2_400))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    made.do(CancelRequested())
    assert result(made).status == "cancelled"
    assert made.state.account.parked == {}


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
    assert machine.published(made.state) == Published("running", None, None, "acme", False)
    made.returns("helper.1", says("done"))
    assert machine.published(made.state) == Published("completed", None, None, "acme", False)
    page = machine.details(made.state, made.now)
    assert "**completed**: agent helper, 1 turns, 0 tool calls" in page
    later = machine.progress(made.state, made.now + 500)
    assert later["seconds"] == result(made).seconds
