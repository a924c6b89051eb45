"""A plan as a picture: whole, well-formed, and nothing in it is executed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.picture import BOX_WIDTH, TASKS_MAX, svg
from planloom.planner.language.plan import Plan

SPACE = "{http://www.w3.org/2000/svg}"


def picture_of(*tasks: dict[str, Any], states: dict[str, str] | None = None) -> ET.Element:
    return ET.fromstring(svg(Plan.model_validate({"tasks": list(tasks)}), states))


def boxes(picture: ET.Element) -> dict[str, int]:
    """Where each task's box begins, by the task's id."""
    return {
        str(g.findtext(f"{SPACE}title")).partition(":")[0]: int(g.find(f"{SPACE}rect").get("x"))  # type: ignore[union-attr, arg-type]
        for g in picture.findall(f"{SPACE}g")
    }


def test_a_task_stands_to_the_right_of_all_that_it_reads() -> None:
    picture = picture_of(
        {"id": "c", "tool": "calculate", "args": {"expression": "${a} + ${b}"}},
        {"id": "a", "tool": "calculate", "args": {"expression": "1"}},
        {"id": "b", "tool": "calculate", "args": {"expression": "${a}"}},
    )
    at = boxes(picture)
    assert at["a"] + BOX_WIDTH < at["b"]
    assert at["b"] + BOX_WIDTH < at["c"]
    assert len(picture.findall(f"{SPACE}path")) == 3


def test_a_state_colours_its_task() -> None:
    task = {"id": "a", "ask": "x"}
    plain, failed = picture_of(task), picture_of(task, states={"a": "failed"})
    fills = [p.find(f"{SPACE}g/{SPACE}rect").get("fill") for p in (plain, failed)]  # type: ignore[union-attr]
    assert fills[0] != fills[1]
    assert "(failed)" in str(failed.findtext(f"{SPACE}g/{SPACE}title"))


@given(st.text(max_size=60))
def test_any_words_are_words_in_the_picture(words: str) -> None:
    picture = picture_of({"id": "a", "ask": "x", "description": words or "-"})
    tags = {e.tag.removeprefix(SPACE) for e in picture.iter()}
    assert tags == {"svg", "title", "g", "rect", "text"}


def test_a_graph_that_is_too_large_says_what_is_left_out() -> None:
    picture = picture_of(*({"id": f"t{n}", "ask": "x"} for n in range(TASKS_MAX + 3)))
    assert len(picture.findall(f"{SPACE}g")) == TASKS_MAX
    assert picture.findall(f"{SPACE}text")[-1].text == "… and 3 more tasks"
