"""`planloom run`, `dev` and `demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from planloom.console.app import (
    RUN,
    SETUP,
    DryRun,
    Json,
    app,
    call,
    err,
    errors,
    say,
    say_json,
)
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import Client
    from planloom.planner.contract.requests import RunRequest
    from planloom.planner.language.plan import Plan
    from planloom.planner.language.values import JsonValue


def template_named(template: str) -> Plan:
    """The template of that name.

    Raises:
        UsageError: there is none, or it is not valid.
    """
    from difflib import get_close_matches

    from planloom.console.documents import templates_now

    templates = templates_now()
    if template not in templates:
        near = get_close_matches(template, list(templates), n=1)
        hint = f'Did you mean "{near[0]}"?' if near else "planloom templates lists them."
        raise UsageError(f'no template "{template}"', hint=hint)
    path, plan, problems = templates[template]
    if plan is None:
        raise UsageError(f"template {template} ({path}) is not valid", problems)
    return plan


def params_from(name: str, plan: Plan, given: list[str]) -> dict[str, JsonValue]:
    """`-p name=value` options as the parameters of a template or plan, typed and checked.

    Raises:
        UsageError: a parameter that does not fit.
    """
    from planloom.planner.compile.templates import check_params, param_from_text

    values: dict[str, JsonValue] = {}
    for option in given:
        param_name, separator, text = option.partition("=")
        if not separator:
            raise UsageError(f'-p "{option}": write -p name=value')
        param = plan.params.get(param_name)
        try:
            values[param_name] = param_from_text(param, text) if param is not None else text
        except ValueError as error:
            kind = param.type if param is not None else "string"
            raise UsageError(f'-p {param_name}: "{text}" does not fit {kind}: {error}') from None
    _, wrong = check_params(plan, values)
    if wrong:
        raise UsageError(f"{name}: the parameters do not fit", wrong)
    return values


@app.command(rich_help_panel=RUN)
def run(
    goal: Annotated[str | None, typer.Argument(help="What you want, in words.")] = None,
    plan: Annotated[str | None, typer.Option(help="A plan file (YAML, JSON, - for stdin).")] = None,
    template: Annotated[str | None, typer.Option(help="A template's name.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", help="A parameter: name=value.")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="The run's workflow id.")] = None,
    approval: Annotated[
        str | None, typer.Option(help="never, plan, replan, major, always or tainted.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model for all roles.")] = None,
    syntax: Annotated[str | None, typer.Option(help="Planner syntax: calls or json.")] = None,
    tools: Annotated[str | None, typer.Option(help="Allowed tools, comma separated.")] = None,
    tokens: Annotated[int | None, typer.Option("--budget-tokens", help="Cap on tokens.")] = None,
    usd: Annotated[float | None, typer.Option("--budget-usd", help="Cap on dollars.")] = None,
    seconds: Annotated[
        str | None, typer.Option("--budget-seconds", help="Cap on time, such as 10m.")
    ] = None,
    on_budget: Annotated[str | None, typer.Option(help="At the cap: park or partial.")] = None,
    parallel: Annotated[int | None, typer.Option(help="The most tasks at once.")] = None,
    on_failure: Annotated[str | None, typer.Option(help="partial or fail.")] = None,
    priority: Annotated[str | None, typer.Option(help="critical … background.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Who the run is for.")] = None,
    cache: Annotated[str | None, typer.Option(help="off, run or shared.")] = None,
    context: Annotated[str | None, typer.Option(help="Background text, or @file.")] = None,
    request: Annotated[
        str | None, typer.Option(help="A whole RunRequest file; other options override it.")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Start, print the id, and exit.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start a run and follow it.

    Example: planloom run "Compare the populations of France and Spain"

    Example: planloom run --plan plan.yaml --dry-run

    Example: planloom run --template data-report -p source=orders.csv -p column=city
    """
    from planloom.console.documents import read_document, read_object, read_text
    from planloom.planner.contract.requests import RunRequest
    from planloom.planner.language.plan import PLAN_FILE_MAX_BYTES
    from planloom.planner.syntax.documents import read_request

    with errors():
        document = dict(read_object(request)) if request else {}
        budget = {"tokens": tokens, "usd": usd, "seconds": seconds, "parallel": parallel}
        budget = {k: v for k, v in budget.items() if v is not None}
        if context and context.startswith("@"):
            context = read_text(context[1:])
        given = document.get("budget", {})
        if not isinstance(given, dict):
            raise UsageError(f"budget: needs an object, found {given!r}")
        options: dict[str, Any] = {
            "goal": goal,
            "template": template,
            "approval": approval,
            "model": model,
            "syntax": syntax,
            "tools": [t.strip() for t in tools.split(",")] if tools is not None else None,
            "on_budget": on_budget,
            "on_failure": on_failure,
            "priority": priority,
            "tenant": tenant,
            "cache": cache,
            "context": context,
            "budget": {**given, **budget} if budget else None,
        }
        document |= {k: v for k, v in options.items() if v is not None}
        if not {"goal", "template", "agents", "teams", "plan"} & set(document) and plan is None:
            hint = 'Say what you want: planloom run "…", or name a plan: --plan FILE'
            raise UsageError("nothing to run", hint=hint)
        known = _check_plan(plan) if plan is not None else None
        if plan is not None:
            document["plan"] = read_document(plan)
        if template is not None:
            known = template_named(template)
        if known is not None and (param or template):
            name = f"template {template}" if template else str(plan)
            document["params"] = params_from(name, known, param or [])
        elif param:
            raise UsageError("-p goes with --plan or --template: a goal has no parameters")
        checked, problems = read_request(document, RunRequest, PLAN_FILE_MAX_BYTES)
        if checked is None:
            raise UsageError("the request is not valid", problems)
        if checked.budget.usd is not None:
            _warn_of_prices(checked, known)
    if dry_run:
        show_dry(document, as_json=as_json)
        return
    raise typer.Exit(call(lambda c: start_and_follow(c, document, id, detach, as_json)))


