"""Units at work: what starts, how each goes on when something it waits for is there, how it ends.

A unit is a task or one item of a map. It goes through: its condition (`when`), then its items, its
question, or its body; then its fallback, if the body failed.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from planloom.planner.contract.jobs import Resolved, ResolveJob, TaskOutput
from planloom.planner.contract.results import RunResult
from planloom.planner.language.plan import MAP_ITEMS_MAX, Task
from planloom.planner.language.values import JsonValue, Outcome, Stored, TaskId, Usage
from planloom.planner.syntax.json_text import meant_list, why_no_list
from planloom.planner.walk.frontier import Unit
from planloom.workflows.machines.run import batches, people
from planloom.workflows.machines.run.bodies import (
    amounts_of,
    bindings_of,
    body_of,
    command_of,
    in_fallback,
    is_map_itself,
    is_worth_a_round,
    key_of,
    may_have_acted,
)
from planloom.workflows.machines.run.children import output_of_child
from planloom.workflows.machines.run.groups import forget_member, leave_group
from planloom.workflows.machines.run.maps import close_map, make_list_again
from planloom.workflows.machines.run.state import Doing, Pending, Rule, RunState, Wait, Work
from planloom.workflows.machines.run.tasks import end_task
from planloom.workflows.machines.run.timers import drop_timer, set_timer
from planloom.workflows.machines.run.values import condition_now, resolve_now, store_job
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import Cancel, Command, Resolve, StartChild, Tell
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.taint import is_output_tainted


def _send(run: RunState, step: Step, key: str, rule: Rule, command: Command) -> None:
    """Start something for the unit `key`; `rule` takes its end."""
    work = run.works[key]
    work.command = command.key  # type: ignore[union-attr]
    work.has_begun = work.has_begun or rule is Rule.BODY
    run.pending[work.command] = Pending(rule, key)
    step.do(command)
    if isinstance(command, StartChild):
        _start_child(run, step, key, command)


def _start_child(run: RunState, step: Step, key: str, command: StartChild) -> None:
    """A child that begins in a pause, as a fallback does, is paused; its time limit is watched."""
    if run.is_paused:
        step.do(Tell(command.id, "pause"))
    if command.timeout is not None:
        # Not the server's timeout: that would end the child and leave its own children running.
        at = step.now + command.timeout
        set_timer(run, step, f"child:{key}", at, f"{key}: timeout")


def child_is_late(run: RunState, step: Step, key: str) -> None:
    """The time of a child run is over: it is cancelled, with all that it has started."""
    work = run.works[key]
    if work.command:
        work.is_late = True
        step.do(Cancel(work.command))


def _resolve(run: RunState, step: Step, key: str, rule: Rule, job: ResolveJob) -> None:
    _send(run, step, key, rule, Resolve(f"{key}#{rule.value}", job))


# -- starting -------------------------------------------------------------------------------


def start_unit(run: RunState, step: Step, unit: Unit, granted: Amount, *, is_ahead: bool) -> None:
    """A unit that the frontier has started begins its work."""
    task, key = run.tasks[unit.task], key_of(unit)
    record = run.records[task.id]
    if record.started is None or (unit.index is None and key not in record.again):
        record.ready = record.ready if record.ready is not None else run.seconds(step.now)
        record.started = run.seconds(step.now)
    run.works[key] = Work(unit, granted, is_ahead=is_ahead)
    mark_tainted(run, unit, run.tainted)
    if is_ahead:
        run.ahead.append(key)
        _start_body(run, step, key)
        return
    if unit.index is None and task.when is not None:
        found = condition_now(run, task.when)
        if isinstance(found, ResolveJob):
            run.works[key].doing = Doing.CONDITION
            _resolve(run, step, key, Rule.CONDITION, found)
            return
        take_condition(run, step, key, found)
        return
    _after_condition(run, step, key)


def mark_tainted(run: RunState, unit: Unit, tainted: Container[str]) -> None:
    """Whether what a task gives came from outside is known when it starts."""
    task, record = run.tasks[unit.task], run.records[unit.task]
    if unit.index is None and not record.is_tainted:
        record.is_tainted = is_output_tainted(
            task, run.catalog, tainted, is_decided_outside=record.is_decided_outside
        )


def take_condition(run: RunState, step: Step, key: str, found: bool | Failure) -> None:
    """The unit's `when` is known: it goes on, is skipped, or fails."""
    task = run.tasks[run.works[key].unit.task]
    if isinstance(found, Failure):
        unit_failed(run, step, key, _worded(found, "when"))
    elif run.works[key].is_cancelled:
        end_cancelled(run, step, key)
    elif found:
        _after_condition(run, step, key)
    else:
        end_unit(run, step, key, Outcome.SKIPPED, None, reason=f"when: {task.when}")


