"""A request as it arrives: read, or refused with all its problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.exceptions import ApplicationError

from planner.contract import INVALID_PLAN, INVALID_REQUEST, RunRequest
from planner.documents import read_request
from planner.values import Problem


def invalid(kind: str, problems: Sequence[Problem]) -> ApplicationError:
    """The failure a caller's mistake ends in: all problems, each a line and a detail."""
    lines = "\n".join(p.line() for p in problems[:50])
    return ApplicationError(
        lines, [p.model_dump() for p in problems[:200]], type=kind, non_retryable=True
    )


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
    request, problems = read_request(document, RunRequest)
    if request is not None and not problems:
        return request, ApplicationError("")
    is_plan = all(p.path.startswith(("plan", "tasks")) for p in problems)
    return None, invalid(INVALID_PLAN if is_plan else INVALID_REQUEST, problems)
