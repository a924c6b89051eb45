"""The course of one run: plan, approve, execute, join, answer. Called by `DagWorkflow`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from planloom.planner.compile.expand import expand_request
from planloom.planner.compile.pipeline import Compiled, compile_plan
from planloom.planner.compile.revision import diff_plans, major_changes
from planloom.planner.compile.templates import check_params, read_template
from planloom.planner.contract.jobs import PlannedBatch, PlannerAttempt, PlannerPrefix
from planloom.planner.contract.names import INVALID_PLAN, UNKNOWN_TOOL
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.results import (
    EstimateReport,
    RunResult,
    RunStatus,
    UsageReport,
    usage_report,
)
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import JsonValue, Outcome, Problem, Stored, TaskId, Usage
from planloom.workflows.control_table import control_table
from planloom.workflows.dispatch import Piece
from planloom.workflows.engine import Engine
from planloom.workflows.goal import GoalLoop
from planloom.workflows.machines.run.frontier import State
from planloom.workflows.machines.run.record import critical_path, task_reports, total_usage
from planloom.workflows.machines.run.status import aggregate_of, run_status
from planloom.workflows.machines.shared.approval import Verdict, needs_approval
from planloom.workflows.machines.shared.requests import kind_of, request_problems, unknown_tools
from planloom.workflows.requests import invalid
from planloom.workflows.run_permit import run_permit
from planloom.workflows.run_view import RunView
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import (
    BodyCancelled,
    BodyFailed,
    is_cancellation,
    raise_if_cancelled,
)

RUN_ANSWER_INLINE_BYTES = 12_000
"""A longer answer is shown as a preview and a blob, so that no history event is large."""

EARLY_ENDS = ("stop_when", "early join")
"""A run that was stopped because enough is known is complete."""


class PlanRefused(Exception):
    """A person, or a time-out, said no."""


@dataclass(slots=True)
class Revision:
    """One revision of the plan: kept, with why it came to be."""

    number: int
    plan: Plan
    why: str
    by: str = ""
    changes: list[str] = field(default_factory=list)
    stability: float | None = None


class Run:
    """One run. `main` is its whole course; queries read it at any moment."""

    def __init__(self, request: RunRequest, started: datetime) -> None:
        self.request = request
        self.engine = Engine(request, started)
        self.revisions: list[Revision] = []
        self.compiled: Compiled | None = None
        self.pruned: dict[TaskId, str] = {}
        self.aliases: dict[TaskId, TaskId] = {}
        self.phase = "planning"
        self.result: RunResult | None = None
        self.goal_loop = GoalLoop(self) if self._has_goal else None
        self.controls = control_table(self)
        self.view = RunView(self)
        self.edited: list[str] | None = None
        """An edit waits for approval: why it is material."""
        self.engine.on_change = self.show

    @property
    def _has_goal(self) -> bool:
        request = self.request
        is_planned = request.goal is not None and not request.agents and not request.teams
        return is_planned or request.joiner

    @property
    def revision(self) -> int:
        return self.revisions[-1].number if self.revisions else 0

    @property
    def plan(self) -> Plan | None:
        return self.revisions[-1].plan if self.revisions else None

    @property
    def goal(self) -> str:
        named = self.plan.goal or self.plan.name if self.plan else ""
        return self.request.goal or named or self.request.template or ""

    # -- the course -------------------------------------------------------------------------

    async def main(self) -> RunResult:
        engine = self.engine
        try:
            engine.open(await doors.prepare_run(prepare_job(self.request)))
            raise_if_cancelled()
            self.show()
            pool = engine.catalog.pool_for(engine.dispatcher.model_for("worker"))
            calls = len(self.request.agents or self.request.teams or [1])
            async with run_permit(pool, self.request, calls, self._wait_for_room):
                return await self.course()
        except PlanRefused as refused:
            return await self.refused(refused)
        except (FailureError, BodyCancelled) as error:
            if is_cancellation(error):
                return await self.cancelled()
            raise

    def show(self) -> None:
        """Tell the Web UI where the run stands."""
        self.view.show()

    def _wait_for_room(self, why: str | None) -> None:
        self.engine.room_wait = why
        self.show()

    async def course(self) -> RunResult:
        """From the plan to the result, once the catalog is known.

        Raises:
            PlanRefused: a person said no.
        """
        if self.goal_loop is not None:
            if problems := unknown_tools(self.request.tools, self.engine.catalog):
                raise invalid(UNKNOWN_TOOL, problems)
            return await self.goal_loop.main()
        await self.take_given_plan()
        await self.execute()
        return await self.finish()

    async def execute(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run until nothing is left to do, or `until` says that something else comes first."""
        while True:
            self.phase = "running"
            self.engine.frontier.close()
            self.show()
            await self.engine.stopping.check_at_once()
            await self.engine.settling.wait(lambda: self.edited is not None or until())
            if self.edited is None:
                return
            major, self.edited = self.edited, None
            await self._ask_for(major)
            assert self.compiled is not None
            await self.enter_revision(self.compiled)

    async def _ask_for(self, major: Sequence[str], is_first: bool = False) -> None:
        asks = self.goal_loop.approve if self.goal_loop is not None else self.approve
        await asks(is_first=is_first, major=major)

    async def take_given_plan(self) -> None:
        """Compile the plan or template of the request, have it approved, and take its tasks in.

        Raises:
            ApplicationError: `InvalidPlan`, with all problems.
            PlanRefused: a person said no.
        """
        request = self.request
        plan, problems = self._given_plan()
        if plan is None:
            raise invalid(INVALID_PLAN, problems)
        values, found = check_params(plan, request.params)
        if request.lineage.params is None:
            problems += found
            self.engine.values["params"] = Stored(value=values)
        compiled = self.compile(plan)
        problems += [*compiled.problems, *request_problems(request, self.engine.catalog, plan)]
        if problems:
            raise invalid(kind_of(problems), problems)
        self.adopt(compiled, why="given")
        await self._ask_for([], is_first=True)
        assert self.compiled is not None, "an approved revision is compiled"
        self.enter(self.compiled)

    def _given_plan(self) -> tuple[Plan | None, list[Problem]]:
        request, catalog = self.request, self.engine.catalog
        if request.plan is not None:
            return request.plan, []
        if request.template is not None:
            return read_template(request.template, catalog.templates, catalog.template_names)
        return expand_request(request)

    def compile(self, plan: Plan) -> Compiled:
        lineage = self.request.lineage
        return compile_plan(
            plan,
            self.engine.catalog,
            allow=self.request.tools,
            other_ids=list(lineage.inputs),
            depth=lineage.depth,
            parallel=self.engine.frontier.parallel,
            model=self.engine.dispatcher.model_for("worker"),
        )

    async def learn_of(self, plan: Plan) -> None:
        """Ask the worker for what an edited plan names and the request did not."""
        engine = self.engine
        job = prepare_job(self.request.model_copy(update={"plan": plan, "template": None}))
        allowed = [t for t in job.tools if job.allow is None or t in job.allow]
        is_known = engine.catalog.describes_all(allowed, job.templates, job.agents, job.teams)
        if not is_known:
            more = await doors.prepare_run(job)
            engine.catalog = engine.dispatcher.catalog = engine.catalog.joined_with(more)

    def adopt(self, compiled: Compiled, *, why: str, by: str = "") -> None:
        """A compiled plan becomes the newest revision. Nothing of it has started yet."""
        before = self.plan
        number = self.revision + 1
        changes = diff_plans(before, compiled.plan) if before is not None else []
        self.revisions.append(Revision(number, compiled.plan, why, by, changes))
        self.compiled, self.edited = compiled, None
        self.pruned = dict(compiled.pruned)
        self.aliases = dict(compiled.aliases)
        self.engine.desk.note_revision(number, by)
        for warning in compiled.warnings[:20]:
            self.engine.note(f"plan: {warning}")
        self.show()

    async def approve(
        self,
        *,
        is_first: bool,
        major: Sequence[str] = (),
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait for a person where the policy says so; False: `until` came first, nothing decided.

        Raises:
            PlanRefused: rejected, or nobody decided in time.
        """
        policy, desk = self.request.approval, self.engine.desk
        if not needs_approval(policy.mode, is_first=is_first, major=major):
            return True
        desk.open(self.revision, major)
        self.phase = "waiting"
        self.show()
        timeout = policy.timeout
        while desk.is_open:
            try:
                await workflow.wait_condition(
                    lambda: not desk.is_open or until(),
                    timeout=timeout,
                    timeout_summary="approval",
                )
            except TimeoutError:
                if policy.on_timeout == "park":
                    timeout = None
                    continue
                decision = "approved" if policy.on_timeout == "approve" else "rejected"
                desk.decide(Verdict(desk.revision, decision, how="timeout"))  # type: ignore[arg-type]
            if desk.is_open and until():
                desk.close()
                return False
        verdict = desk.verdict_on(desk.revision)
        assert verdict is not None, "a closed desk has a verdict"
        who = f' by "{verdict.by}"' if verdict.by else " by time-out" * (verdict.how == "timeout")
        note = f": {verdict.note}" if verdict.note else ""
        self.engine.note(f"revision {verdict.revision} {verdict.decision}{who}{note}")
        if verdict.decision == "rejected":
            raise PlanRefused(f"revision {verdict.revision} rejected{who}{note}")
        return True

    def problems_with_edit(self, plan: Plan) -> list[Problem]:
        """What an edit may not do: take out or change what runs or has a value."""
        engine, problems = self.engine, list[Problem]()
        for task, state in engine.frontier.states().items():
            is_done = isinstance(state, Outcome) and state.is_good
            if state is not State.RUNNING and not is_done:
                continue
            edited = plan.task(task)
            if edited == engine.tasks[task] or (edited is None and is_done):
                continue
            verb = "removed" if edited is None else "changed"
            word = "is running" if state is State.RUNNING else "has finished"
            problems.append(
                Problem(
                    path=f"tasks.{task}",
                    code="task_started",
                    message=f"cannot be {verb}: it {word}",
                    hint="cancel_task it first, or leave it as it is."
                    if state is State.RUNNING
                    else "Leave it as it is, or add a task under another id.",
                )
            )
        return problems

    async def take_edit(self, compiled: Compiled, by: str) -> None:
        """An edit becomes the newest revision; it waits for approval where any other would."""
        desk, policy, before = self.engine.desk, self.request.approval, self.plan
        is_waiting = desk.is_open
        assert before is not None
        good = [t for t, o in self.engine.frontier.outcomes().items() if o.is_good]
        major = major_changes(before, compiled.plan, self.engine.catalog, policy.major, good)
        self.adopt(compiled, why="edited", by=by)
        if is_waiting:
            desk.open(self.revision, major)
            self.show()
            return
        if needs_approval(policy.mode, is_first=False, major=major):
            self.edited = major
            return
        await self.enter_revision(compiled)

    async def enter_revision(self, compiled: Compiled) -> None:
        """Bring the frontier in line with a revision: new tasks in, dropped ones out."""
        engine = self.engine
        changed = [t for t in compiled.plan.tasks if self._runs_otherwise(t)]
        if changed:
            await self._stop_for_change(changed)
        wanted = {t.id for t in compiled.plan.tasks}
        for task in list(engine.tasks):
            state = engine.frontier.state_of(task)
            kept = task in wanted and engine.tasks[task] == compiled.plan.task(task)
            if kept or isinstance(state, Outcome) or state is None:
                continue
            if state is State.RUNNING:
                engine.excuse(task)
                engine.stopping.cancel(task, "no longer in the plan")
            else:
                engine.drop(task)
        new = [t for t in compiled.plan.tasks if self._is_new(t)]
        self.enter(compiled, new)
        engine.pump()

    def _runs_otherwise(self, task: Task) -> bool:
        is_running = self.engine.frontier.state_of(task.id) is State.RUNNING
        return is_running and self.engine.tasks[task.id] != task

    async def _stop_for_change(self, tasks: Sequence[Task]) -> None:
        """What runs in other words than the new plan has is stopped, so that it can start anew.

        What has not started is taken out first: it must not be skipped for their end.
        """
        engine = self.engine
        for waiting in engine.frontier.unfinished():
            if engine.frontier.state_of(waiting) is not State.RUNNING:
                engine.drop(waiting)
        for task in tasks:
            engine.excuse(task.id)
            engine.stopping.cancel(task.id, "changed by the new plan")
        await workflow.wait_condition(lambda: all(engine.frontier.outcome_of(t.id) for t in tasks))

    def _is_new(self, task: Task) -> bool:
        state = self.engine.frontier.state_of(task.id)
        if state is None:
            return True
        # One that ended badly may be tried again in other words.
        ended_badly = isinstance(state, Outcome) and not state.is_good
        return ended_badly and self.engine.tasks.get(task.id) != task

    def enter(self, compiled: Compiled, tasks: Sequence[Task] | None = None) -> None:
        """Tasks of the newest revision that the frontier does not hold go in."""
        engine = self.engine
        engine.plan = compiled.plan
        new = compiled.plan.tasks if tasks is None else tasks
        engine.add(new, dict(compiled.ranks))
        engine.frontier.rerank(compiled.ranks)

    # -- the end ----------------------------------------------------------------------------

    async def finish(self) -> RunResult:
        """The result of a run whose answer comes from its plan alone."""
        status, reason = self.judged()
        try:
            answer = await self.plan_answer()
        except BodyFailed as failed:
            return self.end("partial", None, f"answer: {failed.message}")
        return self.end(status, answer, reason)

    def judged(self) -> tuple[RunStatus, str | None]:
        engine = self.engine
        stopped = engine.stopping.reason
        if stopped is not None and stopped.startswith(EARLY_ENDS):
            return "completed", None
        if stopped is not None and stopped.startswith("task "):
            return "failed", stopped
        status, reason = run_status(engine.records)
        if stopped is not None:
            return "partial", stopped
        return status, reason

    async def plan_answer(self) -> Stored:
        """The answer as the plan says: its template, else the leaves' outputs by id."""
        plan = self.plan
        assert plan is not None
        answer: JsonValue = plan.answer
        if not plan.has_answer:
            answer = self._leaves()
        piece = Piece(plan.tasks[0], plan.tasks[0], "answer")
        return await self.engine.dispatcher.resolve(piece, answer, limit=RUN_ANSWER_INLINE_BYTES)

    def _leaves(self) -> dict[str, JsonValue]:
        """The tasks that nobody reads, duplicates by the names they were written with."""
        tasks, aliases = self.engine.tasks, self.aliases
        read = {i for inputs in self.engine.inputs.values() for i in inputs}
        names = [t for t in tasks if t not in read]
        if self.compiled is not None:
            names += [t for t in self.compiled.leaves if t in aliases or t in tasks]
        return {t: f'${{"{aliases.get(t, t)}"}}' for t in names}

    async def refused(self, why: PlanRefused) -> RunResult:
        """A plan was refused: what still runs of the one before is stopped, and told."""
        if self.engine.jobs:
            await self.engine.drain()
        return self.end("rejected", None, str(why))

    async def cancelled(self) -> RunResult:
        """The run was cancelled: stop everything, and say what was finished."""
        engine = self.engine
        engine.stopping.stop("the run was cancelled")
        await workflow.wait_condition(lambda: engine.is_settled)
        engine.stopping.sweep()
        return self.end("cancelled", None, "the run was cancelled")

    def end(self, status: RunStatus, answer: Stored | None, reason: str | None) -> RunResult:
        engine = self.engine
        path, path_seconds = critical_path(engine.records, engine.inputs)
        shown: JsonValue = None
        if answer is not None:
            shown = answer.value if answer.is_inline else _reference(answer)
        tasks = task_reports(engine.records.values())
        for task, row in self._elsewhere().items():
            tasks[task] = row
        self.phase = status
        engine.time.close()
        self.result = RunResult.model_validate(
            {
                "status": status,
                "answer": shown,
                **({"answer_ref": answer} if answer is not None and not answer.is_inline else {}),
                "revision": self.revision,
                "rounds": self.goal_loop.rounds if self.goal_loop else 0,
                "tasks": tasks,
                "usage": self.usage(),
                "estimate": self.estimate_report(short=True),
                "critical_path": path,
                "critical_path_seconds": round(path_seconds, 4),
                "seconds": round(engine.now(), 4),
                "planning": self.goal_loop.report() if self.goal_loop else {},
                "aggregate": aggregate_of(
                    self.request, engine.records, engine.dispatcher.failed_members
                ),
                "speculation": engine.speculation.report(),
                "notes": engine.notes,
                "reason": reason,
            }
        )
        self.show()
        return self.result

    def _elsewhere(self) -> dict[str, Any]:
        """Reports of tasks that compile passes took out: duplicates and what nobody reads."""
        rows: dict[str, Any] = {}
        reports = task_reports(
            self.engine.records[kept] for kept in self.aliases.values() if kept in self._records
        )
        for task, kept in self.aliases.items():
            if kept in reports:
                good = reports[kept].outcome.is_good
                outcome = Outcome.CACHED if good else reports[kept].outcome
                rows[task] = reports[kept].model_copy(
                    update={
                        "outcome": outcome,
                        "usage": UsageReport(),
                        "reason": f"same call as {kept}",
                    }
                )
        for task, why in self.pruned.items():
            if task in self._records:
                continue  # it ran while the plan was still being written
            rows[task] = {"outcome": Outcome.SKIPPED, "output": None, "reason": f"pruned: {why}"}
        return rows

    @property
    def _records(self) -> dict[TaskId, Any]:
        return self.engine.records

    def usage(self) -> UsageReport:
        engine = self.engine
        total = engine.ledger.usage
        early = self._early_saving()
        saved = {
            "tokens": sum(r.saved_tokens for r in engine.records.values()) + early["tokens"],
            "usd": sum(r.saved_usd_nano for r in engine.records.values()) / 1e9 + early["usd"],
            "tasks": early["tasks"]
            + sum(1 for r in engine.records.values() if r.outcome is Outcome.CACHED),
            "seconds": early["seconds"],
        }
        reused = total_usage(r for r in engine.records.values() if r.outcome is Outcome.CACHED)
        hits = max(total.cache_hits, reused.cache_hits)
        report = usage_report(total + Usage(cache_hits=hits - total.cache_hits), saved)
        return report.model_copy(
            update={"unpriced_calls": engine.ledger.unpriced, "tasks": engine.ledger.settled.tasks}
        )

    def _early_saving(self) -> dict[str, float]:
        """What an early end spared, by the estimates of the tasks that it left out."""
        saved = {"tokens": 0.0, "usd": 0.0, "tasks": 0.0, "seconds": 0.0}
        reason = self.engine.stopping.reason
        if reason is None or not reason.startswith(EARLY_ENDS) or self.compiled is None:
            return saved
        for task, record in self.engine.records.items():
            row = self.compiled.estimate.tasks.get(task)
            if record.outcome is not Outcome.CANCELLED or not isinstance(row, dict):
                continue
            saved["tasks"] += 1
            for name in ("tokens", "usd", "seconds"):
                span = row.get(name)
                if isinstance(span, list) and isinstance(span[1], int | float):
                    saved[name] += span[1]
        return saved

    def _beside(self, task: str, row: JsonValue) -> JsonValue:
        """A task's estimate, with what it came to once it has ended."""
        record = self._records.get(TaskId(task))
        if record is None or record.ended is None or not isinstance(row, dict):
            return row
        used = record.usage
        actual = {
            "tokens": used.tokens,
            "usd": used.usd_nano / 1e9,
            "seconds": round(record.seconds, 3),
        }
        return {**row, "actual": actual}

    def estimate_report(self, short: bool = False) -> EstimateReport | None:
        if self.compiled is None:
            return None
        total = self.engine.ledger.usage
        actual = {
            "tokens": float(total.tokens),
            "usd": total.usd_nano / 1e9,
            "seconds": round(self.engine.now(), 3),
        }
        tasks = (
            {}
            if short
            else {t: self._beside(t, r) for t, r in self.compiled.estimate.tasks.items()}
        )
        update = {"actual": actual, "tasks": tasks}
        return self.compiled.estimate.model_copy(update=update)

    # -- the planner activity ---------------------------------------------------------------

    def take_batch(self, batch: PlannedBatch) -> None:
        if self.goal_loop is not None:
            self.goal_loop.take_batch(batch)

    def take_attempt(self, attempt: PlannerAttempt) -> PlannerPrefix:
        if self.goal_loop is None:
            raise ApplicationError("this run has no planner", type="Stale", non_retryable=True)
        return self.goal_loop.take_attempt(attempt)


def _reference(stored: Stored) -> dict[str, JsonValue]:
    return {"preview": stored.preview, "blob": stored.blob, "size_bytes": stored.size_bytes}
