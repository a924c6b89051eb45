"""`planloom approve`, `edit`, `budget`, `pause` and the rest: what people decide about a run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from planloom import Client, Refused
from planloom.console.app import (
    By,
    RunId,
    app,
    call,
    errors,
    say,
)
from planloom.console.documents import UsageError


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
    """Reject the plan that waits. Example: planloom reject trip --reason "too expensive" """
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
    from planloom.console.documents import read_document

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
