"""Wide maps: their items go in batches, each a child run that gives back one list of outputs.

So the run itself holds a row for each batch and not for each item, however many there are. In the
frontier a batch is what an item is elsewhere: a unit of its map, of more than one slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planloom.planner.compile.passes.resolve import roots_of_body
from planloom.planner.contract.controls import GrantWanted
from planloom.planner.contract.jobs import ResolveJob, TaskOutput
from planloom.planner.contract.requests import Grant
from planloom.planner.contract.results import RunResult, TaskReport
from planloom.planner.language.plan import Task
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    VALUE_NAMES,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    TaskId,
)
from planloom.planner.walk.frontier import Unit
from planloom.planner.walk.names import versioned
from planloom.workflows.machines.run.children import (
    add_saved,
    fields_of,
    fields_of_plan,
    lineage_of,
    usage_from_report,
)
from planloom.workflows.machines.run.record import Batches, Record
from planloom.workflows.machines.run.state import Child, RunState, Work
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import StartChild, Urgency
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.sizes import text_bytes

BATCHED_FROM = 1_000
"""A map of more items goes in batches."""
BATCH_ITEMS = 500
"""Items of a batch: some 1,600 events of its history, and a twentieth of its time to start."""
ITEMS = "_items"
"""What a batch calls its items."""
_OF_THE_MAP = ("when", "depends_on", "requires", "approval", "speculate", "on_failure")
"""Fields of a task that have counted before its items start."""


def may_batch(task: Task) -> bool:
    """Whether items of this map may run in child runs: not those that are runs, or ask a person."""
    return all(b.kind in ("tool", "ask") for b in task.bodies)


def is_batch(run: RunState, unit: Unit) -> bool:
    """Whether a unit stands for many items of its map."""
    return unit.index is not None and run.records[unit.task].batches is not None


def items_job(task: Task, bound: Bindings) -> ResolveJob:
    """Have an activity find a map's items, and cut them into batches where there are many."""
    cut = {"batch": BATCH_ITEMS, "batched_from": BATCHED_FROM} if may_batch(task) else {}
    return ResolveJob(value=task.map, mode="list", bindings=bound, **cut)


def cut(items: Sequence[JsonValue], task: Task) -> list[Stored] | None:
    """Items that are here as batches; None: they are few, or (some) too large to travel."""
    if len(items) <= BATCHED_FROM or not may_batch(task):
        return None
    parts = [list(items[at : at + BATCH_ITEMS]) for at in range(0, len(items), BATCH_ITEMS)]
    return [Stored(value=part, size_bytes=text_bytes(part)) for part in parts]


def fit_inline(parts: Sequence[Stored]) -> bool:
    """Whether batches may travel as they are."""
    return all(p.size_bytes <= INLINE_MAX_BYTES for p in parts)


