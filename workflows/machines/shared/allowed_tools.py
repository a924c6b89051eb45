"""Tools of an allow-list: those that the worker has, and the two that the machines serve."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from planloom.planner.language.catalog import Site
from planloom.planner.language.references import shortened
from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import bounded_problems

ASK_HUMAN, READ_OUTPUT = "ask_human", "read_output"
"""An agent's question to a person, and its look into a large value: no registered tools."""
UNKNOWN = "unknown_allowed_tool"


def own_tools(names: Sequence[str]) -> list[str]:
    """Those that are registered tools."""
    return [name for name in names if name not in (ASK_HUMAN, READ_OUTPUT)]


def unknown_tools(names: Sequence[str] | None, site: Site) -> list[Problem]:
    """Tools of an allow-list that the worker does not have: a typing error would allow nothing."""
    problems: list[Problem] = []
    known = [*site.tool_names, ASK_HUMAN, READ_OUTPUT]
    for name in names or ():
        if name not in known:
            near = get_close_matches(name[:100], known, n=1)
            listed = "Tools: " + ", ".join(site.tool_names[:20])
            hint = f'Did you mean "{near[0]}"?' if near else listed
            message = f'no tool "{shortened(name)}"'
            problems.append(Problem(path="tools", code=UNKNOWN, message=message, hint=hint))
    return bounded_problems(problems)