def _worded(failed: Failure, where: str) -> Failure:
    if failed.is_cancelled:
        return failed
    return Failure(f"{where}: {failed.message}", failed.error_class, failed.attempts, failed.usage)


def _after_condition(run: RunState, step: Step, key: str) -> None:
    work = run.works[key]
    task = run.tasks[work.unit.task]
    if is_map_itself(work.unit, task) and work.unit.mode == "body":
        if run.records[task.id].items:
            make_list_again(run, step, key)
            return
        _find_items(run, step, key, task)
    else:
        _start_body(run, step, key)


def _start_body(run: RunState, step: Step, key: str) -> None:
    work = run.works[key]
    body = body_of(work.unit, run.tasks[work.unit.task])
    if body.kind == "human":
        _find_question(run, step, key)
        return
    work.doing = Doing.BODY
    command = command_of(run, f"{key}#body", work, step.now)
    if isinstance(command, Failure):
        unit_failed(run, step, key, command)
    else:
        _send(run, step, key, Rule.BODY, command)


# -- the items of a map ---------------------------------------------------------------------


def _find_items(run: RunState, step: Step, key: str, task: Task) -> None:
    bound = bindings_of(run, run.works[key].unit, task.map)
    found = resolve_now(task.map, bound, run.metering.meter)
    if found is None:
        run.works[key].doing = Doing.ITEMS
        _resolve(run, step, key, Rule.ITEMS, batches.items_job(task, bound))
    elif isinstance(found, Failure):
        unit_failed(run, step, key, found)
    elif (items := meant_list(found.value)) is None:
        message = f"tasks.{task.id}.map: {why_no_list(task.map, found.value)}"
        unit_failed(run, step, key, Failure(message, "tool"))
    else:
        parts = batches.cut(items, task)
        if parts is not None and not batches.fit_inline(parts):
            run.works[key].doing = Doing.ITEMS
            _resolve(run, step, key, Rule.ITEMS, batches.items_job(task, bound))
        else:
            source = Stored(value=items)
            take_items(run, step, key, Resolved(stored=source, count=len(items), parts=parts))


def take_items(run: RunState, step: Step, key: str, found: Resolved) -> None:
    """The items of a map are known: each becomes a unit that may start, or each batch of many."""
    work, count = run.works[key], found.count or 0
    if work.is_cancelled:
        end_cancelled(run, step, key)
        return
    task = work.unit.task
    if count > MAP_ITEMS_MAX:
        message = f"tasks.{task}.map: has {count:,} items; at most {MAP_ITEMS_MAX:,}"
        unit_failed(run, step, key, Failure(f"{message}. Split the list.", "tool"))
        return
    account.refund(run.account, key)
    if count == 0:
        del run.works[key]
        end_task(run, work.unit, Outcome.SUCCEEDED, Stored(value=[]), step.now)
        return
    record = run.records[task]
    del run.works[key]
    if found.parts is not None:
        batches.begin_batches(run, task, found.parts, count)
        return
    record.items_source = found.stored
    record.items, record.item_outcomes = [None] * count, [None] * count
    run.frontier.expand(task, count)


# -- questions ------------------------------------------------------------------------------


def _find_question(run: RunState, step: Step, key: str) -> None:
    work = run.works[key]
    human = body_of(work.unit, run.tasks[work.unit.task]).human_body()
    bound = bindings_of(run, work.unit, human.question)
    found = resolve_now(human.question, bound, run.metering.meter)
    if found is None:
        work.doing = Doing.QUESTION
        _resolve(run, step, key, Rule.QUESTION, ResolveJob(value=human.question, bindings=bound))
    else:
        take_question(run, step, key, found)


def take_question(run: RunState, step: Step, key: str, found: Stored | Failure) -> None:
    """The question is made: it opens, and may be answered early already."""
    if isinstance(found, Failure):
        # A wait for a person uses up no attempt, and neither does one that cannot begin.
        unit_failed(run, step, key, replace(found, attempts=0))
        return
    work = run.works[key]
    if work.is_cancelled:
        end_cancelled(run, step, key)
        return
    task = run.tasks[work.unit.task]
    work.doing, work.command, work.has_begun = Doing.ASKING, "", True
    human = body_of(work.unit, task).human_body()
    text = str(found.value or found.preview)
    people.open_question(run, step, key, text, human.schema_, task.timeout)
    early = people.early_answer(run, key)
    if early is not None:
        take_answer(run, step, key, early.output, early.by)


