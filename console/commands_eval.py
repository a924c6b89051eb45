"""`planloom eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import PLANS, DryRun, Json, app, call, err, errors, out, say, say_json
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client
    from planloom.console.evaluation import Candidate, EvalRow


@app.command("eval", rich_help_panel=PLANS)
def evaluate_goals(
    goals: Annotated[
        str, typer.Argument(help="A file of goals, or a set that ships: basics or shapes.")
    ] = "basics",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model for all roles; give it again to compare several."),
    ] = None,
    syntax: Annotated[
        list[str] | None, typer.Option(help="calls (default) or json; give it again for both.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Goals at once.")] = 2,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The most that one goal may use (default: 30000).")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="The longest that one goal may take (default: 300).")
    ] = None,
    total_tokens: Annotated[
        int | None, typer.Option(min=1, help="The most that the whole evaluation may use.")
    ] = None,
    total_usd: Annotated[
        float | None, typer.Option(min=0.0, help="The most that it may cost, in dollars.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run a set of goals against real models and compare how they plan.

    Example: planloom eval shapes --model gpt-4o-mini --model gpt-4o --syntax calls --syntax json
    """
    from planloom.console.evaluation import Caps, evaluate, load_set
    from planloom.console.evaluation_report import compared, summary_of
    from planloom.console.runs import require_worker

    with errors():
        candidates = _candidates(model or [], syntax or [])
        chosen = load_set(goals)
    if dry_run:
        _print_dry([g.id for g in chosen.goals], candidates, as_json=as_json)
        return
    given = {"tokens": max_tokens, "seconds": max_seconds}
    caps = Caps(
        total_tokens=total_tokens,
        total_usd=total_usd,
        **{k: v for k, v in given.items() if v is not None},  # type: ignore[arg-type]
    )

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


def _print_dry(goals: list[str], candidates: list[Candidate], *, as_json: bool) -> None:
    """What would be asked of whom; nothing is."""
    asked = [{"model": c.model or "the worker's", "syntax": c.syntax} for c in candidates]
    if as_json:
        say_json({"dry_run": True, "goals": goals, "candidates": asked})
        return
    say(f"would run {len(goals)} goals for each of")
    for each in asked:
        say(f"  {each['model']}, {each['syntax']}")


def _candidates(models: list[str], syntaxes: list[str]) -> list[Candidate]:
    from planloom.console.evaluation import SYNTAXES, Candidate

    if unknown := [s for s in syntaxes if s not in SYNTAXES]:
        raise UsageError(f'no syntax "{unknown[0]}": give {" or ".join(SYNTAXES)}')
    chosen: list[Any] = list(dict.fromkeys(syntaxes)) or ["calls"]
    named: list[str | None] = list(dict.fromkeys(models)) or [None]
    return [Candidate(m, s) for m in named for s in chosen]


def _print(rows: list[EvalRow], summaries: list[dict[str, Any]]) -> None:
    from planloom.console.evaluation_report import comparison_table, goals_table, shapes_table

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
