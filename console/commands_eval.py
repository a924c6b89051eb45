"""`planloom eval`."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from planloom import Client
from planloom.console.app import Json, app, call, err, errors, out, say_json
from planloom.console.documents import UsageError
from planloom.console.evaluation import (
    SECONDS_PER_GOAL,
    TOKENS_PER_GOAL,
    Candidate,
    Caps,
    EvalRow,
    Syntax,
    evaluate,
    load_set,
)
from planloom.console.evaluation_report import (
    compared,
    comparison_table,
    goals_table,
    shapes_table,
    summary_of,
)


@app.command("eval")
def evaluate_goals(
    goals: Annotated[
        str, typer.Argument(help="A file of goals, or a set that ships: basics or shapes.")
    ] = "basics",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model for all roles; give it again to compare several."),
    ] = None,
    syntax: Annotated[
        list[str] | None, typer.Option(help="calls (default), json, or both one after the other.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Goals at once.")] = 2,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="The most that one goal may use.")
    ] = TOKENS_PER_GOAL,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="The longest that one goal may take.")
    ] = SECONDS_PER_GOAL,
    total_tokens: Annotated[
        int | None, typer.Option(min=1, help="The most that the whole evaluation may use.")
    ] = None,
    total_usd: Annotated[
        float | None, typer.Option(min=0.0, help="The most that it may cost, in dollars.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a set of goals against real models and compare how they plan.

    Example: planloom eval shapes --model gpt-4o-mini --model gpt-4o --syntax calls --syntax json
    """
    from planloom.console.runs import require_worker

    with errors():
        candidates = _candidates(model or [], syntax or [])
        chosen = load_set(goals)
    caps = Caps(max_tokens, max_seconds, total_tokens, total_usd)

    async def work(client: Client) -> Any:
        await require_worker(client)
        return await evaluate(client, chosen, candidates, caps, parallel)

    rows: list[EvalRow] = call(work)
    summaries = compared(rows, candidates)
    if as_json:
        lines = [r.model_dump(mode="json") for r in rows]
        say_json({"summary": summary_of(rows), "compare": summaries, "goals": lines})
    else:
        _print(rows, summaries)
    raise typer.Exit(0 if all(r.right for r in rows) else 1)


def _candidates(models: list[str], syntaxes: list[str]) -> list[Candidate]:
    known = get_args(Syntax)
    if unknown := [s for s in syntaxes if s not in known]:
        raise UsageError(f'no syntax "{unknown[0]}": give {" or ".join(known)}')
    chosen: list[Any] = list(dict.fromkeys(syntaxes)) or ["calls"]
    named: list[str | None] = list(dict.fromkeys(models)) or [None]
    return [Candidate(m, s) for m in named for s in chosen]


def _print(rows: list[EvalRow], summaries: list[dict[str, Any]]) -> None:
    if len(summaries) == 1:
        out.print(goals_table(rows))
        out.print()
    out.print(comparison_table(summaries))
    if (by_shape := shapes_table(summaries)) is not None:
        out.print()
        out.print(by_shape)
    for row in rows:
        if not row.right:
            who = "" if len(summaries) == 1 else f" ({row.model or 'worker'} {row.syntax})"
            err.print(f"{row.id}{who}: {row.answer or row.reason}", markup=False)
