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
from typing import Any, Literal

from temporalio import workflow

from planner.catalog import Site
from planner.compiler import inputs_of
from planner.conditions import evaluate, roots_of_condition
from planner.contract import (
    PARALLEL_DEFAULT,
    Awaiting,
    CompleteTask,
    Grant,
    GrantWanted,
    RaiseBudget,
    RunRequest,
)
from planner.jobs import ResolveJob, TaskOutput
from planner.passes.prune import is_kept_for_itself
from planner.plan import Body, Plan, Task
from planner.references import roots_of
from planner.schema_check import check_value
from planner.values import (
    NANO,
    PRIORITY_KEYS,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    TaskId,
    Usage,
)
from workflows import doors
from workflows.approval import ApprovalDesk
from workflows.budget import Amount, Ledger, caps_from
from workflows.dispatch import (
    BodyCancelled,
    BodyFailed,
    Dispatcher,
    Piece,
    is_worth_a_round,
    outputs_text,
    rounds_name,
)
from workflows.estimates import amounts_for, answer_room, prompt_tokens
from workflows.frontier import Frontier, Node, Settled, State, Unit
from workflows.record import Record

NOTES_MAX = 200
SPECULATIONS_MAX = 8
"""Branches that may run ahead of their conditions at once: the speculation budget."""


class OutOfBudget(Exception):
    """The budget ends the run (`on_budget: partial`): what was lacking, in words."""


MAP_INLINE_BYTES = 2_000


