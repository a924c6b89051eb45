"""The end of a map: its outputs become one list, null where an item has none."""

from __future__ import annotations

from planloom.planner.contract.jobs import Resolved, ResolveJob
from planloom.planner.language.values import Bindings, JsonValue, Outcome, Stored, TaskId
from planloom.workflows.machines.run import batches
from planloom.workflows.machines.run.record import Record, good_of
from planloom.workflows.machines.run.state import Pending, Rule, RunState
from planloom.workflows.machines.run.tasks import take_settled
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.commands import Resolve
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

LIST_INLINE_BYTES = 2_000
"""A longer list of a map's outputs is made where it can be stored."""
ITEMS_NAMED_MAX = 10


def make_list_again(run: RunState, step: Step, key: str) -> None:
    """The items of a map ended in an earlier round, whose list could not be made."""
    task = run.works.pop(key).unit.task
    count = len(run.records[task].items)
    account.refund(run.account, key)
    run.frontier.expand(task, count, ended=count)
    close_map(run, step, task)


def close_map(run: RunState, step: Step, task: TaskId) -> None:
    """All items have ended: the output is the list of theirs, null where there is none."""
    record = run.records[task]
    ended = record.item_outcomes
    counts = record.item_counts() or {}
    # One item that was cancelled by itself is a hole like any other.
    is_stopped = None in ended or run.stop is not None or task in run.cancelled_why
    is_cancelled = Outcome.CANCELLED in ended or None in ended
    if is_cancelled and (is_stopped or set(counts) == {Outcome.CANCELLED.value}):
        end_map(run, step, task, Outcome.CANCELLED, None)
        return
    if good_of(counts) == 0:
        skipped = run.tasks[task].on_error == "skip"
        end_map(run, step, task, Outcome.SKIPPED if skipped else Outcome.FAILED, None)
        return
    if record.batches is not None:
        job = batches.join_job(run, task)
    else:
        size = sum(text_bytes(s.value) if s and s.is_inline else 300 for s in record.items)
        if size <= LIST_INLINE_BYTES and all(s is None or s.is_inline for s in record.items):
            values: list[JsonValue] = [s.value if s else None for s in record.items]
            end_map(run, step, task, Outcome.SUCCEEDED, Stored(value=values))
            return
        inputs = {f"i{n}": s or Stored() for n, s in enumerate(record.items)}
        value: list[JsonValue] = [f"${{{name}}}" for name in inputs]
        job = ResolveJob(value=value, bindings=Bindings(inputs=inputs))
    key = f"{task}#list"
    run.lists.append(task)
    run.pending[key] = Pending(Rule.LIST, task)
    step.do(Resolve(key, job))


def take_list(run: RunState, step: Step, task: TaskId, found: Resolved | Failure) -> None:
    """The list of a map's outputs is stored, or could not be."""
    run.lists.remove(task)
    if isinstance(found, Failure):
        record = run.records[task]
        record.fail(found.message, "unknown", may_pass=True)
        items = record.items
        end_map(run, step, task, Outcome.FAILED, None)
        record.items = items  # another round need only make the list
    else:
        end_map(run, step, task, Outcome.SUCCEEDED, found.stored)


def end_map(
    run: RunState, step: Step, task: TaskId, outcome: Outcome, output: Stored | None
) -> None:
    """The one place where a map ends."""
    record = run.records[task]
    record.outcome, record.output, record.ended = outcome, output, run.seconds(step.now)
    record.items = []
    counts = record.item_counts() or {}
    if Outcome.UNKNOWN in counts:
        record.may_pass = False  # one of them may have acted
    count = sum(counts.values())
    record.holes = count - good_of(counts) if outcome is Outcome.SUCCEEDED else 0
    if record.holes:
        record.reason = _holes(record)
    run.is_stop_checked = False
    settled = run.frontier.end(task, outcome, was_expanded=True)
    take_settled(run, settled, step.now)


def _holes(record: Record) -> str:
    """Which items of a map have no value, and what one of them failed of."""
    if record.batches is not None:
        text = f"{record.holes} of {record.batches.count} items have no value"
        return f"{text}; {record.error}" if record.error else text
    bad = [n for n, o in enumerate(record.item_outcomes) if o is None or not o.is_good]
    shown = ", ".join(f"[{n}]" for n in bad[:ITEMS_NAMED_MAX])
    more = f" and {len(bad) - ITEMS_NAMED_MAX} more" if len(bad) > ITEMS_NAMED_MAX else ""
    text = f"{len(bad)} of {len(record.item_outcomes)} items have no value: {shown}{more}"
    return f"{text}; {record.error}" if record.error else text
