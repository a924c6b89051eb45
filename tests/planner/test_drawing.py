"""Pictures of plans: a layout that can be read, and SVG in which nothing is executed."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.drawing.layout import layout
from planloom.planner.compile.drawing.svg import (
    LAYOUT_TASKS_MAX,
    changed_tasks,
    plan_dot,
    plan_svg,
)
from planloom.planner.language.plan import Plan

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"t{n}" for n in range(draw(st.integers(1, 25)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=4)) if n else []
        for n, name in enumerate(names)
    }


@given(graphs())
def test_inputs_stand_to_the_left_and_no_two_tasks_overlap(inputs: dict[str, list[str]]) -> None:
    placed = layout(inputs)
    assert set(placed.columns) == set(placed.heights) == set(inputs)
    for task, reads in inputs.items():
        assert all(placed.columns[i] < placed.columns[task] for i in reads)
    for column in set(placed.columns.values()):
        heights = sorted(placed.heights[t] for t, c in placed.columns.items() if c == column)
        assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(heights))
    assert min(placed.heights.values()) >= 0
    assert placed.height >= 1 + max(placed.heights.values())
    # An edge over several columns passes each of them once.
    for (source, task), way in placed.ways.items():
        between = range(placed.columns[source] + 1, placed.columns[task])
        assert [column for column, _ in way] == list(between)


def test_a_diamond_has_no_crossing_and_its_ends_stand_in_the_middle() -> None:
    placed = layout({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    assert placed.columns == {"a": 0, "b": 1, "c": 1, "d": 2}
    middle = (placed.heights["b"] + placed.heights["c"]) / 2
    assert (placed.heights["a"], placed.heights["d"]) == (middle, middle)


def test_crossed_edges_are_uncrossed() -> None:
    placed = layout({"a": [], "b": [], "x": ["b"], "y": ["a"]})
    is_a_above = placed.heights["a"] < placed.heights["b"]
    assert is_a_above == (placed.heights["y"] < placed.heights["x"])


def test_a_cycle_and_an_empty_graph_are_drawn_somehow() -> None:
    assert set(layout({"a": ["b"], "b": ["a"]}).columns) == {"a", "b"}
    assert (layout({}).width, layout({}).height) == (0, 0)


HOSTILE = '</text><script>alert(1)</script>"&'


def hostile_plan() -> Plan:
    return Plan.model_validate(
        {
            "goal": HOSTILE,
            "tasks": [
                {"id": "a", "tool": HOSTILE, "description": HOSTILE},
                {"id": "b", "human": "${a}", "map": [1, 2]},
                {"id": "c", "ask": "${b}", "when": "a == 'x'"},
            ],
        }
    )


def test_a_picture_is_xml_in_which_everything_written_is_text() -> None:
    plan = hostile_plan()
    text = plan_svg(plan, {"a": "failed", "b": HOSTILE}, notes={"a": HOSTILE}, path=["a", "b"])
    root = ElementTree.fromstring(text)
    assert {e.tag.removeprefix(SVG) for e in root.iter()} == {
        *("svg", "title", "style", "g", "rect", "text", "path"),
    }
    assert "<script" not in text
    words = " ".join(e.text or "" for e in root.iter(f"{SVG}text"))
    assert "✗ a" in words
    assert '<g class="pl-plain"' in text  # a state that is none does not become a class
    assert text.count("pl-p") > text.count(".pl-p")  # the critical edge
    assert "pl-w" in text  # a condition's edge


def test_links_lead_to_the_tasks() -> None:
    root = ElementTree.fromstring(plan_svg(hostile_plan(), links=True))
    assert [e.get("href") for e in root.iter(f"{SVG}a")] == ["#task-a", "#task-b", "#task-c"]


def test_too_many_tasks_are_said_instead_of_drawn() -> None:
    tasks = [{"id": f"t{n}", "tool": "x"} for n in range(LAYOUT_TASKS_MAX + 1)]
    text = plan_svg(Plan.model_validate({"tasks": tasks}))
    assert "too many for a picture" in text
    assert len(text) < 10_000


def test_dot_quotes_what_is_written() -> None:
    text = plan_dot(hostile_plan(), {"a": "failed"})
    assert '"a" -> "b";' in text
    assert 'label="a\\n</text><script>alert(1)</script>\\"&"' in text


def test_what_changed_between_two_revisions_is_marked() -> None:
    old = Plan.model_validate(
        {"tasks": [{"id": i, "tool": "x", "args": {"n": 1}} for i in ("same", "other", "gone")]}
    )
    new = Plan.model_validate(
        {
            "tasks": [
                {"id": "same", "tool": "x", "args": {"n": 1}},
                {"id": "other", "tool": "x", "args": {"n": 2}},
                {"id": "new", "tool": "x"},
            ]
        }
    )
    both, marks = changed_tasks(old, new)
    assert [t.id for t in both.tasks] == ["same", "other", "new", "gone"]
    assert marks == {"new": "added", "gone": "removed", "other": "changed"}
