"""Documents in, models or all their problems out: paths people know, and how to mend each."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from planner.plan import PLAN_MAX_BYTES, TASKS_MAX, Plan
from planner.values import JsonValue, Problem

M = TypeVar("M", bound=BaseModel)

PROBLEMS_MAX = 100
TEXT_MAX_CHARS = 500
_CONTAINERS = (typing.Union, types.UnionType, list, dict, typing.Annotated)


def bounded_problems(problems: Sequence[Problem]) -> list[Problem]:
    """At most `PROBLEMS_MAX`, none longer than `TEXT_MAX_CHARS`: they go into history."""
    kept = [_bounded(p) for p in problems[:PROBLEMS_MAX]]
    if len(problems) > PROBLEMS_MAX and problems[PROBLEMS_MAX].code != "more":
        message = f"there are more problems than these {PROBLEMS_MAX}"
        return [*kept, Problem(path="input", code="more", message=message)]
    return [*kept, *problems[PROBLEMS_MAX : PROBLEMS_MAX + 1]]


def _bounded(problem: Problem) -> Problem:
    texts = {"path": problem.path, "message": problem.message, "hint": problem.hint}
    long = {n: t[: TEXT_MAX_CHARS - 1] + "…" for n, t in texts.items() if len(t) > TEXT_MAX_CHARS}
    return problem.model_copy(update=long) if long else problem


def problems_from_validation(
    error: ValidationError, document: Any, model: type[BaseModel], prefix: str = ""
) -> list[Problem]:
    """Pydantic's errors as problems: task ids for indexes, near misses for unknown fields."""
    problems: dict[tuple[str, str], Problem] = {}
    for entry in error.errors(include_url=False, include_context=True)[:PROBLEMS_MAX]:
        loc = _without_branches(entry["loc"], document)
        path = _path(loc, document, prefix)
        problem = _problem(entry, loc, path, document, model)
        problems.setdefault((problem.path, problem.message), problem)
    return list(problems.values())


def _without_branches(loc: tuple[int | str, ...], document: Any) -> tuple[int | str, ...]:
    """Where in the document: without the names of union branches that pydantic adds."""
    kept: list[int | str] = []
    node = document
    for step in loc:
        if _has(node, step):
            node = _step(node, step)
        elif isinstance(node, Mapping) and isinstance(step, str) and step == loc[-1]:
            if not _is_branch(step):
                kept.append(step)
            continue
        else:
            continue
        kept.append(step)
    return tuple(kept)


def _is_branch(step: str) -> bool:
    return step[:1].isupper() or "[" in step or step in ("str", "int", "float", "bool", "literal")


def _path(loc: tuple[int | str, ...], document: Any, prefix: str) -> str:
    parts: list[str] = [prefix] if prefix else []
    node = document
    for n, step in enumerate(loc):
        node = _step(node, step)
        if isinstance(step, int):
            name = (
                node.get("id")
                if isinstance(node, Mapping) and n and loc[n - 1] == "tasks"
                else None
            )
            if isinstance(name, str) and name:
                parts.append(name)
            elif parts:
                parts[-1] += f"[{step}]"
            else:
                parts.append(f"[{step}]")
        else:
            parts.append(step)
    return ".".join(parts) or "input"


def _has(node: Any, step: int | str) -> bool:
    if isinstance(node, list):
        return isinstance(step, int) and step < len(node)
    return isinstance(node, Mapping) and step in node


def _step(node: Any, step: int | str) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        return None


def _problem(
    entry: Any, loc: tuple[int | str, ...], path: str, document: Any, model: type[BaseModel]
) -> Problem:
    kind, message, hint = entry["type"], str(entry["msg"]), ""
    match kind:
        case "extra_forbidden":
            message = f'no field "{loc[-1] if loc else path}"'
            known = _fields_at(model, loc[:-1], document)
            near = get_close_matches(str(loc[-1]) if loc else "", known, n=1, cutoff=0.5)
            listed = "Fields: " + ", ".join(known) if known else ""
            hint = f'Did you mean "{near[0]}"?' if near else listed
        case "missing":
            message = "is missing"
        case "model_type" | "model_attributes_type":
            message = f"needs an object, found {_kind_of(entry['input'])}"
        case "value_error":
            message = message.removeprefix("Value error, ")
        case "literal_error":
            expected = entry.get("ctx", {}).get("expected", "")
            message = f"needs {expected}; found {_shown(entry['input'])}"
            options = [o.strip(" '") for o in expected.replace(" or ", ", ").split(",")]
            near = get_close_matches(str(entry["input"]), options, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else ""
        case "string_pattern_mismatch":
            message = f"{_shown(entry['input'])} is no id: letters, digits, _ - . and no spaces"
        case _:
            message = f"{message[:1].lower()}{message[1:]}, found {_shown(entry['input'])}"
    return Problem(path=path, code=kind, message=message, hint=hint)


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {str: "text", list: "a list", dict: "an object", bool: "a boolean"}
    return kinds.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...], document: Any) -> list[str]:
    """Field names legal at a place, by walking the model's annotations."""
    here: list[type[BaseModel]] = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        found = [m for each in here for m in _models_of(each, step)]
        if not found:
            return []
        here = found
    names = (f.alias or n for m in here for n, f in m.model_fields.items())
    return list(dict.fromkeys(names))


