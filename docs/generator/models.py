"""Reference pages of pydantic models: every field with its type, default and sentence."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from planloom.planner.contract import capacity, controls, requests, results, settings
from planloom.planner.language import definitions, plan, values

PAGES: dict[str, tuple[str, str, list[type[BaseModel]]]] = {
    "contract.md": (
        "Requests, results and signals",
        "Inputs, results, signals and queries of the workflows, as JSON. An unknown field is an "
        "error. For the rules behind them, see [the contract](../contract.md).",
        [
            requests.RunRequest,
            results.RunResult,
            results.Progress,
            requests.AgentRequest,
            results.AgentResult,
            requests.TeamRequest,
            results.TeamResult,
            controls.ApprovePlan,
            controls.RejectPlan,
            controls.EditPlan,
            controls.RequestReplan,
            controls.RaiseBudget,
            controls.Pause,
            controls.Resume,
            controls.CancelTask,
            controls.CompleteTask,
            controls.ApproveTask,
            controls.Reply,
        ],
    ),
    "capacity.md": (
        "Capacity requests",
        "Input, updates and the query of `CapacityWorkflow`, as JSON. For what they do, see "
        "[capacity](../how-to/capacity.md).",
        [
            capacity.CapacityRequest,
            capacity.Reserve,
            capacity.Renew,
            capacity.Release,
            capacity.PermitReply,
            capacity.SetCapacity,
            capacity.Because,
            capacity.CapacityState,
        ],
    ),
    "plan.md": (
        "Plan fields",
        "Every field of a plan document, as JSON or YAML. For how they work together, see "
        "[the plan format](plan-format.md).",
        [plan.Plan, plan.Task],
    ),
}
MODULES = [requests, results, controls, capacity, plan, definitions, values, settings]
HIDDEN = {"Lineage", "Grant", "Usage"}
"""Between parent and child runs: not typed by people."""


def model_page(title: str, about: str, roots: list[type[BaseModel]]) -> str:
    """One page: the models asked for, then all that they hold."""
    shown = with_parts(roots)
    return f"# {title}\n\n{about}\n" + "".join(section(m, shown) for m in shown.values())


def with_parts(roots: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Models and the models that they hold, by name."""
    shown = {model.__name__: model for model in roots}
    for model in list(shown.values()):
        for name in model.model_json_schema().get("$defs", {}):
            part = _named(name)
            if inspect.isclass(part) and issubclass(part, BaseModel) and name not in HIDDEN:
                shown.setdefault(name, part)
    return shown


def properties_of(model: type[BaseModel]) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The fields of a model as JSON Schema, and the names of those that are required."""
    schema = model.model_json_schema()
    if reference := schema.get("$ref"):  # a model that holds itself
        schema = schema["$defs"][str(reference).rpartition("/")[2]]
    return schema.get("properties", {}), set(schema.get("required", ()))


def section(model: type[BaseModel], shown: dict[str, type[BaseModel]]) -> str:
    properties, required = properties_of(model)
    rows = [
        f"| `{name}` | {kind_of(field, shown)} | "
        f"{'required' if name in required else default_of(field)} | {sentence(model, name, field)} |\n"
        for name, field in properties.items()
    ]
    about = inspect.cleandoc(model.__doc__ or "")
    table = "| field | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows)
    return f"\n## {model.__name__}\n\n{about}\n\n{table if rows else ''}"


def sentence(model: type[BaseModel], name: str, field: dict[str, Any]) -> str:
    """The field's own sentence.

    Raises:
        ValueError: it has none.
    """
    text = str(field.get("description", ""))
    if not text.endswith((".", "…")):
        raise ValueError(f"{model.__name__}.{name}: write a docstring of whole sentences under it")
    return cell(text)


def kind_of(field: dict[str, Any], shown: dict[str, type[BaseModel]]) -> str:
    if reference := field.get("$ref"):
        name = str(reference).rpartition("/")[2]
        if name == "JsonValue":
            return "any JSON"
        if inspect.isclass(kind := _named(name)) and issubclass(kind, StrEnum):
            return ", ".join(f"`{value}`" for value in kind)
        return f"[{name}](#{name.lower()})" if name in shown else f"`{name}`"
    for union in ("anyOf", "oneOf"):
        if options := field.get(union):
            kinds = [kind_of(each, shown) for each in options]
            return " or ".join(dict.fromkeys(k for k in kinds if k != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    match field.get("type"):
        case "array" if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])} numbers"
        case "array":
            return f"list of {kind_of(field.get('items', {}), shown)}"
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return f"map to {kind_of(field['additionalProperties'], shown)}"
        case "object" if len(found := list(field.get("patternProperties", {}).values())) == 1:
            return f"map to {kind_of(found[0], shown)}"
    return str(field.get("type", "any JSON")) + _bounds(field)


def default_of(field: dict[str, Any]) -> str:
    if "default" not in field or field["default"] in (None, "", [], {}):
        return ""
    value = field["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    return f" ({', '.join(bounds)})" if bounds else ""


def _named(name: str) -> Any:
    return next((getattr(m, name) for m in MODULES if hasattr(m, name)), None)
