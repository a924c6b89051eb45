"""Documents in, models or all their problems out: paths people know, and how to fix each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from planloom.planner.language.clean_text import clean_text, clean_value
from planloom.planner.language.plain_errors import kind_of, problem_of
from planloom.planner.language.plan import PLAN_MAX_BYTES, TASKS_MAX, Body, Plan, is_body
from planloom.planner.language.values import JsonValue, Problem, Unreadable

M = TypeVar("M", bound=BaseModel)

DOCUMENT_PROBLEMS_MAX = 100
TEXT_MAX_CHARS = 500
NESTING_MAX = 100
"""Levels of objects and lists in a document: deeper ones run Python out of stack."""
TEXT_FIELDS = ("goal", "task", "context")
TEXT_FIELD_MAX_BYTES = 1_000_000
"""These go along with model calls, in payloads of at most 2 MiB."""
_FORMS = ("string_type", "literal_error", "model_type", "model_attributes_type")


def bounded_problems(problems: Sequence[Problem]) -> list[Problem]:
    """At most `DOCUMENT_PROBLEMS_MAX`, none longer than `TEXT_MAX_CHARS`: they go into history."""
    kept = [_bounded(p) for p in problems[:DOCUMENT_PROBLEMS_MAX]]
    if len(problems) > DOCUMENT_PROBLEMS_MAX and problems[DOCUMENT_PROBLEMS_MAX].code != "more":
        message = f"there are more problems than these {DOCUMENT_PROBLEMS_MAX}"
        return [*kept, Problem(path="input", code="more", message=message)]
    return [*kept, *problems[DOCUMENT_PROBLEMS_MAX : DOCUMENT_PROBLEMS_MAX + 1]]


def _bounded(problem: Problem) -> Problem:
    texts = {"path": problem.path, "message": problem.message, "hint": problem.hint}
    long = {n: t[: TEXT_MAX_CHARS - 1] + "…" for n, t in texts.items() if len(t) > TEXT_MAX_CHARS}
    return problem.model_copy(update=long) if long else problem


def problems_from_validation(
    error: ValidationError, document: Any, model: type[BaseModel], prefix: str = ""
) -> list[Problem]:
    """Pydantic's errors as problems: task ids for indexes, near misses for unknown fields."""
    problems: dict[tuple[str, str], Problem] = {}
    entries = error.errors(include_url=False, include_context=True)
    placed = [
        (_without_branches(e["loc"], document), e) for e in entries[: 2 * DOCUMENT_PROBLEMS_MAX]
    ]
    for loc, entry in _told_once(placed):
        path = _path(loc, document, prefix)
        problem = problem_of(entry, loc, path, model)
        problems.setdefault((problem.path, problem.message), problem)
    return bounded_problems(list(problems.values()))


def _told_once(placed: list[tuple[tuple[int | str, ...], Any]]) -> list[tuple[Any, Any]]:
    """Without problems that only say which other forms the value does not have.

    `ask: {promt: …}` is an object with a wrong field; that it is not a text either is not reported.
    """
    blamed = {loc[:n] for loc, _ in placed for n in range(len(loc))}
    blamed |= {loc for loc, e in placed if e["type"] not in _FORMS}
    scalar = {loc for loc, e in placed if e["type"] in ("string_type", "literal_error")}
    kept = []
    for loc, entry in placed:
        if entry["type"] == "string_type" and isinstance(entry["input"], Mapping) and loc in blamed:
            continue
        if entry["type"] in ("model_type", "model_attributes_type") and loc in scalar:
            continue
        kept.append((loc, entry))
    return kept


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


def read_plan(
    document: JsonValue | str, prefix: str = "", limit: int = PLAN_MAX_BYTES
) -> tuple[Plan | None, list[Problem]]:
    """A plan from a document (or its JSON text), or everything that is wrong with it.

    `limit` is how many bytes it may have.
    """
    where = prefix or "plan"
    if isinstance(document, str):
        if len(document) > limit:
            return None, [_too_big(where, len(document), limit)]
        try:
            document = json.loads(document)
        except RecursionError:
            return None, [too_deep(where)]
        except json.JSONDecodeError as error:
            if not error.doc.lstrip().startswith(("{", "[")):
                message = "needs an object with a list of tasks, found a text that is not JSON"
                return None, [Problem(path=where, code="not_json", message=message)]
            message = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            return None, [Problem(path=where, code="not_json", message=message)]
        except ValueError:
            message = "holds a number with thousands of digits"
            return None, [Problem(path=where, code="not_json", message=message)]
    if not isinstance(document, Mapping):
        found = "nothing" if document is None else kind_of(document)
        message = f"needs an object with a list of tasks, found {found}"
        hint = "Put the list under `tasks:`." if isinstance(document, list) else ""
        return None, [Problem(path=where, code="not_a_plan", message=message, hint=hint)]
    if faults := _faults_of(document, where, limit):
        return None, faults
    document = clean_value(dict(document))
    assert isinstance(document, dict)
    tasks = document.get("tasks")
    if isinstance(tasks, list) and len(tasks) > TASKS_MAX:
        message = f"has {len(tasks):,} tasks; at most {TASKS_MAX:,}"
        hint = "Use a map, or sub-plans."
        return None, [Problem(path=f"{where}.tasks", code="too_many", message=message, hint=hint)]
    checked, problems = _without_bad_fallbacks(document, prefix)
    try:
        plan = Plan.model_validate(checked)
    except ValidationError as error:
        problems = [*problems_from_validation(error, document, Plan, prefix), *problems]
        return None, bounded_problems(problems)
    return (None, problems) if problems else (plan, [])


