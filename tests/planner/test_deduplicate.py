"""Identical calls are made once: against an oracle, in time, and only where names mean it."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.passes.deduplicate import (
    deduplicate_calls,
    rename_inputs,
    same_call_key,
)
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import TaskId

CATALOG = Catalog(
    tools=[
        ToolSpec(name="search"),
        ToolSpec(name="send", side_effects=True, idempotent=False),
        ToolSpec(name="dice", idempotent=False),
    ]
)


def plan_of(*tasks: dict[str, Any], **more: Any) -> Plan:
    return Plan.model_validate({"tasks": list(tasks), **more})


def search(id: str, query: Any = "x", **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "search", "args": {"query": query}, **more}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    tasks = []
    for n in range(draw(st.integers(1, 8))):
        reads = draw(st.lists(st.integers(0, n - 1), max_size=2)) if n else []
        query = [draw(st.sampled_from("xy")), *(f"${{t{r}}}" for r in reads)]
        tool = draw(st.sampled_from(["search", "search", "dice"]))
        tasks.append({"id": f"t{n}", "tool": tool, "args": {"query": query}})
    return plan_of(*draw(st.permutations(tasks)))  # readers may stand before what they read


def calls_by_definition(plan: Plan) -> dict[str, str]:
    """The oracle: write each call out with its inputs' calls in place of their names."""

    def written(task: Task) -> str:
        text = json.dumps([task.tool, task.args])
        for other in plan.tasks:
            if f"${{{other.id}}}" in text:
                text = text.replace(f"${{{other.id}}}", written(other))
        return text if task.tool == "search" else f"{task.id} {text}"

    return {t.id: written(t) for t in plan.tasks}


@given(plans())
def test_two_tasks_are_one_exactly_when_their_calls_written_out_are_equal(plan: Plan) -> None:
    slim, aliases = deduplicate_calls(plan, graph_of(plan), CATALOG)
    written = calls_by_definition(plan)
    first: dict[str, str] = {}
    for task in plan.tasks:
        first.setdefault(written[task.id], task.id)
    assert {t.id: aliases.get(t.id, t.id) for t in plan.tasks} == {
        t.id: first[written[t.id]] for t in plan.tasks
    }
    assert [t.id for t in slim.tasks] == [t.id for t in plan.tasks if t.id not in aliases]
    assert compile_plan(slim, CATALOG).problems == []


def test_two_equal_chains_of_a_thousand_become_one_within_a_workflow_task() -> None:
    tasks = [search(f"t{n}", f"${{t{n - 2}}}" if n > 1 else "x") for n in range(2_000)]
    began = time.process_time()
    compiled = compile_plan(plan_of(*tasks), CATALOG)
    assert time.process_time() - began < 1.5  # it took 12 s when each pair cost a round
    assert len(compiled.aliases) == 1_000


def test_a_sub_plan_keeps_its_own_names() -> None:
    inner = {"tasks": [search("b", "q"), search("z", "${b}")], "answer": "${z}"}
    plan = plan_of(
        search("a"),
        search("b"),
        {"id": "sub", "plan": inner, "args": {"v": "${b}"}},
        answer="${sub}",
    )
    compiled = compile_plan(plan, CATALOG)
    sub = compiled.plan.task("sub")
    assert compiled.aliases == {"b": "a"}
    assert sub is not None
    assert sub.args == {"v": "${a}"}
    assert isinstance(sub.plan, Plan)
    assert sub.plan.tasks[1].args == {"query": "${b}"}


def test_every_place_that_reads_a_duplicate_reads_the_one_that_is_kept() -> None:
    plan = plan_of(
        search("a"),
        search("b"),
        search("all", ["${b.n}", "b"], when="b.n > 1 && 'b' != ${b}", depends_on=["a", "b"]),
        search("each", "${item}", map="${b.items}", fallback={"ask": "about ${b}"}),
        {"id": "who", "human": "is ${b} right?"},
        {"id": "plain", "ask": {"prompt": "p", "context": "${b}"}, "fallback": "${b}"},
        answer={"x": "${b}", "rest": ["${all}", "${each}", "${plain}"]},
        join=["a", "b"],
        stop_when="b.done",
    )
    made = compile_plan(plan, CATALOG).plan.model_dump(mode="json", exclude_unset=True)
    rest = {t["id"]: t for t in made["tasks"]}
    assert rest["all"]["args"] == {"query": ["${a.n}", "b"]}
    assert rest["all"]["when"] == "a.n > 1 && 'b' != ${a}"
    assert rest["all"]["depends_on"] == ["a"]
    assert rest["each"]["map"] == "${a.items}"
    assert rest["each"]["fallback"] == {"ask": "about ${a}"}
    assert rest["who"]["human"] == "is ${a} right?"
    assert rest["plain"]["ask"]["context"] == "${a}"
    assert rest["plain"]["fallback"] == "${b}"  # a plain value is not read at all
    assert made["answer"]["x"] == "${a}"
    assert (made["join"], made["stop_when"]) == (["a"], "a.done")


def test_what_differs_in_words_only_is_the_same_call_and_a_null_fallback_is_not() -> None:
    def key(**more: Any) -> str | None:
        return same_call_key(
            Task.model_validate(search("a", depends_on=["x", "y"]) | more), CATALOG
        )

    assert key(requires="all", description="d", depends_on=["y", "x"]) == key()
    assert key(fallback=None) != key()
    assert key(timeout=5) != key()
    assert key(tool="send") is None
    assert key(tool="dice") is None
    assert key(approval=True) is None


def test_a_task_that_reads_no_duplicate_is_returned_as_it_is() -> None:
    task = Task.model_validate(search("c", "${z}"))
    assert rename_inputs(task, {TaskId("b"): TaskId("a")}) is task
