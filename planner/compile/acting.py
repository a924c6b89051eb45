"""Whether a task may have side effects, in all that it runs: agents, teams, plans and fallbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from planloom.planner.language.catalog import Catalog
from planloom.planner.language.definitions import AgentSpec, TeamSpec
from planloom.planner.language.plan import PLAN_DEPTH_MAX, Body, Plan, Task
from planloom.planner.language.values import JsonValue


def may_act(task: Task, catalog: Catalog) -> bool:
    """What is not known here (a named agent, a template that is not loaded) may."""
    seen: set[str] = set()
    return any(_may_act(body, catalog, 0, seen) for body in task.bodies)


def _may_act(body: Body, catalog: Catalog, depth: int, seen: set[str]) -> bool:
    """`seen` are templates that were looked at: those of templates of templates are millions."""
    if body.tool is not None:
        spec = catalog.tool(body.tool)
        return spec is not None and spec.side_effects
    if body.plan is not None:
        if isinstance(body.plan, str):
            if body.plan in seen:
                return False
            seen.add(body.plan)
        plan = _plan_of(body.plan, catalog)
        if plan is None or depth > PLAN_DEPTH_MAX:
            return True
        return any(
            _may_act(b, catalog, depth + 1, seen) for task in plan.tasks for b in task.bodies
        )
    if body.agent is not None or body.team is not None:
        allowed = body.args.get("tools")
        if isinstance(allowed, list):  # arguments narrow
            return _any_acts(allowed, catalog)
        if body.team is not None and _may_be_planned(body.args):
            return True  # a planner's tasks may be any tools, whatever the members have
        return any(_any_acts(tools, catalog) for tools in _tools_of(body))
    return False


def _may_be_planned(args: Mapping[str, JsonValue]) -> bool:
    """Whether a planner may write subtasks of a team, at once or in a replan."""
    return "replan" in args or not isinstance(args.get("subtasks", []), list)


def _tools_of(body: Body) -> Sequence[Sequence[JsonValue] | None]:
    """The tools of the agent, or of each member; None for all that the run allows."""
    if isinstance(body.agent, AgentSpec):
        return [body.agent.tools]
    if isinstance(body.team, TeamSpec):
        return [member.tools for member in body.team.members]
    return [None]


def _any_acts(tools: Sequence[JsonValue] | None, catalog: Catalog) -> bool:
    if tools is None:
        return True
    specs = [catalog.tool(str(name)) for name in tools]
    return any(spec is None or spec.side_effects for spec in specs)


def _plan_of(plan: Plan | str, catalog: Catalog) -> Plan | None:
    if isinstance(plan, Plan):
        return plan
    try:
        return Plan.model_validate(catalog.templates[plan])
    except (KeyError, ValidationError):
        return None
