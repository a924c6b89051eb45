"""Parallel agents or teams as a plan: a pure expansion of a request (DESIGN §4)."""

from __future__ import annotations

import re
from typing import Any

from planner.contract import RunRequest
from planner.plan import Plan
from planner.values import Problem


def expand_request(request: RunRequest) -> tuple[Plan | None, list[Problem]]:
    """The plan that gives the goal to every agent or team of the request, all at once.

    Each becomes a task named after it; the answer is their outputs by name. One that fails leaves
    the others alone, and the run partial.
    """
    tasks: list[dict[str, Any]] = []
    taken: set[str] = set()
    for kind, members in (("agent", request.agents or []), ("team", request.teams or [])):
        for member in members:
            named = member if isinstance(member, str) else (member.id or kind)
            args: dict[str, Any] = {"task": _plain(request.goal or "")}
            if request.context is not None:
                args["context"] = request.context
            body = member if isinstance(member, str) else member.model_dump(exclude_unset=True)
            tasks.append({"id": _free_id(named, taken), kind: body, "args": args})
    if not tasks:
        where = "agents" if request.agents is not None else "teams"
        message = "is empty: name at least one"
        return None, [Problem(path=where, code="too_short", message=message)]
    answer = {t["id"]: f"${{{t['id']}}}" for t in tasks}
    return Plan.model_validate({"goal": request.goal, "tasks": tasks, "answer": answer}), []


def _plain(text: str) -> str:
    """A goal is text: what looks like a reference in it stays as it is."""
    return text.replace("${", "$${")


def _free_id(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "agent"
    made, number = base, 2
    while made in taken:
        made, number = f"{base}-{number}", number + 1
    taken.add(made)
    return made
