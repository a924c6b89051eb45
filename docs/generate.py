"""Write the reference pages from the models and from the programs' own help: `make docs`.

python docs/generate.py            writes docs/reference/*.md
python docs/generate.py --check    writes nothing; exit 1 when a page is out of date
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from planloom.cli import app
from planloom.planner.contract import capacity, controls, requests, results
from planloom.planner.contract import settings as settings_module
from planloom.planner.language import definitions, plan, values
from planloom.planner.syntax import joiner

TARGET = Path(__file__).resolve().parent / "reference"
NOTICE = "<!-- Written by `make docs`; do not edit. -->\n"
SCHEMAS = TARGET.parent.parent / "planner" / "schemas"
SCHEMA_FILES: dict[str, type[BaseModel] | dict[str, values.JsonValue]] = {
    "plan.schema.json": plan.Plan,
    "run-request.schema.json": requests.RunRequest,
    "run-result.schema.json": results.RunResult,
    "agent-request.schema.json": requests.AgentRequest,
    "team-request.schema.json": requests.TeamRequest,
    "joiner-output.schema.json": joiner.JOIN_SCHEMA,
}
COMMAND_LINE = """\
What was asked for goes to standard output, everything else to standard error. `NO_COLOR` is obeyed.
`--debug`, anywhere, shows tracebacks; `planloom --version` the version. `TEMPORAL_UI_ADDRESS` says
where the Web UI is, if not on this machine.

| exit code | means |
|---|---|
| 0 | done; of a run: `completed` |
| 1 | a run that ended otherwise, a refusal, no server, no worker, no such run |
| 2 | misuse: words, a file or settings that cannot be used; an id that already runs |
| 3 | the time given with `--timeout` is over; the run goes on |
| 130 | Ctrl-C; a run that is watched goes on |
"""
PAGES: dict[str, tuple[str, str, list[type[BaseModel]]]] = {
    "contract.md": (
        "The contract",
        "Inputs, results, signals and queries of the workflows, as JSON. Unknown fields: errors.",
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
            controls.CancelTask,
            controls.CompleteTask,
            controls.ApproveTask,
            controls.Reply,
        ],
    ),
    "capacity.md": (
        "Capacity",
        "Input, updates and the query of `CapacityWorkflow`, as JSON. See docs/capacity.md.",
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
    "plan.md": ("The plan", "A plan document, as JSON or YAML.", [plan.Plan, plan.Task]),
    "settings.md": (
        "Settings",
        "`planloom.toml`. Flag > environment > file > default; secrets stay in the environment.",
        [settings_module.Settings],
    ),
}


def page(title: str, about: str, roots: list[type[BaseModel]]) -> str:
    """One page: the models asked for, then all that they hold."""
    shown: dict[str, type[BaseModel]] = {model.__name__: model for model in roots}
    for model in list(shown.values()):
        shown |= {each.__name__: each for each in _parts(model, set(shown))}
    return f"{NOTICE}\n# {title}\n\n{about}\n" + "".join(_section(m, shown) for m in shown.values())


def _parts(model: type[BaseModel], seen: set[str]) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for name in model.model_json_schema().get("$defs", {}):
        part = _named(name)
        if inspect.isclass(part) and issubclass(part, BaseModel) and name not in seen:
            found.append(part)
            seen.add(name)
    return found


def _named(name: str) -> Any:
    return next((getattr(m, name) for m in _MODULES if hasattr(m, name)), None)


def _section(model: type[BaseModel], shown: dict[str, type[BaseModel]]) -> str:
    schema = model.model_json_schema()
    if reference := schema.get("$ref"):  # a model that holds itself
        schema = schema["$defs"][str(reference).rpartition("/")[2]]
    required = set(schema.get("required", ()))
    notes = _notes(model)
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _default(field)
        note = notes.get(name) or field.get("description", "")
        rows.append(f"| `{name}` | {_kind(field, shown)} | {default} | {_cell(note)} |\n")
    about = inspect.cleandoc(model.__doc__ or "")
    table = "| field | type | default | |\n|---|---|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## {model.__name__}\n\n{about}\n\n{table}"


def _kind(field: dict[str, Any], shown: dict[str, type[BaseModel]]) -> str:
    if reference := field.get("$ref"):
        name = str(reference).rpartition("/")[2]
        if name == "JsonValue":
            return "any JSON"
        if inspect.isclass(kind := _named(name)) and issubclass(kind, StrEnum):
            return ", ".join(f"`{value}`" for value in kind)
        return f"[{name}](#{name.lower()})" if name in shown else f"`{name}`"
    for union in ("anyOf", "oneOf"):
        if options := field.get(union):
            kinds = [_kind(each, shown) for each in options]
            return " or ".join(dict.fromkeys(k for k in kinds if k != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}), shown)}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map to {_kind(field['additionalProperties'], shown)}"
    return str(field.get("type", "any")) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    return f" ({', '.join(bounds)})" if bounds else ""


def _default(field: dict[str, Any]) -> str:
    if "default" not in field or field["default"] in (None, "", [], {}):
        return ""
    value = field["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _notes(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under a model's fields, inherited ones too."""
    notes: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        (tree,) = ast.parse(inspect.getsource(base).lstrip()).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, after in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                notes[field.target.id] = after.value.value
    return notes


def schema_text(model: type[BaseModel] | dict[str, values.JsonValue]) -> str:
    """A model's JSON Schema, or one written by hand, as the file that is published."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **(model if isinstance(model, dict) else model.model_json_schema()),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False)


def command_page() -> str:
    """`planloom` and all its commands, from the same objects that print `--help`."""
    root = typer.main.get_command(app)
    text = f"{NOTICE}\n# The command line\n\n{_cell(root.help or '')}\n\n{COMMAND_LINE}"
    return text + "".join(_command(root, ["planloom"]))


def _command(command: Any, names: list[str]) -> list[str]:
    """The command's section; of a group, its own if it does something alone, and its commands'."""
    children = getattr(command, "commands", {})
    parts = [part for name, each in children.items() for part in _command(each, [*names, name])]
    if children and (len(names) == 1 or not command.invoke_without_command):
        return parts
    rows = []
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        label = (
            ", ".join(parameter.opts) if is_option else parameter.metavar or parameter.name.upper()
        )
        rows.append(f"- `{label}` {_cell(getattr(parameter, 'help', None) or '')}".rstrip() + "\n")
    help_text = inspect.cleandoc(command.help or "")
    return [f"\n## {' '.join(names)}\n\n{help_text}\n\n" + "".join(rows), *parts]


_MODULES = [requests, results, controls, plan, definitions, values, settings_module]


def main() -> int:
    pages = {TARGET / name: page(*content) for name, content in PAGES.items()}
    pages[TARGET / "cli.md"] = command_page()
    pages |= {SCHEMAS / name: schema_text(model) for name, model in SCHEMA_FILES.items()}
    stale = []
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        text, name = text.rstrip() + "\n", path.name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if "--check" in sys.argv else "written: ") + ", ".join(stale))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
