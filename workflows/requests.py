"""A request as it arrives: read, or refused with all its problems; and what it needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from temporalio.exceptions import ApplicationError

from planner.contract import INVALID_PLAN, INVALID_REQUEST, Role, RunRequest
from planner.documents import read_request
from planner.jobs import PrepareJob
from planner.plan import Plan
from planner.values import Problem

ROLES: tuple[Role, ...] = get_args(Role)


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


def prepare_job(request: RunRequest) -> PrepareJob:
    """What to ask the worker for: only what this request names, so that history stays small."""
    tools: list[str] = []
    templates = [request.template] if request.template else []
    agents: list[str] = []
    teams: list[str] = []
    models = [m for r in ROLES if (m := request.model_for(r)) is not None]
    plans = [request.plan] if request.plan is not None else []
    for plan in plans:  # grows while it is walked: sub-plans are plans
        for task in plan.tasks:
            bodies = [task, *([b] if (b := task.fallback_body) else [])]
            for body in bodies:
                tools += [body.tool] if body.tool else []
                agents += [body.agent] if isinstance(body.agent, str) else []
                teams += [body.team] if isinstance(body.team, str) else []
                templates += [body.plan] if isinstance(body.plan, str) else []
                if isinstance(body.plan, Plan):
                    plans.append(body.plan)
                if body.ask is not None and (model := body.ask_body().model):
                    models.append(model)
    return PrepareJob(
        is_goal=request.goal is not None,
        tools=list(dict.fromkeys(tools)),
        allow=request.tools,
        templates=list(dict.fromkeys(templates)),
        agents=list(dict.fromkeys(agents)),
        teams=list(dict.fromkeys(teams)),
        models=list(dict.fromkeys(models)),
    )
