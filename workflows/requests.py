"""A request as it arrives: read, or refused with all its problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.exceptions import ApplicationError

from planloom.planner.contract.agents_runtime import run_document
from planloom.planner.contract.names import INVALID_PLAN, INVALID_REQUEST
from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.values import Problem, Unreadable
from planloom.planner.syntax.documents import read_request


def invalid(kind: str, problems: Sequence[Problem]) -> ApplicationError:
    """The failure a caller's mistake ends in: all problems, each a line and a detail."""
    lines = "\n".join(p.line() for p in problems[:50])
    return ApplicationError(
        lines, [p.model_dump() for p in problems[:200]], type=kind, non_retryable=True
    )


def only_input(document: Any, more: Sequence[Any]) -> Any:
    """The input of a workflow. A second one would be dropped without a word."""
    if more:
        return Unreadable(f"{1 + len(more)} inputs were given; one is needed")
    return document


def request_from(document: Any) -> tuple[RunRequest | None, ApplicationError]:
    """The request, or the failure that says all that is wrong with it."""
    if isinstance(document, RunRequest):
        return document, ApplicationError("")
    if document is None:
        hint = Problem(
            path="input",
            code="missing",
            message="the run was started without input",
            hint='Give a RunRequest, for example --input \'{"goal": "Compare …"}\'.',
        )
        return None, invalid(INVALID_REQUEST, [hint])
    request, problems = read_request(run_document(document), RunRequest)
    if request is not None and not problems:
        return request, ApplicationError("")
    is_plan = all(p.path.startswith(("plan", "tasks")) for p in problems)
    return None, invalid(INVALID_PLAN if is_plan else INVALID_REQUEST, problems)
