"""Fork and rerun: a new run that reuses what an earlier one finished. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from planloom.planner.compile.pipeline import graph_of
from planloom.planner.compile.templates import first_name
from planloom.planner.contract.requests import Lineage, Reused, RunRequest
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.references import find_references
from planloom.planner.language.values import JsonValue, Outcome, Problem, TaskId


def downstream_of(plan: Plan, starts: Collection[str]) -> set[TaskId]:
    """The tasks of `starts`, and all that read them, directly or not."""
    readers: dict[str, list[TaskId]] = {}
    for task, inputs in graph_of(plan).items():
        for needed in inputs:
            readers.setdefault(needed, []).append(task)
    downstream: set[TaskId] = set()
    stack = [TaskId(s) for s in starts]
    while stack:
        task = stack.pop()
        if task not in downstream:
            downstream.add(task)
            stack.extend(readers.get(task, ()))
    return downstream


CARRIED = (
    "model",
    "tools",
    "context",
    "budget",
    "on_budget",
    "priority",
    "tenant",
    "cache",
    "fuse",
    "params",
    "syntax",
    "stream",
    "replan",
    "on_failure",
    "retry_rounds",
    "stop_when",
)
"""What a fork takes over from the request of the run: who may do what, at what cost."""


def fork_request(
    run: str,
    plan: Plan,
    outputs: Mapping[str, Reused],
    again: Collection[str],
    changes: Sequence[tuple[str, JsonValue]] = (),
    request: RunRequest | None = None,
    lineage: Lineage | None = None,
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """A `RunRequest` document that runs `again` and all behind it, and reuses the rest.

    `changes` are (path, value) pairs such as ("report.args.style", "short") or ("params.city",
    "Lyon"); a task that is changed, or reads a changed parameter, runs again too. `outputs` are the
    finished tasks of `run`, `request` what it was started with: its limits and its joiner go on;
    `lineage` what its own run told it, if it is a child.
    """
    problems = [_unknown(plan, task) for task in again if plan.task(task) is None]
    document = plan.model_dump(mode="json", exclude_unset=True, by_alias=True)
    made = _carried(request) if request is not None else {}
    changed: list[str] = []
    for path, value in changes:
        first, _, rest = path.partition(".")
        if first == "params" and rest and lineage is not None and lineage.params is not None:
            message = f"{path}: the parameters of {run} are too large to be changed one by one"
            hint = "Fork the run that started it, or change the task that reads the parameter."
            problems.append(Problem(path=path, code="large_params", message=message, hint=hint))
        elif first == "params" and rest:
            made["params"] = {**made.get("params", {}), rest: value}
            changed += [t.id for t in plan.tasks if _reads_param(t, rest)]
        elif (problem := _change(document, path, value)) is not None:
            problems.append(problem)
        else:
            changed.append(first)
    if problems:
        return None, problems
    redone = downstream_of(plan, [*again, *(c for c in changed if c != "answer")])
    reuse: dict[str, dict[str, Any]] = {
        task: kept.model_dump(mode="json", exclude_unset=True)
        for task, kept in outputs.items()
        if TaskId(task) not in redone and kept.outcome.is_good and plan.task(task) is not None
    }
    reuse |= _given(lineage or Lineage())
    if request is not None:
        made |= _approval(request, is_changed=bool(changes))
    return {**made, "plan": document, "reuse": reuse, "forked_from": run}, []


def _given(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """Values that a child's plan reads beside its own tasks."""
    values = lineage.inputs | ({"params": lineage.params} if lineage.params else {})
    tainted = {"tainted": True} if lineage.tainted_inputs else {}
    return {
        name: {
            "outcome": Outcome.SUCCEEDED.value,
            "output": stored.model_dump(mode="json", exclude_unset=True),
            **tainted,
        }
        for name, stored in values.items()
    }


def _carried(request: RunRequest) -> dict[str, Any]:
    given = request.model_dump(mode="json", exclude_unset=True, include=set(CARRIED))
    has_joiner = request.joiner or (request.goal and not request.agents and not request.teams)
    return {k: v for k, v in given.items() if v is not None} | (
        {"joiner": True} if has_joiner else {}
    )


def _approval(request: RunRequest, *, is_changed: bool) -> dict[str, Any]:
    """A plan that was approved and is not changed need not be approved again; its replans must.

    `tainted` asks before acts, not before plans: it stays.
    """
    policy = request.approval
    if policy.mode == "never" or (policy.mode == "plan" and not is_changed):
        return {}
    mode = policy.mode if is_changed or policy.mode == "tainted" else "replan"
    return {"approval": policy.model_dump(mode="json", exclude_unset=True) | {"mode": mode}}


def _reads_param(task: Task, name: str) -> bool:
    document = task.model_dump(mode="json", exclude_unset=True, exclude={"id", "description"})
    read = [r for r in find_references(document) if r.root == "params"]
    in_when = "params" in roots_of_condition(task.when) if task.when else False
    return in_when or any(first_name(r.path) in (name, "") for r in read)


def unfinished_of(plan: Plan, outputs: Mapping[str, Reused]) -> list[str]:
    """Tasks without a value: what `rerun --failed` runs again."""
    return [t.id for t in plan.tasks if t.id not in outputs or not outputs[t.id].outcome.is_good]


def _unknown(plan: Plan, task: str) -> Problem:
    names = [t.id for t in plan.tasks]
    near = get_close_matches(task, names, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else "Tasks: " + ", ".join(names[:20])
    return Problem(path=task, code="missing_reference", message=f'no task "{task}"', hint=hint)


def _change(document: dict[str, Any], path: str, value: JsonValue) -> Problem | None:
    """Set one field of a plan document: `task.field…`, or `answer`."""
    steps = path.split(".")
    if steps[0] == "answer":
        document["answer"] = value
        return None
    node: Any = next((t for t in document["tasks"] if t["id"] == steps[0]), None)
    if node is None or len(steps) < 2:
        ids = ", ".join(t["id"] for t in document["tasks"][:20])
        message = f'"{path}" names no field of a task'
        hint = f"Write TASK.FIELD, for example {ids.split(',')[0]}.args.query; tasks: {ids}"
        return Problem(path=path, code="bad_path", message=message, hint=hint)
    for step in steps[1:-1]:
        node = node.setdefault(step, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            message = f'"{step}" in "{path}" is not an object'
            return Problem(path=path, code="bad_path", message=message)
    node[steps[-1]] = value
    return None
