"""A unit of a task as the command that carries it out: its inputs, place, retries and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from planloom.planner.contract.jobs import AskJob, ToolJob
from planloom.planner.contract.requests import Grant
from planloom.planner.contract.retries import RETRY_TABLE
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.plan import Ask, Body, Retry, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import (
    PRIORITY_KEYS,
    Bindings,
    JsonValue,
    PriorityName,
    Stored,
)
from planloom.planner.walk.frontier import Unit
from planloom.planner.walk.names import unit_name, versioned
from planloom.workflows.machines.run.batches import amounts_of_batch, batch_command, is_batch
from planloom.workflows.machines.run.children import child_command
from planloom.workflows.machines.run.record import Again
from planloom.workflows.machines.run.state import RunState, Work
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import AskModel, RunTool, StartChild, Urgency
from planloom.workflows.machines.shared.estimates import amounts_for, answer_room, prompt_tokens
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.member_retry import may_retry
from planloom.workflows.machines.shared.taint import outside_of

RETRY_DEFAULT = Retry()
ONE_TASK = Amount(tasks=1)


def key_of(unit: Unit) -> str:
    """What a unit is called: its task's id, with the index of its item."""
    return unit_name(unit.task, unit.index)


def is_map_itself(unit: Unit, task: Task) -> bool:
    """Whether the unit is a map whose items are not known yet: not a task by itself."""
    return task.map is not None and unit.index is None


def body_of(unit: Unit, task: Task) -> Body:
    """What the unit runs: the task's body, or its alternative path."""
    if unit.mode == "fallback" and (alternative := task.fallback_body) is not None:
        return alternative
    return task


def act_of(run: RunState, unit: Unit) -> str:
    """The name of what a unit does, the same in every attempt and round.

    The idempotency key of a side effect ends in it.
    """
    version = run.records[unit.task].version
    name = key_of(unit) + (".fallback" if unit.mode == "fallback" else "")
    return versioned(name, version)


def activity_id(run: RunState, unit: Unit) -> str:
    """The name of a unit's activity or child: another one in each DAG-level round."""
    name = act_of(run, unit)
    return name if run.round == 0 else f"{name}.r{run.round + 1}"


def urgency_of(run: RunState, task: Task | None = None) -> Urgency:
    """How urgent a call of the run, or of one task, is."""
    name: PriorityName = (task.priority if task else None) or run.request.priority
    tenant = run.request.tenant
    return Urgency(PRIORITY_KEYS[name], tenant, run.catalog.tenants.get(tenant or ""))


def amounts_of(
    run: RunState, unit: Unit, task: Task, *, is_second: bool = False, cut_at: int = 0
) -> tuple[Amount, Amount]:
    """What to reserve for a unit, and the least it can do with. A map reserves by item.

    `is_second`: its body has failed and it takes its alternative path, or (`cut_at`) its answer was
    cut off after so many tokens and it is asked once more; it is the same task still.
    """
    if is_map_itself(unit, task) and unit.mode == "body":
        return Amount(), Amount()
    body = body_of(unit, task)
    named = body.ask_body().model if body.ask is not None else None
    model = run.model_for("worker", named)
    want, least = amounts_for(task, body, run.catalog, model, run.value_of, cut_at)
    if is_batch(run, unit):
        return amounts_of_batch(run, unit, want, least)
    if is_second:
        return want - ONE_TASK, least - ONE_TASK
    return want, least


def bindings_of(run: RunState, unit: Unit, *values: JsonValue) -> Bindings:
    """What the references in `values` stand for."""
    inputs: dict[str, Stored] = {}
    for value in values:
        for root in roots_of(value):
            stored = run.value_of(root)
            if root not in inputs and stored is not None:
                inputs[root] = stored
            elif root not in inputs and root not in ("item", "index"):
                inputs[root] = Stored()
    given: dict[str, Any] = {"inputs": inputs} if inputs else {}
    if unit.index is not None:
        source = run.records[unit.task].items_source
        if source.is_inline:
            items = source.value if isinstance(source.value, list) else []
            given["item"] = Stored(value=items[unit.index])
        else:
            given |= {"item": source, "is_item_of_list": True}
        given["index"] = unit.index
        if run.lineage.first_index:
            given["first_index"] = run.lineage.first_index
    return Bindings(**given)


