"""`planloom eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import PLANS, Json, app, call, err, errors, out, say_json

if TYPE_CHECKING:
    from planloom import Client


@app.command("eval", rich_help_panel=PLANS)
def evaluate_goals(
    file: Annotated[
        str | None, typer.Argument(help="A file of goals (default: the set that ships).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model for all roles.")] = None,
    parallel: Annotated[int, typer.Option(help="Goals at once.")] = 2,
    as_json: Json = False,
) -> None:
    """Run a set of goals against a real model: plans, width, repairs, tokens, answers.

    Example: planloom eval --model gpt-4o-mini
    """
    from planloom import planner
    from planloom.console.documents import read_document
    from planloom.console.evaluation import evaluate, read_set, summary_of, table_of
    from planloom.console.runs import require_worker

    shipped = Path(planner.__file__).parent / "library" / "eval" / "basics.yaml"
    source = file or str(shipped)
    with errors():
        goals = read_set(read_document(source), source)

    async def work(client: Client) -> Any:
        await require_worker(client)
        return await evaluate(client, goals, model, parallel)

    rows = call(work)
    summary = summary_of(rows)
    if as_json:
        say_json({"summary": summary, "goals": [r.model_dump(mode="json") for r in rows]})
    else:
        out.print(table_of(rows))
        out.print(
            f"plans valid {summary['plans_valid']:.0%}, answers right "
            f"{summary['answers_right']:.0%}, {summary['tokens_median']:,.0f} tokens a goal, "
            f"${summary['usd']:.4f}"
        )
        for row in rows:
            if not row.right:
                err.print(f"{row.id}: {row.answer or row.reason}", markup=False)
    raise typer.Exit(0 if all(r.right for r in rows) else 1)
