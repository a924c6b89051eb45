"""The command line's app: its groups, its consoles, and how every command reports a mistake."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from planloom import AlreadyRunning, Client, PlanloomError, Refused, RunFailed
from planloom.console.documents import UsageError
from planloom.planner.contract.settings import SettingsError

app = typer.Typer(
    name="planloom",
    help="Durable LLM plans on Temporal: start, watch, approve, fork.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
plan_app = typer.Typer(help="Check, show, draw, save and compare plans.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
capacity_app = typer.Typer(
    help="Model endpoints: rate, room, what waits, penalty, permits. Example: planloom capacity"
)
app.add_typer(capacity_app, name="capacity")

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, highlight=False)

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's workflow id.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; recorded.")]

EXIT_FAILED, EXIT_MISUSE, EXIT_TIMEOUT = 1, 2, 3


def fail(message: str, hint: str = "", code: int = EXIT_FAILED) -> typer.Exit:
    """One line on stderr, and a next step when there is one."""
    err.print(f"[red]error:[/red] {_escaped(message)}", soft_wrap=True)
    if hint:
        err.print(f"hint: {_escaped(hint)}", soft_wrap=True)
    return typer.Exit(code)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def say(text: str) -> None:
    print(text)


def say_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def call(work: Callable[[Client], Awaitable[T]]) -> T:
    """Run one command against the server, with errors as a person wants them."""

    async def main() -> T:
        from planloom.console.documents import settings_now

        return await work(await Client.connect(settings_now()))

    with errors():
        return asyncio.run(main())


class errors:  # noqa: N801 - reads as a statement
    """Turns what a user can cause into one line, a hint and an exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or "--debug" in sys.argv or os.environ.get("PLANLOOM_DEBUG"):
            return
        match error:
            case UsageError():
                raise _with_problems(str(error), error.problems, error.hint) from None
            case SettingsError():
                raise _with_problems("the settings cannot be used", error.problems) from None
            case RunFailed():
                title = f"{error.type}: the run was refused" if error.problems else str(error)
                problems = error.problems
                raise _with_problems(title, problems, code=EXIT_FAILED) from None
            case Refused():
                raise fail(str(error), code=EXIT_FAILED) from None
            case AlreadyRunning():
                raise fail(str(error), error.hint, EXIT_MISUSE) from None
            case PlanloomError():
                raise fail(str(error), error.hint) from None
            case TimeoutError():
                raise fail("the time given is over; the run goes on", code=EXIT_TIMEOUT) from None
            case KeyboardInterrupt():
                raise fail("stopped watching; the run goes on", code=130) from None


def _with_problems(
    title: str, problems: list[Any], hint: str = "", code: int = EXIT_MISUSE
) -> typer.Exit:
    exit_ = fail(title, code=code)
    for problem in problems:
        err.print(f"  {_escaped(problem.line())}", soft_wrap=True)
    if hint:
        err.print(f"hint: {_escaped(hint)}", soft_wrap=True)
    return exit_


@app.callback(invoke_without_command=True)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            say(version_of("planloom"))
        except PackageNotFoundError:
            say("0 (not installed)")
        raise typer.Exit
