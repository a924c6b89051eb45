"""Words of the command line that fit no command, argument or option, each in one line and a hint.

Typer finds them; its own sentences are those of pydantic, or name Python's types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import TyperException


def misuse(error: TyperException, app: typer.Typer, arguments: Sequence[str]) -> tuple[str, str]:
    """The message and the hint of what Typer found; ("", "") when there is nothing to say."""
    context = getattr(error, "ctx", None)
    path, command = _command(app, arguments)
    if context is not None:
        path, command = context.command_path, context.command
    message = " ".join(error.format_message().split()).removesuffix(".")
    help_hint = f"{path} --help"
    if (value := _value_error(error)) is not None:
        return value, help_hint
    if (name := getattr(error, "option_name", "").lstrip("-")) and "No such" in message:
        if name in _places(command):
            return message, f"It needs no option name: {path} {_places(command)[name]}"
    elif message.startswith("Got unexpected extra argument"):
        extra = message.partition("(s) (")[2].removesuffix(")")
        hint = "A text of several words needs quotes around it" if _places(command) else "See"
        return f'no place for "{extra}"', f"{hint}: {help_hint}"
    return message, help_hint if message else ""


def _value_error(error: TyperException) -> str | None:
    """What is wrong with an option's value, by the error of pydantic behind Typer's."""
    cause: Any = error.__cause__
    parameter = getattr(error, "param", None)
    if parameter is None or not hasattr(cause, "errors"):
        return None
    from planloom.planner.language.plain_errors import needed

    names = getattr(parameter, "opts", None) or [str(parameter.name)]
    name = next((n for n in names if n.startswith("--")), names[0])
    found: Any = cause.errors()[0]
    must = needed(found)
    return f"{name} {found['input']}: needs {must}" if must else None


def _places(command: Any) -> dict[str, str]:
    """A command's arguments that have a place and no name: how each is written, by its name."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    return {p.name: p.metavar or p.name.upper() for p in arguments}


def _command(app: typer.Typer, arguments: Sequence[str]) -> tuple[str, Any]:
    """The command that the first words name, and how it is called."""
    path, command = "planloom", typer.main.get_command(app)
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        path, command = f"{path} {word}", inner
    return path, command