def take_answer(run: RunState, step: Step, key: str, output: JsonValue, by: str | None) -> None:
    """A person has answered an open question of the run's own."""
    people.close_question(run, step, key)
    run.records[run.works[key].unit.task].reason = f'answered by "{by}"' if by else None
    job = store_job(output)
    if job is None:
        end_unit(run, step, key, _good(run, key), TaskOutput(output=Stored(value=output)))
        return
    run.works[key].doing = Doing.STORING
    _resolve(run, step, key, Rule.ANSWER_STORED, job)


def answer_stored(run: RunState, step: Step, key: str, found: Stored | Failure) -> None:
    """A long answer is in the blob store, or could not be put there."""
    if isinstance(found, Failure):
        unit_failed(run, step, key, found)
    else:
        end_unit(run, step, key, _good(run, key), TaskOutput(output=found))


def nobody_answered(run: RunState, step: Step, key: str) -> None:
    """The time of an open question is over."""
    task = run.tasks[run.works[key].unit.task]
    people.close_question(run, step, key)
    failed = Failure(f"nobody answered within {task.timeout:g} s", "timeout")
    unit_failed(run, step, key, failed)


def _good(run: RunState, key: str) -> Outcome:
    return Outcome.FALLBACK if run.works[key].unit.mode == "fallback" else Outcome.SUCCEEDED


# -- the body's end -------------------------------------------------------------------------


def body_ended(run: RunState, step: Step, key: str, found: Any) -> None:
    """The activity or child of a unit has ended: `found` is its result or its `Failure`."""
    work = run.works[key]
    work.command = ""
    child = next((id for id, c in run.children.items() if c.key == f"{key}#body"), None)
    if child is not None:
        del run.children[child]
    drop_timer(run, step, f"child:{key}")
    if batches.is_batch(run, work.unit):
        _batch_ended(run, step, key, found)
        return
    if not isinstance(found, TaskOutput | Failure):
        found = output_of_child(run, work, found)
    if work.is_late and isinstance(found, Failure) and found.is_cancelled:
        timeout = run.tasks[work.unit.task].timeout or 0.0
        found = replace(found, error_class="timeout", message=f"timed out after {timeout:g} s")
    if work.is_losing:
        _lose(run, step, key, found.usage)
    elif work.is_ahead and work.is_cancelled:
        end_cancelled(run, step, key, found.usage)
    elif work.is_ahead and not (isinstance(found, Failure) and found.is_cancelled):
        _ended_ahead(run, key, found)
    elif isinstance(found, Failure):
        if (failed := _ask_wider(run, step, key, found)) is not None:
            unit_failed(run, step, key, failed)
    else:
        good = found.outcome if work.unit.mode == "body" else Outcome.FALLBACK
        if not found.outcome.is_good:
            good = found.outcome
        end_unit(run, step, key, good, found)


def _batch_ended(run: RunState, step: Step, key: str, found: Any) -> None:
    """A batch of a map has ended. Its items had their retries, rounds and fallbacks inside it."""
    work = run.works[key]
    record = run.records[work.unit.task]
    if isinstance(found, RunResult):
        found = batches.output_of_batch(run, work, found)
    else:
        found = batches.without_result(run, work.unit, found)
    if isinstance(found, TaskOutput):
        end_unit(run, step, key, found.outcome, found)
    elif found.is_cancelled:
        end_cancelled(run, step, key, found.usage, found.tasks)
    else:
        record.fail(found.message, found.error_class)
        _end_failed(run, step, key, found, Outcome.FAILED)


def _ask_wider(run: RunState, step: Step, key: str, failed: Failure) -> Failure | None:
    """Ask once more after an answer that the budget's room cut off, if the budget has more.

    Else the failure stands, and is given back.
    """
    work = run.works[key]
    task = run.tasks[work.unit.task]
    body = body_of(work.unit, task)
    limit = body.ask_body().max_tokens if body.ask is not None else None
    is_own_limit = limit is not None and failed.cut_at >= limit
    if not failed.cut_at or work.cut_at or work.is_cancelled or is_own_limit:
        return failed
    if (caps := run.account.ledger.caps).tokens is None and caps.usd_nano is None:
        return failed  # no budget limited it: the activity has tried with more room already
    run.records[task.id].usage += failed.usage
    account.settle(run.account, key, failed.usage, _counted(work, failed.tasks))
    work.cut_at, work.is_counted = failed.cut_at, work.has_begun
    amounts = amounts_of(run, work.unit, task, is_second=True, cut_at=work.cut_at)
    granted = account.reserve_now(run.account, key, *amounts, step.now)
    if granted is None:
        return replace(failed, usage=Usage())
    run.records[task.id].attempts += failed.attempts
    work.granted = granted
    _start_body(run, step, key)
    return None


