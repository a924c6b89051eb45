"""`planloom`: a convenience over the public contract. Everything works with `temporal` alone."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from typer.exceptions import TyperException

# Each module adds its commands to `app`; `--help` lists them in this order.
from planloom.console import (  # isort: skip
    commands_run,
    commands_look,
    commands_report,
    commands_fork,
    commands_control,
    commands_plan,
    commands_agents,
    commands_eval,
    commands_capacity,
    commands_init,
    commands_mcp,
    commands_models,
    commands_operate,
    commands_tools,
)
from planloom.console.app import EXIT_MISUSE, app, fail
from planloom.console.misuse import misuse

__all__ = [
    "commands_agents",
    "commands_capacity",
    "commands_control",
    "commands_eval",
    "commands_fork",
    "commands_init",
    "commands_look",
    "commands_mcp",
    "commands_models",
    "commands_operate",
    "commands_plan",
    "commands_report",
    "commands_run",
    "commands_tools",
    "leave",
    "main",
]


def leave(code: object) -> NoReturn:
    """End the process at once. All is written, and the SDK's threads may not outlive Python.

    A thread of the SDK's core that ends while the interpreter does aborts the process now and
    then, after the work is done and with a wrong exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> None:
    """Entry point of `planloom`."""
    # A flag that works wherever it stands, as people put it last.
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if arguments[:1] == ["plan"] and len(arguments) > 1 and arguments[1] == "--explain":
        arguments = ["plan", "check", "--explain", *arguments[2:]]
    try:
        code = app(args=arguments, prog_name="planloom", standalone_mode=False)
    except TyperException as error:
        message, hint = misuse(error, app, arguments)
        if message:  # nothing is left to say after the help of a group that was given no command
            fail(message, hint, EXIT_MISUSE)
        code = EXIT_MISUSE
    except SystemExit as end:
        code = end.code
    leave(code)


if __name__ == "__main__":
    main()
