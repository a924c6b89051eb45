"""`planloom agents`, `teams`, `agent run` and `team run`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table
from rich.text import Text

from cli import Json, app, call, err, errors, out, say, say_json
from console.documents import UsageError, definitions_now
from console.views import as_text
from planloom import AgentResult, Client, Run, TeamResult

agent_app = typer.Typer(help="Run one agent.", no_args_is_help=True)
team_app = typer.Typer(help="Run one team.", no_args_is_help=True)
app.add_typer(agent_app, name="agent")
app.add_typer(team_app, name="team")

ENDED = ("completed", "partial", "failed", "cancelled", "rejected")
POLL_SECONDS = 0.4
Name = Annotated[str | None, typer.Argument(help="Show this one whole.")]
NewId = Annotated[str | None, typer.Option("--id", help="The run's workflow id.")]
Context = Annotated[str | None, typer.Option(help="Background text.")]
Model = Annotated[str | None, typer.Option(help="Model for all roles.")]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", help="Cap on tokens.")]


def _list(kind: str, name: str | None, as_json: bool) -> None:
    with errors():
        rows = [r for r in definitions_now() if r["kind"] == kind]
        if name is not None:
            rows = [r for r in rows if r["name"] == name]
            if not rows:
                raise UsageError(f'no {kind} "{name}"', hint=f"planloom {kind}s lists them.")
    if as_json:
        say_json(rows)
    elif name is not None:
        say(f"# {rows[0]['file']}")
        say(yaml.safe_dump(rows[0]["definition"], sort_keys=False, allow_unicode=True).rstrip())
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(kind, no_wrap=True)
        table.add_column("what for")
        for row in rows:
            wrong = "; ".join(p["message"] for p in row["problems"])
            words = Text(f"not valid: {wrong}", style="red") if wrong else row["description"]
            table.add_row(row["name"], words)
        out.print(table)
    for row in rows:
        for problem in row["problems"]:
            err.print(f"{row['file']}: {problem['path']}: {problem['message']}", markup=False)
        for warning in row["warnings"]:
            err.print(f"warning: {row['name']}: {warning}", markup=False)
    if any(r["problems"] for r in rows):
        raise typer.Exit(2)


@app.command()
def agents(name: Name = None, as_json: Json = False) -> None:
    """List, show and check the agents. Example: planloom agents researcher"""
    _list("agent", name, as_json)


@app.command()
def teams(name: Name = None, as_json: Json = False) -> None:
    """List, show and check the teams. Example: planloom teams core-delivery"""
    _list("team", name, as_json)


def _request(document: dict[str, Any], tokens: int | None) -> dict[str, Any]:
    kept = {k: v for k, v in document.items() if v is not None}
    return kept | ({"budget": {"tokens": tokens}} if tokens is not None else {})


async def _follow(run: Run) -> None:
    """Print each change of phase and rounds until the run ends."""
    last = ""
    while True:
        shown = await run.query("progress")
        members = ", ".join(f"{m} {s}" for m, s in shown.get("members", {}).items())
        waits = f"; asks: {shown['detail']}" if shown.get("awaiting") else ""
        line = f"{shown['status']}{': ' + members if members else ''}{waits}"
        if line != last:
            err.print(f"{shown.get('seconds', 0):6.1f}s {line}", markup=False)
            last = line
        if shown["status"] in ENDED or await run.describe() != "RUNNING":
            return
        await asyncio.sleep(POLL_SECONDS)


@agent_app.command("run")
def run_agent(
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    task: Annotated[str, typer.Argument(help="What it is to do.")],
    context: Context = None,
    model: Model = None,
    max_turns: Annotated[int | None, typer.Option(help="Most turns.")] = None,
    tokens: Tokens = None,
    id: NewId = None,
    as_json: Json = False,
) -> None:
    """Run one agent. Example: planloom agent run reviewer "Review src/app.py" """
    fields = {"agent": name, "task": task, "context": context, "model": model}
    request = _request({**fields, "max_turns": max_turns}, tokens)

    async def work(client: Client) -> AgentResult:
        from console.running import require_worker

        await require_worker(client)
        run = await client.start(request, id=id, workflow="AgentWorkflow")
        if not as_json:
            await _follow(run)
        return await run.result_as(AgentResult)

    result = call(work)
    if as_json:
        say_json(result.model_dump(mode="json"))
    else:
        if result.reason:
            err.print(f"reason: {result.reason}", markup=False)
        err.print(f"{result.status}: {result.turns} turns, {result.tool_calls} tool calls")
        shown = result.output
        say(as_text({"preview": result.preview, "blob": result.blob} if result.blob else shown))
    raise typer.Exit(0 if result.status == "completed" else 1)


@team_app.command("run")
def run_team(
    name: Annotated[str, typer.Argument(help="The team's name.")],
    task: Annotated[str, typer.Argument(help="What it is to decide or do.")],
    context: Context = None,
    rounds: Annotated[int | None, typer.Option(help="Communication rounds.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Members that must answer.")] = None,
    model: Model = None,
    tokens: Tokens = None,
    id: NewId = None,
    as_json: Json = False,
) -> None:
    """Run one team. Example: planloom team run bug-hunt "Why is it slow?" """
    fields = {"team": name, "task": task, "context": context, "model": model}
    request = _request({**fields, "rounds": rounds, "quorum": quorum}, tokens)

    async def work(client: Client) -> TeamResult:
        from console.running import require_worker

        await require_worker(client)
        run = await client.start(request, id=id, workflow="TeamWorkflow")
        if not as_json:
            await _follow(run)
        return await run.result_as(TeamResult)

    result = call(work)
    if as_json:
        say_json(result.model_dump(mode="json"))
    else:
        _print_team(result)
    raise typer.Exit(0 if result.status == "completed" else 1)


def _print_team(result: TeamResult) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("member", "outcome", "confidence", "claim"):
        table.add_column(column)
    for name, member in result.members.items():
        claim = str(member.fields.get("CLAIM", "")) or (member.error or "")
        sure = "" if member.confidence is None else f"{member.confidence:.2f}"
        table.add_row(name, member.outcome.value, sure, Text(claim[:100]))
    err.print(table)
    if result.judge is not None:
        judge = result.judge
        err.print(
            f"verdict: {judge.verdict} ({judge.confidence:.2f}): {judge.reason}", markup=False
        )
        for line in judge.disagreements:
            err.print(f"  disagreement: {line}", markup=False)
    if result.reason:
        err.print(f"reason: {result.reason}", markup=False)
    say(as_text(result.answer) if result.answer is not None else json.dumps(None))
