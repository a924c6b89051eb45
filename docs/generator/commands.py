"""The page of the command line, from the same objects that print `--help`."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from generator.models import cell
from planloom.cli import app

EXAMPLE = "Example: "
ABOUT = """\
For people who type `planloom`. Results go to standard output, everything else to standard error.
`NO_COLOR` turns colours off. `--debug` shows tracebacks. `TEMPORAL_UI_ADDRESS` says where the Web UI
is, if it is not on this machine.

| exit code | meaning |
|---|---|
| 0 | Done. For a run: it is `completed`. |
| 1 | The run ended with another status, a request was refused, or there is no server, worker or run. |
| 2 | Misuse: unknown words or options, an unusable file or setting, or the id of a run that is still running. |
| 3 | The time given with `--timeout` is over. The run continues. |
| 130 | Ctrl-C. A run that is being watched continues. |
"""


def command_page() -> str:
    root = typer.main.get_command(app)
    text = f"# Command line\n\n{cell(root.help or '')}\n\n{ABOUT}"
    return text + "".join(_command(root, ["planloom"]))


def _command(command: Any, names: list[str]) -> list[str]:
    """The command's section; of a group, its own if it does something alone, and its commands'."""
    children = getattr(command, "commands", {})
    parts = [
        part
        for name, each in children.items()
        if not each.hidden
        for part in _command(each, [*names, name])
    ]
    if children and (len(names) == 1 or not command.invoke_without_command):
        return parts
    rows = [_parameter(parameter) for parameter in command.params]
    table = "| argument or option | default | meaning |\n|---|---|---|\n" + "".join(rows)
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    said = [p for p in paragraphs if p and not p.startswith(EXAMPLE)]
    shown = [p.removeprefix(EXAMPLE) for p in paragraphs if p.startswith(EXAMPLE)]
    text = f"\n## {' '.join(names)}\n\n" + "\n\n".join(said)
    if shown:
        lines = "\n".join(" ".join(each.split()) for each in shown)
        text += f"\n\n```bash\n{lines}\n```"
    text += "\n\n"
    return [text + (table if rows else ""), *parts]


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    label = names if is_option else parameter.metavar or parameter.name.upper()
    default = "" if parameter.default in (None, False, [], ()) else f"`{parameter.default}`"
    if parameter.required:
        default = "required"
    text = getattr(parameter, "help", None) or ""
    return f"| `{cell(label)}` | {default} | {cell(text)} |\n"
