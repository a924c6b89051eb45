"""Agents, teams and sub-plans as child runs: their requests, and what came back of them.

Arguments narrow what a run allows and never widen it: the tenant, priority, cache and
`on_budget` of a child are the run's, and its tools are among the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import (
    REQUEST_MODELS,
    Common,
    Grant,
    Lineage,
    RunRequest,
)
from planloom.planner.contract.results import AgentResult, RunResult, TeamResult, UsageReport
from planloom.planner.language.plan import Body, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import (
    NANO,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    Usage,
)
from planloom.planner.prompts.ask import data_apart
from planloom.planner.prompts.text import as_text
from planloom.workflows.machines.run.state import Child, RunState, Work
from planloom.workflows.machines.shared import taint
from planloom.workflows.machines.shared.account import ends_at
from planloom.workflows.machines.shared.commands import StartChild, Urgency
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.large_inputs import split_context

CONTEXT_MAX_BYTES = 2_000
"""A longer context travels as an input that the child reads where blobs can be read."""
ARGS_MAX_BYTES = 200_000
"""The rest of the arguments is the child's request, and travels in it: a schema may be long."""
INLINE_MAX = {"context": CONTEXT_MAX_BYTES, "args": ARGS_MAX_BYTES}
"""How long a value of `StartChild` may be to travel as it is; others as all values do."""
RUNS_MAX = 100_000
"""Runs of plans in one tree: a template that starts itself twice, or maps of maps of sub-plans."""
TOO_WIDE = f"the tree of sub-plans may grow to {{:,}} runs on one level; at most {RUNS_MAX:,}"
OF_THE_RUN = ("tenant", "priority", "cache", "on_budget")
"""What a child has from its run; arguments may not name them."""


def child_command(
    run: RunState,
    key: str,
    work: Work,
    body: Body,
    *,
    name: str,
    bindings: Bindings,
    grant: Grant,
    urgency: Urgency,
) -> StartChild | Failure:
    """The command that starts the child run of a body; `name` is its place below this run."""
    task, request = run.tasks[work.unit.task], run.request
    if problem := _problem_with(body, task.id, request):
        return Failure(problem, "tool")
    id = f"{run.identity.workflow_id}/{name}"
    common = fields_of(run, task)
    lineage = lineage_of(run, task, grant, depth=run.lineage.depth + 1)
    if body.kind == "plan":
        breadth = breadth_below(run, work)
        if breadth > RUNS_MAX:
            return Failure(TOO_WIDE.format(breadth), "tool")
        lineage = lineage.model_copy(update={"breadth": breadth})
        named = {"template": body.plan} if isinstance(body.plan, str) else {"plan": body.plan}
        common |= {
            **named,
            **_asking(request, "plan"),
            **fields_of_plan(request),
            "on_failure": request.on_failure,
            "budget": {"parallel": request.budget.parallel},
        }
        values: dict[str, JsonValue] = {"params": dict(body.args)}
    else:
        words, context = _words_and_context(run, task, body)
        values = {"task": words}
        context, inputs = split_context(context, run.value_of)
        if context is not None:
            values["context"] = context
        lineage = lineage.model_copy(update={"inputs": inputs})
        rest = {k: v for k, v in body.args.items() if k not in ("task", "context")}
        if rest:
            values["args"] = rest
        if inputs:
            still = {k: v for k, v in bindings.inputs.items() if k in roots_of(values)}
            bindings = bindings.model_copy(update={"inputs": still})
        common |= _asking(request, body.kind)
        common |= {body.kind: body.agent if body.kind == "agent" else body.team}
        if isinstance(body.agent, str) and body.agent in run.cast:
            common |= {**run.cast_fields, "agent": run.cast[body.agent]}
            lineage = lineage.model_copy(update={"form": "member"})
    run.children[id] = Child(key, deadline=lineage.deadline)
    kind = {"plan": "DagWorkflow", "agent": "AgentWorkflow", "team": "TeamWorkflow"}[body.kind]
    return StartChild(
        key,
        kind,  # type: ignore[arg-type]
        id,
        task.id,
        values,
        bindings,
        common,
        lineage,
        (task.description or name)[:96],
        urgency,
        timeout=task.timeout,
    )


