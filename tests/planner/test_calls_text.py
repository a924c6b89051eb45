"""A task written back reads as the same task, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import Task, is_body
from planloom.planner.syntax.calls.parser import CallsParser, call_text
from planloom.planner.syntax.calls.text import OPTIONS, is_same_call

TOOLS = [ToolSpec(name="find", parameters={"properties": {"query": {}}})]
KNOWN = ["a", "b-c", "7"]


def read(text: str) -> list[Task]:
    parser = CallsParser(TOOLS, earlier=KNOWN)
    tasks = [p.task for p in parser.feed(text + "\njoin()")]
    end = parser.close()
    assert (end.problems, end.warnings) == ([], [])
    return tasks


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """A body with its short forms written out."""
    if isinstance(body.get("ask"), str):
        return body | {"ask": {"prompt": body["ask"]}}
    if isinstance(body.get("human"), str):
        return body | {"human": {"question": body["human"]}}
    return body


def same(task: Task) -> dict[str, Any]:
    """What must be equal: all but the description, with short forms written out."""
    document = task.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document.pop("description", None)
    if is_body(document.get("fallback")):
        document["fallback"] = {"args": {}} | plain(document["fallback"])
    return {"args": {}} | plain(document)


TEXT = st.text(max_size=12) | st.sampled_from(
    ["${a}", "x ${b-c.n[0]} y", "${7.value}", "$1", "$$1", "$${a}", 'it\'s "x"', "C:\\new", "a\nb"]
)
LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abé -", max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
ARGS = st.dictionaries(st.sampled_from(["query", "from", "a-b", "é", "class", "0"]), LITERALS)
BODIES = st.one_of(
    st.fixed_dictionaries({"tool": st.just("find"), "args": ARGS}),
    st.fixed_dictionaries({"ask": st.fixed_dictionaries({"prompt": TEXT, "context": LITERALS})}),
    st.fixed_dictionaries({"ask": TEXT}),
    st.fixed_dictionaries({"agent": st.just("scout"), "args": ARGS}),
    st.just(
        {"agent": {"id": "x", "system": "Be brief.", "tools": ["find"]}, "args": {"task": "t"}}
    ),
    st.just({"team": "pair", "args": {"task": "t", "rounds": 2}}),
    st.just({"plan": "report", "args": {"name": "Bob", "template": "x"}}),
    st.just({"plan": {"tasks": [{"id": "in", "ask": "x"}, {"id": "out", "ask": "${in}"}]}}),
    st.just({"human": {"question": "Go on?", "schema": {"type": "boolean"}}}),
    st.just({"human": "Go on?"}),
)
FALLBACK = LITERALS | BODIES
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "depends_on": st.lists(st.sampled_from(KNOWN), unique=True),
        "when": st.sampled_from(["a.outcome == 'succeeded'", "${a.n} > 3"]),
        "map": st.sampled_from(["${a}", [1, "x"]]),
        "requires": st.sampled_from(["any", "best_effort", {"at_least": 1}]),
        "retry": st.just({"max_attempts": 5, "initial_seconds": 0.5}),
        "timeout": st.sampled_from(["5m", 3, 0.25]),
        "fallback": FALLBACK,
        "on_error": st.just("skip"),
        "approval": st.booleans(),
        "estimate": st.just({"tokens": 10}),
        "speculate": st.booleans(),
        "priority": st.just("high"),
        "cache": st.just("run"),
    },
)
IDS = st.sampled_from(["t", "T_1", "12", "x-y", "2nd", "v1.2", "Thought", "from", "join_2", "_x"])


@settings(max_examples=300, deadline=None)
@given(IDS, BODIES, FIELDS)
@example("12", {"tool": "find", "args": {"query": "costs $7 of ${7}"}}, {})
@example("t", {"tool": "find", "args": {"from": "a", "a-b": {"é": None}}}, {"fallback": None})
@example("t", {"ask": "x"}, {"fallback": {"tool": "find", "args": {"query": "${a}"}}})
def test_any_task_written_back_reads_as_the_same_task(name, body, fields) -> None:
    task = Task.model_validate({"id": name, **body, **fields})
    (again,) = read(call_text(task))
    assert same(again) == same(task)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"id": "a1", "tool": "find", "args": {"query": "x"}}, 'a1 = find(query="x")'),
        ({"id": "3", "tool": "find", "args": {"query": "${1}"}}, '3. find(query="${1}")'),
        ({"id": "x-y", "tool": "find", "args": {}}, 'find(_id="x-y")'),
        (
            {"id": "m", "plan": "report", "args": {"name": "B"}, "map": "${a}", "timeout": 5},
            'm = plan("report", name="B", _map="${a}", _timeout=5.0)',
        ),
    ],
)
def test_a_task_is_written_as_a_person_would(document: dict[str, Any], text: str) -> None:
    assert call_text(Task.model_validate(document)) == text


def test_every_task_field_can_be_written() -> None:
    bodies = {"id", "tool", "ask", "agent", "team", "plan", "human", "args"}
    assert set(OPTIONS.values()) | bodies == set(Task.model_fields)


def test_a_call_that_was_cut_short_is_recognised_by_its_start() -> None:
    call = call_text(Task.model_validate({"id": "a", "ask": "x" * 300}))
    assert is_same_call(call, call[:200])
    assert is_same_call(call, call)
    assert not is_same_call(call, call[:20])
    assert not is_same_call("", "")
