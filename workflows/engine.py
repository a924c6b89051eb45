"""Drives one run: the frontier, the ledger and the records, and the coroutines of running tasks.

The pure machines decide; this is the only place where their state changes during a run. A task's
failure is an outcome, never an exception among siblings.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from temporalio import workflow

from planloom.planner.compile.expand import parallel_of
from planloom.planner.compile.pipeline import inputs_of
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.contract.requests import Grant, RunRequest
from planloom.planner.contract.results import Awaiting
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Body, Plan, Task
from planloom.planner.language.values import PRIORITY_KEYS, Outcome, Stored, TaskId, Usage
from planloom.workflows.clock import Clock, TimeCap
from planloom.workflows.conditions import Conditions
from planloom.workflows.dispatch import Dispatcher, Piece, is_worth_a_round, rounds_name
from planloom.workflows.grants import Grants
from planloom.workflows.machines.run.frontier import Frontier, Settled, State, Unit
from planloom.workflows.machines.run.nodes import node_of
from planloom.workflows.machines.run.record import Record
from planloom.workflows.machines.shared.approval import ApprovalState
from planloom.workflows.machines.shared.budget import Amount, Ledger, caps_from
from planloom.workflows.machines.shared.estimates import amounts_for, answer_room, prompt_tokens
from planloom.workflows.maps import Maps
from planloom.workflows.people import People
from planloom.workflows.sending import Sending
from planloom.workflows.settling import Settling
from planloom.workflows.shell.failures import BodyCancelled, BodyFailed, OutOfBudget
from planloom.workflows.speculation import Speculation
from planloom.workflows.stopping import Stopping

RUN_NOTES_MAX = 200
NAMES_MAX = 10
NOTE_MAX_CHARS = 500
"""Notes are part of the result: what a person sent may be long."""
ONE_TASK = Amount(tasks=1)


class Engine:
    """One run in motion. Created before its first signal; `open` gives it the catalog."""

    def __init__(self, request: RunRequest, started: datetime) -> None:
        self.request = request
        self.started = started
        self.catalog = Catalog()
        self.frontier = Frontier(parallel_of(request))
        self.ledger = Ledger(caps_from(request.budget, request.lineage.grant))
        self.desk = ApprovalState()
        self.plan: Plan | None = None
        self.tasks: dict[TaskId, Task] = {}
        self.inputs: dict[TaskId, tuple[TaskId, ...]] = {}
        self.records: dict[TaskId, Record] = {}
        self.values: dict[str, Stored] = {}
        self.notes: list[str] = []
        self.room_wait: str | None = None
        """The room in a pool that the whole run waits for."""
        self.clock = Clock(started, request.budget.seconds, request.lineage.deadline)
        self.lack: str | None = None
        """What the budget lacks for the next task, in words; the run is parked while it is set."""
        self.parked: dict[str, str] = {}
        """What the budget lacks for planner, joiner or a fallback that wait for it."""
        self.context = contextvars.copy_context()
        self.on_change: Callable[[], None] = _nothing
        self.conditions = Conditions(self)
        self.people = People(self)
        self.maps = Maps(self)
        self.grants = Grants(self)
        self.speculation = Speculation(self)
        self.stopping = Stopping(self)
        self.time = TimeCap(self)
        self.settling = Settling(self)
        self.jobs: dict[Unit, asyncio.Task[None]] = {}
        self.sending = Sending(self)
        self.bug: BaseException | None = None
        info = workflow.info()
        self.root = request.lineage.root or info.workflow_id
        self.dispatcher = Dispatcher(
            request,
            self.catalog,
            self.value_of,
            self.root,
            f"{info.workflow_id}/{info.first_execution_run_id}",
            deadline=lambda: self.clock.ends_at,
        )

    # -- small facts ------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the run started."""
        return (workflow.now() - self.started).total_seconds()

    def note(self, text: str) -> None:
        if len(self.notes) < RUN_NOTES_MAX:
            long = len(text) > NOTE_MAX_CHARS
            self.notes.append(text[: NOTE_MAX_CHARS - 1] + "…" if long else text)

    def open(self, catalog: Catalog) -> None:
        self.catalog = self.dispatcher.catalog = catalog
        lineage = self.request.lineage
        self.values["params"] = lineage.params or Stored(value=dict(self.request.params))
        self.values |= lineage.inputs
        self.time.open()

    def value_of(self, name: str) -> Stored | None:
        """What a reference's first name stands for: a finished task's output, or a given value."""
        record = self.records.get(TaskId(name))
        if record is not None:
            good = record.outcome is not None and record.outcome.is_good
            return record.output if good else None
        return self.values.get(name)

    @property
    def awaiting(self) -> Awaiting | None:
        if self.room_wait is not None:
            return "capacity"
        if self.desk.is_open or self.people.held:
            return "approval"
        if self.lack or self.parked or self.settling.is_time_up:
            return "budget"
        if self.people.waits and not self.jobs_but_people():
            return "human"
        return None

    def awaiting_detail(self) -> str | None:
        if self.room_wait is not None:
            return self.room_wait
        if self.desk.is_open:
            why = f" ({'; '.join(self.desk.why)})" if self.desk.why else ""
            return f"approval of revision {self.desk.revision}{why}"
        if self.people.held:
            return "approval of " + "; ".join(f"task {t}: {w}" for t, w in self.people.held.items())
        if lack := self.lack or next(iter(self.parked.values()), None):
            return f"The run is parked: {lack}. raise_budget lets it go on."
        if self.settling.is_time_up:
            return f"The run is parked: {self.clock.lack()}. raise_budget lets it go on."
        if self.people.waits:
            return "; ".join(f"{t}: {q}" for t, q in self.people.waits.items())
        return None

    # -- tasks come in ----------------------------------------------------------------------

    def add(self, tasks: Sequence[Task], ranks: dict[TaskId, float]) -> None:
        """Take in tasks of the plan. What an earlier run finished is settled at once."""
        names = {t.id for t in tasks} | set(self.tasks)
        for task in tasks:
            self.tasks[task.id] = task
            self.inputs[task.id] = tuple(i for i in inputs_of(task) if i in names)
            before = self.records.get(task.id)
            self.records[task.id] = Record(task.id)
            if before is not None:
                self.records[task.id].usage = before.usage
                self.records[task.id].version = before.version + 1
        nodes = [
            node_of(
                task,
                self.inputs[task.id],
                rank=ranks.get(task.id, 0.0),
                priority=PRIORITY_KEYS[task.priority or self.request.priority],
                is_ahead=self.speculation.may(task),
            )
            for task in tasks
        ]
        self.take_settled(self.frontier.add(nodes))
        for task in tasks:
            reused = self.request.reuse.get(task.id)
            if reused is not None and isinstance(self.frontier.state_of(task.id), State):
                self._reuse(task.id, reused.output)

    def _reuse(self, task: TaskId, output: Stored) -> None:
        record = self.records[task]
        record.output, record.outcome = output, Outcome.CACHED
        record.reason = f"reused from {self.request.lineage.forked_from or 'an earlier run'}"
        record.ready = record.started = record.ended = self.now()
        record.usage += Usage(cache_hits=1)
        self.take_settled(self.frontier.settle(task, Outcome.CACHED))

    def take_settled(self, settled: Iterable[Settled]) -> None:
        """Record tasks that ended because of their inputs."""
        for entry in settled:
            record, task = self.records[entry.task], self.tasks[entry.task]
            record.outcome, record.ended = entry.outcome, self.now()
            names = ", ".join(f"{i} {self._ended_as(i)}" for i in entry.because[:NAMES_MAX])
            more = len(entry.because) - NAMES_MAX
            names += f" and {more} more" if more > 0 else ""
            record.reason = f"input {names}" if names else "its inputs cannot be met"
            if entry.outcome is Outcome.FALLBACK:
                record.output = Stored(value=task.fallback)
            elif entry.outcome is Outcome.FAILED:
                record.fail(record.reason, "input")

    def _ended_as(self, task: TaskId) -> str:
        outcome = self.frontier.outcome_of(task)
        return outcome.value if outcome else "unfinished"

    # -- starting ---------------------------------------------------------------------------

    def pump(self) -> None:
        """Start all that may start now, best first, as far as time, budget and slots reach."""
        if self.clock.lack() is not None:
            return
        self.lack = None
        if self.grants.wanted:
            self.grants.grant_more()
        self.speculation.release()
        while (unit := self.frontier.next_ready()) is not None:
            if not self.sending.may_start():
                return
            task = self.tasks[unit.task]
            if task.approval and unit.task not in self.people.allowed and unit.index is None:
                self.frontier.start(unit)
                self.frontier.hold(unit.task)
                self.people.hold(task)
                continue
            if self.speculation.must_wait(unit, task):
                self.speculation.hold(unit)
                continue
            grant = self._reserve(unit, task)
            if grant is None:
                return
            self.frontier.start(unit)
            self.sending.started(self.body_of(unit, task))
            # A task may be started from a signal's handler: its spans still belong to the run.
            job = asyncio.create_task(self._run(unit, task, grant), context=self.context)
            self.jobs[unit] = job
            job.add_done_callback(lambda job, unit=unit: self._job_done(unit, job))  # type: ignore[misc]

    async def reserve(self, key: str, want: Amount, least: Amount) -> Amount:
        """Set an amount aside for planner or joiner, parking the run until there is room.

        Raises:
            OutOfBudget: nothing that runs could give any back, and the run is not to park.
        """
        ledger = self.ledger
        while True:
            await self.time.wait(key)
            if (granted := ledger.reserve(key, want, least)) is not None:
                break
            if not ledger.reserved:
                lack = f"{key.split('.')[0]} {ledger.shortfall(least)}"
                if not self.grants.ask(least) and self.on_budget == "partial":
                    raise OutOfBudget(lack)
                self.parked[key] = lack
                self.on_change()
            before = (ledger.caps, len(ledger.reserved))
            try:
                await workflow.wait_condition(
                    lambda before=before: (ledger.caps, len(ledger.reserved)) != before  # type: ignore[misc]
                )
            finally:
                self.parked.pop(key, None)
        ledger.check()
        return granted

    def excuse(self, task: TaskId) -> None:
        """Its cancellation is no failure of the run: nobody needs it any more."""
        self.records[task].is_excused = True

    def drop(self, task: TaskId) -> None:
        """Forget a task that has not started: a new revision left it out."""
        self.people.held.pop(task, None)
        self.frontier.drop([task])
        for known in (self.tasks, self.inputs, self.records):
            known.pop(task, None)

    def reopen(self) -> None:
        """More tasks may come: a replan is being written."""
        self.frontier.reopen()
        if self.stopping.reason is not None:
            self.stopping.reason, self.frontier.is_stopped = None, False

    async def drain(self) -> None:
        """Stop what runs and wait for its end."""
        self.stopping.stop(self.stopping.reason or "the run ends")
        await workflow.wait_condition(lambda: self.is_settled)
        self.stopping.sweep()

    def key_of(self, unit: Unit) -> str:
        return unit.task if unit.index is None else f"{unit.task}[{unit.index}]"

    def body_of(self, unit: Unit, task: Task) -> Body:
        if unit.mode == "fallback" and (alternative := task.fallback_body) is not None:
            return alternative
        return task

    def _reserve(self, unit: Unit, task: Task) -> Amount | None:
        """Set the unit's worst case aside; None parks the run, or waits for others to settle."""
        body = self.body_of(unit, task)
        if task.map is not None and unit.index is None:
            want = least = Amount()
        else:
            want, least = amounts_for(task, body, self.catalog, self._model(body), self.value_of)
        granted = self.ledger.reserve(self.key_of(unit), want, least)
        if granted is None and set(self.ledger.reserved) <= set(self.grants.wanted):
            self.grants.park(f'Task "{self.key_of(unit)}" {self.ledger.shortfall(least)}', least)
        self.ledger.check()
        return granted

    @property
    def on_budget(self) -> str:
        return self.request.budget.on_budget or self.request.on_budget

    def _model(self, body: Body) -> str | None:
        named = body.ask_body().model if body.ask is not None else None
        return self.dispatcher.model_for("worker", named)

    def _job_done(self, unit: Unit, job: asyncio.Task[None]) -> None:
        if job.cancelled() and self.jobs.pop(unit, None) is not None:
            # Cancelled before its first step, so that nothing in it could see it.
            self._end_cancelled(unit)
            self.pump()  # what its end settles may be ready now
            self.on_change()
        self.keep_bug(job)

    def _end_cancelled(self, unit: Unit, how: BodyCancelled | None = None) -> None:
        reason = self.stopping.why.get(unit.task) or self.stopping.reason or "cancelled"
        usage, tasks = (how.usage, how.tasks) if how is not None else (None, None)
        self.end(unit, Outcome.CANCELLED, None, reason=reason, usage=usage, tasks=tasks)

    def keep_bug(self, job: asyncio.Task[None]) -> None:
        # `Settling` waits for this too: an exception nobody awaits is a run that hangs for ever.
        if not job.cancelled() and (bug := job.exception()):
            self.bug = self.bug or bug

    # -- running ----------------------------------------------------------------------------

    async def _run(self, unit: Unit, task: Task, granted: Amount) -> None:
        record = self.records[task.id]
        if record.started is None or unit.index is None:
            record.ready = record.ready if record.ready is not None else self.now()
            record.started = self.now()
        try:
            if unit.index is None and self.speculation.is_ahead(task):
                await self.speculation.run(unit, task, granted)
            elif unit.index is None and not await self.conditions.wants(task):
                self.end(unit, Outcome.SKIPPED, None, reason=f"when: {task.when}")
            elif task.map is not None and unit.index is None and unit.mode == "body":
                await self.maps.expand(unit, task)
            else:
                await self.carry_out(unit, task, granted)
        except BodyFailed as failed:
            await self._failed(unit, task, failed)
        except BodyCancelled as cancelled:
            self._end_cancelled(unit, cancelled)
        except asyncio.CancelledError:
            self._end_cancelled(unit)
        finally:
            self.jobs.pop(unit, None)
        await self.stopping.check()
        self.pump()
        self.on_change()

    def piece_of(self, unit: Unit, task: Task, granted: Amount) -> Piece:
        body, record = self.body_of(unit, task), self.records[task.id]
        name = self.key_of(unit) + (".fallback" if unit.mode == "fallback" else "")
        if record.version > 1:
            # The activity of the one before may still be ending: the server takes an id once.
            name += f".v{record.version}"
        caps, room, reserved = self.ledger.caps, None, None
        if body.kind == "ask" and (caps.tokens is not None or caps.usd_nano is not None):
            ask = body.ask_body()
            prompt = prompt_tokens([ask.prompt, ask.context, ask.system], self.value_of)
            room = answer_room(granted, prompt, ask.max_tokens)
            reserved = granted.tokens if caps.tokens is not None else None
        grant = None
        if body.kind in ("agent", "team", "plan"):
            grant = Grant(
                tokens=granted.tokens if caps.tokens is not None else None,
                usd_nano=granted.usd_nano if caps.usd_nano is not None else None,
                tasks=granted.tasks - 1 if caps.tasks is not None else None,
            )
        revision = self.desk.revision
        piece = Piece(
            task, body, name, grant=grant, max_tokens=room, tokens_max=reserved, revision=revision
        )
        if unit.index is not None:
            source = record.items_source
            items = source.value if isinstance(source.value, list) else []
            item = Stored(value=items[unit.index]) if source.is_inline else source
            listed = not source.is_inline
            piece = replace(piece, item=item, is_item_of_list=listed, index=unit.index)
        return rounds_name(piece, self.settling.round)

    async def carry_out(self, unit: Unit, task: Task, granted: Amount) -> None:
        piece = self.piece_of(unit, task, granted)
        if piece.body.kind == "human":
            output = await self.people.ask(piece)
        else:
            output = await self.dispatcher.carry_out(piece)
        outcome = Outcome.FALLBACK if unit.mode == "fallback" else output.outcome
        self.end(unit, outcome, output)

    async def _failed(self, unit: Unit, task: Task, failed: BodyFailed) -> None:
        """Fallback value, then alternative path, then the failure itself."""
        record = self.records[task.id]
        record.fail(failed.message, failed.error_class, is_worth_a_round(failed, self.catalog))
        record.attempts += failed.attempts
        if unit.mode == "fallback" or not task.has_fallback:
            outcome = Outcome.SKIPPED if task.on_error == "skip" else Outcome.FAILED
            self.end(unit, outcome, None, usage=failed.usage, tasks=failed.tasks)
            return
        if task.fallback_body is None:
            output = TaskOutput(output=Stored(value=task.fallback), attempts=0, usage=failed.usage)
            self.end(unit, Outcome.FALLBACK, output)
            return
        self.settle_budget(unit, failed.usage, tasks=failed.tasks)
        second = replace(unit, mode="fallback")
        body = self.body_of(second, task)
        want, least = amounts_for(task, body, self.catalog, self._model(body), self.value_of)
        # It is the same task still: only what runs inside it counts.
        want, least = want - ONE_TASK, least - ONE_TASK
        try:
            granted = await self.reserve(self.key_of(unit), want, least)
            await self._carry_out_as(unit, second, task, granted)
        except OutOfBudget as lack:
            record.error = f"{record.error}; no budget for the fallback: {lack}"
            self.end(unit, Outcome.FAILED, None)
        except BodyFailed as again:
            record.fail(f"{failed.message}; then the fallback: {again.message}", again.error_class)
            record.attempts += again.attempts
            outcome = Outcome.SKIPPED if task.on_error == "skip" else Outcome.FAILED
            self.end(unit, outcome, None, usage=again.usage, tasks=again.tasks - 1)
        except BodyCancelled as cancelled:
            self._end_cancelled(unit, cancelled)
        except asyncio.CancelledError:
            self._end_cancelled(unit)

    async def _carry_out_as(self, unit: Unit, second: Unit, task: Task, granted: Amount) -> None:
        piece = self.piece_of(second, task, granted)
        if piece.body.kind == "human":
            output = await self.people.ask(piece)
        else:
            output = await self.dispatcher.carry_out(piece)
        self.end(unit, Outcome.FALLBACK, output)

    # -- ending -----------------------------------------------------------------------------

    def settle_budget(
        self, unit: Unit, usage: Usage, is_task: bool = True, tasks: int | None = None
    ) -> None:
        key = self.key_of(unit)
        if key not in self.ledger.reserved:
            return
        if is_task:
            self.ledger.settle(key, usage, tasks)
        else:
            self.ledger.refund(key)
        self.ledger.check()

    def end(
        self,
        unit: Unit,
        outcome: Outcome,
        output: TaskOutput | None,
        *,
        reason: str | None = None,
        usage: Usage | None = None,
        tasks: int | None = None,
    ) -> None:
        """The one place where a unit ends: budget, record, frontier."""
        record = self.records[unit.task]
        self.people.forget(self.key_of(unit))
        spent = usage or (output.usage if output else Usage())
        tasks = output.tasks if output is not None else tasks
        is_task = outcome is not Outcome.SKIPPED or bool(usage)
        self.settle_budget(unit, spent, is_task=is_task, tasks=tasks)
        record.usage += spent
        if output is not None:
            record.attempts += output.attempts
            record.saved_tokens += output.saved_tokens
            record.saved_usd_nano += output.saved_usd_nano
            reason = reason or output.note
        if reason:
            record.reason = reason
        stored = output.output if output else None
        if unit.index is None:
            self.finish(unit, outcome, stored)
            return
        record.items[unit.index] = stored if outcome.is_good else None
        record.item_outcomes[unit.index] = outcome
        if self.frontier.end_unit(unit.task, unit.index):
            self.maps.close(self.tasks[unit.task])

    def finish(self, unit: Unit, outcome: Outcome, output: Stored | None) -> None:
        record = self.records[unit.task]
        record.outcome, record.output, record.ended = outcome, output, self.now()
        if outcome is Outcome.FAILED and self.request.on_failure == "fail":
            self.stopping.stop(f"task {unit.task} failed: {record.error}")
        self.take_settled(self.frontier.end(unit.task, outcome))

    # -- waiting ----------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing runs, and nothing will without another plan or a person."""
        if self.jobs or self.maps.closing:
            return False
        return self.frontier.is_over or self.frontier.is_stopped

    def jobs_but_people(self) -> bool:
        """Whether anything runs that does not wait: for a person, budget, or its condition."""
        waits = self.people.waits
        return not all(
            key in self.parked
            or self.frontier.is_idle(unit.task)
            # An agent of a child run asks under its task's id and what is below it.
            or any(w == key or w.startswith(f"{key}.") for w in waits)
            for unit in self.jobs
            if (key := self.key_of(unit))
        )


def _nothing() -> None:
    return
