"""`planloom plan …`: check, show, graph, save, diff."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from planloom import Client
from planloom.console.app import Json, RunId, call, err, errors, out, plan_app, say, say_json
from planloom.console.documents import UsageError, local_catalog, plan_from


@plan_app.command()
def check(
    file: Annotated[str, typer.Argument(help="A plan file, or - for standard input.")],
    explain: Annotated[bool, typer.Option("--explain", help="What each pass did.")] = False,
    as_json: Json = False,
) -> None:
    """Check a plan without running it. Example: planloom plan check plan.yaml --explain"""
    from planloom.planner.compile.explain import explain as explained
    from planloom.planner.compile.pipeline import compile_plan

    with errors():
        plan = plan_from(file)
        catalog = local_catalog(plan)
        compiled = compile_plan(plan, catalog, model=catalog.models.get("worker") or None)
        if compiled.problems and not as_json:
            raise UsageError(f"{file}: {len(compiled.problems)} problems", compiled.problems)
    if as_json:
        say_json(
            {
                "valid": not compiled.problems,
                "problems": [p.model_dump() for p in compiled.problems],
                "critical_path": list(compiled.critical_path),
                "width": compiled.width,
                "estimate": compiled.estimate.model_dump(mode="json"),
            }
        )
        raise typer.Exit(2 if compiled.problems else 0)
    if explain:
        say(explained(compiled, plan))
    else:
        tasks = len(compiled.plan.tasks)
        say(f"{file}: valid; {tasks} tasks, width {compiled.width}")
        for warning in compiled.warnings:
            err.print(f"warning: {warning}", markup=False)


@plan_app.command()
def show(run: RunId) -> None:
    """A run's newest plan, as YAML. Example: planloom plan show trip"""
    say(_yaml(call(lambda c: _plan(c, run))))


@plan_app.command()
def save(run: RunId, file: Path) -> None:
    """Write a run's plan to a file. Example: planloom plan save trip trip.yaml"""
    document = call(lambda c: _plan(c, run))
    if not document:
        with errors():
            raise UsageError(f"run {run} has no plan yet")
    with errors():
        try:
            file.write_text(_yaml(document) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror or error}") from None
    say(f"wrote {file}")


@plan_app.command()
def graph(
    source: Annotated[str, typer.Argument(help="A run's id, or a plan file.")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Mermaid text.")] = False,
) -> None:
    """Draw a plan. Example: planloom plan graph plan.yaml --mermaid"""
    from planloom.console.graph import draw
    from planloom.planner.compile.explain import mermaid as mermaid_of
    from planloom.planner.language.plan import Plan

    if Path(source).is_file():
        with errors():
            plan = plan_from(source)
        states: dict[str, str] = {}
    else:

        async def work(client: Client) -> Any:
            run = client.run(source)
            return await run.query("plan"), await run.progress()

        document, shown = call(work)
        plan, states = Plan.model_validate(document), shown.tasks
    if mermaid:
        say(mermaid_of(plan, states))
    else:
        out.print(draw(plan, states))


@plan_app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A run's id, or a plan file.")],
    second: Annotated[str | None, typer.Argument(help="A second plan file.")] = None,
) -> None:
    """What the last revision changed, or how two plans differ. Example: planloom plan diff trip"""
    from planloom.planner.compile.revision import diff_plans

    if second is not None:
        with errors():
            lines = diff_plans(plan_from(first), plan_from(second))
    else:

        async def work(client: Client) -> Any:
            return await client.run(first).query("diff")

        lines = call(work)
    for line in lines:
        say(line)
    if not lines:
        err.print("no changes")


async def _plan(client: Client, run: str) -> Any:
    return await client.run(run).query("plan")


def _yaml(document: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text.rstrip()