def begin_batches(run: RunState, task: TaskId, parts: list[Stored], count: int) -> None:
    """A map's items are cut: its units are the batches."""
    record = run.records[task]
    # Of its own: what a batch has read is dropped, and an event stays as it came.
    record.batches = Batches(count, BATCH_ITEMS, list(parts))
    record.items, record.item_outcomes = [None] * len(parts), [None] * len(parts)
    # Two at once, so that one that ends or begins leaves no slot idle.
    run.frontier.expand(task, len(parts), weight=max(1, run.frontier.parallel // 2))


def amounts_of_batch(
    run: RunState, unit: Unit, want: Amount, least: Amount
) -> tuple[Amount, Amount]:
    """What to reserve for a batch, from what one item wants: for all, or at least for one."""
    size = size_of(run, unit)
    return Amount(want.tokens * size, want.usd_nano * size, want.tasks * size), least


def size_of(run: RunState, unit: Unit) -> int:
    """How many items a batch has."""
    batches = run.records[unit.task].batches
    assert batches is not None
    assert unit.index is not None
    return min(batches.size, batches.count - unit.index * batches.size)


# -- the child run --------------------------------------------------------------------------


def batch_command(
    run: RunState, key: str, work: Work, grant: Grant, urgency: Urgency
) -> StartChild:
    """The command that starts the child run of a batch: a plan of the map alone, over its items."""
    unit = work.unit
    task, batches = run.tasks[unit.task], run.records[unit.task].batches
    assert batches is not None
    assert unit.index is not None
    first = unit.index * batches.size
    act = versioned(unit.task, run.records[unit.task].version)
    name = f"{act}[{first}:{first + size_of(run, unit)}]"
    id = f"{run.identity.workflow_id}/{name}"
    inputs = {r: run.value_of(r) or Stored() for r in _roots(task)}
    items = ITEMS
    while items in inputs:
        items = f"_{items}"
    lineage = lineage_of(
        run,
        task,
        grant,
        depth=run.lineage.depth,
        params=run.values["params"],
        inputs={**inputs, items: batches.sources[unit.index]},
        first_index=first + run.lineage.first_index,
    )
    run.children[id] = Child(key, deadline=lineage.deadline)
    fields = {
        **fields_of(run, task),
        **fields_of_plan(run.request),
        "plan": {"tasks": [_item_task(task, items)], "answer": ""},
        "budget": {"parallel": run.frontier.entries[task.id].weight},
    }
    words = f"{name}: {task.description or f'{size_of(run, unit)} items'}"
    return StartChild(
        key, "DagWorkflow", id, task.id, {}, Bindings(), fields, lineage, words[:96], urgency
    )


def _item_task(task: Task, items: str) -> JsonValue:
    """The task as a plan by itself: over the items of the batch, with nothing to wait for."""
    fields = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for name in _OF_THE_MAP:
        fields.pop(name, None)
    return fields | {"map": f"${{{items}}}"}


def _roots(task: Task) -> list[str]:
    """What the items read beside themselves: outputs of other tasks."""
    found = dict.fromkeys(r for body in task.bodies for r in roots_of_body(body))
    return [root for root in found if root not in VALUE_NAMES]


# -- what came back -------------------------------------------------------------------------


def output_of_batch(run: RunState, work: Work, result: RunResult) -> TaskOutput | Failure:
    """The list of a batch's outputs, or why there is none; how its items came out is counted."""
    record, unit = run.records[work.unit.task], work.unit
    usage, tasks = usage_from_report(result.usage), result.usage.tasks
    add_saved(run, result.usage)
    report, task = result.tasks.get(unit.task), run.tasks[unit.task]
    fell_back = report is not None and report.outcome is Outcome.FALLBACK  # not item by item
    if report is None or (fell_back and task.fallback_body is not None):
        _count(record, {Outcome.FAILED.value: size_of(run, unit)})
        why = (report.error if report else None) or result.reason or "its batch did not run"
        return Failure(why, "unknown", usage=usage, tasks=tasks)
    counts = dict(report.items or {report.outcome.value: size_of(run, unit)})
    if unended := counts.pop("running", 0):
        counts[Outcome.CANCELLED] = counts.get(Outcome.CANCELLED, 0) + unended
    _count(record, counts)
    if report.error:
        record.fail(report.error, report.error_class)
    if report.outcome is Outcome.CANCELLED:
        reason = report.reason or result.reason or "cancelled"
        return Failure(reason, "cancelled", usage=usage, tasks=tasks)
    # Its items could not be read: each has the value that stands for it.
    instead = Stored(value=[task.fallback] * size_of(run, unit))
    return TaskOutput(
        output=instead if fell_back else _output(report),
        outcome=report.outcome,
        usage=usage,
        attempts=report.attempts,
        tasks=tasks,
    )


def _output(report: TaskReport) -> Stored:
    if report.blob is None:
        return Stored(value=report.output)
    return Stored(blob=report.blob, size_bytes=report.size_bytes or 0, preview="")


def _count(record: Record, counts: dict[str, int]) -> None:
    batches = record.batches
    assert batches is not None
    for name, count in counts.items():
        batches.counts[name] = batches.counts.get(name, 0) + count


def without_result(run: RunState, unit: Unit, failed: Failure) -> Failure:
    """A batch that was cancelled before it began, or that is gone: then all of it may have run."""
    if failed.is_cancelled:
        return replace(failed, tasks=0)
    size = size_of(run, unit)
    _count(run.records[unit.task], {Outcome.FAILED.value: size})
    return replace(failed, tasks=size)


def wanted_by(run: RunState, wanted: GrantWanted) -> GrantWanted:
    """What a child wants; of a batch, under the name of its reservation."""
    child = run.children.get(wanted.child)
    pending = run.pending.get(child.key) if child is not None else None
    work = run.works.get(pending.subject) if pending is not None else None
    if pending is None or work is None:
        return wanted
    if work.is_counted:  # a fallback: its task is counted already
        return wanted.model_copy(update={"own_tasks": 0})
    if not is_batch(run, work.unit):
        return wanted
    return wanted.model_copy(update={"name": pending.subject, "own_tasks": 0})


def join_job(run: RunState, task: TaskId) -> ResolveJob:
    """Have an activity put the lists of all batches together, null where an item has no output."""
    record = run.records[task]
    assert record.batches is not None
    parts: list[JsonValue] = []
    inputs: dict[str, Stored] = {}
    for n, stored in enumerate(record.items):
        if stored is None:
            parts.append(size_of(run, Unit(task, n)))
        else:
            parts.append(f"${{i{n}}}")
            inputs[f"i{n}"] = stored
    return ResolveJob(value=parts, mode="joined", bindings=Bindings(inputs=inputs))