def command_of(
    run: RunState, key: str, work: Work, now: float
) -> RunTool | AskModel | StartChild | Failure:
    """The command that runs the unit's body, or why there can be none."""
    unit = work.unit
    task = run.tasks[unit.task]
    body = body_of(unit, task)
    if is_batch(run, unit):
        grant = _grant(run, work.granted, own_tasks=0)
        return batch_command(run, key, work, grant, urgency_of(run, task))
    match body.kind:
        case "tool" if body.tool == "ask":
            # The built-in tool `ask` is the body `ask`, written as a call.
            return _ask(run, key, work, ask_from_args(body.args))
        case "tool":
            return _tool(run, key, work, now)
        case "ask":
            return _ask(run, key, work, body.ask_body())
        case _:
            return child_command(
                run,
                key,
                work,
                body,
                name=activity_id(run, unit),
                bindings=bindings_of(run, unit, dict(body.args), task.description),
                grant=_grant(run, work.granted),
                urgency=urgency_of(run, task),
            )


def _grant(run: RunState, granted: Amount, own_tasks: int = 1) -> Grant:
    caps = run.account.ledger.caps
    return Grant(
        tokens=granted.tokens if caps.tokens is not None else None,
        usd_nano=granted.usd_nano if caps.usd_nano is not None else None,
        tasks=max(0, granted.tasks - own_tasks) if caps.tasks is not None else None,
    )


def _tool(run: RunState, key: str, work: Work, now: float) -> RunTool:
    task = run.tasks[work.unit.task]
    body = body_of(work.unit, task)
    spec = run.catalog.tool(body.tool or "")
    retry = retry_of(task, spec)
    again = run.records[task.id].again.get(key_of(work.unit), Again())
    queue = run.catalog.tools_queue
    if spec is not None and spec.pool:
        queue = next((p.task_queue for p in run.catalog.pools if p.name == spec.pool), "")
    name = activity_id(run, work.unit)
    words = task.description or f"{body.tool}({_brief(body.args)})"
    return RunTool(
        key,
        _tool_job(run, work.unit, task, body, retry, again),
        name,
        f"{name}: {words}",
        urgency_of(run, task),
        queue,
        _retry_after(retry, again),
        delay=max(0.0, again.at - now),
        timeout=task.timeout or (spec.timeout_seconds if spec else None),
        is_local=spec is not None and spec.local,
    )


def _retry_after(retry: Retry, again: Again) -> Retry:
    """The attempts that are left after those that were made in a group, and their pauses."""
    if not again.attempts:
        return retry
    longest = max(retry.max_seconds, retry.initial_seconds)
    pause = min(retry.initial_seconds * retry.backoff**again.attempts, longest)
    return retry.model_copy(
        update={
            "max_attempts": max(1, retry.max_attempts - again.attempts),
            "initial_seconds": pause,
        }
    )


def _tool_job(
    run: RunState, unit: Unit, task: Task, body: Body, retry: Retry, again: Again
) -> ToolJob:
    """What is not set does not travel: history has one of these for each task."""
    cache = task.cache or run.request.cache
    more: dict[str, Any] = {"cache": cache, "cache_scope": run.root} if cache != "off" else {}
    if body.args:
        more["args"] = body.args
    bound = bindings_of(run, unit, dict(body.args))
    if bound.model_fields_set:
        more["bindings"] = bound
    if run.request.tenant is not None:
        more["tenant"] = run.request.tenant
    if run.request.tools is not None:
        more["allow"] = run.request.tools
    if again.attempts:
        more["attempts_before"] = again.attempts
    return ToolJob(
        task=task.id,
        tool=body.tool or "",
        key=f"{run.identity.run_key}/{act_of(run, unit)}",
        revision=run.revision,
        max_attempts=retry.max_attempts,
        **more,
    )


