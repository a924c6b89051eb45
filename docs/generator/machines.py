"""The page of the machines: states, events and commands, read from their source."""

from __future__ import annotations

import ast
import inspect
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from generator.models import cell
from planloom.planner.language.field_docs import field_docs
from planloom.workflows.machines.agent import state as agent
from planloom.workflows.machines.pool import pool
from planloom.workflows.machines.run import state as run
from planloom.workflows.machines.shared import commands, events
from planloom.workflows.machines.team import state as team

FOLDER = Path(inspect.getfile(run)).parents[1]
STAGES: dict[str, tuple[type[StrEnum], str]] = {
    "run": (run.Stage, "`DagWorkflow`. `progress` shows a stage under its public name."),
    "agent": (
        agent.Doing,
        "`AgentWorkflow`, and each member of a team: what it waits for. Any state may lead to any other.",
    ),
    "team": (team.Stage, "`TeamWorkflow`. Subtasks are a plan that the run machine runs."),
}
MOVES = {
    "run": {
        "preparing": "room planning approving running joining over",
        "room": "planning approving running over",
        "planning": "approving running joining answering stopping over",
        "approving": "planning running joining answering stopping over",
        "running": "planning approving joining answering stopping over",
        "joining": "planning answering stopping over",
        "answering": "stopping over",
        "stopping": "over",
    },
    "team": {
        "preparing": "initial plan over",
        "initial": "communication retry judging over",
        "plan": "communication retry judging answering over",
        "communication": "retry judging over",
        "retry": "communication judging over",
        "judging": "answering over",
        "answering": "over",
    },
}
"""Where a stage may lead. `tests/docs/test_machines.py` holds simulated runs against it."""
ABOUT = """\
For people who change Planloom. All decisions are made by four machines: values with one function
`step(state, event, now)` that changes the state and returns commands. The shell turns what happens in
Temporal into events, carries out the commands, and decides nothing. Why: see
[architecture](../architecture.md).
"""


def machines_page() -> str:
    parts = [f"# States, events and commands\n\n{ABOUT}"]
    for name, (stages, about) in STAGES.items():
        docs = _docs_of_members(stages)
        moves = MOVES.get(name, {})
        head = "| state | leads to | meaning |\n|---|---|---|\n"
        rows = "".join(
            f"| `{s.value}` | {_quoted(moves.get(s.value, ''))} | {cell(docs[s.name])} |\n"
            for s in stages
        )
        parts.append(f"\n## States: {name}\n\n{about}\n\n{head}{rows}")
    parts.append(_pool())
    parts.append(_kinds("Events", events, events.Event, "An event says what happened."))
    about = "A command says what the shell must do. One with a key ends in exactly one event."
    parts.append(_kinds("Commands", commands, commands.Command, about))
    return "".join(parts)


def _quoted(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())


def _docs_of_members(stages: type[StrEnum]) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(stages)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for member, after in zip(tree.body, tree.body[1:], strict=False):
        match member, after:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = text
    if absent := [s.name for s in stages if s.name not in found]:
        raise ValueError(f"{stages.__qualname__}: no docstring under {', '.join(absent)}")
    return found


def _kinds(title: str, module: ModuleType, union: Any, about: str) -> str:
    """One row for each member of the union, with its fields and the machines that name it."""
    rows = []
    for kind in get_args(union):
        fields = ", ".join(f"`{name}`" for name in kind.__dataclass_fields__) or "–"
        users = ", ".join(m for m in STAGES if kind.__name__ in _names_in(m))
        text = cell(kind.__doc__ or "")
        notes = "; ".join(f"`{n}`: {cell(t)}" for n, t in field_docs(kind).items())
        users = users or "all"
        rows.append(f"| `{kind.__name__}` | {fields} | {users} | {text} {notes} |".strip() + "\n")
    head = "| name | fields | machines | meaning |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{about} `{module.__name__}`\n\n{head}{''.join(rows)}"


def _names_in(machine: str) -> set[str]:
    """Every name that the source of a machine uses."""
    found: set[str] = set()
    for path in (FOLDER / machine).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                found.add(node.id)
    return found


def _pool() -> str:
    rows = "".join(
        f"| `{name}` | {cell((inspect.getdoc(field) or '').partition(chr(10) * 2)[0])} |\n"
        for name, field in vars(pool.Pool).items()
        if name in POOL_EVENTS
    )
    state = "".join(
        f"| `{name}` | {cell(field_docs(pool.PoolState).get(name, ''))} |\n"
        for name in pool.PoolState.model_fields
    )
    return (
        "\n## States: pool\n\n`CapacityWorkflow`. Its state has no stages but these fields; the "
        "query `state` shows them.\n\n| field | meaning |\n|---|---|\n"
        + state
        + "\n## Events: pool\n\nEach event is a method that replaces the state and returns the "
        "answer.\n\n| event | meaning |\n|---|---|\n" + rows
    )


POOL_EVENTS = (
    "load",
    "report",
    "set",
    "drain",
    "resume",
    "reserve",
    "answer",
    "renew",
    "release",
    "tick",
)