def _models_of(model: type[BaseModel], field: str) -> list[type[BaseModel]]:
    info = model.model_fields.get(field)
    return _models_in(info.annotation) if info is not None else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (
        typing.Union,
        types.UnionType,
        list,
        dict,
        typing.Annotated,
    ):
        return [m for a in typing.get_args(annotation) for m in _models_in(a)]
    return []


def read_plan(document: JsonValue | str, prefix: str = "") -> tuple[Plan | None, list[Problem]]:
    """A plan from a document (or its JSON text), or everything that is wrong with it."""
    where = prefix or "plan"
    if isinstance(document, str):
        if len(document) > PLAN_MAX_BYTES:
            return None, [_too_big(where, len(document))]
        try:
            document = json.loads(document)
        except json.JSONDecodeError as error:
            message = f"is no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            return None, [Problem(path=where, code="not_json", message=message)]
    if not isinstance(document, Mapping):
        message = f"needs an object with a list of tasks, found {_kind_of(document)}"
        return None, [Problem(path=where, code="not_a_plan", message=message)]
    tasks = document.get("tasks")
    if isinstance(tasks, list) and len(tasks) > TASKS_MAX:
        message = f"has {len(tasks):,} tasks; at most {TASKS_MAX:,}"
        hint = "Use a map, or sub-plans."
        return None, [Problem(path=f"{where}.tasks", code="too_many", message=message, hint=hint)]
    if (size := _rough_bytes(document, PLAN_MAX_BYTES)) > PLAN_MAX_BYTES:
        return None, [_too_big(where, size)]
    try:
        return Plan.model_validate(document), []
    except ValidationError as error:
        return None, problems_from_validation(error, document, Plan, prefix)


def _too_big(where: str, size: int) -> Problem:
    return Problem(
        path=where,
        code="too_big",
        message=f"has more than {PLAN_MAX_BYTES:,} bytes ({size:,})",
        hint="Put large values in files or blobs, and read them with a tool.",
    )


def _rough_bytes(value: Any, limit: int) -> int:
    """Size of a JSON value, counted until `limit` is passed."""
    total, stack = 0, [value]
    while stack and total <= limit:
        match stack.pop():
            case str() as text:
                total += len(text) + 2
            case Mapping() as fields:
                total += sum(len(str(k)) + 4 for k in fields)
                stack.extend(fields.values())
            case list() as items:
                total += len(items) + 2
                stack.extend(items)
            case _:
                total += 5
    return total


def read_request(document: Any, model: type[M]) -> tuple[M | None, list[Problem]]:
    """A request of the contract, or everything that is wrong with it, its plan included."""
    if not isinstance(document, Mapping):
        message = f"needs an object, found {_kind_of(document)}"
        hint = 'For example {"goal": "Compare …"}.'
        return None, [Problem(path="input", code="not_an_object", message=message, hint=hint)]
    problems: list[Problem] = []
    checked = dict(document)
    if "plan" in model.model_fields and checked.get("plan") is not None:
        plan, problems = read_plan(checked["plan"], "plan")
        if plan is None and problems[0].code in ("too_big", "too_many"):
            return None, problems
        # The rest of the request is checked as if the plan were right: all problems at once.
        checked["plan"] = plan if plan is not None else {"tasks": [{"id": "x", "tool": "x"}]}
    try:
        request = model.model_validate(checked)
    except ValidationError as error:
        rest = problems_from_validation(error, document, model)
        return None, [*(p for p in rest if not p.path.startswith("plan.")), *problems]
    return (None, problems) if problems else (request, [])
