"""The agent machine by value: its course, turns, calls and large words. No server."""

from __future__ import annotations

from planloom.planner.contract.jobs import (
    AgentCall,
    LoadedDefinition,
    Resolved,
    TaskOutput,
    TurnReply,
)
from planloom.planner.contract.requests import Lineage
from planloom.planner.language.values import Problem, Stored
from planloom.workflows.machines.shared.commands import (
    AskModel,
    LoadDefinition,
    Prepare,
    ReadOutput,
    Resolve,
    RunTool,
    TakeTurn,
)
from planloom.workflows.machines.shared.machine import Failed
from tests.support.agents import CATALOG, agent, calls, drive, driver, result, says, used

# -- the course -----------------------------------------------------------------------------


def test_an_agent_asks_the_worker_then_the_model_and_ends_with_its_answer() -> None:
    made = driver()
    (prepare,) = made.begin()
    assert isinstance(prepare, Prepare)
    assert (prepare.job.tools, prepare.job.is_goal) == (["echo"], False)
    (turn,) = made.returns("prepare", CATALOG)
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
    loaded = LoadedDefinition(
        spec=Stored(value={"system": "x"}), tools=["echo", "nap"], max_turns=2
    )
    made.returns("load", loaded)
    made.returns("prepare", CATALOG)
    assert made.flight["reviewer.1"].job.model == "big"
    made.returns("reviewer.1", calls(("echo", {"v": 1})))
    made.returns("reviewer.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight["reviewer.2"].job.is_last


def test_an_unknown_agent_is_refused_with_all_problems() -> None:
    problem = Problem(path="agent", code="unknown_agent", message='no agent "x"')
    made = driver(agent="x")
    made.begin()
    made.returns("load", LoadedDefinition(problems=[problem]))
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
    twice = [AgentCall(id="x", name="echo", args={"v": n}, fingerprint=f"{n}") for n in range(2)]
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


def test_turns_are_bounded_and_one_that_calls_on_has_no_answer() -> None:
    made = drive(max_turns=2)
    made.returns("helper.1", calls(("echo", {"v": 1})))
    made.returns("helper.1.c0", TaskOutput(output=Stored(value=1)))
    assert made.flight["helper.2"].job.is_last
    made.returns("helper.2", says("", problems=["empty output"]))
    found = result(made)
    assert (found.status, found.output) == ("partial", None)
    assert found.reason == "max_turns 2 is reached without an answer"
    shown = made.machine.progress(made.state, made.now)
    assert (shown["reason"], shown["goal"]) == (found.reason, made.state.request.task)


def test_a_wrong_answer_goes_back_once_with_its_problems() -> None:
    made = drive()
    made.returns("helper.1", says("prose", problems=["is no JSON"]))
    assert made.flight["helper.2"].job.problems == ["is no JSON"]
    made.returns("helper.2", says("prose", problems=["is no JSON"]))
    found = result(made)
    assert (found.status, found.error_class) == ("failed", "schema_violation")
    assert (found.output, found.reason) == ("prose", "schema_violation: is no JSON")


def test_what_a_turn_was_told_is_not_told_again() -> None:
    made = drive()
    made.returns("helper.1", says("prose", problems=["is no JSON"]))
    made.returns("helper.2", calls(("echo", {"v": 1})))
    made.returns("helper.2.c0", TaskOutput(output=Stored(value=1)))
    made.returns("helper.3", calls(("echo", {"v": 2})))
    made.breaks("helper.3.c0")
    told = [(t.job.problems, len(t.job.results)) for t in made.all_turns("helper")]
    assert told == [([], 0), (["is no JSON"], 0), ([], 1), ([], 1)]
    assert [r.error for r in made.flight["helper.4"].job.results] == ["it broke"]


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


def test_an_input_without_a_summary_lets_no_turn_go_before_the_summary_of_the_next() -> None:
    huge, big = Stored(blob="a", size_bytes=500_000), Stored(blob="b", size_bytes=50_000)
    made = drive(lineage=Lineage(inputs={"all": huge, "rows": big}))
    assert list(made.flight) == ["helper.rows.summary"]
    said = TaskOutput(output=Stored(value="in short"), usage=used(10))
    made.returns("helper.rows.summary", said)
    assert made.flight["helper.1"].job.summaries["rows"].value == "in short"
    assert made.state.notes == ["helper.all: 500,000 bytes, shown cut and without a summary"]