def _ended_ahead(run: RunState, key: str, found: TaskOutput | Failure) -> None:
    """A branch has run ahead to its end. Whoever decides its condition may need slot and budget."""
    work = run.works[key]
    run.records[work.unit.task].usage += found.usage
    account.settle(run.account, key, found.usage, 1)
    if isinstance(found, Failure):
        work.ahead_failure = replace(found, usage=Usage())
    else:
        work.ahead_output = found.model_copy(update={"usage": Usage()})
    run.frontier.idle(work.unit.task)


def unit_failed(run: RunState, step: Step, key: str, failed: Failure) -> None:
    """Fallback value, then alternative path, then the failure itself."""
    work = run.works[key]
    unit, task = work.unit, run.tasks[work.unit.task]
    has_acted = may_have_acted(run, unit, failed)
    if failed.is_cancelled or (work.is_cancelled and not has_acted):
        end_cancelled(run, step, key, failed.usage, failed.tasks)
        return
    record = run.records[task.id]
    message = failed.message
    if work.failed is not None:
        message = f"{work.failed.message}; then the fallback: {message}"
    if unit.index is not None:
        message = f"item [{unit.index + run.lineage.first_index}]: {message}"
    record.fail(message, failed.error_class, is_worth_a_round(run, work, failed))
    record.attempts += failed.attempts
    if has_acted:
        _end_failed(run, step, key, failed, Outcome.UNKNOWN)
    elif unit.mode == "fallback" or not task.has_fallback:
        skipped = task.on_error == "skip"
        _end_failed(run, step, key, failed, Outcome.SKIPPED if skipped else Outcome.FAILED)
    elif task.fallback_body is None:
        output = TaskOutput(output=Stored(value=task.fallback), attempts=0, usage=failed.usage)
        end_unit(run, step, key, Outcome.FALLBACK, output, tasks=_counted(work, failed.tasks))
    else:
        _to_fallback(run, step, key, failed)


def _end_failed(run: RunState, step: Step, key: str, failed: Failure, outcome: Outcome) -> None:
    tasks = _counted(run.works[key], failed.tasks)
    end_unit(run, step, key, outcome, None, usage=failed.usage, tasks=tasks)


def end_cancelled(
    run: RunState, step: Step, key: str, usage: Usage | None = None, tasks: int = 1
) -> None:
    """A unit was cancelled. What it was paid counts, whatever it might have gone on with."""
    work = run.works[key]
    end_unit(
        run,
        step,
        key,
        Outcome.CANCELLED,
        None,
        reason=cancel_reason(run, work.unit),
        usage=usage,
        tasks=_counted(work, tasks),
    )


def _counted(work: Work, tasks: int) -> int:
    """How many of the `tasks` that ran for a unit are to be counted now.

    A task whose body could not be started, or whose question could not be made, is not one of them.
    """
    if not work.has_begun:
        return 0
    # Of a fallback only what ran inside it, if the task itself is counted already.
    return tasks - 1 if work.is_counted else tasks


def _to_fallback(run: RunState, step: Step, key: str, failed: Failure) -> None:
    """The alternative path is the same task still; it reserves for itself, and may have to wait."""
    work = run.works[key]
    people.forget_questions(run, step, key)
    run.records[work.unit.task].usage += failed.usage
    account.settle(run.account, key, failed.usage, _counted(work, failed.tasks))
    task = run.tasks[work.unit.task]
    work.failed, work.unit, work.is_counted = failed, in_fallback(work.unit), work.has_begun
    work.cut_at = 0  # another call: its own answer may be cut off once
    want, least = amounts_of(run, work.unit, task, is_second=work.is_counted)
    granted = account.reserve(run.account, key, want, least, step.now)
    if isinstance(granted, Amount):
        fallback_granted(run, step, key, granted)
    elif isinstance(granted, Over):
        fallback_refused(run, step, key, granted.lack)
    else:
        work.doing = Doing.WAITING
        run.waits[key] = Wait.FALLBACK


def fallback_granted(run: RunState, step: Step, key: str, granted: Amount) -> None:
    """There is budget for the alternative path."""
    run.works[key].granted = granted
    _start_body(run, step, key)


