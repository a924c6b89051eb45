"""`planloom fork` and `rerun`: a new run that reuses what an earlier one finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import RUN, DryRun, Json, RunId, app, call, errors
from planloom.console.commands_run import show_dry, start_and_follow
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client
    from planloom.planner.contract.requests import Lineage, Reused, RunRequest
    from planloom.planner.language.plan import Plan
    from planloom.planner.language.values import JsonValue

NewId = Annotated[str | None, typer.Option("--id", help="The new run's workflow id.")]
Detach = Annotated[bool, typer.Option(help="Start, print the id, and exit.")]


def changes_from(options: list[str]) -> list[tuple[str, JsonValue]]:
    """`--set TASK.FIELD=VALUE` options; a value is JSON, or else text.

    Raises:
        UsageError: one has no `=`.
    """
    from planloom.planner.syntax.json_text import json_or_text

    changes: list[tuple[str, JsonValue]] = []
    for option in options:
        path, has_value, text = option.partition("=")
        if not has_value:
            raise UsageError(f'--set "{option}": write --set TASK.FIELD=VALUE')
        changes.append((path, json_or_text(text)))
    return changes


async def _finished(
    client: Client, run: str
) -> tuple[Plan, dict[str, Reused], RunRequest | None, Lineage]:
    from planloom.planner.contract.requests import Lineage, Reused, RunRequest
    from planloom.planner.language.plan import Plan
    from planloom.planner.syntax.documents import read_request

    handle = client.run(run)
    started_with, _ = read_request(await handle.request(), RunRequest)
    document = await handle.query("plan")
    if not document:
        raise UsageError(f"run {run} has no plan to fork")
    outputs = await handle.query("outputs")
    return (
        Plan.model_validate(document),
        {task: Reused.model_validate(kept) for task, kept in outputs.items()},
        started_with,
        Lineage.model_validate(await handle.lineage() or {}),
    )


async def _again(
    client: Client,
    run: str,
    again: list[str] | None,
    changes: list[tuple[str, JsonValue]],
    id: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    from planloom.planner.compile.fork import fork_request, unfinished_of

    plan, outputs, started_with, lineage = await _finished(client, run)
    starts = unfinished_of(plan, outputs) if again is None else again
    if again is None and not starts:
        raise UsageError(f"run {run} has no task without a value", hint="planloom fork --from TASK")
    request, problems = fork_request(run, plan, outputs, starts, changes, started_with, lineage)
    if request is None:
        raise UsageError(f"run {run} cannot be forked like this", problems)
    if dry_run:
        show_dry(request, as_json=as_json)
        return 0
    return await start_and_follow(client, request, id, detach, as_json)


@app.command(rich_help_panel=RUN)
def fork(
    run: RunId,
    start: Annotated[
        list[str] | None,
        typer.Option("--from", help="Run this task again, and all that depend on it."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="TASK.args.query=VALUE, params.city=VALUE or answer=VALUE."),
    ] = None,
    id: NewId = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start a new run that runs a task again, and all tasks that depend on it.

    It reuses all other finished outputs of the old run, and has the same limits, tools, model,
    parameters and joiner.

    Example: planloom fork trip --from hotels --set hotels.args.query="hotels in Lyon"
    """
    with errors():
        changes = changes_from(change or [])
        if not start and not changes:
            raise UsageError("give --from TASK, or --set TASK.FIELD=VALUE")
    given: list[str] = start or []

    def work(client: Client) -> Any:
        return _again(client, run, given, changes, id, detach, dry_run, as_json)

    raise typer.Exit(call(work))


@app.command(rich_help_panel=RUN)
def rerun(
    run: RunId,
    failed: Annotated[bool, typer.Option("--failed", help="Only tasks that have no value.")] = True,
    id: NewId = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run failed tasks again, and the tasks that waited for them.

    Example: planloom rerun trip --failed
    """

    def work(client: Client) -> Any:
        return _again(client, run, None if failed else [], [], id, detach, dry_run, as_json)

    raise typer.Exit(call(work))