def _ask(run: RunState, key: str, work: Work, ask: Ask) -> AskModel:
    task, caps = run.tasks[work.unit.task], run.account.ledger.caps
    model = run.model_for("worker", ask.model)
    max_tokens, reserved = ask.max_tokens, None
    if caps.tokens is not None or caps.usd_nano is not None:
        prompt = prompt_tokens([ask.prompt, ask.context, ask.system], run.value_of)
        max_tokens = answer_room(work.granted, prompt, ask.max_tokens)
        reserved = work.granted.tokens if caps.tokens is not None else None
    outside = outside_of(task, run.tainted, [ask.prompt, ask.system])
    job = AskJob(
        task=task.id,
        **({"outside": outside} if outside else {}),
        revision=run.revision,
        prompt=ask.prompt,
        context=ask.context,
        system=ask.system,
        model=model,
        max_tokens=max_tokens,
        output_schema=ask.output_schema,
        bindings=bindings_of(run, work.unit, ask.prompt, ask.context, ask.system),
        cache=task.cache or run.request.cache,
        cache_scope=run.root,
        tenant=run.request.tenant,
        max_attempts=(task.retry or RETRY_DEFAULT).max_attempts,
        retry=task.retry,
        tokens_max=reserved,
    )
    name = activity_id(run, work.unit) + (".wider" if work.cut_at else "")
    words = task.description or f"ask {model or ''}: {ask.prompt}"
    return AskModel(
        key,
        job,
        name,
        f"{name}: {words}",
        urgency_of(run, task),
        tuple(run.catalog.pools_for(model)),
        timeout=task.timeout,
    )


def retry_of(task: Task, spec: ToolSpec | None) -> Retry:
    """How often a body is tried."""
    if task.retry is not None:
        return task.retry
    if spec is not None and spec.side_effects and not spec.idempotent:
        # A second attempt finds the first one's claim and asks what became of it.
        return Retry(max_attempts=2)
    return RETRY_DEFAULT


def may_have_acted(run: RunState, unit: Unit, failed: Failure) -> bool:
    """Whether a side effect of the unit may have happened although it failed.

    A tool that says why it failed did nothing, or says so; one that ran out of time may have acted.
    """
    if not _acts_once(run, body_of(unit, run.tasks[unit.task])):
        return False
    return failed.may_have_acted or failed.error_class == "timeout"


def is_worth_a_round(run: RunState, work: Work, failed: Failure) -> bool:
    """Whether another DAG-level round may do better. A side effect never gets one."""
    task = run.tasks[work.unit.task]
    body = body_of(work.unit, task)
    tried = [body, *([task] if work.failed is not None else [])]
    if any(_acts_once(run, b) for b in tried):
        return False
    agent = tried[0].agent
    if isinstance(agent, str) and agent in run.cast:  # a member of a team
        return may_retry(failed.error_class, failed.message, run.round + 1)
    return is_class_worth_a_round(failed.error_class, run.catalog)


def _acts_once(run: RunState, body: Body) -> bool:
    """Whether the body is a tool whose side effects must not be repeated."""
    spec = run.catalog.tool(body.tool) if body.tool else None
    return spec is not None and spec.side_effects and not spec.idempotent


def is_class_worth_a_round(error_class: str, catalog: Catalog) -> bool:
    if catalog.dag_retry is not None:
        return error_class in catalog.dag_retry
    rule = RETRY_TABLE.get(error_class)  # type: ignore[call-overload]
    return bool(rule and rule.dag_retry)


def ask_from_args(args: Mapping[str, JsonValue]) -> Ask:
    """The built-in tool `ask` as the body it stands for; a prompt that is data is shown as data."""
    prompt, context = args.get("prompt"), args.get("context")
    if isinstance(prompt, str):
        return Ask.model_validate({**args})
    given = prompt if context is None else {"request": prompt, "context": context}
    rest = {k: v for k, v in args.items() if k not in ("prompt", "context")}
    return Ask.model_validate(
        {"prompt": "Answer the request that the data below states.", "context": given, **rest}
    )


def in_fallback(unit: Unit) -> Unit:
    return replace(unit, mode="fallback")


def _brief(args: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{k}={v}" for k, v in list(args.items())[:4])