def fallback_refused(run: RunState, step: Step, key: str, lack: str) -> None:
    """There will be no budget for the alternative path."""
    task = run.works[key].unit.task
    record = run.records[task]
    record.error = f"{record.error}; no budget for the fallback: {lack}"
    skipped = run.tasks[task].on_error == "skip"
    end_unit(run, step, key, Outcome.SKIPPED if skipped else Outcome.FAILED, None, tasks=0)


def cancel_reason(run: RunState, unit: Unit) -> str:
    """Why a task or item was cancelled, for the task's record."""
    stopped = run.stop.reason if run.stop is not None else None
    known = run.cancelled_why
    return known.get(unit.task) or stopped or known.get(TaskId(key_of(unit))) or "cancelled"


# -- speculation ----------------------------------------------------------------------------


def _lose(run: RunState, step: Step, key: str, usage: Usage | None) -> None:
    """A branch that ran ahead in vain has stopped. It ran, so it counts."""
    task = run.tasks[run.works[key].unit.task]
    reason = f"when: {task.when}; was started ahead and cancelled"
    end_unit(run, step, key, Outcome.SKIPPED, None, reason=reason, usage=usage, tasks=1)


def ahead_known(run: RunState, step: Step, key: str, found: bool | Failure) -> None:
    """As `decide_ahead`, when an activity had to look; the branch may be gone by now."""
    if key in run.ahead:
        decide_ahead(run, step, key, found)


def decide_ahead(run: RunState, step: Step, key: str, found: bool | Failure) -> None:
    """The condition of a branch that runs ahead is known."""
    work = run.works[key]
    run.ahead.remove(key)
    work.is_ahead = False
    output, failed = work.ahead_output, work.ahead_failure
    if found is True:
        run.speculations_won += 1
        if output is not None:
            end_unit(run, step, key, output.outcome, output)
        elif failed is not None:
            unit_failed(run, step, key, failed)
        return
    run.speculations_lost += 1
    if isinstance(found, Failure):
        run.note(f"{key}: when: {found.message}; taken as not true")
    if output is not None or failed is not None:
        _lose(run, step, key, None)
        return
    work.is_losing = True
    step.do(Cancel(work.command))


# -- ending ---------------------------------------------------------------------------------


def end_unit(
    run: RunState,
    step: Step,
    key: str,
    outcome: Outcome,
    output: TaskOutput | None,
    *,
    reason: str | None = None,
    usage: Usage | None = None,
    tasks: int | None = None,
) -> None:
    """The one place where a unit ends: budget, record, questions, frontier."""
    work = run.works.pop(key)
    unit, record = work.unit, run.records[work.unit.task]
    run.waits.pop(key, None)
    if key in run.ahead:
        run.ahead.remove(key)
    spent = usage or (output.usage if output else Usage())
    if output is not None and output.tasks is not None:
        tasks = _counted(work, output.tasks)
    if outcome is Outcome.SKIPPED and tasks is None and not usage:
        account.refund(run.account, key)  # its condition said no: it never ran
    else:
        account.settle(run.account, key, spent, tasks)
    record.usage += spent
    if output is not None:
        record.attempts += output.attempts
        record.saved_tokens += output.saved_tokens
        record.saved_usd_nano += output.saved_usd_nano
        reason = reason or output.note
    if reason:
        record.reason = reason
    if work.group:
        forget_member(run, key, work.group)
    people.forget_questions(run, step, key)
    stored = output.output if output else None
    if unit.index is None:
        end_task(run, unit, outcome, stored, step.now)
        people.drop_early(run, unit.task)
        return
    record.items[unit.index] = stored if outcome.is_good else None
    record.item_outcomes[unit.index] = outcome
    if record.batches is not None:
        record.batches.sources[unit.index] = Stored()  # nobody reads them any more
    run.is_stop_checked = False
    if run.frontier.end_unit(unit.task, unit.index):
        close_map(run, step, unit.task)


def cancel_unit(run: RunState, step: Step, key: str) -> None:
    """Cancel a unit at work; it ends at once when it only waits for a person or for budget."""
    work = run.works[key]
    if work.command:
        if not work.is_cancelled:
            step.do(Cancel(work.command))
        work.is_cancelled = True
        return
    if key in run.questions:
        people.close_question(run, step, key)
    leave_group(run, step, work.unit)
    end_cancelled(run, step, key)


def works_of(run: RunState, task: TaskId) -> Sequence[str]:
    """The keys of a task's units at work."""
    return [key for key, work in run.works.items() if work.unit.task == task]
