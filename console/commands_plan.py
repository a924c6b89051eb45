"""`planloom plan …`: check, show, graph, save, diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import (
    EXIT_MISUSE,
    Json,
    RunId,
    call,
    err,
    errors,
    out,
    plan_app,
    say,
    say_json,
)
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client
    from planloom.planner.language.plan import Plan


@plan_app.command()
def check(
    file: Annotated[str, typer.Argument(help="A plan file, or - for standard input.")],
    explain: Annotated[bool, typer.Option("--explain", help="Show what each pass did.")] = False,
    as_json: Json = False,
) -> None:
    """Check a plan without running it.

    Example: planloom plan check plan.yaml --explain
    """
    from planloom.console.documents import compiled_from
    from planloom.planner.compile.explain import explain as explained

    with errors():
        try:
            plan, compiled = compiled_from(file)
        except UsageError as error:
            if not as_json or not error.problems:
                raise
            problems = [p.model_dump(mode="json") for p in error.problems]
            say_json({"valid": False, "problems": problems})
            raise typer.Exit(EXIT_MISUSE) from None
    if as_json:
        say_json(
            {
                "valid": True,
                "problems": [],
                "warnings": compiled.warnings,
                "critical_path": list(compiled.critical_path),
                "width": compiled.width,
                "estimate": compiled.estimate.model_dump(mode="json"),
            }
        )
        return
    if explain:
        say(explained(compiled, plan))
    else:
        tasks = len(compiled.plan.tasks)
        say(f"{file}: valid; {tasks} tasks, width {compiled.width}")
        for warning in compiled.warnings:
            err.print(f"warning: {warning}", markup=False)


@plan_app.command()
def store(
    file: Annotated[str, typer.Argument(help="A plan file (YAML, JSON, - for stdin).")],
    as_json: Json = False,
) -> None:
    """Put a plan into the workers' blob store, for `plan_blob` of a request.

    `planloom run --plan` and `Client.start` do so by themselves with a plan that is too large for
    a request. This is for runs that you start in another way.

    Example: planloom plan store plan.json
    """
    import asyncio

    from planloom.console.documents import read_document, settings_now
    from planloom.store import store_plan

    with errors():
        blob = asyncio.run(store_plan(read_document(file), settings_now()))
    say_json({"plan_blob": blob}) if as_json else say(blob)


@plan_app.command()
def show(run: RunId, as_json: Json = False) -> None:
    """A run's newest plan, as YAML.

    Example: planloom plan show trip
    """
    from planloom.console.documents import yaml_text

    document = call(lambda c: _plan(c, run))
    if as_json:
        say_json(document)
    else:
        say(yaml_text(document))


@plan_app.command()
def save(
    run: RunId,
    file: Annotated[Path, typer.Argument(help="The file to write, as YAML.")],
    as_json: Json = False,
) -> None:
    """Write a run's plan to a file.

    Example: planloom plan save trip trip.yaml
    """
    from planloom.console.documents import yaml_text

    document = call(lambda c: _plan(c, run))
    if not document:
        with errors():
            raise UsageError(f"run {run} has no plan yet")
    with errors():
        try:
            file.write_text(yaml_text(document) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror or error}") from None
    say_json({"file": str(file)}) if as_json else say(f"wrote {file}")


@plan_app.command()
def graph(
    source: Annotated[str, typer.Argument(help="A run's id, or a plan file.")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Mermaid text.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="An SVG picture.")] = False,
    html: Annotated[bool, typer.Option("--html", help="A page: picture, tasks, estimate.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Graphviz text.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file instead of stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a plan, before it runs or as it runs; with --json its tasks and what each reads.

    Example: planloom plan graph plan.yaml --svg -o plan.svg
    """
    with errors():
        if mermaid + svg + html + dot > 1:
            raise UsageError("give one of --mermaid, --svg, --html and --dot")
        if output is not None and not mermaid + svg + html + dot:
            raise UsageError("--output needs one of --mermaid, --svg, --html and --dot")
        if html and not Path(source).is_file():
            raise UsageError(f"no file {source}", hint=f"For a run: planloom report {source}")
    forms = mermaid + svg + html + dot
    if html:
        text = _plan_page(source)
    else:
        plan, states = _plan_and_states(source)
        text = _drawn(plan, states, svg=svg, dot=dot, mermaid=mermaid)
        if not forms and as_json:
            say_json(_graph_of(plan, states))
            return
        if not text:
            from planloom.console.graph import draw

            out.print(draw(plan, states))
            return
    if output is None:
        say(text)
        return
    from planloom.console.commands_report import write_text

    with errors():
        write_text(output, text)
    if as_json:
        say_json({"file": str(output), "bytes": len(text.encode())})
    else:
        say(f"wrote {output}")