def _without_bad_fallbacks(
    document: Mapping[str, Any], prefix: str
) -> tuple[Mapping[str, Any], list[Problem]]:
    """The plan without fallback tasks that are wrong, and what is wrong with them.

    The model checks them while it checks their task, and so would place their problems there.
    """
    tasks = document.get("tasks")
    if not isinstance(tasks, list):
        return document, []
    problems: list[Problem] = []
    checked: list[Any] = []
    for n, task in enumerate(tasks):
        if isinstance(task, Mapping) and is_body(fallback := task.get("fallback")):
            try:
                Body.model_validate(fallback)
            except ValidationError as error:
                path = _path(("tasks", n, "fallback"), document, prefix)
                problems += problems_from_validation(error, fallback, Body, path)
                task = {k: v for k, v in task.items() if k != "fallback"}
        checked.append(task)
    return ({**document, "tasks": checked}, problems) if problems else (document, [])


def _too_big(where: str, size: int, limit: int) -> Problem:
    hint = "Put large values in files or blobs, and read them with a tool."
    if limit == PLAN_MAX_BYTES:
        hint = (
            "Store the plan with `planloom plan store FILE`, and start the run with `plan_blob` in "
            "place of `plan`. `planloom run --plan FILE` does both."
        )
    message = f"has more than {limit:,} bytes ({size:,})"
    return Problem(path=where, code="too_big", message=message, hint=hint)


def too_deep(where: str) -> Problem:
    """A document that no payload holds."""
    return Problem(
        path=where,
        code="too_deep",
        message=f"is nested deeper than {NESTING_MAX} levels",
        hint="Put deep values in files or blobs, and read them with a tool.",
    )


def _faults_of(document: Any, where: str, limit: int | None = None) -> list[Problem]:
    """What keeps a value from being read at all: too large, too deep, no JSON."""
    total, level = 0, [document]
    for _ in range(NESTING_MAX + 1):
        following: list[Any] = []
        for value in level:
            match value:
                case str():
                    total += (
                        len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
                    ) + 2
                case Mapping():
                    total += sum(len(str(k)) + 4 for k in value)
                    following += value.values()
                case list():
                    total += len(value) + 2
                    following += value
                case float() if not math.isfinite(value):
                    message = f"holds {value}, which is not a number in JSON"
                    return [Problem(path=where, code="not_json", message=message)]
                case _:
                    total += 5
        if limit is not None and total > limit:
            return [_too_big(where, total, limit)]
        if not following:
            return []
        level = following
    return [too_deep(where)]


def read_request(
    document: Any, model: type[M], plan_limit: int = PLAN_MAX_BYTES
) -> tuple[M | None, list[Problem]]:
    """A request of the contract, or everything that is wrong with it, its plan included.

    `plan_limit` is how many bytes its plan may have.
    """
    if isinstance(document, Unreadable):
        message = f"cannot be read: {document.why}"
        return None, [Problem(path="input", code="unreadable", message=message)]
    if not isinstance(document, Mapping):
        message = f"needs an object, found {kind_of(document)}"
        hint = f"Its fields: {', '.join(model.model_fields)}."
        if "goal" in model.model_fields:
            hint = 'For example {"goal": "Compare …"}.'
        return None, [Problem(path="input", code="not_an_object", message=message, hint=hint)]
    problems: list[Problem] = []
    document = {clean_text(str(name)): value for name, value in document.items()}
    checked = dict(document)
    if "plan" in model.model_fields and checked.get("plan") is not None:
        plan, problems = read_plan(checked["plan"], "plan", plan_limit)
        # The rest of the request is checked as if the plan were right: all problems at once.
        checked["plan"] = plan if plan is not None else {"tasks": [{"id": "x", "tool": "x"}]}
    for name, value in document.items():
        limit = TEXT_FIELD_MAX_BYTES if name in TEXT_FIELDS else None
        if name != "plan" and (faults := _faults_of(value, str(name), limit)):
            problems += faults
            checked.pop(name)
        elif name != "plan":
            checked[name] = clean_value(value)
    try:
        request = model.model_validate(checked)
    except ValidationError as error:
        rest = problems_from_validation(error, checked, model)
        unread = {p.path for p in problems}
        rest = [p for p in rest if not p.path.startswith("plan.") and p.path not in unread]
        return None, bounded_problems([*rest, *problems])
    return (None, problems) if problems else (request, [])
