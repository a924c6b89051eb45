"""What can be read of a plan that has mistakes, so that the compiler's problems come with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from planloom.planner.language.plan import TASKS_MAX, Plan, Task
from planloom.planner.language.values import ID_PATTERN, Problem
from planloom.planner.syntax.documents import problems_from_validation

_ABOUT_OTHERS = ("when", "depends_on", "map")
"""Fields of a task that are checked whatever its body is."""
_STAND_IN = "read by nobody"
"""The prompt of a task that stands where one could not be read, so that others can name it."""


def readable_part(document: Any) -> tuple[Plan, set[str], list[Problem]] | None:
    """The plan of what can be read, the ids of tasks whose body or arguments could not, and what
    is wrong with their fields taken together, which is checked only when each is right.

    None when too little can be read. A task with a wrong field is read without that field.

    Fields of the plan that are wrong are left out, as `read_plan` has said so already.
    """
    tasks = document.get("tasks") if isinstance(document, Mapping) else None
    if not isinstance(tasks, list) or not 0 < len(tasks) <= TASKS_MAX:
        return None
    read: list[Any] = []
    unread: set[str] = set()
    together: list[Problem] = []
    for task in tasks:
        id = task.get("id") if isinstance(task, Mapping) else None
        if not isinstance(id, str) or not re.match(ID_PATTERN, id):
            continue
        try:
            Task.model_validate(task)
            read.append(task)
        except (ValidationError, RecursionError) as error:
            wrong = _wrong_fields(error)
            rest = {k: v for k, v in task.items() if k not in wrong}
            found = _problems_of(rest)
            if found is None:
                read.append(rest)
                unread |= {id} if "args" in wrong else set()
            else:
                # A field with a wrong name may be the one that is missing.
                together += found if wrong and wrong <= set(Task.model_fields) else []
                read.append({"id": id, "ask": _STAND_IN, **_kept_fields(task, wrong)})
                unread.add(id)
    fields = {k: v for k, v in document.items() if k in Plan.model_fields and k != "tasks"}
    for kept in (fields, {k: v for k, v in fields.items() if k in ("params", "answer")}, {}):
        try:
            return Plan.model_validate({**kept, "tasks": read}), unread, together
        except (ValidationError, RecursionError):
            continue
    return None


def _wrong_fields(error: Exception) -> set[str]:
    if not isinstance(error, ValidationError):
        return set(_ABOUT_OTHERS)
    return {str(e["loc"][0]) for e in error.errors() if e["loc"]}


def _problems_of(task: Mapping[str, Any]) -> list[Problem] | None:
    """What is wrong with a task's fields taken together; None when nothing is wrong with it."""
    try:
        Task.model_validate(task)
    except ValidationError as error:
        found = problems_from_validation(error, task, Task, f"tasks.{task['id']}")
        return [p for p in found if p.code == "value_error"]
    except RecursionError:
        return []
    return None


def _kept_fields(task: Mapping[str, Any], wrong: set[str]) -> dict[str, Any]:
    """The fields about other tasks that are as they should be."""
    kept = {k: task[k] for k in _ABOUT_OTHERS if k in task and k not in wrong}
    return kept if _problems_of({"id": task["id"], "ask": _STAND_IN, **kept}) is None else {}


def more_problems(told: list[Problem], compiled: list[Problem], unread: set[str]) -> list[Problem]:
    """The problems of a document with those of its readable part, none twice."""
    places = {(p.path, p.message) for p in told}
    kept = [p for p in compiled if (p.path, p.message) not in places and _task_of(p) not in unread]
    return [*told, *kept]


def _task_of(problem: Problem) -> str:
    """The id of the task whose body or arguments a problem is about; of a field, the field too."""
    return problem.path.removeprefix("tasks.").partition(".args")[0].partition("[")[0]
