"""`planloom agents`, `teams`, `agent run` and `team run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from planloom.console.app import PLANS, DryRun, Json, app, call, err, errors, out, say, say_json
from planloom.console.commands_run import show_dry
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import AgentResult, Client, Run, TeamResult

agent_app = typer.Typer(help="Run one agent.", no_args_is_help=True)
team_app = typer.Typer(help="Run one team.", no_args_is_help=True)
app.add_typer(agent_app, name="agent", rich_help_panel=PLANS)
app.add_typer(team_app, name="team", rich_help_panel=PLANS)

ENDED = ("completed", "partial", "failed", "cancelled", "rejected")
ROUNDS_POLL_SECONDS = 0.4
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[list | show NAME | check [FILE]…]",
        help="List all, show one whole, or check files (without a file: all that are found).",
    ),
]
NewId = Annotated[str | None, typer.Option("--id", help="The run's workflow id.")]
Context = Annotated[str | None, typer.Option(help="Background text.")]
Model = Annotated[str | None, typer.Option(help="Model for all roles.")]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", help="Cap on tokens.")]


def _definitions(kind: str, words: list[str], as_json: bool) -> None:
    """`list`, `show NAME`, `check [FILE]…`, or just a name to show."""
    from planloom.console.documents import definitions_now

    action, rest = ("list", []) if not words else (words[0], words[1:])
    if action not in ("list", "show", "check"):
        action, rest = "show", words
    with errors():
        if action == "show" and len(rest) != 1:
            raise UsageError(f"{kind}s show needs one name", hint=f"planloom {kind}s lists them.")
        rows = definitions_now([(kind, file) for file in rest] if action == "check" else [])
        rows = [r for r in rows if r["kind"] == kind]
        if action == "show":
            rows = [r for r in rows if r["name"] == rest[0]]
            if not rows:
                raise UsageError(f'no {kind} "{rest[0]}"', hint=f"planloom {kind}s lists them.")
    if as_json:
        say_json(rows)
    elif action == "show":
        import yaml

        say(f"# {rows[0]['file']}")
        say(yaml.safe_dump(rows[0]["definition"], sort_keys=False, allow_unicode=True).rstrip())
    elif action == "check":
        for row in rows:
            say(f"{'not valid' if row['problems'] else 'valid'}: {row['name']} ({row['file']})")
    else:
        _print_rows(kind, rows)
    from planloom.planner.language.values import Problem

    for row in rows:
        for problem in row["problems"]:
            text = f"{row['file']}: {Problem.model_validate(problem).line()}"
            err.print(text, markup=False, soft_wrap=True)
        for warning in row["warnings"]:
            err.print(f"warning: {row['name']}: {warning}", markup=False, soft_wrap=True)
    if any(r["problems"] for r in rows):
        raise typer.Exit(2)


def _print_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(kind, no_wrap=True)
    table.add_column("what for")
    for row in rows:
        wrong = "; ".join(p["message"] for p in row["problems"])
        words = Text(f"not valid: {wrong}", style="red") if wrong else row["description"]
        table.add_row(row["name"], words)
    out.print(table)


@app.command(rich_help_panel=PLANS)
def agents(words: Words = None, as_json: Json = False) -> None:
    """List, show and check the agents.

    Example: planloom agents check my-agent.md
    """
    _definitions("agent", words or [], as_json)


@app.command(rich_help_panel=PLANS)
def teams(words: Words = None, as_json: Json = False) -> None:
    """List, show and check the teams.

    Example: planloom teams show core-delivery
    """
    _definitions("team", words or [], as_json)


def _named(kind: str, name: str) -> Any:
    """The name, or the definition in a file of that name: it need not be where workers look."""
    if not name.endswith((".md", ".yaml", ".yml")):
        return name
    from planloom.console.documents import definitions_now

    row = definitions_now([(kind, name)])[0]
    if row["problems"]:
        from planloom.planner.language.values import Problem

        problems = [Problem.model_validate(p) for p in row["problems"]]
        raise UsageError(f"{name} is not valid", problems=problems)
    return row["definition"]


def _request(document: dict[str, Any], tokens: int | None) -> dict[str, Any]:
    kept = {k: v for k, v in document.items() if v is not None}
    return kept | ({"budget": {"tokens": tokens}} if tokens is not None else {})


def _checked(workflow: str, request: dict[str, Any]) -> None:
    """Refuse a request that cannot be read, before anything starts.

    Raises:
        UsageError: with all its problems.
    """
    from planloom.planner.contract.requests import REQUEST_MODELS
    from planloom.planner.syntax.documents import read_request

    checked, problems = read_request(request, REQUEST_MODELS[workflow])
    if checked is None:
        raise UsageError("the request is not valid", problems)


async def _follow(run: Run) -> None:
    """Print each round as it begins, and each change of a member, until the run ends."""
    import asyncio

    last, rounds = "", 0
    while True:
        shown = await run.query("progress")
        at = f"{shown.get('seconds', 0):6.1f}s"
        for entry in shown.get("rounds", [])[rounds:]:
            rounds += 1
            err.print(f"{at} {_round_line(entry)}", markup=False, soft_wrap=True)
        members = ", ".join(f"{m} {s}" for m, s in shown.get("members", {}).items())
        waits = f"; awaits {shown['awaiting']}: {shown['detail']}" if shown.get("awaiting") else ""
        line = f"{shown.get('phase') or shown['status']}{': ' + members if members else ''}{waits}"
        if line != last:
            err.print(f"{at} {line}", markup=False, soft_wrap=True)
            last = line
        if shown["status"] in ENDED or await run.describe() != "RUNNING":
            return
        await asyncio.sleep(ROUNDS_POLL_SECONDS)


def _round_line(entry: dict[str, Any]) -> str:
    """A round in words: its kind, and who hears whom."""
    heard = entry.get("heard") or {}
    pairs = "; ".join(f"{m} hears {', '.join(o) or 'nobody'}" for m, o in heard.items())
    return f"round {entry['round']} ({entry['kind']}): {pairs or ', '.join(entry['members'])}"


@agent_app.command("run")
def run_agent(
    name: Annotated[str, typer.Argument(help="The agent's name, or a file that defines it.")],
    task: Annotated[str, typer.Argument(help="What the agent should do.")],
    context: Context = None,
    model: Model = None,
    max_turns: Annotated[int | None, typer.Option(help="The most turns.")] = None,
    tokens: Tokens = None,
    id: NewId = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run one agent.

    Example: planloom agent run reviewer "Review src/app.py"
    """
    with errors():
        fields = {"agent": _named("agent", name), "task": task, "context": context, "model": model}
        request = _request({**fields, "max_turns": max_turns}, tokens)
        _checked("AgentWorkflow", request)
    if dry_run:
        show_dry(request, as_json=as_json)
        return

    async def work(client: Client) -> AgentResult:
        from planloom import AgentResult
        from planloom.console.runs import require_worker

        await require_worker(client)
        run = await client.start(request, id=id, workflow="AgentWorkflow")
        if not as_json:
            await _follow(run)
        return await run.result_as(AgentResult)

    from planloom.console.results import print_agent

    raise typer.Exit(print_agent(call(work), as_json=as_json))


