"""What a request names, and a run of it must know of its worker. Pure."""

from __future__ import annotations

from typing import get_args

from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.contract.requests import Role, RunRequest
from planloom.planner.language.plan import Plan

ROLES: tuple[Role, ...] = get_args(Role)


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
            for body in task.bodies:
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