def _graph_of(plan: Plan, states: dict[str, str]) -> dict[str, Any]:
    """The plan's tasks in their levels, each with what it reads and, of a run, its state."""
    from planloom.planner.compile.drawing.text import levels
    from planloom.planner.compile.passes.resolve import graph_of

    bodies = {str(t.id): t for t in plan.tasks}
    reads = {str(t): [str(i) for i in inputs] for t, inputs in graph_of(plan).items()}
    return {
        "goal": plan.goal,
        "levels": levels(plan),
        "tasks": {
            task: {"kind": body.kind, "reads": reads.get(task, [])}
            | ({"tool": body.tool} if body.tool else {})
            | ({"state": states.get(task, "waiting")} if states else {})
            for task, body in bodies.items()
        },
    }


def _plan_page(source: str) -> str:
    from planloom.console.documents import compiled_from
    from planloom.console.report.page import plan_page

    with errors():
        plan, compiled = compiled_from(source)
    return plan_page(plan, compiled.estimate.model_dump(mode="json"), compiled.warnings)


def _drawn(plan: Plan, states: dict[str, str], *, svg: bool, dot: bool, mermaid: bool) -> str:
    """The picture as text; empty when none of these was asked for."""
    from planloom.planner.compile.drawing.svg import plan_dot, plan_svg
    from planloom.planner.compile.explain import mermaid as mermaid_of

    if svg:
        return plan_svg(plan, states)
    if dot:
        return plan_dot(plan, states)
    return mermaid_of(plan, states) if mermaid else ""


def _plan_and_states(source: str) -> tuple[Plan, dict[str, str]]:
    """The plan of a file, or of a run with its tasks' states."""
    from planloom.console.documents import plan_from
    from planloom.planner.language.plan import Plan

    with errors():
        if Path(source).is_file():
            return plan_from(source), {}
        if source.endswith((".yaml", ".yml", ".json")):
            raise UsageError(f"no file {source}")

    async def work(client: Client) -> Any:
        run = client.run(source)
        return await run.query("plan"), await run.progress()

    document, shown = call(work)
    with errors():
        if not document:
            raise UsageError(f"run {source} has no plan yet")
    return Plan.model_validate(document), dict(shown.tasks)


@plan_app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A run's id, or a plan file.")],
    second: Annotated[str | None, typer.Argument(help="A second plan file.")] = None,
    as_json: Json = False,
) -> None:
    """What the last revision changed, or how two plans differ.

    Example: planloom plan diff trip
    """
    from planloom.console.documents import plan_from
    from planloom.planner.compile.revision import diff_plans

    if second is not None:
        with errors():
            lines = diff_plans(plan_from(first), plan_from(second))
    else:

        async def work(client: Client) -> Any:
            return await client.run(first).query("diff")

        lines = call(work)
    if as_json:
        say_json(lines)
        return
    for line in lines:
        say(line)
    if not lines:
        err.print("no changes")


async def _plan(client: Client, run: str) -> Any:
    return await client.run(run).query("plan")
