"""Templates that contain themselves: refused when nothing ends them, and looked at once each."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.compile.acting import may_act
from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Plan, Task

TOOLS = [ToolSpec(name="look"), ToolSpec(name="post", side_effects=True)]


def problems(tasks: list[dict[str, Any]], **templates: list[dict[str, Any]]) -> list[str]:
    documents: Any = {name: {"tasks": each} for name, each in templates.items()}
    catalog = Catalog(tools=TOOLS, tool_names=["look", "post"], templates=documents)
    found = compile_plan(Plan.model_validate({"tasks": tasks}), catalog).problems
    return [p.message for p in found if p.code == "endless_template"]


def starts(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"s-{name}", "plan": name, **fields}


LOOK = {"id": "look", "tool": "look"}


@pytest.mark.parametrize(
    ("templates", "cycle"),
    [
        ({"a": [starts("a")]}, "a -> a"),
        ({"a": [starts("a"), {"id": "again", "plan": "a"}]}, "a -> a"),
        ({"a": [starts("b")], "b": [LOOK, starts("c")], "c": [starts("b")]}, "b -> c -> b"),
        ({"a": [{"id": "in", "plan": {"tasks": [starts("a")]}}]}, "a -> a"),
        ({"a": [LOOK, starts("a", depends_on=["look"])]}, "a -> a"),
    ],
)
def test_a_template_that_contains_itself_without_an_end_is_refused(
    templates: dict[str, Any], cycle: str
) -> None:
    """One that started itself twice made 63 runs before its depth stopped it."""
    [message] = problems([starts("a")], **templates)
    assert message.endswith(f": {cycle}")


@pytest.mark.parametrize(
    "templates",
    [
        {"a": [LOOK]},
        {"a": [LOOK, starts("a", when="look.more")]},
        {"a": [LOOK | {"when": "params.n > `0`"}, starts("a", depends_on=["look"])]},
        {"a": [LOOK, starts("a", map="${look}")]},
        {"a": [starts("b"), {"id": "again", "plan": "b"}], "b": [LOOK]},
        {"a": [LOOK | {"fallback": {"plan": "a"}}]},
    ],
)
def test_one_that_may_end_is_not(templates: dict[str, Any]) -> None:
    assert problems([starts("a")], **templates) == []


def test_templates_of_templates_are_looked_at_once_each() -> None:
    """Five levels of a hundred uses each were ten thousand million looks, in workflow code."""
    documents: Any = {
        f"t{n}": {"tasks": [{"id": f"x{i}", "plan": f"t{n + 1}"} for i in range(100)]}
        for n in range(5)
    }
    task = Task.model_validate({"id": "s", "plan": "t0"})
    for tool in TOOLS:
        documents["t5"] = {"tasks": [{"id": "last", "tool": tool.name}]}
        assert may_act(task, Catalog(tools=TOOLS, templates=documents)) is tool.side_effects
    documents["t5"] = {"tasks": [starts("t0", when="params.n")]}
    assert not may_act(task, Catalog(tools=TOOLS, templates=documents))
