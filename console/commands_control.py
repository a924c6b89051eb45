"""`planloom approve`, `edit`, `budget`, `pause` and the rest: what people decide about a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import (
    DECIDE,
    By,
    DryRun,
    Json,
    RunId,
    Yes,
    app,
    call,
    confirm,
    errors,
    say,
    say_json,
    wants_json,
)
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client


def _control(run: str, name: str, payload: dict[str, Any], *, dry: bool = False) -> None:
    """Send one decision and print the run's answer; `dry` only checks it."""
    given = {k: v for k, v in payload.items() if v is not None}

    async def work(client: Client) -> dict[str, Any]:
        handle = client.run(run)
        if dry:
            return {"dry_run": True, "run": run, "state": await _running(client, run)}
        reply = await handle.update(name, given)
        return reply.model_dump(mode="json")

    with errors():
        _check(name, given)
    answer = call(work)
    if dry:
        answer |= {"update": name, "payload": given}
    if wants_json():
        say_json(answer)
    elif dry:
        say(f"would send {name} {json.dumps(given, ensure_ascii=False)} to {run}")
    else:
        say(answer["message"])


def _check(name: str, payload: dict[str, Any]) -> None:
    """The payload by the contract's own model, before it is sent."""
    from planloom.planner.contract import controls
    from planloom.planner.syntax.documents import read_request

    model = getattr(controls, "".join(word.capitalize() for word in name.split("_")))
    checked, problems = read_request(payload, model)
    if checked is None:
        raise UsageError(f"{name}: this cannot be sent", problems)


async def _running(client: Client, run: str) -> str:
    """The run's state, which must be RUNNING.

    Raises:
        Refused: it has ended.
    """
    from planloom import Refused

    state = await client.run(run).describe()
    if state != "RUNNING":
        raise Refused(f'run "{run}" has ended')
    return state


def _awaited_revision(run: str) -> int:
    async def work(client: Client) -> Any:
        return (await client.run(run).progress()).revision

    return int(call(work))


Revision = Annotated[
    int | None, typer.Option("--revision", help="Which revision (default: the newest).")
]


@app.command(rich_help_panel=DECIDE)
def approve(
    run: RunId,
    revision: Revision = None,
    by: By = None,
    note: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    task: Annotated[str | None, typer.Option(help="Approve one task instead of the plan.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Approve the plan that waits.

    Example: planloom approve trip --by ops
    """
    if task is not None:
        payload = {"id": task, "approve": True, "by": by, "note": note}
        _control(run, "approve_task", payload, dry=dry_run)
        return
    number = revision if revision is not None else _awaited_revision(run)
    _control(run, "approve_plan", {"revision": number, "by": by, "note": note}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def reject(
    run: RunId,
    revision: Revision = None,
    reason: Annotated[str | None, typer.Option(help="Why; recorded.")] = None,
    by: By = None,
    task: Annotated[str | None, typer.Option(help="Refuse one task instead of the plan.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Reject the plan that waits: the run ends as rejected. With --task, refuse one task.

    Example: planloom reject trip --reason "too expensive"
    """
    if task is not None:
        payload = {"id": task, "approve": False, "by": by, "note": reason}
        _control(run, "approve_task", payload, dry=dry_run)
        return
    number = revision if revision is not None else _awaited_revision(run)
    confirm(f"Reject revision {number} of {run}?", yes=yes or dry_run)
    _control(run, "reject_plan", {"revision": number, "reason": reason, "by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def edit(
    run: RunId,
    plan: Annotated[str | None, typer.Option(help="A whole new plan (YAML or JSON).")] = None,
    patch: Annotated[str | None, typer.Option(help="An RFC 6902 patch (JSON).")] = None,
    revision: Revision = None,
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change the plan of a run: in $EDITOR, or with --plan or --patch.

    Example: planloom edit trip --patch fix.json
    """
    from planloom.console.documents import read_document
    from planloom.console.editing import edited_plan

    with errors():
        if plan is not None and patch is not None:
            raise UsageError("give --plan or --patch, not both", hint="planloom edit --help")
        document = read_document(plan or patch or "") if plan or patch else None
    if document is None:
        revision, document = edited_plan(run)
    number = revision if revision is not None else _awaited_revision(run)
    key = "patch" if patch is not None else "plan"
    _control(run, "edit_plan", {"revision": number, key: document, "by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def replan(
    run: RunId,
    feedback: Annotated[str, typer.Argument(help="What the new plan should do differently.")],
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ask the planner for another plan.

    Example: planloom replan trip "use trains only"
    """
    _control(run, "request_replan", {"feedback": feedback, "by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def budget(
    run: RunId,
    tokens: Annotated[int | None, typer.Option(help="New cap on tokens.")] = None,
    usd: Annotated[float | None, typer.Option(help="New cap on dollars.")] = None,
    seconds: Annotated[str | None, typer.Option(help="New cap on time, such as 10m.")] = None,
    tasks: Annotated[int | None, typer.Option(help="New cap on tasks.")] = None,
    parallel: Annotated[int | None, typer.Option(help="New limit of tasks at once.")] = None,
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Raise a run's caps. They are new totals, not additions.

    Example: planloom budget trip --tokens 60000
    """
    caps = {"tokens": tokens, "usd": usd, "seconds": seconds, "tasks": tasks, "parallel": parallel}
    if all(cap is None for cap in caps.values()):
        with errors():
            names = ", ".join(f"--{name}" for name in caps)
            raise UsageError("no new cap is named", hint=f"Name at least one of {names}.")
    _control(run, "raise_budget", {**caps, "by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def pause(run: RunId, by: By = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Start no new tasks; running tasks finish.

    Example: planloom pause trip
    """
    _control(run, "pause", {"by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def resume(run: RunId, by: By = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Continue after a pause.

    Example: planloom resume trip
    """
    _control(run, "resume", {"by": by}, dry=dry_run)


@app.command("cancel-task", rich_help_panel=DECIDE)
def cancel_task(
    run: RunId,
    task: Annotated[str, typer.Argument(help="The task's id; for an item of a map, id[0].")],
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel one task.

    Example: planloom cancel-task trip hotels
    """
    confirm(f"Cancel task {task} of {run}?", yes=yes or dry_run)
    _control(run, "cancel_task", {"id": task, "by": by}, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def complete(
    run: RunId,
    task: Annotated[str, typer.Argument(help="The id of the task that asks.")],
    output: Annotated[str, typer.Argument(help="The answer: JSON, or else text.")],
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Answer a question to a person, as JSON or text.

    Example: planloom complete trip which '"blue"'
    """
    from planloom.planner.syntax.json_text import json_or_text

    payload = {"id": task, "output": json_or_text(output), "by": by}
    _control(run, "complete_task", payload, dry=dry_run)


@app.command(rich_help_panel=DECIDE)
def cancel(run: RunId, dry_run: DryRun = False, yes: Yes = False, as_json: Json = False) -> None:
    """Cancel a run; what has finished is kept in its result.

    Example: planloom cancel trip
    """
    confirm(f"Cancel run {run}?", yes=yes or dry_run)

    async def work(client: Client) -> None:
        if dry_run:
            await _running(client, run)
        else:
            await client.run(run).cancel()

    call(work)
    if as_json:
        say_json({"accepted": True, "dry_run": dry_run, "run": run})
    else:
        say(f"would cancel {run}" if dry_run else f"{run} is being cancelled")