def _words_and_context(run: RunState, task: Task, body: Body) -> tuple[JsonValue, JsonValue]:
    """The words and the context of an agent or team: what came from outside is in the context.

    There its model sees it as data, and not as what it is told to do.
    """
    words, context = body.args.get("task", task.description), body.args.get("context")
    outside = taint.outside_of(task, run.tainted, words)
    if not outside:
        return words, context
    words, data = data_apart(as_text(words), outside)
    given = [] if context is None else [as_text(context)]
    shown = [f'The data "{name}":\n{reference}' for name, reference in data.items()]
    return words, "\n\n".join([*given, *shown])


def breadth_below(run: RunState, work: Work) -> int:
    """How many runs of plans there may be one level down. No run sees the whole tree: it takes the
    others on its level to be as wide as itself.
    """
    items = len(run.records[work.unit.task].item_outcomes)
    return run.lineage.breadth * max(1, run.sub_plans) * max(1, items)


def fields_of(run: RunState, task: Task) -> dict[str, Any]:
    """What the request of any child has from its run."""
    request = run.request
    return {
        "model": request.model,
        "tools": request.tools,
        "on_budget": request.on_budget,
        "priority": task.priority or request.priority,
        "tenant": request.tenant,
        "cache": request.cache,
    }


def fields_of_plan(request: RunRequest) -> dict[str, Any]:
    """What a child that runs a plan has from its run besides."""
    fuse = {} if request.fuse is None else {"fuse": request.fuse}
    return {"retry_rounds": request.retry_rounds, **fuse}


def lineage_of(run: RunState, task: Task, grant: Grant, *, depth: int, **more: Any) -> Lineage:
    """Where a child of this task comes from; what is not set does not travel."""
    end = ends_at(run.account)
    return Lineage.model_validate(
        {
            **({"tainted_inputs": True} if taint.tainted_inputs(task, run.tainted) else {}),
            **({"tainted_plan": True} if run.records[task.id].is_decided_outside else {}),
            "parent": run.identity.workflow_id,
            "parent_key": run.identity.run_key,
            **({"secret": run.catalog.secret} if run.catalog.secret else {}),
            "root": run.root,
            "depth": depth,
            "grant": grant,
            **({"deadline": end} if end is not None else {}),
            **more,
        }
    )


def _asking(request: RunRequest, kind: str) -> dict[str, Any]:
    """What a child asks a person about before it acts: what its run would ask."""
    if request.approval.mode != "tainted":
        return {}
    is_agent = kind == "agent"
    return {"approval": "tainted" if is_agent else request.approval.model_dump(exclude_unset=True)}


def _problem_with(body: Body, task: str, request: RunRequest) -> str | None:
    """Arguments of an agent or team that would make it more than a part of its run."""
    if body.kind == "plan":
        return None  # they are the parameters of the template
    if body.kind in body.args:  # who it is, and what it may call, stands where a person looks
        return (
            f"tasks.{task}.args.{body.kind}: the task itself names its {body.kind}. Leave it out."
        )
    asking = ("approval",) if request.approval.mode == "tainted" else ()
    for name in (*OF_THE_RUN, *asking):
        if name in body.args:
            return f"tasks.{task}.args.{name}: a child run has its run's {name}. Leave it out."
    return _problem_with_budget(body.args.get("budget"), task)


def _problem_with_budget(budget: JsonValue, task: str) -> str | None:
    if isinstance(budget, dict) and "on_budget" in budget:
        return f"tasks.{task}.args.budget.on_budget: it is the run's. Leave it out."
    return None


