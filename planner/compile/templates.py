"""Templates: plans with typed parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from planloom.planner.compile.schema_check import check_value
from planloom.planner.language.plan import Param, Plan
from planloom.planner.language.references import find_references, shortened
from planloom.planner.language.values import JsonValue, Problem
from planloom.planner.syntax.documents import read_plan

_FIRST = re.compile(r'\.\s*(?:([A-Za-z_]\w*)|"([^"]+)")')


def read_template(
    name: str, documents: Mapping[str, JsonValue], names: Sequence[str] = ()
) -> tuple[Plan | None, list[Problem]]:
    """The template of that name, or why there is none."""
    if name not in documents:
        template_names = list(dict.fromkeys([*documents, *names]))
        near = get_close_matches(name, template_names, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else "Templates: " + ", ".join(template_names)
        message = f'no template "{name}"'
        return None, [Problem(path="template", code="unknown_template", message=message, hint=hint)]
    plan, problems = read_plan(documents[name], f"template {name}")
    if plan is None:
        return None, problems
    wrong = check_template(plan)
    return (None, wrong) if wrong else (plan, [])


def check_template(plan: Plan) -> list[Problem]:
    """What is wrong with a plan as a template: its parameters and their defaults."""
    problems = check_declared(plan)
    for name, param in plan.params.items():
        if param.default is not None:
            where = f"params.{name}.default"
            problems += check_value(param.default, schema_of(param), where)
    return problems


def check_declared(plan: Plan) -> list[Problem]:
    """References to parameters that the template does not declare; sub-plans have their own."""
    document = plan.model_dump(mode="json", exclude_unset=True)
    for task in document["tasks"]:
        task.pop("plan", None)
    problems: dict[str, Problem] = {}
    for reference in find_references(document):
        name = first_name(reference.path)
        if reference.root == "params" and name and name not in plan.params:
            near = get_close_matches(name, list(plan.params), n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Declare it under params."
            problems[name] = Problem(
                path=f"params.{name}",
                code="undeclared_param",
                message=f'"{shortened(reference.text)}" reads a parameter that is not declared',
                hint=hint,
            )
    return list(problems.values())


def first_name(path: str) -> str:
    """The first field that a reference's path reads; `""` when it reads none by name."""
    match = _FIRST.match(path)
    return (match[1] or match[2]) if match else ""


def is_needed(param: Param) -> bool:
    """Whether a parameter has to be given."""
    return param.required and "default" not in param.model_fields_set


def check_params(
    plan: Plan, given: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], list[Problem]]:
    """The parameters with defaults filled in, and all that is wrong with those given.

    A plan that declares none takes what it is given.
    """
    if not plan.params:
        return dict(given), []
    values: dict[str, JsonValue] = {}
    problems: list[Problem] = []
    for name in given:
        if name not in plan.params:
            near = get_close_matches(name, list(plan.params), n=1)
            listed = "Parameters: " + ", ".join(plan.params)
            problems.append(
                Problem(
                    path=f"params.{name}",
                    code="unknown_param",
                    message=f'no parameter "{name}"',
                    hint=f'Did you mean "{near[0]}"?' if near else listed,
                )
            )
    for name, param in plan.params.items():
        if name in given:
            values[name] = given[name]
            problems += check_value(given[name], schema_of(param), f"params.{name}")
        elif not is_needed(param):
            values[name] = param.default
        else:
            problems.append(
                Problem(
                    path=f"params.{name}",
                    code="missing_param",
                    message=f'parameter "{name}" ({param.type}) is missing',
                    hint=param.description,
                )
            )
    return values, problems


def schema_of(param: Param) -> dict[str, JsonValue]:
    schema: dict[str, JsonValue] = {"type": param.type}
    if param.enum is not None:
        schema["enum"] = param.enum
    return schema


def param_from_text(param: Param, text: str) -> JsonValue:
    """A parameter typed on a command line: `-p n=3`, `-p names=a,b` or JSON.

    Raises:
        ValueError: the text does not fit the parameter's type.
    """
    match param.type:
        case "string":
            return text
        case "boolean" if text.lower() in ("true", "yes", "1", "on"):
            return True
        case "boolean" if text.lower() in ("false", "no", "0", "off"):
            return False
        case "integer":
            return int(text)
        case "number":
            return float(text)
        case "array" if not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        case _:
            value: JsonValue = json.loads(text)
            return value
