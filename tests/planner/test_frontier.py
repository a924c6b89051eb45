"""The frontier against an oracle that looks at the whole plan again, slowly, at every step."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planloom.planner.language.plan import AtLeast
from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.frontier import (
    Frontier,
    InvalidTransition,
    Node,
    State,
    Unit,
    units_of,
)
from planloom.planner.walk.requires import judge_inputs

Inputs = dict[TaskId, tuple[TaskId, ...]]


def ids(*names: str) -> tuple[TaskId, ...]:
    return tuple(TaskId(n) for n in names)


def frontier_of(inputs: dict[str, str], parallel: int = 100, **more: Node) -> Frontier:
    """A frontier of tasks written as `{"c": "a b"}`: c reads a and b."""
    made = Frontier(parallel)
    nodes = [Node(TaskId(t), inputs=ids(*ins.split())) for t, ins in inputs.items()]
    made.add([more.get(n.id, n) for n in nodes])
    made.close()
    return made


def started(frontier: Frontier) -> list[str]:
    return [u.task for u in units_of(frontier)]


@st.composite
def plans(draw: st.DrawFn) -> Inputs:
    count = draw(st.integers(1, 14))
    names = [TaskId(f"t{n}") for n in range(count)]
    return {
        name: tuple(draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=4)))
        if n
        else ()
        for n, name in enumerate(names)
    }


def ready_by_definition(inputs: Inputs, ended: dict[TaskId, Outcome]) -> set[TaskId]:
    """The oracle: every task whose inputs have all ended well, found by looking at all of them."""
    return {t for t, ins in inputs.items() if all(i in ended and ended[i].is_good for i in ins)}


@given(plans(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_task_starts_when_its_last_input_ends_and_a_slot_is_free(
    inputs: Inputs, parallel: int, random: Random
) -> None:
    frontier = Frontier(parallel)
    frontier.add([Node(t, inputs=ins) for t, ins in inputs.items()])
    frontier.close()
    begun, ended = [u.task for u in units_of(frontier)], dict[TaskId, Outcome]()
    while frontier.running():
        frontier.check()
        ready = ready_by_definition(inputs, ended)
        free = parallel - len(frontier.running())
        # At no moment does a task wait whose inputs are ready while a slot is free.
        assert free == 0 or not ready - set(begun)
        assert set(begun) <= ready
        done = random.choice(frontier.running())
        ended[done] = Outcome.SUCCEEDED
        frontier.end(done, Outcome.SUCCEEDED)
        begun += [u.task for u in units_of(frontier)]
    assert sorted(begun) == sorted(inputs)  # each one once
    assert frontier.is_over


@given(plans(), st.randoms(use_true_random=False), st.floats(0, 1))
def test_a_failure_skips_its_descendants_and_nothing_else(
    inputs: Inputs, random: Random, failing: float
) -> None:
    frontier = Frontier(3)
    frontier.add([Node(t, inputs=ins) for t, ins in inputs.items()])
    frontier.close()
    list(units_of(frontier))
    while frontier.running():
        done = random.choice(frontier.running())
        bad = random.random() < failing
        frontier.end(done, Outcome.FAILED if bad else Outcome.SUCCEEDED)
        list(units_of(frontier))
        frontier.check()
    outcomes = frontier.outcomes()
    for task, ins in inputs.items():
        reachable = all(outcomes[i] is Outcome.SUCCEEDED for i in ins)
        assert (outcomes[task] is Outcome.SKIPPED) == (not reachable)


def test_ready_tasks_wait_in_order_of_priority_then_rank_then_plan_order() -> None:
    frontier = Frontier(1)
    frontier.add(
        [
            Node(TaskId("low"), priority=4, rank=99.0),
            Node(TaskId("short"), rank=1.0),
            Node(TaskId("long"), rank=9.0),
            Node(TaskId("twin"), rank=9.0),
            Node(TaskId("urgent"), priority=1),
        ]
    )
    order = []
    while frontier.next_ready():
        (task,) = started(frontier)
        order.append(task)
        frontier.end(TaskId(task), Outcome.SUCCEEDED)
    assert order == ["urgent", "long", "twin", "short", "low"]


def test_an_independent_branch_goes_on_when_its_sibling_fails() -> None:
    frontier = frontier_of({"a": "", "b": "a", "c": "a", "d": "b c"})
    started(frontier)
    frontier.end(TaskId("a"), Outcome.SUCCEEDED)
    assert started(frontier) == ["b", "c"]
    settled = frontier.end(TaskId("b"), Outcome.FAILED)
    assert [(s.task, s.outcome, s.because) for s in settled] == [("d", Outcome.SKIPPED, ("b",))]
    frontier.end(TaskId("c"), Outcome.SUCCEEDED)
    assert frontier.is_over


@pytest.mark.parametrize(
    ("requires", "inputs", "verdict"),
    [
        ("all", [Outcome.SUCCEEDED, None], "wait"),
        ("all", [Outcome.FAILED, None], "blocked"),
        ("all", [], "run"),
        ("any", [None, Outcome.FALLBACK], "run"),
        ("any", [Outcome.FAILED, Outcome.SKIPPED], "blocked"),
        ("any", [], "run"),
        ("best_effort", [Outcome.FAILED, None], "wait"),
        ("best_effort", [Outcome.FAILED, Outcome.CANCELLED], "run"),
        (AtLeast(at_least=2), [Outcome.SUCCEEDED, None, None], "wait"),
        (AtLeast(at_least=2), [Outcome.SUCCEEDED, Outcome.CACHED, None], "run"),
        (AtLeast(at_least=2), [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN], "blocked"),
    ],
)
def test_requires_decides_from_outcomes(requires, inputs, verdict) -> None:
    ended = [o for o in inputs if o is not None]
    good = sum(o.is_good for o in ended)
    assert judge_inputs(requires, len(inputs), good, len(inputs) - len(ended)) == verdict


def test_a_blocked_task_takes_its_fallback_value_fails_or_skips_as_it_says() -> None:
    frontier = frontier_of(
        {"a": "", "v": "a", "f": "a", "s": "a", "w": "v"},
        v=Node(TaskId("v"), inputs=ids("a"), fallback="value"),
        f=Node(TaskId("f"), inputs=ids("a"), on_error="fail"),
        s=Node(TaskId("s"), inputs=ids("a"), on_error="skip"),
    )
    started(frontier)
    settled = frontier.end(TaskId("a"), Outcome.FAILED)
    assert {s.task: s.outcome for s in settled} == {
        "v": Outcome.FALLBACK,
        "f": Outcome.FAILED,
        "s": Outcome.SKIPPED,
    }
    assert started(frontier) == ["w"]  # a fallback is a value to go on with


def test_a_blocked_task_with_an_alternative_path_runs_it() -> None:
    frontier = frontier_of(
        {"a": "", "b": "a"}, b=Node(TaskId("b"), inputs=ids("a"), fallback="body")
    )
    started(frontier)
    frontier.end(TaskId("a"), Outcome.FAILED)
    assert list(units_of(frontier)) == [Unit(TaskId("b"), mode="fallback")]


def test_a_condition_is_waited_for_whatever_its_outcome() -> None:
    frontier = frontier_of(
        {"a": "", "repair": "a"}, repair=Node(TaskId("repair"), conditions=ids("a"))
    )
    started(frontier)
    frontier.end(TaskId("a"), Outcome.FAILED)
    assert started(frontier) == ["repair"]


def test_the_items_of_a_map_share_the_slots_with_everyone() -> None:
    frontier = frontier_of({"m": "", "x": ""}, parallel=2)
    assert started(frontier) == ["m", "x"]
    frontier.expand(TaskId("m"), 3)
    assert list(units_of(frontier)) == [Unit(TaskId("m"), 0)]
    frontier.end(TaskId("x"), Outcome.SUCCEEDED)
    assert list(units_of(frontier)) == [Unit(TaskId("m"), 1)]
    frontier.check()
    assert not frontier.end_unit(TaskId("m"), 1)
    assert list(units_of(frontier)) == [Unit(TaskId("m"), 2)]
    assert not frontier.end_unit(TaskId("m"), 0)
    assert frontier.end_unit(TaskId("m"), 2)
    frontier.end(TaskId("m"), Outcome.SUCCEEDED, was_expanded=True)
    frontier.check()
    assert frontier.is_over


def test_nothing_starts_while_paused_and_all_goes_on_after() -> None:
    frontier = frontier_of({"a": "", "b": "a"})
    frontier.is_paused = True
    assert started(frontier) == []
    frontier.is_paused = False
    assert started(frontier) == ["a"]


def test_a_task_that_waits_for_a_person_holds_no_slot() -> None:
    frontier = frontier_of(
        {"ask": "", "a": "", "b": ""}, parallel=1, ask=Node(TaskId("ask"), is_free=True)
    )
    assert started(frontier) == ["ask", "a"]


def test_a_held_task_gives_its_slot_back_and_starts_when_released() -> None:
    frontier = frontier_of({"a": "", "b": ""}, parallel=1)
    assert started(frontier) == ["a"]
    frontier.hold(TaskId("a"))
    assert started(frontier) == ["b"]
    frontier.release(TaskId("a"))
    frontier.end(TaskId("b"), Outcome.SUCCEEDED)
    assert started(frontier) == ["a"]


def test_another_round_reopens_the_failed_and_all_that_their_failure_settled() -> None:
    frontier = frontier_of({"a": "", "b": "a", "c": "b", "d": ""})
    started(frontier)
    frontier.end(TaskId("d"), Outcome.SUCCEEDED)
    frontier.end(TaskId("a"), Outcome.FAILED)
    assert frontier.is_over
    assert frontier.retry_round(ids("a")) == (["a", "b", "c"], [])
    for task in ("a", "b", "c"):
        assert started(frontier) == [task]
        frontier.end(TaskId(task), Outcome.SUCCEEDED)
    assert frontier.is_over
    assert set(frontier.outcomes().values()) == {Outcome.SUCCEEDED}


def test_another_round_leaves_blocked_what_another_failure_blocks() -> None:
    # It hung: `c` reads `a`, which may pass in another round, and `b`, which has failed for good.
    frontier = frontier_of({"a": "", "b": "", "c": "a b", "d": "a"})
    assert started(frontier) == ["a", "b"]
    frontier.end(TaskId("b"), Outcome.FAILED)
    frontier.end(TaskId("a"), Outcome.FAILED)
    opened, settled = frontier.retry_round(ids("a"))
    assert opened == ["a", "c", "d"]
    assert [s.task for s in settled] == ["c"]
    assert started(frontier) == ["a"]
    frontier.end(TaskId("a"), Outcome.SUCCEEDED)
    assert started(frontier) == ["d"]
    frontier.end(TaskId("d"), Outcome.SUCCEEDED)
    frontier.check()
    assert frontier.is_over
    assert frontier.outcome_of(TaskId("c")) is Outcome.SKIPPED


def test_tasks_that_arrive_while_others_run_start_at_once() -> None:
    frontier = Frontier(10)
    frontier.add([Node(TaskId("a"))])
    assert started(frontier) == ["a"]
    frontier.end(TaskId("a"), Outcome.SUCCEEDED)
    assert not frontier.is_over  # the plan is still being written
    frontier.add([Node(TaskId("b"), inputs=ids("a"))])
    assert started(frontier) == ["b"]


def test_a_dropped_task_is_forgotten_and_a_failed_one_may_be_redone() -> None:
    frontier = frontier_of({"a": "", "b": "a"})
    started(frontier)
    frontier.drop(ids("b"))
    frontier.end(TaskId("a"), Outcome.FAILED)
    assert frontier.is_over
    frontier.add([Node(TaskId("a"))])
    assert started(frontier) == ["a"]


def test_an_event_that_does_not_fit_raises_with_the_tasks_state() -> None:
    frontier = frontier_of({"a": "", "b": "a"})
    started(frontier)
    frontier.end(TaskId("a"), Outcome.SUCCEEDED)
    with pytest.raises(InvalidTransition, match="end failed of task 'a' in state succeeded"):
        frontier.end(TaskId("a"), Outcome.FAILED)
    with pytest.raises(InvalidTransition, match="second add"):
        frontier.add([Node(TaskId("b"))])
    assert frontier.state_of(TaskId("b")) is State.READY


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 8), st.randoms(use_true_random=False))
def test_at_most_parallel_units_run_whatever_the_order(
    count: int, parallel: int, random: Random
) -> None:
    frontier = frontier_of({"m": "", "z": "m"}, parallel=parallel)
    started(frontier)
    frontier.expand(TaskId("m"), count)
    running = [u.index for u in units_of(frontier)]
    seen = list(running)
    while running:
        assert len(running) <= parallel
        index = running.pop(random.randrange(len(running)))
        last = frontier.end_unit(TaskId("m"), index or 0)
        new = [u.index for u in units_of(frontier)]
        running += new
        seen += new
    assert last
    assert sorted(i or 0 for i in seen) == list(range(count))


def test_a_guess_starts_after_all_that_need_not_guess() -> None:
    guess = Node(TaskId("guess"), conditions=ids("decide"), is_ahead=True, rank=9.0, priority=1)
    frontier = frontier_of({"decide": "", "guess": "", "other": ""}, parallel=2, guess=guess)
    assert started(frontier) == ["decide", "other"]
    frontier.end(TaskId("other"), Outcome.SUCCEEDED)
    assert started(frontier) == ["guess"], "its condition is not known yet"


def test_a_guess_whose_condition_is_known_is_like_any_other() -> None:
    guess = Node(TaskId("guess"), conditions=ids("decide"), is_ahead=True, rank=9.0, priority=1)
    frontier = frontier_of({"decide": "", "guess": "", "other": ""}, parallel=1, guess=guess)
    assert started(frontier) == ["decide"]
    frontier.end(TaskId("decide"), Outcome.SUCCEEDED)
    assert started(frontier) == ["guess"]
    frontier.check()


def test_an_idle_task_gives_its_slot_back_once() -> None:
    frontier = frontier_of({"a": "", "b": ""}, parallel=1)
    assert started(frontier) == ["a"]
    frontier.idle(TaskId("a"))
    assert started(frontier) == ["b"]
    with pytest.raises(InvalidTransition):
        frontier.idle(TaskId("a"))
    frontier.end(TaskId("a"), Outcome.SUCCEEDED)
    frontier.end(TaskId("b"), Outcome.SUCCEEDED)
    frontier.check()
    assert frontier.slots == 0
