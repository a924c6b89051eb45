"""Questions of agents: one at a time for each asker; early answers keep their order."""

from __future__ import annotations

from planloom.planner.contract.controls import CompleteTask
from planloom.workflows.machines.shared import questions
from planloom.workflows.machines.shared.questions import Answered, Questions


def given(id: str, output: object = "x") -> CompleteTask:
    return CompleteTask.model_validate({"id": id, "output": output})


def test_an_asker_has_one_open_question_and_the_next_opens_with_the_answer() -> None:
    q = Questions()
    for n, text in enumerate(("One?", "Two?", "Three?")):
        assert questions.ask(q, "ann", f"k{n}", text, float(n)) is None
    assert questions.ask(q, "bob", "b", "Bob?", 3.0) is None
    assert {a: x.text for a, x in q.open.items()} == {"ann": "One?", "bob": "Bob?"}
    assert questions.answer(q, given("ann", "1"), 9.0) == [Answered("k0", "1")]
    assert (q.open["ann"].text, q.open["ann"].since) == ("Two?", 9.0)
    assert questions.answer(q, given("ann", "2"), 9.0) == [Answered("k1", "2")]
    assert questions.answer(q, given("ann", "3"), 9.0) == [Answered("k2", "3")]
    assert (list(q.open), q.waiting) == (["bob"], {})


def test_early_answers_are_taken_in_order_by_the_questions_that_follow() -> None:
    q = Questions()
    for n in range(2):
        assert questions.answer(q, given("ann", n), 0.0) == []
    assert questions.ask(q, "ann", "k0", "One?", 1.0) == Answered("k0", 0)
    assert questions.ask(q, "ann", "k1", "Two?", 1.0) == Answered("k1", 1)
    assert questions.ask(q, "ann", "k2", "Three?", 1.0) is None


def test_who_is_not_known_is_refused_once_the_askers_are_known() -> None:
    q = Questions()
    assert questions.problem_with_answer(q, given("bob"), None) is None
    problem = questions.problem_with_answer(q, given("bob"), ["ann", "bobby"])
    assert problem == 'complete_task: nobody here is called "bob". Did you mean "bobby"?'


def test_an_asker_that_is_gone_asks_no_more() -> None:
    q = Questions()
    questions.ask(q, "ann", "k0", "One?", 0.0)
    questions.ask(q, "ann", "k1", "Two?", 0.0)
    assert questions.withdraw(q, "ann")
    assert not questions.withdraw(q, "ann")
    assert (q.open, q.waiting) == ({}, {})


def test_an_agent_is_known_by_its_task_and_a_member_by_both() -> None:
    alone = questions.asks("run/t", "run", "helper", "Well?", is_team=False)
    member = questions.asks("run/t", "run", "ann", None, is_team=True)
    assert (alone.key, member.key, member.question) == ("t", "t.ann", None)


def test_an_answer_that_came_early_is_taken_by_the_question_behind_a_decision() -> None:
    q = Questions()
    assert questions.answer(q, given("ann", "blue"), 0.0) == []
    questions.ask(q, "ann", "k0", "May it?", 1.0, is_decision=True)
    questions.ask(q, "ann", "k1", "Which colour?", 1.0)
    questions.ask(q, "ann", "k2", "Which size?", 1.0)
    yes = given("ann", {"approve": True})
    assert questions.answer(q, yes, 2.0) == [
        Answered("k0", {"approve": True}),
        Answered("k1", "blue"),
    ]
    assert (q.open["ann"].text, q.early) == ("Which size?", {})
