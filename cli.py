"""`planloom`: a convenience over the public contract. Everything works with `temporal` alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from typer.exceptions import TyperException

from console.documents import UsageError
from planloom import AlreadyRunning, Client, PlanloomError, Refused, RunFailed
from planner.settings import SettingsError

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
        from console.documents import settings_now

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


# -- looking at runs ------------------------------------------------------------------------


@app.command()
def watch(run: RunId) -> None:
    """Follow a run until it ends. Example: planloom watch trip"""

    async def work(client: Client) -> None:
        from console.live import follow

        await follow(client.run(run), err)

    call(work)


@app.command()
def result(
    run: RunId,
    as_json: Json = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait.")] = None,
) -> None:
    """Wait for a run's end and print its answer. Example: planloom result trip"""

    async def work(client: Client) -> Any:
        return await client.run(run).result(timeout)

    from console.running import print_result

    raise typer.Exit(print_result(call(work), as_json=as_json, out=out, err=err))


@app.command()
def progress(run: RunId, as_json: Json = False) -> None:
    """Where a run stands now. Example: planloom progress trip"""

    async def work(client: Client) -> Any:
        return await client.run(run).progress()

    shown = call(work)
    if as_json:
        say_json(shown.model_dump(mode="json"))
        return
    from console.views import progress_view

    out.print(progress_view(shown))


@app.command()
def ps(
    as_json: Json = False,
    status: Annotated[str | None, typer.Option(help="running, waiting, completed, …")] = None,
) -> None:
    """List runs, newest first. Example: planloom ps --status waiting"""
    from console.running import STATUSES, WIDTH_MAX, list_runs, runs_table

    if status is not None and status not in STATUSES:
        raise fail(f'no status "{status}"', f"One of: {', '.join(STATUSES)}.", EXIT_MISUSE)

    async def work(client: Client) -> Any:
        return await list_runs(client, status)

    rows = call(work)
    if as_json:
        say_json(rows)
    else:
        out.width = WIDTH_MAX  # an id that is cut is none
        out.print(runs_table(rows))


# -- deciding -------------------------------------------------------------------------------


def _control(run: str, name: str, payload: dict[str, Any]) -> None:
    given = {k: v for k, v in payload.items() if v is not None}

    async def work(client: Client) -> Any:
        return await client.run(run).update(name, given)

    say(call(work).message)


def _awaited_revision(run: str) -> int:
    async def work(client: Client) -> Any:
        return (await client.run(run).progress()).revision

    return int(call(work))


Revision = Annotated[
    int | None, typer.Option("--revision", help="Which revision (default: the newest).")
]


@app.command()
def approve(
    run: RunId,
    revision: Revision = None,
    by: By = None,
    note: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    task: Annotated[str | None, typer.Option(help="Approve one task instead of the plan.")] = None,
) -> None:
    """Approve the plan that waits. Example: planloom approve trip --by ops"""
    if task is not None:
        _control(run, "approve_task", {"id": task, "approve": True, "by": by, "note": note})
        return
    number = revision if revision is not None else _awaited_revision(run)
    _control(run, "approve_plan", {"revision": number, "by": by, "note": note})


@app.command()
def reject(
    run: RunId,
    revision: Revision = None,
    reason: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    by: By = None,
    task: Annotated[str | None, typer.Option(help="Refuse one task instead of the plan.")] = None,
) -> None:
    """Reject the plan that waits. Example: planloom reject trip --reason "too dear" """
    if task is not None:
        _control(run, "approve_task", {"id": task, "approve": False, "by": by, "note": reason})
        return
    number = revision if revision is not None else _awaited_revision(run)
    _control(run, "reject_plan", {"revision": number, "reason": reason, "by": by})


