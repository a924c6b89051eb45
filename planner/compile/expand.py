"""Parallel agents or teams as a plan: a pure expansion of a request (DESIGN §4)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

from planloom.planner.compile.pipeline import Compiled, compile_plan
from planloom.planner.contract.requests import PARALLEL_DEFAULT, RunRequest
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.definitions import AgentSpec, AgentTask, Limits, TeamSpec, TeamTask
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Problem

AgentOrTeam = str | AgentTask | AgentSpec | TeamTask | TeamSpec


def expand_request(request: RunRequest) -> tuple[Plan | None, list[Problem]]:
    """The plan that gives the goal to every agent or team of the request, all at once.

    One that names its own task gets that. Each becomes a task of the plan, named after it; the
    answer is their outputs by name, in order. One that fails leaves the others alone.
    """
    tasks: list[dict[str, Any]] = []
    taken: dict[str, int] = {}
    share = members_at_once(request.limits, len(request.teams or []))
    for kind, members in (("agent", request.agents or []), ("team", request.teams or [])):
        for member in members:
            name, body, task, more = _parts(kind, member)
            args: dict[str, JsonValue] = {"task": _plain(task or request.goal or "")}
            if request.context is not None:
                args["context"] = _plain_value(request.context)
            if kind == "team" and share is not None:
                args["budget"] = {"parallel": share}
            tasks.append({"id": _free_id(name, taken), kind: body, "args": args | more})
    if not tasks:
        where = "agents" if request.agents is not None else "teams"
        message = "is empty: name at least one"
        return None, [Problem(path=where, code="too_short", message=message)]
    answer = {t["id"]: f"${{{t['id']}}}" for t in tasks}
    return Plan.model_validate({"goal": request.goal, "tasks": tasks, "answer": answer}), []


def without_disabled(
    request: RunRequest, agents: Collection[str], teams: Collection[str]
) -> tuple[RunRequest, list[str], list[Problem]]:
    """The request without entries that are switched off, their names, and a problem if none stay.

    `agents` and `teams` are the names of those that are disabled.
    """
    kept: dict[str, list[AgentOrTeam]] = {}
    dropped: list[str] = []
    problems: list[Problem] = []
    for field, off in (("agents", agents), ("teams", teams)):
        entries: list[AgentOrTeam] = getattr(request, field) or []
        kept[field] = [e for e in entries if _name_of(e) not in off]
        dropped += [str(_name_of(e)) for e in entries if _name_of(e) in off]
        if entries and not kept[field]:
            named = ", ".join(str(_name_of(e)) for e in entries)
            message = f"none of them is enabled: {named}"
            hint = "Take `enabled: disabled` out of a file, or name others."
            code = f"no_enabled_{field}"
            problems.append(Problem(path=field, code=code, message=message, hint=hint))
    if not dropped:
        return request, [], []
    changed = {f: k for f, k in kept.items() if getattr(request, f) is not None}
    return request.model_copy(update=changed), dropped, problems


def _name_of(entry: AgentOrTeam) -> str | None:
    """What an entry is called where definitions are looked up; None for one that is inline."""
    body: Any = entry
    if isinstance(entry, AgentTask | TeamTask):
        body = entry.agent if isinstance(entry, AgentTask) else entry.team
    return body if isinstance(body, str) else None


def _parts(kind: str, member: AgentOrTeam) -> tuple[str, Any, str | None, dict[str, JsonValue]]:
    """Name, body, own task and more arguments of one entry."""
    task, more, body, name = None, dict[str, JsonValue](), member, None
    if isinstance(member, AgentTask | TeamTask):
        task, more, name = (
            member.task,
            {k: _plain_value(v) for k, v in member.args.items()},
            member.id,
        )
        body = member.agent if isinstance(member, AgentTask) else member.team
    if isinstance(body, str):
        return name or body, body, task, more
    assert isinstance(body, AgentSpec | TeamSpec)
    return name or body.id or kind, body.model_dump(exclude_unset=True), task, more


def parallel_of(request: RunRequest) -> int:
    """How many tasks of a run may run at once: the budget's, or the tighter of it and `limits`."""
    limit = request.budget.parallel or PARALLEL_DEFAULT
    if request.teams:
        return min(limit, teams_at_once(request.limits, len(request.teams)))
    if request.agents:
        most = [n for n in (request.limits.agents, request.limits.calls) if n is not None]
        return pool_limit(min([limit, *most]), len(request.agents))
    return limit


def pool_limit(limit: float, items: int) -> int:
    """A limit as a pool of workers takes it: whole, at least 1, no more than there are items."""
    whole = int(limit) if math.isfinite(limit) else 1
    return max(1, min(whole, items))


def teams_at_once(limits: Limits, teams: int) -> int:
    """The first level: how many teams run at the same time."""
    most = [n for n in (limits.teams, limits.calls) if n is not None]
    return pool_limit(min([teams, *most]), teams)


def members_at_once(limits: Limits, teams: int, largest: int | None = None) -> int | None:
    """The second level: how many members of one team answer at the same time.

    A team's share of `calls` is what is left for it while all teams that may run do; `largest` is
    the most members that a team has, where that is known. None without a limit.
    """
    most = [n for n in (limits.members, largest) if n is not None]
    if limits.calls is not None:
        most.append(max(1, limits.calls // teams_at_once(limits, teams)))
    return max(1, min(most)) if most else None


def _plain(text: str) -> str:
    """A goal is text: what looks like a reference in it stays as it is."""
    return text.replace("${", "$${")


def _plain_value(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return _plain(value)
        case list():
            return [_plain_value(v) for v in value]
        case dict():
            return {k: _plain_value(v) for k, v in value.items()}
        case _:
            return value


def _free_id(name: str, taken: dict[str, int]) -> str:
    """An id that no other has. `taken` keeps each name's last number: none is tried twice."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "agent"
    made, number = base, taken.get(base, 1)
    while made in taken:
        number += 1
        made = f"{base}-{number}"
    taken[base] = number
    taken.setdefault(made, 1)
    return made


def compile_request(
    request: RunRequest,
    plan: Plan,
    catalog: Catalog,
    *,
    depth: int = 0,
    given: Sequence[str] = (),
    parallel: int | None = None,
) -> Compiled:
    """A plan compiled for a run of this request.

    `depth` is its place in a tree of runs, `given` what its parent gave it values for, and
    `parallel` how many of its tasks may run at once by now.
    """
    ids = {t.id for t in plan.tasks}
    return compile_plan(
        plan,
        catalog,
        allow=request.tools,
        other_ids=[name for name in (*given, *request.reuse) if name not in ids],
        depth=depth,
        parallel=parallel or parallel_of(request),
        model=request.model_for("worker") or catalog.models.get("worker") or None,
        fuse=request.fuse,
    )
