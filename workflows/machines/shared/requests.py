"""Requests and what only the worker can tell of them: tools that do not exist. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

from planloom.planner.contract.agents_runtime import agent_document, run_document, team_document
from planloom.planner.contract.names import (
    ASK_HUMAN,
    INVALID_PLAN,
    INVALID_REQUEST,
    READ_OUTPUT,
    UNKNOWN_TOOL,
)
from planloom.planner.contract.requests import AgentRequest, Lineage, RunRequest, TeamRequest
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import check_condition
from planloom.planner.language.references import shortened
from planloom.planner.language.values import Problem, Unreadable
from planloom.planner.syntax.documents import (
    DOCUMENT_PROBLEMS_MAX,
    bounded_problems,
    read_request,
)
from planloom.workflows.machines.shared.machine import Failed

UNKNOWN = "unknown_allowed_tool"


def read_run(document: Any) -> RunRequest | Failed:
    """The request of a run, or all that is wrong with it."""
    if isinstance(document, RunRequest):
        return document
    if document is None:
        hint = Problem(
            path="input",
            code="missing",
            message="the run was started without input",
            hint='Give a RunRequest, for example --input \'{"goal": "Compare …"}\'.',
        )
        return Failed(INVALID_REQUEST, [hint])
    request, problems = read_request(run_document(document), RunRequest)
    if request is not None and not problems:
        return request
    is_plan = all(p.path.startswith(("plan", "tasks")) for p in problems)
    return Failed(INVALID_PLAN if is_plan else INVALID_REQUEST, problems)


def read_agent(document: Any) -> AgentRequest | Failed:
    """The request of an agent, or all that is wrong with it."""
    given = {} if document is None else agent_document(document)
    request, problems = read_request(given, AgentRequest)
    return Failed(INVALID_REQUEST, problems) if request is None else request


def read_team(document: Any) -> TeamRequest | Failed:
    """The request of a team, or all that is wrong with it."""
    given = {} if document is None else team_document(document)
    request, problems = read_request(given, TeamRequest)
    return Failed(INVALID_REQUEST, problems) if request is None else request


def read_lineage(document: Any, parent: str) -> Lineage | Failed:
    """What the workflow `parent` tells its child; it can speak only for itself."""
    lineage, problems = read_request(document, Lineage)
    if lineage is not None and lineage.parent != parent:
        message = f'the second input is of a run "{lineage.parent}", and the parent is "{parent}"'
        problems = [Problem(path="lineage.parent", code="not_the_parent", message=message)]
    return Failed(INVALID_REQUEST, problems) if lineage is None or problems else lineage


def only_input(document: Any, more: Sequence[Any]) -> Any:
    """The input of a workflow. A second one would be dropped without a word."""
    if more:
        return Unreadable(f"{1 + len(more)} inputs were given; one is needed")
    return document


def own_tools(names: Sequence[str]) -> list[str]:
    """Those that are registered tools: a question to a person is not."""
    return [name for name in names if name not in (ASK_HUMAN, READ_OUTPUT)]


def unknown_tools(names: Sequence[str] | None, catalog: Catalog) -> list[Problem]:
    """Tools of an allow-list that the worker does not have: a typing error would allow nothing."""
    problems: list[Problem] = []
    known = [*catalog.tool_names, ASK_HUMAN, READ_OUTPUT]
    for name in names or ():
        if len(problems) > DOCUMENT_PROBLEMS_MAX:
            break  # each is compared with all that are known
        if name not in known:
            near = get_close_matches(name[:100], known, n=1)
            listed = "Tools: " + ", ".join(catalog.tool_names[:20])
            hint = f'Did you mean "{near[0]}"?' if near else listed
            message = f'no tool "{shortened(name)}"'
            problems.append(Problem(path="tools", code=UNKNOWN, message=message, hint=hint))
    return bounded_problems(problems)


def request_problems(request: RunRequest, catalog: Catalog, ids: Collection[str]) -> list[Problem]:
    """What is wrong with a request beside its plan, whose tasks have these `ids`."""
    problems = unknown_tools(request.tools, catalog)
    if request.stop_when is not None:
        problems += check_condition(request.stop_when, ids, "stop_when")
    return problems


def kind_of(problems: Sequence[Problem]) -> str:
    """The contract's type for these problems of a plan and its request together."""
    return UNKNOWN_TOOL if all(p.code == UNKNOWN for p in problems) else INVALID_PLAN
