"""What both planner syntaxes have in common: how a plan's text ends, and what its tasks read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.plan import Body, Plan, Task, is_body
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import JsonValue, Problem

Meant = Callable[[Mapping[str, JsonValue], Mapping[str, Any]], dict[str, JsonValue]]
"""A task's arguments as they were meant by its tool's parameters; see `compile.tool_arguments`."""
PLAN_TEXT_MAX_CHARS = 1_000_000
"""A planner's text is not read beyond this, also while it streams."""

_PREFACE_MAX_CHARS = 200
_HEADING = re.compile(r"#|\*\*|.*:[*_ ]*\Z")
_NO_PLAN = re.compile(
    r"\b(?:example|e\.g|format|schema|template|reject\w*|not|never|avoid|instead|wrong|idea)\b|n't\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class ParsedEnd:
    """What is known when the text has ended.

    `late` are tasks that could only be given out now: those with side effects in a plan without
    its join line, or all of a plan that began with prose.
    """

    answer: JsonValue = None
    has_answer: bool = False
    join_only: list[str] | None = None
    stop_when: str | None = None
    is_complete: bool = False
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tasks: int = 0
    late: list[PlannedTask] = field(default_factory=list)


def as_written(
    args: Mapping[str, JsonValue], parameters: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """The arguments as they are."""
    return dict(args)


def is_preface(lines: Sequence[str]) -> bool:
    """Whether the words before a plan are a heading for it, and not the beginning of a thought.

    What follows other words is given out only when all of the text is known.
    """
    if not lines:
        return True
    is_short = sum(map(len, lines)) <= _PREFACE_MAX_CHARS
    return is_short and bool(_HEADING.match(lines[-1])) and not _NO_PLAN.search(" ".join(lines))


def as_literal(name: str) -> str:
    """How a text that only looks like a reference is written."""
    return f"If it is meant as text, write $${{{name[:40]}}}."


def too_long() -> Problem:
    message = f"more than {PLAN_TEXT_MAX_CHARS:,} characters: the rest was not read"
    hint = "Let tools read large values from files, and pass them on by reference."
    return Problem(path="plan", code="too_long", message=message, hint=hint)


def has_side_effects(body: Body, tools: Mapping[str, ToolSpec]) -> bool:
    """Whether a body calls a tool that changes the world: itself, inside it, or as its fallback."""
    match body.kind:
        case "tool":
            spec = tools.get(body.tool or "")
            found = spec is not None and spec.side_effects
        case "agent" if isinstance(body.agent, AgentSpec):
            specs = (tools.get(name) for name in body.agent.tools or ())
            found = any(spec is not None and spec.side_effects for spec in specs)
        case "plan" if isinstance(body.plan, Plan):
            found = any(has_side_effects(task, tools) for task in body.plan.tasks)
        case _:
            found = False
    other = body.fallback_body if isinstance(body, Task) else None
    return found or (other is not None and has_side_effects(other, tools))


def read_places(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where in a task document which first names are read."""
    for key, value in document.items():
        if key == "plan":
            continue  # its references are to its own tasks
        if key == "fallback" and is_body(value):
            yield from ((f"{key}.{place}", root) for place, root in read_places(value))
            continue
        if key in ("args", "ask", "human") and isinstance(value, dict):
            for inner, part in value.items():
                yield from ((f"{key}.{inner}", root) for root in roots_of(part))
        elif key == "depends_on":
            yield from ((key, root) for root in value)
        elif key == "when" and isinstance(value, str):
            yield from ((key, root) for root in roots_of_condition(value))
        elif key not in ("id", "description"):
            yield from ((key, root) for root in roots_of(value))