def show_dry(document: dict[str, Any], *, as_json: bool) -> None:
    """What a run would be started with; nothing is started."""
    if as_json:
        say_json({"dry_run": True, "request": document})
    else:
        from planloom.console.documents import yaml_text

        say("would start a run with")
        say(yaml_text(document))


def _check_plan(source: str) -> Plan | None:
    """Refuse a bad plan before anything starts, with all its problems."""
    if source == "-":
        return None  # standard input can be read once; the workflow checks it
    from planloom.console.documents import compiled_from

    plan, compiled = compiled_from(source)
    for warning in compiled.warnings:
        err.print(f"warning: {warning}", markup=False, soft_wrap=True)
    return plan


def _warn_of_prices(request: RunRequest, plan: Plan | None) -> None:
    """Warn before the start if there is a cap on money but the model has no known price."""
    from planloom.console.documents import unpriced_models

    for model in unpriced_models(request, plan):
        err.print(
            f'warning: no price of the model "{model}" is known, so its calls are counted at a '
            "high price, and the run may wait for budget at once",
            markup=False,
            soft_wrap=True,
        )
        err.print(
            f'hint: put its price under [prices."{model}"] in the worker\'s planloom.toml (0 for a '
            "local model), or limit tokens instead: --budget-tokens",
            markup=False,
            soft_wrap=True,
        )


async def start_and_follow(
    client: Client, document: dict[str, Any], id: str | None, detach: bool, as_json: bool
) -> int:
    """Start a run; unless detached, follow it and print its result. Gives the exit code."""
    from planloom.console.live import follow
    from planloom.console.results import print_result
    from planloom.console.runs import require_worker, ui_address

    await require_worker(client)
    started = await client.start(document, id=id)
    shown = f"run {started.id}  {ui_address(client, started.id)}".rstrip()
    err.print(shown, markup=False, soft_wrap=True)
    if detach:
        web_ui = ui_address(client, started.id)
        say_json({"run": started.id, "web_ui": web_ui}) if as_json else say(started.id)
        return 0
    await follow(started, err, is_quiet=as_json)
    return print_result(await started.result(), as_json=as_json, err=err)


@app.command(rich_help_panel=SETUP)
def dev(
    port: Annotated[int | None, typer.Option(help="Server port (default: the file's).")] = None,
    ui_port: Annotated[
        int | None, typer.Option(help="Web UI port (default: 1000 above --port).")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only server and UI.")] = False,
    in_memory: Annotated[bool, typer.Option(help="Keep no data after the end.")] = False,
    is_scripted: Annotated[
        bool, typer.Option("--scripted", help="Let a script plan, not a model.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start server, worker and Web UI from temporal-dev.yaml; a worker that dies is restarted.

    With --scripted, a script answers in place of a model. It knows a few goals, and prints them.

    Example: planloom dev
    """
    with errors():
        from planloom.console.dev import run_dev
        from planloom.console.documents import settings_file
        from planloom.console.scripted import scripted

        written = settings_file()
        with scripted(is_scripted, is_quiet=as_json) as read_settings:
            run_dev(
                written,
                read_settings,
                port=port,
                ui_port=ui_port,
                has_worker=not no_worker,
                in_memory=in_memory,
                as_json=as_json,
            )


@app.command(rich_help_panel=SETUP)
def demo(
    keep: Annotated[bool, typer.Option(help="Leave server and Web UI up until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Run a plan over real data on a real server; no key is needed.

    Example: planloom demo
    """
    import asyncio

    from planloom.console.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(keep=keep, err=err, as_json=as_json)))
