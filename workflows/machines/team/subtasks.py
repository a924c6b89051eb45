"""A team's subtasks as a plan: its tasks, their texts, and the request that runs them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planloom.planner.contract.requests import Lineage, RunRequest, TeamRequest
from planloom.planner.language.definitions import MemberSpec, Subtask
from planloom.planner.language.plan import Plan
from planloom.planner.language.references import as_text
from planloom.planner.language.values import RESERVED_IDS, Stored
from planloom.workflows.machines.team.members import subtask_text

CONTEXT_INLINE_BYTES = 2_000
"""A longer context of the team is an input of the plan, not a part of each task's text."""
TASK, CONTEXT = "team.task", "team.context"
"""Inputs of the plan that hold the team's task and context where they are large."""
_OF_THE_TEAM = (
    "model",
    "tools",
    "budget",
    "on_budget",
    "priority",
    "tenant",
    "cache",
    "approval",
    "replan",
    "retry_rounds",
)


def plan_inputs(given: Mapping[str, Stored], context: Stored | None) -> dict[str, Stored]:
    """The team's large words, by names that no subtask has: dots are rare in ids, not forbidden."""
    large = {TASK: given.get("task"), CONTEXT: context or given.get("context")}
    return {name: stored for name, stored in large.items() if stored is not None}


def lineage_of_plan(given: Lineage, context: Stored | None) -> Lineage:
    """The run of a team's subtasks comes from where the team does, and has the team's words.

    `context` is the team's context where it is large, behind a reference.
    """
    tainted = {"tainted_plan": True} if given.is_tainted else {}
    return given.model_copy(update={"inputs": plan_inputs(given.inputs, context), **tainted})


def run_request(
    request: TeamRequest, members: Sequence[MemberSpec], inputs: Sequence[str]
) -> RunRequest:
    """The run of a team's subtasks: its plan, or the goal that the planner makes one for."""
    fields: dict[str, Any] = {name: getattr(request, name) for name in _OF_THE_TEAM}
    # The team's own words stand in the tasks of the plan, where they are short.
    if request.strategy == "sequential":
        fields["budget"] = request.budget.model_copy(update={"parallel": 1})
    if request.subtasks == "plan":
        return RunRequest.model_validate(
            {**fields, "goal": request.task, "context": request.context}
        )
    plan = plan_of(request, members, inputs)
    return RunRequest.model_validate(
        {**fields, "plan": plan, "joiner": request.replan.max_rounds > 0}
    )


def plan_of(request: TeamRequest, members: Sequence[MemberSpec], inputs: Sequence[str]) -> Plan:
    """The subtasks as a plan: of the request, else of the members; without any, the task for each.

    What a subtask waits for is in its context.
    """
    parts = request.subtasks if isinstance(request.subtasks, list) else _own_parts(members)
    ids = task_ids([p.id for p in parts])
    tasks: list[dict[str, Any]] = []
    for part in parts:
        args: dict[str, Any] = {"task": _task_text(request, part.task, TASK in inputs)}
        told = [f"# Result of {d}\n${{{_quoted(ids[d])}}}" for d in part.depends_on]
        if CONTEXT in inputs:
            told.insert(0, f"# Context\n${{{_quoted(CONTEXT)}}}")
        elif request.context is not None:
            told.insert(0, f"# Context\n{_plain(as_text(request.context))}")
        if told:
            args["context"] = "\n\n".join(told)
        member = part.member or part.id
        description = (part.task or request.task)[:200]
        tasks.append(
            {"id": ids[part.id], "agent": member, "args": args, "description": description}
        )
    return Plan.model_validate({"goal": request.task, "tasks": tasks})


def task_ids(names: Sequence[str]) -> dict[str, str]:
    """The id of each subtask as a task: its own, except where a plan uses that id otherwise."""
    found: dict[str, str] = {}
    for name in names:
        made = name
        while made in RESERVED_IDS or (made != name and made in names):
            made += "_"
        found[name] = made
    return found


def _task_text(request: TeamRequest, part: str, is_large: bool) -> str:
    whole = f"${{{_quoted(TASK)}}}" if is_large else _plain(request.task)
    return subtask_text(_plain(part), whole) if part else whole


def _own_parts(members: Sequence[MemberSpec]) -> list[Subtask]:
    return [
        Subtask.model_construct(id=m.id, task=m.task or "", member=m.id, depends_on=m.depends_on)
        for m in members
    ]


def _plain(text: str) -> str:
    return text.replace("${", "$${")


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name