@team_app.command("run")
def run_team(
    name: Annotated[str, typer.Argument(help="The team's name, or a file that defines it.")],
    task: Annotated[str, typer.Argument(help="What the team should do.")],
    context: Context = None,
    rounds: Annotated[int | None, typer.Option(help="Communication rounds.")] = None,
    retry_rounds: Annotated[int | None, typer.Option(help="Rounds for failed members.")] = None,
    strategy: Annotated[str | None, typer.Option(help="parallel or sequential.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Members that must answer.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="The planner writes subtasks.")] = False,
    replan: Annotated[int | None, typer.Option(help="The most replans.")] = None,
    approval: Annotated[str | None, typer.Option(help="never, plan, replan, always …")] = None,
    model: Model = None,
    tokens: Tokens = None,
    id: NewId = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run one team.

    Example: planloom team run bug-hunt "Why is it slow?"
    """
    with errors():
        fields = {"team": _named("team", name), "task": task, "context": context, "model": model}
        more = {
            "rounds": rounds,
            "retry_rounds": retry_rounds,
            "strategy": strategy,
            "quorum": quorum,
            "subtasks": "plan" if plan else None,
            "replan": None if replan is None else {"max_rounds": replan},
            "approval": approval,
        }
        request = _request({**fields, **more}, tokens)
        _checked("TeamWorkflow", request)
    if dry_run:
        show_dry(request, as_json=as_json)
        return

    async def work(client: Client) -> TeamResult:
        from planloom import TeamResult
        from planloom.console.runs import require_worker

        await require_worker(client)
        run = await client.start(request, id=id, workflow="TeamWorkflow")
        if not as_json:
            await _follow(run)
        return await run.result_as(TeamResult)

    from planloom.console.results import print_team

    raise typer.Exit(print_team(call(work), as_json=as_json))