class Engine:
    """One run in motion. Created before its first signal; `open` gives it the site."""

    def __init__(self, request: RunRequest, started: datetime) -> None:
        self.request = request
        self.started = started
        self.site = Site()
        parallel = request.budget.parallel or PARALLEL_DEFAULT
        self.frontier = Frontier(parallel)
        self.ledger = Ledger(caps_from(request.budget, request.lineage.grant))
        self.desk = ApprovalDesk()
        self.plan: Plan | None = None
        self.tasks: dict[TaskId, Task] = {}
        self.inputs: dict[TaskId, tuple[TaskId, ...]] = {}
        self.records: dict[TaskId, Record] = {}
        self.values: dict[str, Stored] = {}
        self.notes: list[str] = []
        self.seconds_cap = request.budget.seconds
        self.is_time_up = False
        self.lack: str | None = None
        """What the budget lacks for the next task, in words; the run is parked while it is set."""
        self.stop_reason: str | None = None
        self.round = 0
        self.context = contextvars.copy_context()
        self.is_paused_by_person = False
        self.on_change: Callable[[], None] = _nothing
        self.questions: dict[TaskId, str] = {}
        self.held: dict[TaskId, str] = {}
        self.speculating = 0
        self.speculations = {"won": 0, "lost": 0}
        self._wanted: dict[str, GrantWanted] = {}
        self._asked_parent = False
        self._answers: dict[TaskId, CompleteTask] = {}
        self._allowed: set[TaskId] = set()
        self._jobs: dict[Unit, asyncio.Task[None]] = {}
        self._closing: dict[TaskId, asyncio.Task[None]] = {}
        """Maps whose items have all ended and whose output is being made: not to be cancelled."""
        self._why_cancelled: dict[TaskId, str] = {}
        self._bug: BaseException | None = None
        info = workflow.info()
        self.root = request.lineage.root or info.workflow_id
        self.dispatcher = Dispatcher(
            request,
            self.site,
            self.value_of,
            self.root,
            f"{info.workflow_id}/{info.first_execution_run_id}",
        )

    # -- small facts ------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the run started."""
        return (workflow.now() - self.started).total_seconds()

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def open(self, site: Site) -> None:
        self.site = self.dispatcher.site = site
        lineage = self.request.lineage
        self.values["params"] = lineage.params or Stored(value=dict(self.request.params))
        self.values |= lineage.inputs

    def value_of(self, name: str) -> Stored | None:
        """What a reference's first name stands for: a finished task's output, or a given value."""
        record = self.records.get(TaskId(name))
        if record is not None:
            good = record.outcome is not None and record.outcome.is_good
            return record.output if good else None
        return self.values.get(name)

    @property
    def awaiting(self) -> Awaiting | None:
        if self.desk.is_open or self.held:
            return "approval"
        if self.lack or self.is_time_up:
            return "budget"
        if self.questions and len(self.questions) == len(self.frontier.running()):
            return "human"
        return None

    def awaiting_detail(self) -> str | None:
        if self.desk.is_open:
            why = f" ({'; '.join(self.desk.why)})" if self.desk.why else ""
            return f"approval of revision {self.desk.revision}{why}"
        if self.held:
            return "approval of " + "; ".join(f"task {t}: {w}" for t, w in self.held.items())
        if self.lack:
            return f"The run is parked: {self.lack}. raise_budget lets it go on."
        if self.is_time_up:
            return f"The run is parked: its {self.seconds_cap:g} s are over. raise_budget …"
        if self.questions:
            return "; ".join(f"{t}: {q}" for t, q in self.questions.items())
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
        nodes = [self._node(task, ranks.get(task.id, 0.0)) for task in tasks]
        self._take(self.frontier.add(nodes))
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
        self._take(self.frontier.settle(task, Outcome.CACHED))

    def _node(self, task: Task, rank: float) -> Node:
        hard = [*task.depends_on, *roots_of(_body_values(task)), *roots_of(task.map)]
        known = self.inputs[task.id]
        inputs = tuple(i for i in known if i in hard)
        soft = tuple(i for i in known if i not in hard)
        fallback: Literal["value", "body"] | None = None
        if task.has_fallback:
            fallback = "body" if task.fallback_body is not None else "value"
        return Node(
            task.id,
            inputs=inputs,
            conditions=() if self._may_speculate(task) else soft,
            requires=task.requires,
            priority=PRIORITY_KEYS[task.priority or self.request.priority],
            rank=rank,
            fallback=fallback,
            on_error=task.on_error,
            is_free=task.human is not None,
        )

    def _take(self, settled: Iterable[Settled]) -> None:
        """Record tasks that ended because of their inputs."""
        for entry in settled:
            record, task = self.records[entry.task], self.tasks[entry.task]
            record.outcome, record.ended = entry.outcome, self.now()
            names = ", ".join(f"{i} {self._ended_as(i)}" for i in entry.because)
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
        """Start all that may start now, best first, as far as budget and slots reach."""
        self.lack = None
        if self._wanted:
            self._grant_more()
        while (unit := self.frontier.next_ready()) is not None:
            task = self.tasks[unit.task]
            if task.approval and unit.task not in self._allowed and unit.index is None:
                self.frontier.start(unit)
                self.frontier.hold(unit.task)
                self.held[unit.task] = task.description or f"{task.kind} {task.tool or ''}".strip()
                continue
            grant = self._reserve(unit, task)
            if grant is None:
                return
            self.frontier.start(unit)
            # A task may be started from a signal's handler: its spans still belong to the run.
            job = asyncio.create_task(self._run(unit, task, grant), context=self.context)
            self._jobs[unit] = job
            job.add_done_callback(lambda job, unit=unit: self._job_done(unit, job))  # type: ignore[misc]

    async def reserve(self, key: str, want: Amount, least: Amount) -> Amount:
        """Set an amount aside for planner or joiner, parking the run until there is room.

        Raises:
            OutOfBudget: nothing that runs could give any back, and the run is not to park.
        """
        ledger = self.ledger
        while (granted := ledger.reserve(key, want, least)) is None:
            if not ledger.reserved:
                self.lack = f"{key.split('.')[0]} {ledger.shortfall(least)}"
                if self._on_budget == "partial":
                    raise OutOfBudget(self.lack)
                self.on_change()
            before = (ledger.caps, len(ledger.reserved))
            await workflow.wait_condition(
                lambda before=before: (ledger.caps, len(ledger.reserved)) != before  # type: ignore[misc]
            )
        self.lack = None
        ledger.check()
        return granted

    def likely_seconds(self, task: TaskId) -> float:
        """How long a task will likely take, for its rank."""
        known = self.tasks.get(task)
        if known is not None and known.estimate and known.estimate.seconds is not None:
            return known.estimate.seconds
        return self.site.tool_seconds.get(known.tool or "", 1.0) if known is not None else 1.0

    def excuse(self, task: TaskId) -> None:
        """Its cancellation is no failure of the run: nobody needs it any more."""
        self.records[task].is_excused = True

    def drop(self, task: TaskId) -> None:
        """Forget a task that has not started: a new revision left it out."""
        self.held.pop(task, None)
        self.frontier.drop([task])
        for known in (self.tasks, self.inputs, self.records):
            known.pop(task, None)

    def reopen(self) -> None:
        """More tasks may come: a replan is being written."""
        self.frontier.reopen()
        if self.stop_reason is not None:
            self.stop_reason, self.frontier.is_stopped = None, False

    async def drain(self) -> None:
        """Stop what runs and wait for its end."""
        self.stop(self.stop_reason or "the run ends")
        await workflow.wait_condition(lambda: self.is_settled)
        self.sweep()

    def _key(self, unit: Unit) -> str:
        return unit.task if unit.index is None else f"{unit.task}[{unit.index}]"

    def _body(self, unit: Unit, task: Task) -> Body:
        if unit.mode == "fallback" and (alternative := task.fallback_body) is not None:
            return alternative
        return task

    def _reserve(self, unit: Unit, task: Task) -> Amount | None:
        """Set the unit's worst case aside; None parks the run, or waits for others to settle."""
        body = self._body(unit, task)
        if task.map is not None and unit.index is None:
            want = least = Amount()
        else:
            want, least = amounts_for(task, body, self.site, self._model(body), self.value_of)
        granted = self.ledger.reserve(self._key(unit), want, least)
        if granted is None and set(self.ledger.reserved) <= set(self._wanted):
            self._park(f'Task "{self._key(unit)}" {self.ledger.shortfall(least)}', least)
        self.ledger.check()
        return granted

    def _park(self, lack: str, least: Amount) -> None:
        """Nothing that runs can give any budget back: ask the parent, a person, or end."""
        self.lack = lack
        parent = self.request.lineage.parent
        if parent is not None and self.request.lineage.grant is not None:
            if not self._asked_parent:
                self._asked_parent = True
                job = asyncio.create_task(self._ask_parent(parent, least))
                job.add_done_callback(self._keep_bug)
        elif self._on_budget == "partial":
            self.stop(f"budget: {self.lack}")

    async def _ask_parent(self, parent: str, least: Amount) -> None:
        me = workflow.info().workflow_id
        wanted = GrantWanted(
            child=me,
            name=me.removeprefix(f"{parent}/"),
            tokens=least.tokens,
            usd_nano=least.usd_nano,
            tasks=least.tasks,
        )
        await workflow.get_external_workflow_handle(parent).signal("grant_wanted", wanted)

    def take_grant_wanted(self, wanted: GrantWanted) -> None:
        """A child run has used its grant up."""
        key = next((k for k in self.ledger.reserved if wanted.name.startswith(k)), None)
        if key is not None:
            self._wanted[key] = wanted
            self.pump()
            self.on_change()

    def _grant_more(self) -> None:
        """Give waiting children what is free; with nothing left to wait for, park with them."""
        for key, wanted in list(self._wanted.items()):
            if key not in self.ledger.reserved:
                del self._wanted[key]
                continue
            least = Amount(wanted.tokens, wanted.usd_nano, wanted.tasks)
            want = least + Amount(least.tokens * 3, least.usd_nano * 3, 0)
            total = self.ledger.extend(key, want, least)
            if total is not None:
                del self._wanted[key]
                job = asyncio.create_task(self._send_grant(wanted.child, total))
                job.add_done_callback(self._keep_bug)
            elif set(self.ledger.reserved) <= set(self._wanted):
                self._park(f'Task "{key}" {self.ledger.shortfall(least)}', least)

    def budget_raised(self) -> None:
        """More room: a parent may be asked again when it runs out."""
        self._asked_parent = False

    async def _send_grant(self, child: str, total: Amount) -> None:
        caps = self.ledger.caps
        raised = RaiseBudget(
            tokens=total.tokens if caps.tokens is not None else None,
            usd=total.usd_nano / NANO if caps.usd_nano is not None else None,
            by="parent",
        )
        await workflow.get_external_workflow_handle(child).signal("raise_budget", raised)

    @property
    def _on_budget(self) -> str:
        return self.request.budget.on_budget or self.request.on_budget

    def _model(self, body: Body) -> str | None:
        named = body.ask_body().model if body.ask is not None else None
        return self.dispatcher.model_for("worker", named)

    def _job_done(self, unit: Unit, job: asyncio.Task[None]) -> None:
        if job.cancelled() and self._jobs.pop(unit, None) is not None:
            # Cancelled before its first step, so that nothing in it could see it.
            self._end_cancelled(unit)
        self._keep_bug(job)

    def _end_cancelled(self, unit: Unit) -> None:
        reason = self._why_cancelled.get(unit.task) or self.stop_reason or "cancelled"
        self._end(unit, Outcome.CANCELLED, None, reason=reason)

    def _keep_bug(self, job: asyncio.Task[None]) -> None:
        # `settle` waits for this too: an exception nobody awaits is a run that hangs for ever.
        if not job.cancelled() and (bug := job.exception()):
            self._bug = self._bug or bug

    # -- running ----------------------------------------------------------------------------

    async def _run(self, unit: Unit, task: Task, granted: Amount) -> None:
        record = self.records[task.id]
        if record.started is None or unit.index is None:
            record.ready = record.ready if record.ready is not None else self.now()
            record.started = self.now()
        try:
            if unit.index is None and self._is_ahead(task):
                await self._speculate(unit, task, granted)
            elif unit.index is None and not await self._is_wanted(task):
                self._end(unit, Outcome.SKIPPED, None, reason=f"when: {task.when}")
            elif task.map is not None and unit.index is None and unit.mode == "body":
                await self._expand(unit, task)
            else:
                await self._carry_out(unit, task, granted)
        except BodyFailed as failed:
            await self._failed(unit, task, failed)
        except (BodyCancelled, asyncio.CancelledError):
            self._end_cancelled(unit)
        finally:
            self._jobs.pop(unit, None)
        await self._check_stop()
        self.pump()
        self.on_change()

    # -- speculation ------------------------------------------------------------------------

    def _may_speculate(self, task: Task) -> bool:
        """`speculate` counts for tools without side effects, with a `when`, and without a map."""
        if not task.speculate or task.when is None or task.map is not None:
            return False
        spec = self.site.tool(task.tool) if task.tool else None
        return spec is not None and not spec.side_effects and task.fallback_body is None

    def _waits_of(self, task: Task) -> list[TaskId]:
        roots = roots_of_condition(task.when or "", self.tasks)
        return [TaskId(r) for r in roots if isinstance(self.frontier.state_of(TaskId(r)), State)]

    def _is_ahead(self, task: Task) -> bool:
        return self._may_speculate(task) and bool(self._waits_of(task))

    async def _speculate(self, unit: Unit, task: Task, granted: Amount) -> None:
        """Run the branch before its condition is known; cancel it when the condition says no."""
        if self.speculating >= SPECULATIONS_MAX:
            await workflow.wait_condition(lambda: not self._waits_of(task))
            if not await self._is_wanted(task):
                self._end(unit, Outcome.SKIPPED, None, reason=f"when: {task.when}")
                return
            await self._carry_out(unit, task, granted)
            return
        self.speculating += 1
        body = asyncio.create_task(self.dispatcher.carry_out(self._piece(unit, task, granted)))
        try:
            await workflow.wait_condition(lambda: not self._waits_of(task))
            if await self._is_wanted(task):
                output = await body
                self._end(unit, output.outcome, output)
                self.speculations["won"] += 1
                return
            self.speculations["lost"] += 1
            reason = f"when: {task.when}; was started ahead and cancelled"
            spent = body.result().usage if body.done() and not body.exception() else None
            self._end(unit, Outcome.SKIPPED, None, reason=reason, usage=spent)
        finally:
            self.speculating -= 1
            if not body.done():
                body.cancel()
            body.add_done_callback(_seen)

    async def _is_wanted(self, task: Task) -> bool:
        return task.when is None or await self.holds(task.when)

    async def holds(self, condition: str) -> bool:
        """Whether a condition over outcomes is true now."""
        roots = roots_of_condition(condition, {*self.tasks, *self.values})
        outcomes = {str(t): o.value for t, o in self.frontier.outcomes().items() if t in roots}
        found = {r: s for r in roots if (s := self.value_of(r)) is not None}
        try:
            if all(s.is_inline for s in found.values()):
                return evaluate(condition, outcomes, {r: s.value for r, s in found.items()})
        except ValueError as error:
            raise BodyFailed(f"when: {error}", "tool") from error
        job = ResolveJob(
            value=condition,
            mode="condition",
            bindings=Bindings(inputs=found),
            outcomes=outcomes,
        )
        return bool((await doors.resolve_value(job)).stored.value)

    def _piece(self, unit: Unit, task: Task, granted: Amount) -> Piece:
        body, record = self._body(unit, task), self.records[task.id]
        name = self._key(unit) + (".fallback" if unit.mode == "fallback" else "")
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
            )
        piece = Piece(task, body, name, grant=grant, max_tokens=room, tokens_max=reserved)
        if unit.index is not None:
            source = record.items_source
            items = source.value if isinstance(source.value, list) else []
            item = Stored(value=items[unit.index]) if source.is_inline else source
            listed = not source.is_inline
            piece = replace(piece, item=item, is_item_of_list=listed, index=unit.index)
        return rounds_name(piece, self.round)

    async def _carry_out(self, unit: Unit, task: Task, granted: Amount) -> None:
        piece = self._piece(unit, task, granted)
        if piece.body.kind == "human":
            output = await self._ask_person(piece)
        else:
            output = await self.dispatcher.carry_out(piece)
        outcome = Outcome.FALLBACK if unit.mode == "fallback" else output.outcome
        self._end(unit, outcome, output)

    async def _failed(self, unit: Unit, task: Task, failed: BodyFailed) -> None:
        """Fallback value, then alternative path, then the failure itself."""
        record = self.records[task.id]
        record.fail(failed.message, failed.error_class, is_worth_a_round(failed))
        record.attempts += failed.attempts
        if unit.mode == "fallback" or not task.has_fallback:
            outcome = Outcome.SKIPPED if task.on_error == "skip" else Outcome.FAILED
            self._end(unit, outcome, None, usage=failed.usage)
            return
        if task.fallback_body is None:
            output = TaskOutput(output=Stored(value=task.fallback), attempts=0, usage=failed.usage)
            self._end(unit, Outcome.FALLBACK, output)
            return
        self._settle_budget(unit, failed.usage)
        second = replace(unit, mode="fallback")
        body = self._body(second, task)
        want, least = amounts_for(task, body, self.site, self._model(body), self.value_of)
        granted = self.ledger.reserve(self._key(unit), want, least)
        if granted is None:
            record.error = f"{record.error}; no budget for the fallback"
            self._end(unit, Outcome.FAILED, None)
            return
        try:
            await self._carry_out_as(unit, second, task, granted)
        except BodyFailed as again:
            record.fail(f"{failed.message}; then the fallback: {again.message}", again.error_class)
            record.attempts += again.attempts
            outcome = Outcome.SKIPPED if task.on_error == "skip" else Outcome.FAILED
            self._end(unit, outcome, None, usage=again.usage)
        except (BodyCancelled, asyncio.CancelledError):
            self._end(unit, Outcome.CANCELLED, None)

    async def _carry_out_as(self, unit: Unit, second: Unit, task: Task, granted: Amount) -> None:
        piece = self._piece(second, task, granted)
        if piece.body.kind == "human":
            output = await self._ask_person(piece)
        else:
            output = await self.dispatcher.carry_out(piece)
        self._end(unit, Outcome.FALLBACK, output)

    # -- maps -------------------------------------------------------------------------------

    async def _expand(self, unit: Unit, task: Task) -> None:
        piece = Piece(task, task, f"{task.id}.items")
        source, count = await self.dispatcher.resolve_list(piece, task.map)
        record = self.records[task.id]
        self._settle_budget(unit, Usage(), is_task=False)
        if count == 0:
            self._finish(unit, Outcome.SUCCEEDED, Stored(value=[]))
            return
        record.items_source = source
        record.items = [None] * count
        record.item_outcomes = [None] * count
        self.frontier.expand(task.id, count)

    async def _end_map(self, task: Task) -> None:
        """All items have ended: the list of their outputs, null where there is none."""
        record = self.records[task.id]
        try:
            await self._make_list(task, record)
        finally:
            self._closing.pop(task.id, None)
        await self._check_stop()
        self.pump()

    async def _make_list(self, task: Task, record: Record) -> None:
        ended = record.item_outcomes
        if Outcome.CANCELLED in ended or None in ended:
            self._finish_map(task, Outcome.CANCELLED, None)
            return
        if not any(o is not None and o.is_good for o in ended):
            skipped = task.on_error == "skip"
            self._finish_map(task, Outcome.SKIPPED if skipped else Outcome.FAILED, None)
            return
        if outputs_text(record.items) <= MAP_INLINE_BYTES:
            values: list[JsonValue] = [s.value if s else None for s in record.items]
            if all(s is None or s.is_inline for s in record.items):
                self._finish_map(task, Outcome.SUCCEEDED, Stored(value=values))
                return
        inputs = {f"i{n}": s or Stored() for n, s in enumerate(record.items)}
        job = ResolveJob(
            value=[f"${{{name}}}" for name in inputs], bindings=Bindings(inputs=inputs)
        )
        self._finish_map(task, Outcome.SUCCEEDED, (await doors.resolve_value(job)).stored)

    def _finish_map(self, task: Task, outcome: Outcome, output: Stored | None) -> None:
        record = self.records[task.id]
        record.outcome, record.output, record.ended = outcome, output, self.now()
        record.items = []
        bad = sum(1 for o in record.item_outcomes if o is None or not o.is_good)
        if bad and outcome is Outcome.SUCCEEDED:
            record.reason = f"{bad} of {len(record.item_outcomes)} items have no value"
        self._take(self.frontier.end(task.id, outcome, was_expanded=True))

    # -- ending -----------------------------------------------------------------------------

    def _settle_budget(self, unit: Unit, usage: Usage, is_task: bool = True) -> None:
        key = self._key(unit)
        if key not in self.ledger.reserved:
            return
        if is_task:
            self.ledger.settle(key, usage)
        else:
            self.ledger.refund(key)
        self.ledger.check()

    def _end(
        self,
        unit: Unit,
        outcome: Outcome,
        output: TaskOutput | None,
        *,
        reason: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        """The one place where a unit ends: budget, record, frontier."""
        record = self.records[unit.task]
        spent = usage or (output.usage if output else Usage())
        self._settle_budget(unit, spent, is_task=outcome is not Outcome.SKIPPED or bool(usage))
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
            self._finish(unit, outcome, stored)
            return
        record.items[unit.index] = stored if outcome.is_good else None
        record.item_outcomes[unit.index] = outcome
        if self.frontier.end_unit(unit.task, unit.index):
            self._close_map(self.tasks[unit.task])

    def _close_map(self, task: Task) -> None:
        self._closing[task.id] = asyncio.create_task(self._end_map(task))
        self._closing[task.id].add_done_callback(self._keep_bug)

    def _finish(self, unit: Unit, outcome: Outcome, output: Stored | None) -> None:
        record = self.records[unit.task]
        record.outcome, record.output, record.ended = outcome, output, self.now()
        if outcome is Outcome.FAILED and self.request.on_failure == "fail":
            self.stop(f"task {unit.task} failed: {record.error}")
        self._take(self.frontier.end(unit.task, outcome))

    # -- people -----------------------------------------------------------------------------

    async def _ask_person(self, piece: Piece) -> TaskOutput:
        task, human = piece.task, piece.body.human_body()
        question = await self.dispatcher.resolve(piece, human.question)
        self.questions[task.id] = str(question.value or question.preview)
        try:
            await workflow.wait_condition(
                lambda: task.id in self._answers,
                timeout=task.timeout,
                timeout_summary=f"{task.id}: answer",
            )
        except TimeoutError:
            raise BodyFailed(f"nobody answered within {task.timeout:g} s", "timeout") from None
        finally:
            self.questions.pop(task.id, None)
        answer = self._answers.pop(task.id)
        return TaskOutput(
            output=Stored(value=answer.output),
            note=f'answered by "{answer.by}"' if answer.by else None,
        )

    def problem_with_answer(self, answer: CompleteTask) -> str | None:
        task_id = TaskId(answer.id)
        task = self.tasks.get(task_id)
        if task is None:
            return f'complete_task: no task "{answer.id}"'
        if task_id not in self.questions:
            state = self.frontier.state_of(task_id)
            return f'complete_task: task "{answer.id}" does not wait for a person; it is {state}'
        schema = task.human_body().schema_ if task.human is not None else None
        problems = check_value(answer.output, schema) if schema else []
        if problems:
            return "complete_task: " + "; ".join(p.line() for p in problems)
        return None

    def answer(self, answer: CompleteTask) -> None:
        self._answers[TaskId(answer.id)] = answer

    def decide_task(self, task: TaskId, approve: bool, by: str | None, note: str | None) -> None:
        """A person let a held task run, or not."""
        self.held.pop(task)
        who = f' by "{by}"' if by else ""
        if approve:
            self._allowed.add(task)
            self.frontier.release(task)
        else:
            record = self.records[task]
            record.outcome, record.ended = Outcome.CANCELLED, self.now()
            record.reason = f"not approved{who}" + (f": {note}" if note else "")
            self._take(self.frontier.settle(task, Outcome.CANCELLED))
        self.pump()

    # -- stopping ---------------------------------------------------------------------------

    def problem_with_cancel(self, task: TaskId) -> str | None:
        state = self.frontier.state_of(task)
        if state is None:
            known = ", ".join(self.tasks)[:200]
            return f'cancel_task: no task "{task}". Tasks: {known}'
        if isinstance(state, Outcome):
            return f'cancel_task: task "{task}" has ended: {state}'
        return None

    def cancel(self, task: TaskId, reason: str) -> None:
        """Cancel one task that has not ended."""
        self._why_cancelled[task] = reason
        if self.frontier.state_of(task) is State.RUNNING:
            units = [u for u in self._jobs if u.task == task]
            if self.records[task].item_outcomes:
                self.frontier.abandon_units(task)
            for unit in units:
                self._jobs[unit].cancel()
            if not units and task not in self._closing:
                self._close_map(self.tasks[task])
            return
        self.held.pop(task, None)
        record = self.records[task]
        record.outcome, record.ended, record.reason = Outcome.CANCELLED, self.now(), reason
        self._take(self.frontier.settle(task, Outcome.CANCELLED))
        self.pump()

    def stop(self, reason: str) -> None:
        """Start nothing more and cancel what runs: the end of the run is decided."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self.frontier.is_stopped = True
        self.lack = None
        self._cancel_waiting()
        for unit in list(self._jobs):
            self._jobs[unit].cancel()

    def _cancel_waiting(self) -> None:
        """What has not started is cancelled."""
        for task in self.frontier.unfinished():
            if self.frontier.state_of(task) in (State.WAITING, State.READY):
                record = self.records[task]
                record.outcome, record.ended = Outcome.CANCELLED, self.now()
                record.reason = self.stop_reason
                self.held.pop(task, None)
                self._take(self.frontier.settle(task, Outcome.CANCELLED))

    def sweep(self) -> None:
        """After a stop, when nothing runs: maps whose items did not all start end too."""
        self._cancel_waiting()
        for task in self.frontier.unfinished():
            self.frontier.abandon_units(task)
            self.records[task].reason = self.stop_reason
            self._finish_map(self.tasks[task], Outcome.CANCELLED, None)

    async def _check_stop(self) -> None:
        """End early once `stop_when` is true, or the joiner's inputs are there."""
        if self.stop_reason is not None or self.plan is None:
            return
        condition = self.plan.stop_when or self.request.stop_when
        if condition is not None and await self.holds(condition):
            self.stop(f"stop_when: {condition}")
        elif self._may_join_early():
            self.stop("early join: " + ", ".join(self.plan.join or ()))

    def _may_join_early(self) -> bool:
        """All that the joiner is shown is there, and what still runs changes nothing outside."""
        wanted = self.plan.join if self.plan is not None else None
        if not wanted or not self.frontier.is_closed:
            return False
        if not all((o := self.frontier.outcome_of(t)) and o.is_good for t in wanted):
            return False
        left = self.frontier.unfinished()
        return bool(left) and not any(is_kept_for_itself(self.tasks[t], self.site) for t in left)

    # -- waiting ----------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing runs, and nothing will without another plan or a person."""
        if self._jobs or self._closing:
            return False
        return self.frontier.is_over or self.frontier.is_stopped

    async def settle(self, until: Callable[[], bool]) -> None:
        """Run until nothing is left to do, with DAG-level rounds for what may pass.

        Returns early, with tasks still running, when `until` becomes true.
        """
        while True:
            self.pump()
            self.on_change()
            await self._until_settled(until)
            if until():
                return
            if self.frontier.is_stopped:
                self.sweep()
                return
            again = [t for t, r in self.records.items() if self._deserves_a_round(r)]
            if not again or self.round >= self.request.retry_rounds:
                return
            self.round += 1
            for task in self.frontier.retry_round(again):
                self.records[task].reset()
            self.note(f"round {self.round + 1}: {', '.join(again[:20])}")

    def _deserves_a_round(self, record: Record) -> bool:
        return record.outcome is Outcome.FAILED and record.may_pass

    async def _until_settled(self, until: Callable[[], bool]) -> None:
        while True:
            left = None if self.seconds_cap is None else self.seconds_cap - self.now()
            if left is not None and left <= 0 and not self.is_time_up:
                self._time_is_up()
            timeout = left if left is not None and left > 0 else None
            try:
                await workflow.wait_condition(
                    lambda: (
                        self._bug is not None or self.is_settled or self._has_more_time() or until()
                    ),
                    timeout=timeout,
                    timeout_summary="budget.seconds",
                )
            except TimeoutError:
                continue
            if self._bug is not None:
                raise self._bug
            if self._has_more_time():
                self.is_time_up, self.frontier.is_paused = False, self.is_paused_by_person
                self.pump()
                continue
            return

    def _has_more_time(self) -> bool:
        return self.is_time_up and (self.seconds_cap is None or self.seconds_cap > self.now())

    def _time_is_up(self) -> None:
        if self._on_budget == "partial":
            self.stop(f"budget: {self.seconds_cap:g} seconds are over")
            return
        self.is_time_up = self.frontier.is_paused = True

    def jobs_but_people(self) -> bool:
        """Whether anything runs that does not wait for a person."""
        return any(unit.task not in self.questions for unit in self._jobs)


def _nothing() -> None:
    return


def _seen(job: asyncio.Task[Any]) -> None:
    # The outcome of a lost speculation is of no use; it must only not be reported as unseen.
    if not job.cancelled():
        job.exception()


def _body_values(task: Task) -> list[Any]:
    """Everything of a task's own body that may hold references."""
    values: list[Any] = [task.args]
    if task.ask is not None:
        ask = task.ask_body()
        values += [ask.prompt, ask.context, ask.system]
    if task.human is not None:
        values.append(task.human_body().question)
    return values
