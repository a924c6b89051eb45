"""A plan with mistakes is compiled as far as it can be read: all of its problems come at once."""

from __future__ import annotations

from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.syntax.documents import read_plan
from planloom.planner.syntax.readable_part import more_problems, readable_part

TOOL = ToolSpec(
    name="calculate",
    parameters={"type": "object", "properties": {"expression": {"type": "string"}}},
)


def found(*tasks: object, **fields: object) -> set[tuple[str, str]]:
    document = {"tasks": list(tasks), **fields}
    plan, problems = read_plan(document)  # type: ignore[arg-type]
    assert plan is None
    part = readable_part(document)
    assert part is not None
    compiled = compile_plan(part[0], Catalog(tools=[TOOL], tool_names=["calculate"])).problems
    told = more_problems([*problems, *part[2]], compiled, part[1])
    return {(p.path, p.message) for p in told}


def test_a_wrong_field_hides_no_unknown_tool_and_no_missing_task() -> None:
    told = found({"id": "a", "tool": "calc", "timeot": 3}, answer="${b}")
    assert ("tasks.a.tool", 'no tool "calc"') in told
    assert {path for path, _ in told} == {"tasks.a.tool", "tasks.a.timeot", "answer"}


def test_two_bodies_are_told_beside_a_wrong_field() -> None:
    told = found({"id": "a", "tool": "calculate", "ask": "x", "timeout": "5x"})
    assert {path for path, _ in told} == {"tasks.a", "tasks.a.timeout"}


def test_arguments_that_cannot_be_read_are_not_missing_too() -> None:
    assert {path for path, _ in found({"id": "a", "tool": "calculate", "args": []})} == {
        "tasks.a.args"
    }


def test_a_body_with_a_wrong_name_is_not_missing_too() -> None:
    assert {path for path, _ in found({"id": "a", "tools": "calculate"})} == {"tasks.a.tools"}
