"""Compile passes: dependencies, checks, duplicates, pruning, ranks, estimates, revisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.estimate import estimate_task
from planloom.planner.compile.explain import explain, mermaid
from planloom.planner.compile.fork import downstream_of, fork_request
from planloom.planner.compile.passes.rank import critical_path, rank_upward, width_of
from planloom.planner.compile.pipeline import check_task, compile_plan, graph_of
from planloom.planner.compile.revision import (
    diff_plans,
    fingerprint,
    major_changes,
    merge_replan,
    stability,
)
from planloom.planner.compile.templates import check_params, read_template
from planloom.planner.contract.requests import Lineage, MajorThresholds, Reused, RunRequest
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import Outcome, Stored, TaskId
from planloom.planner.syntax.documents import read_plan, read_request

OBJECT = {"type": "object", "additionalProperties": False}
CATALOG = Catalog(
    tools=[
        ToolSpec(
            name="search",
            parameters={
                **OBJECT,
                "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
                "required": ["query"],
            },
        ),
        ToolSpec(name="send", side_effects=True, idempotent=False),
        ToolSpec(name="join_all"),
    ],
    prices={"m": (100, 400)},
)


def plan_of(*tasks: dict[str, Any], **more: Any) -> Plan:
    return Plan.model_validate({"tasks": list(tasks), **more})


def search(id: str, query: str = "x", **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "search", "args": {"query": query}, **more}


def codes(plan: Plan) -> list[str]:
    return [p.code for p in compile_plan(plan, CATALOG).problems]


def test_references_add_their_dependencies() -> None:
    plan = plan_of(
        search("a"),
        search("b", "${a.title}"),
        search("c", "${item}", map="${b}", when="a.outcome == 'succeeded'", depends_on=["a"]),
        search("d", fallback={"tool": "search", "args": {"query": "${c}"}}),
    )
    graph = graph_of(plan)
    assert graph == {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("c",)}


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"id": "t", "tool": "serch", "args": {"query": "x"}}, "unknown_tool"),
        ({"id": "t", "tool": "search", "args": {}}, "missing_argument"),
        ({"id": "t", "tool": "search", "args": {"query": 3}}, "wrong_type"),
        ({"id": "t", "tool": "search", "args": {"query": "x", "limt": 3}}, "unknown_argument"),
        (search("t", "${nope}"), "missing_reference"),
        (search("t", "${t}"), "self_reference"),
        (search("t", "x") | {"when": "${t}"}, "self_reference"),
        (search("t", "${item}"), "no_map"),
        (search("t", "${params.x[}"), "bad_path"),
        (search("index"), "reserved_id"),
        (search("t", map=3), "wrong_type"),
        (search("t", requires={"at_least": 2}), "cannot_be_met"),
        ({"id": "t", "agent": "nobody", "args": {"task": "x"}}, "unknown_agent"),
        ({"id": "t", "plan": "nothing"}, "unknown_template"),
    ],
)
def test_each_mistake_has_its_code_path_and_message(task: dict[str, Any], code: str) -> None:
    problems = compile_plan(plan_of(task), CATALOG).problems
    assert code in [p.code for p in problems]
    assert all(p.path.startswith("tasks.") and p.message for p in problems)


def test_a_reference_fits_any_type_and_text_with_one_fits_text() -> None:
    task = Task.model_validate(
        {"id": "t", "tool": "search", "args": {"query": "about ${a}", "limit": "${a.n}"}}
    )
    assert check_task(task, {"a"}, CATALOG) == []
    bad = task.model_copy(update={"args": {"query": "q", "limit": "at most ${a.n}"}})
    assert [p.code for p in check_task(bad, {"a"}, CATALOG)] == ["wrong_type"]


def test_a_cycle_is_named_with_its_path() -> None:
    plan = plan_of(search("a", "${c}"), search("b", "${a}"), search("c", "${b}"))
    (problem,) = compile_plan(plan, CATALOG).problems
    assert problem.code == "cycle"
    assert " -> ".join(["a", "b", "c"]) in problem.message * 2 or "->" in problem.message


def test_problems_of_a_sub_plan_carry_its_path() -> None:
    inner = {"tasks": [{"id": "x", "tool": "serch", "args": {}}]}
    problems = compile_plan(plan_of({"id": "sub", "plan": inner}), CATALOG).problems
    assert problems[0].path == "tasks.sub.plan.tasks.x.tool"


def test_equal_calls_of_idempotent_tools_are_made_once_through_chains_of_readers() -> None:
    plan = plan_of(
        search("a"),
        search("b"),
        search("c", "${a}"),
        search("d", "${b}"),
        {"id": "s1", "tool": "send"},
        {"id": "s2", "tool": "send"},
        answer=["${c}", "${d}"],
    )
    compiled = compile_plan(plan, CATALOG)
    assert compiled.aliases == {"b": "a", "d": "c"}
    assert [t.id for t in compiled.plan.tasks] == ["a", "c", "s1", "s2"]
    assert compiled.plan.answer == ["${c}", "${c}"]


def test_what_the_answer_does_not_need_is_pruned_unless_it_acts() -> None:
    plan = plan_of(
        search("a"),
        search("idle", "y"),
        search("idle2", "${idle}"),
        {"id": "act", "tool": "send", "args": {"x": "${need}"}},
        search("need", "z"),
        {"id": "who", "human": "?"},
        answer="${a}",
    )
    compiled = compile_plan(plan, CATALOG)
    assert set(compiled.pruned) == {"idle", "idle2"}
    assert compile_plan(plan_of(search("a"), search("b", "y")), CATALOG).pruned == {}


Graph = dict[TaskId, tuple[TaskId, ...]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 9))
    names = [TaskId(f"t{n}") for n in range(count)]
    return {
        t: tuple(draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=3))) if n else ()
        for n, t in enumerate(names)
    }


def longest_by_trying(graph: Graph, seconds: dict[TaskId, float], task: TaskId) -> float:
    """The oracle: follow every path."""
    readers = [t for t, ins in graph.items() if task in ins]
    return seconds[task] + max((longest_by_trying(graph, seconds, r) for r in readers), default=0)


@given(graphs(), st.lists(st.integers(1, 20), min_size=9, max_size=9))
def test_the_rank_is_the_longest_path_to_the_end(graph: Graph, times: list[int]) -> None:
    seconds = {t: float(s) for t, s in zip(graph, times, strict=False)}
    ranks = rank_upward(graph, seconds)
    assert ranks == {t: longest_by_trying(graph, seconds, t) for t in graph}
    path = critical_path(graph, ranks)
    assert sum(seconds[t] for t in path) == max(ranks.values())
    assert 1 <= width_of(graph) <= len(graph)


def test_two_thousand_tasks_compile_within_a_workflow_task() -> None:
    import time

    tasks = [search(f"t{n}", f"${{t{n - 1}}}" if n else "x") for n in range(2_000)]
    plan = plan_of(*tasks)
    began = time.process_time()
    assert compile_plan(plan, CATALOG).problems == []
    assert time.process_time() - began < 1.5  # measured 0.1 s; the SDK's limit is 2 s


def test_the_estimate_adds_work_and_follows_the_longest_path() -> None:
    plan = plan_of(
        search("a", estimate={"seconds": 2}),
        search("b", "y", estimate={"seconds": 3, "tokens": 100}),
        search("c", "${a}", estimate={"seconds": 4}),
    )
    estimate = compile_plan(plan, CATALOG, model="m").estimate
    assert estimate.seconds is not None
    assert estimate.seconds[1] == 6.0
    assert estimate.tokens == (50, 100, 200)
    unknown = compile_plan(plan_of({"id": "q", "ask": "hi"}), CATALOG).estimate
    assert unknown.usd is None
    assert "unknown" in unknown.basis


def test_explain_and_mermaid_show_every_task() -> None:
    plan = plan_of(search("a"), search("b", "${a}"), search("idle", "q"), answer="${b}")
    compiled = compile_plan(plan, CATALOG)
    text = explain(compiled, plan)
    assert "critical path: a -> b" in text
    assert "idle: the answer does not need it" in text
    drawn = mermaid(plan, {"a": "succeeded", "b": "running"})
    assert "n0 --> n1" in drawn
    assert "class n1 running" in drawn
    asking = compile_plan(plan_of({"id": "q", "ask": "why?"}, search("s")), CATALOG, model="m")
    rows = [line.split() for line in explain(asking).splitlines() if line[:2] in ("q ", "s ")]
    assert [r[3] for r in rows] == ["3.00", "0.30"]  # likely seconds of an ask, of a tool
    assert int(rows[0][4]) > int(rows[1][4]) == 0
    assert explain(compile_plan(plan_of({"id": "q", "ask": "why?"}), CATALOG)).endswith("?")


def test_a_dotted_arrow_is_a_condition_and_not_a_name_within_another() -> None:
    plan = plan_of(search("a"), search("banana"), search("c", "${a}", when="banana.ok"))
    drawn = mermaid(plan)
    assert "n0 --> n2" in drawn
    assert "n1 -.-> n2" in drawn


def test_a_label_cannot_break_out_of_the_graph() -> None:
    nasty = 'x"]; click n0 "javascript:1"\n end`<b>'
    drawn = mermaid(plan_of(search("a", description=nasty)))
    (node,) = [line for line in drawn.splitlines() if "n0" in line]
    assert node.count('"') == 2
    assert not set("<>`;") & set(node)


def test_a_request_and_its_plan_report_all_problems_together() -> None:
    document = {
        "plan": {"tasks": [{"id": "a", "tool": "x", "retry": {"max_attempts": 0}}, {"id": "b"}]},
        "budget": {"tokens": -1},
        "aproval": "never",
    }
    request, problems = read_request(document, RunRequest)
    assert request is None
    assert {p.path for p in problems} >= {
        "budget.tokens",
        "aproval",
        "plan.tasks.a.retry.max_attempts",
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(["tasks", "id", "tool", "args", "map", "when", "fallback"])
                | st.text(),
                x,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_document_breaks_the_reader(document: Any) -> None:
    plan, problems = read_plan(document)
    assert (plan is None) == bool(problems)
    if plan is not None:
        compile_plan(plan, CATALOG)


# -- revisions and forks -------------------------------------------------------------------

OLD = plan_of(search("a"), search("b", "${a}"), search("c", "${b}"))


def test_a_diff_says_what_was_added_dropped_and_changed() -> None:
    new = plan_of(search("a"), search("b", "${a} now"), search("d", "${b}"), answer="${d}")
    lines = diff_plans(OLD, new)
    assert [line[0] for line in lines] == ["-", "+", "~", "~"]
    assert lines[2] == '~ b.args.query: "${a}" -> "${a} now"'


def test_a_diff_of_long_texts_shows_where_they_part() -> None:
    long = "say " * 60
    old = plan_of(search("a", long + "yes, and go on"), goal="g")
    new = plan_of(search("a", long + "no, and stop"), goal="h")
    lines = diff_plans(old, new)
    assert lines[0].startswith('~ a.args.query: "…')
    assert "yes, and go on" in lines[0]
    assert "no, and stop" in lines[0]
    assert lines[1:] == ['~ goal: "g" -> "h"']


def test_a_fingerprint_follows_conditions_joins_and_what_ends_the_run() -> None:
    def plan(a: str, b: str, value: int = 1) -> Plan:
        return plan_of(
            search(a),
            search(b, "z", when=f"{a}.n == {value} && 'x.a' != ${{{a}}}", depends_on=[a]),
            join=[b, a],
            stop_when=f"{b}.ok",
        )

    assert fingerprint(plan("x", "y"), ()) == fingerprint(plan("first", "my-second"), ())
    assert fingerprint(plan("x", "y"), ()) != fingerprint(plan("x", "y", value=2), ())
    ended = plan("x", "y").model_copy(update={"stop_when": "x.ok"})
    assert fingerprint(plan("x", "y"), ()) != fingerprint(ended, ())


def test_a_replan_that_leaves_nothing_is_a_problem_and_no_exception() -> None:
    merged, problems = merge_replan(OLD, finished=[], new_tasks=[], more={"answer": "done"})
    assert merged == OLD
    assert [p.code for p in problems] == ["no_tasks"]


def test_costs_are_compared_in_one_unit() -> None:
    priced = plan_of({"id": "q", "ask": "x", "estimate": {"usd": 0.01, "tokens": 500}})
    unpriced = plan_of({"id": "q", "ask": "x", "estimate": {"tokens": 400}})
    assert major_changes(priced, unpriced, CATALOG, MajorThresholds()) == []
    dear = plan_of({"id": "q", "ask": "x", "estimate": {"tokens": 1_000}})
    assert "2.0 times" in major_changes(priced, dear, CATALOG, MajorThresholds())[0]


def test_a_sub_plan_takes_its_longest_path_and_costs_all_its_work() -> None:
    inner = {
        "tasks": [
            search("x", estimate={"seconds": 2, "usd": 0.1}),
            search("y", "2", estimate={"seconds": 3, "usd": 0.2}),
            search("z", "${x}", estimate={"seconds": 4, "usd": 0.3}),
        ]
    }
    estimate = compile_plan(plan_of({"id": "s", "plan": inner}), CATALOG).estimate
    assert estimate.seconds is not None
    assert estimate.seconds[1] == 6.0
    assert estimate.usd is not None
    assert estimate.usd[1] == pytest.approx(0.6)


def test_a_streamed_task_is_checked_with_its_sub_plan() -> None:
    ring = {"tasks": [search("x", "${y}"), search("y", "${x}")]}
    task = Task.model_validate({"id": "s", "plan": ring})
    assert [p.path for p in check_task(task, (), CATALOG)] == ["tasks.s.plan.tasks.x"]
    assert estimate_task(task, CATALOG).seconds[1] > 0


def test_a_fingerprint_ignores_names_and_sees_work() -> None:
    renamed = plan_of(search("x"), search("y", "${x}"), search("z", "${y}"))
    other = plan_of(search("x"), search("y", "${x}"), search("z", "${x}"))
    assert fingerprint(OLD, ()) == fingerprint(renamed, ())
    assert fingerprint(OLD, ()) != fingerprint(other, ())
    assert fingerprint(OLD, ()) != fingerprint(OLD, {"a"})
    assert stability(OLD, OLD) == 1.0
    assert stability(OLD, plan_of(search("n", "new"))) == 0.0


def test_a_replan_keeps_finished_tasks_and_may_not_rewrite_them() -> None:
    new = [Task.model_validate(search("d", "${a}"))]
    merged, problems = merge_replan(OLD, finished=["a"], new_tasks=new, more={})
    assert [t.id for t in merged.tasks] == ["a", "d"]
    assert problems == []
    again = [Task.model_validate(search("a", "other"))]
    _, problems = merge_replan(OLD, finished=["a"], new_tasks=again, more={})
    assert [p.code for p in problems] == ["task_finished"]


@pytest.mark.parametrize(
    ("body", "acts"),
    [
        # Found: `approval: major` saw a tool of the plan only, nothing inside of what it starts.
        ({"agent": {"id": "x", "tools": ["send"]}, "args": {"task": "t"}}, True),
        ({"agent": {"id": "x", "tools": ["search"]}, "args": {"task": "t"}}, False),
        ({"agent": {"id": "x"}, "args": {"task": "t"}}, True),
        ({"agent": "known", "args": {"task": "t"}}, True),
        ({"agent": "known", "args": {"task": "t", "tools": ["search"]}}, False),
        ({"agent": "known", "args": {"task": "t", "tools": ["search", "nowhere"]}}, True),
        (
            {"team": {"members": [{"id": "m", "tools": ["search"]}, {"id": "n"}]}, "args": {}},
            True,
        ),
        ({"team": {"members": [{"id": "m", "tools": ["search"]}]}, "args": {}}, False),
        # A planner's subtasks may be any tools of the run, whatever the members have.
        ({"team": {"members": [{"id": "m", "tools": []}]}, "args": {"subtasks": "plan"}}, True),
        ({"team": {"members": [{"id": "m", "tools": []}]}, "args": {"subtasks": "${a}"}}, True),
        ({"team": {"members": [{"id": "m", "tools": []}]}, "args": {"subtasks": []}}, False),
        (
            {
                "team": {"members": [{"id": "m", "task": "x", "tools": []}]},
                "args": {"replan": {"max_rounds": 1}},
            },
            True,
        ),
        (
            {
                "team": {"members": [{"id": "m", "tools": []}]},
                "args": {"subtasks": "plan", "tools": ["search"]},
            },
            False,
        ),
        ({"team": "known", "args": {"task": "t"}}, True),
        ({"plan": {"tasks": [{"id": "s", "tool": "send"}]}}, True),
        ({"plan": {"tasks": [search("s")]}}, False),
        (
            {"plan": {"tasks": [{"id": "p", "plan": {"tasks": [{"id": "s", "tool": "send"}]}}]}},
            True,
        ),
        ({"plan": {"tasks": [search("s") | {"fallback": {"tool": "send", "args": {}}}]}}, True),
        ({"plan": "unknown"}, True),
        (
            {"tool": "search", "args": {"query": "x"}, "fallback": {"agent": "known", "args": {}}},
            True,
        ),
        ({"ask": "what?"}, False),
        ({"human": "well?"}, False),
    ],
)
def test_what_a_task_starts_may_have_side_effects_too(body: dict[str, Any], acts: bool) -> None:
    new = plan_of(search("a"), {"id": "s", **body})
    reasons = major_changes(OLD, new, CATALOG, MajorThresholds())
    assert ("side effects: s" in reasons) == acts


def test_material_changes_are_named() -> None:
    acting = plan_of(search("a"), {"id": "s", "tool": "send"})
    assert major_changes(OLD, acting, CATALOG, MajorThresholds()) == ["side effects: s"]
    many = plan_of(*(search(f"n{n}", str(n)) for n in range(12)))
    assert "12 tasks added" in major_changes(OLD, many, CATALOG, MajorThresholds())[0]
    assert major_changes(OLD, OLD, CATALOG, MajorThresholds()) == []


@pytest.mark.parametrize(
    ("mode", "is_changed", "kept"),
    [
        ("tainted", False, "tainted"),
        ("tainted", True, "tainted"),
        ("always", False, "replan"),
        ("always", True, "always"),
        ("plan", False, None),
        ("never", True, None),
    ],
)
def test_a_fork_asks_whom_its_run_would_ask(mode: str, is_changed: bool, kept: str | None) -> None:
    """Found: a fork of a run with `tainted` acted unasked on what came from outside."""
    asked = RunRequest.model_validate({"plan": OLD, "approval": mode})
    changes: list[tuple[str, Any]] = [("c.args.query", "x")] if is_changed else []
    request, _ = fork_request("run", OLD, {}, ["b"], changes, asked)
    assert request is not None
    assert request.get("approval", {}).get("mode") == kept


def test_a_fork_runs_a_task_and_all_behind_it_again() -> None:
    done = {t: Reused(outcome=Outcome.SUCCEEDED, output=Stored(value=t)) for t in ("a", "b", "c")}
    assert downstream_of(OLD, ["b"]) == {"b", "c"}
    request, problems = fork_request("run", OLD, done, ["b"], [("c.args.query", "new ${b}")])
    assert not problems
    assert request is not None
    assert set(request["reuse"]) == {"a"}
    assert request["plan"]["tasks"][2]["args"]["query"] == "new ${b}"
    _, problems = fork_request("run", OLD, done, ["bb"], [("zz.args", 1)])
    assert [p.code for p in problems] == ["missing_reference", "bad_path"]


def test_a_fork_of_a_child_run_is_given_what_its_parent_gave_it() -> None:
    large = Stored(blob="b", size_bytes=9_000)
    lineage = Lineage(parent="run", params=large, inputs={"page": large}, tainted_inputs=True)
    request, _ = fork_request("run/sub", OLD, {}, ["b"], lineage=lineage)
    assert request is not None
    given = RunRequest.model_validate(request)
    kept = Reused(outcome=Outcome.SUCCEEDED, output=large, tainted=True)
    assert (given.reuse, given.forked_from) == ({"page": kept, "params": kept}, "run/sub")
    _, problems = fork_request("run/sub", OLD, {}, [], [("params.n", 1)], lineage=lineage)
    assert [p.code for p in problems] == ["large_params"]


def test_params_are_typed_with_defaults_and_near_misses() -> None:
    plan = plan_of(
        search("a", "${params.city}"),
        params={"city": {"type": "string"}, "n": {"type": "integer", "default": 3}},
    )
    assert check_params(plan, {"city": "Rome"}) == ({"city": "Rome", "n": 3}, [])
    _, problems = check_params(plan, {"ctiy": "Rome", "n": "x"})
    assert {p.code for p in problems} == {"unknown_param", "missing_param", "wrong_type"}


def test_a_template_is_checked_when_it_is_loaded() -> None:
    document = {
        "params": {"n": {"type": "integer", "default": "many"}, "kind": {"enum": ["a"]}},
        "tasks": [{"id": "t", "tool": "search", "args": {"query": "${params.nn}"}}],
    }
    plan, problems = read_template("x", {"x": document})
    assert plan is None
    found = {(p.path, p.code) for p in problems}
    assert ("params.nn", "undeclared_param") in found
    assert any(path == "params.n.default" for path, _ in found)