def inputs_of(
    command: StartChild, resolved: Mapping[str, Stored]
) -> tuple[Common, Lineage] | Failure:
    """What a child is started with, once the values of its command are resolved."""
    fields, lineage = dict(command.fields), command.lineage
    if command.kind == "DagWorkflow":
        # A batch of a map has its parent's, whatever their size.
        params = resolved.get("params", Stored(value={}))
        small = params.is_inline
        fields["params"] = params.value if small else {}
        if not small:
            lineage = lineage.model_copy(update={"params": params})
    else:
        inputs: dict[str, Stored] = dict(lineage.inputs)
        context, task = resolved.get("context"), resolved["task"]
        if context is not None and not context.is_inline:
            inputs["context"] = context
        elif context is not None:
            fields["context"] = context.value
        if task.is_inline:
            fields["task"] = str(task.value)
        else:
            fields["task"], inputs["task"] = task.preview or "", task
        args = resolved.get("args", Stored())
        if not args.is_inline:  # without them, it could do more than it was meant to
            is_long = args.size_bytes > ARGS_MAX_BYTES
            what = f"has {args.size_bytes:,} bytes, at most {ARGS_MAX_BYTES:,}"
            what = what if is_long else "is nested too deep"
            message = f"tasks.{command.task}.args: {what}. Put large values in context."
            return Failure(message, "tool")
        given = args.value
        if isinstance(given, dict):
            # Again, now that references are resolved: names stand in the plan, values may not.
            if problem := _problem_with_budget(given.get("budget"), command.task):
                return Failure(problem, "tool")
            fields |= given | {"tools": _narrowed(fields["tools"], given.get("tools"))}
        lineage = lineage.model_copy(update={"inputs": inputs})
    try:
        return REQUEST_MODELS[command.kind].model_validate(fields), lineage
    except ValueError as error:
        return Failure(f"tasks.{command.task}.args: {error}", "tool")


def _narrowed(allowed: list[str] | None, wanted: JsonValue) -> JsonValue:
    """The tools of a child: those it wants among those its run allows."""
    if wanted is None:
        return None if allowed is None else [*allowed]
    if allowed is None or not isinstance(wanted, list):
        return wanted
    return [t for t in wanted if t in allowed]


# -- what came back -------------------------------------------------------------------------


def output_of_child(run: RunState, work: Work, result: Any) -> TaskOutput | Failure:
    """A child's result as the output of its task, or the failure that it means."""
    task = work.unit.task
    body = run.tasks[task]
    if getattr(result, "tainted", False):
        run.records[task].is_tainted = True
    match result:
        case RunResult():
            has_answer = result.answer is not None
            good = result.status == "completed" or (result.status == "partial" and has_answer)
            output = result.answer_ref or Stored(value=result.answer)
            return _outcome(result.status, good, output, result.usage, result.reason)
        case AgentResult():
            if isinstance(body.agent, str) and body.agent in run.cast:
                run.spoken[task] = result
            output = result.output_ref or Stored(value=result.output)
            has_output = result.output is not None or result.output_ref is not None
            good = result.status in ("completed", "partial") and has_output
            return _outcome(
                result.status, good, output, result.usage, result.reason, result.error_class
            )
        case TeamResult():
            failed = [m for m, r in result.members.items() if r.outcome is Outcome.FAILED]
            run.failed_members[task] = failed
            good = result.status in ("completed", "partial") and result.answer is not None
            output = result.answer_ref or Stored(value=result.answer)
            return _outcome(result.status, good, output, result.usage, result.reason)
        case _:
            raise TypeError(type(result))


def _outcome(
    status: str,
    good: bool,
    output: Stored,
    usage: UsageReport,
    reason: str | None,
    error_class: str | None = None,
) -> TaskOutput | Failure:
    spent, tasks = usage_from_report(usage), 1 + usage.tasks
    if status == "cancelled":
        return Failure(reason or "cancelled", "cancelled", usage=spent, tasks=tasks)
    if not good:
        message = reason or f"ended {status} without an answer"
        return Failure(message, error_class or "tool", usage=spent, tasks=tasks)
    return TaskOutput(
        output=output,
        outcome=Outcome.SUCCEEDED,
        usage=spent,
        tasks=tasks,
        note=None if status == "completed" else f"{status}: {reason}",
    )


def usage_from_report(report: UsageReport) -> Usage:
    """What a child reports, as usage: its money is whole nano-dollars, written in dollars."""
    return Usage(
        input_tokens=report.input_tokens,
        output_tokens=report.output_tokens,
        usd_nano=round(report.usd * NANO),
        model_calls=report.model_calls,
        tool_calls=report.tool_calls,
        cache_hits=report.cache_hits,
        is_priced=report.unpriced_calls == 0,
    )
