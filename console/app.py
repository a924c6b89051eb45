"""The command line's app: its groups, its consoles, and how every command reports a mistake.

Whatever this file and the `commands_*` files import at their top is paid for by `--help`:
a command imports the client, pydantic models and YAML when it runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.text import Text
from typer.core import TyperGroup

from planloom.console.mistakes import UsageError
from planloom.console.safe import SafeConsole, print_safely

if TYPE_CHECKING:
    from planloom import Client

RUN, DECIDE = "Run and watch", "Decide"
PLANS, SETUP = "Plans, agents and teams", "Set up"
"""The groups of `planloom --help`, in the order in which it shows them."""


class _Grouped(TyperGroup):
    """Commands in the order of their groups; within one, as the modules add them."""

    def list_commands(self, ctx: Any) -> list[str]:
        groups = (RUN, DECIDE, PLANS, SETUP)

        def place(name: str) -> int:
            group = getattr(self.commands[name], "rich_help_panel", None)
            return groups.index(group) if group in groups else len(groups)

        return sorted(super().list_commands(ctx), key=place)


app = typer.Typer(
    name="planloom",
    cls=_Grouped,
    help="Durable LLM plans on Temporal: start, watch, approve, fork.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
plan_app = typer.Typer(
    help="Check, store, show, draw, save and compare plans.", no_args_is_help=True
)
app.add_typer(plan_app, name="plan", rich_help_panel=PLANS)
capacity_app = typer.Typer(
    help="Show model endpoints: rate, calls, queue, penalty, permits.\n\nExample: planloom capacity"
)
app.add_typer(capacity_app, name="capacity", rich_help_panel=SETUP)

out = SafeConsole(soft_wrap=True)
err = SafeConsole(stderr=True)

T = TypeVar("T")
EXIT_FAILED, EXIT_MISUSE, EXIT_TIMEOUT = 1, 2, 3


def _run_ids(incomplete: str) -> list[str]:
    """Ids of runs for the shell's completion; none when no server answers soon."""
    from planloom.console.completion import run_ids

    return run_ids(incomplete)


Json = Annotated[bool, typer.Option("--json", help="Print JSON; errors too, on standard error.")]
RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's workflow id.", autocompletion=_run_ids),
]
By = Annotated[str | None, typer.Option("--by", help="Who decides; recorded.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is done.")]


def wants_json() -> bool:
    """Whether the command line asks for JSON: then errors are objects as well."""
    return "--json" in sys.argv[1:]


def fail(
    message: str,
    hint: str = "",
    code: int = EXIT_FAILED,
    *,
    kind: str = "",
    problems: list[Any] | None = None,
) -> typer.Exit:
    """One line on stderr, and a next step when there is one; with --json one object.

    `kind` is the error's code for programs: `misuse`, `no_server`, `refused` …
    """
    kind = kind or ("misuse" if code == EXIT_MISUSE else "failed")
    if wants_json():
        document: dict[str, Any] = {"code": kind, "message": message}
        if hint:
            document["hint"] = hint
        if problems:
            document["problems"] = [p.model_dump(mode="json") for p in problems]
        print_safely(json.dumps({"error": document}, ensure_ascii=False), to_stderr=True)
        return typer.Exit(code)
    err.print(Text("error:", "red"), end=" ")
    err.print(message, markup=False, soft_wrap=True)
    for problem in problems or []:
        err.print(f"  {problem.line()}", markup=False, soft_wrap=True)
    if hint:
        err.print(f"hint: {hint}", markup=False, soft_wrap=True)
    return typer.Exit(code)


def say(text: str) -> None:
    """Print what was asked for."""
    print_safely(text)


def say_json(value: Any) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; a script, without a terminal, is not asked."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    err.print(f"{question} [y/N] ", markup=False, end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise fail("not done", kind="not_confirmed")


def call(work: Callable[[Client], Awaitable[T]]) -> T:
    """Run one command against the server, with errors as a person wants them."""
    import asyncio

    async def main() -> T:
        from planloom import Client
        from planloom.console.documents import settings_now

        return await work(await Client.connect(settings_now()))

    with errors():
        try:
            return asyncio.run(main())
        except KeyboardInterrupt:
            err.print("stopped; the run continues")
            raise typer.Exit(130) from None


class errors:  # noqa: N801 - reads as a statement
    """Turns what a user can cause into one line, a hint and an exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or "--debug" in sys.argv or os.environ.get("PLANLOOM_DEBUG"):
            return
        if (told := _told(error)) is not None:
            raise told from None


def _told(error: BaseException) -> typer.Exit | None:
    """What is said of an error, or None for a bug in Planloom, which keeps its traceback."""
    match error:
        case UsageError():
            return fail(str(error), error.hint, EXIT_MISUSE, problems=error.problems)
        case TimeoutError():
            hint = "the time given is over; the run continues"
            return fail(hint, code=EXIT_TIMEOUT, kind="timeout")
        case KeyboardInterrupt():
            err.print("stopped")
            return typer.Exit(130)
    return _told_of_the_contract(error)


def _told_of_the_contract(error: BaseException) -> typer.Exit | None:
    from planloom import AlreadyRunning, PlanloomError, Refused, RunFailed
    from planloom.planner.contract.settings import SettingsError

    match error:
        case SettingsError():
            title = "the settings cannot be used"
            return fail(title, code=EXIT_MISUSE, kind="settings", problems=error.problems)
        case RunFailed():
            title = f"{error.type}: the run was refused" if error.problems else str(error)
            return fail(title, kind=error.type or "run_failed", problems=error.problems)
        case Refused():
            return fail(str(error), kind=error.type or "refused")
        case AlreadyRunning():
            return fail(str(error), error.hint, EXIT_MISUSE, kind="already_running")
        case PlanloomError():
            return fail(str(error), error.hint, kind=_snake(type(error).__name__))
    return None


def _snake(name: str) -> str:
    """`NoServer` as `no_server`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


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