@app.command()
def edit(
    run: RunId,
    plan: Annotated[str | None, typer.Option(help="A whole new plan (YAML or JSON).")] = None,
    patch: Annotated[str | None, typer.Option(help="An RFC 6902 patch (JSON).")] = None,
    revision: Revision = None,
    by: By = None,
) -> None:
    """Change the plan of a run. Example: planloom edit trip --patch fix.json"""
    from console.documents import read_document

    with errors():
        if (plan is None) == (patch is None):
            raise UsageError("give --plan or --patch", hint="planloom edit --help")
        document = read_document(plan or patch or "")
    number = revision if revision is not None else _awaited_revision(run)
    key = "plan" if plan is not None else "patch"
    _control(run, "edit_plan", {"revision": number, key: document, "by": by})


@app.command()
def replan(run: RunId, feedback: str, by: By = None) -> None:
    """Ask the planner for another plan. Example: planloom replan trip "use trains only" """
    _control(run, "request_replan", {"feedback": feedback, "by": by})


@app.command()
def budget(
    run: RunId,
    tokens: Annotated[int | None, typer.Option(help="New cap on tokens.")] = None,
    usd: Annotated[float | None, typer.Option(help="New cap on dollars.")] = None,
    seconds: Annotated[str | None, typer.Option(help="New cap on time, such as 10m.")] = None,
    tasks: Annotated[int | None, typer.Option(help="New cap on tasks.")] = None,
    parallel: Annotated[int | None, typer.Option(help="New limit of tasks at once.")] = None,
    by: By = None,
) -> None:
    """Raise a run's caps, as totals. Example: planloom budget trip --tokens 60000"""
    caps = {"tokens": tokens, "usd": usd, "seconds": seconds, "tasks": tasks, "parallel": parallel}
    _control(run, "raise_budget", {**caps, "by": by})


@app.command()
def pause(run: RunId) -> None:
    """Start nothing new; what runs goes on. Example: planloom pause trip"""
    _control(run, "pause", {})


@app.command()
def resume(run: RunId) -> None:
    """Go on after a pause. Example: planloom resume trip"""
    _control(run, "resume", {})


@app.command("cancel-task")
def cancel_task(run: RunId, task: str, by: By = None) -> None:
    """Cancel one task. Example: planloom cancel-task trip hotels"""
    _control(run, "cancel_task", {"id": task, "by": by})


@app.command()
def complete(run: RunId, task: str, output: str, by: By = None) -> None:
    """Answer a human task, as JSON or text. Example: planloom complete trip which '"blue"'"""
    try:
        value = json.loads(output)
    except json.JSONDecodeError:
        value = output
    payload = {"id": task, "output": value, "by": by}

    async def work(client: Client) -> Any:
        return await client.run(run).update("complete_task", payload)

    say(call(work).message)


@app.command()
def cancel(run: RunId) -> None:
    """Cancel a run; what has finished is kept in its result. Example: planloom cancel trip"""

    async def work(client: Client) -> None:
        if await client.run(run).describe() != "RUNNING":  # the server takes it without a word
            raise Refused(f'run "{run}" has ended')
        await client.run(run).cancel()

    call(work)
    say(f"{run} is being cancelled")


def register_commands() -> None:
    """Import the modules that add their commands to `app`."""
    import console.commands_agents
    import console.commands_capacity
    import console.commands_eval
    import console.commands_fork
    import console.commands_plan
    import console.commands_run
    import console.commands_tools  # noqa: F401 - each adds its commands to `app`


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
    register_commands()
    # A flag that works wherever it stands, as people put it last.
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if arguments[:1] == ["plan"] and len(arguments) > 1 and arguments[1] == "--explain":
        arguments = ["plan", "check", "--explain", *arguments[2:]]
    try:
        code = app(args=arguments, prog_name="planloom", standalone_mode=False)
    except TyperException as error:
        code = _misuse(error)
    except SystemExit as end:
        code = end.code
    leave(code)


def _misuse(error: TyperException) -> int:
    """Words that are no command, said in one line and a hint like any other mistake."""
    told = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    if told:  # nothing is left to say after the help of a group that was given no command
        fail(told, f"{context.command_path if context else 'planloom'} --help")
    return EXIT_MISUSE


if __name__ == "__main__":
    # Commands register themselves on the module named `cli`, not on `__main__`.
    import cli

    cli.main()
