"""The course of one run: plan, approve, execute, join, answer. Called by `DagWorkflow`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from planner.compiler import Compiled, compile_plan
from planner.contract import (
    INVALID_PLAN,
    EstimateReport,
    Progress,
    Reused,
    RunRequest,
    RunResult,
    RunStatus,
    UsageReport,
    usage_report,
)
from planner.expand import expand_request
from planner.explain import mermaid
from planner.jobs import PlannedBatch, PlannerAttempt, PlannerPrefix
from planner.plan import Plan, Task
from planner.revision import diff_plans
from planner.templates import check_params, read_template
from planner.values import JsonValue, Outcome, Problem, Stored, TaskId, Usage
from workflows import doors
from workflows.approval import Verdict, needs_approval
from workflows.control_table import control_table
from workflows.dispatch import Piece
from workflows.engine import Engine
from workflows.failures import BodyFailed
from workflows.frontier import State
from workflows.goal import GoalLoop
from workflows.record import critical_path, task_reports, total_usage
from workflows.requests import invalid, prepare_job
from workflows.run_permit import run_permit
from workflows.status import details, progress, run_status

ANSWER_INLINE_BYTES = 12_000
"""A longer answer is shown as a preview and a blob, so that no history event is large."""
DETAILS_EVERY_SECONDS = 1.0


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
        self._published: tuple[Any, ...] = ()
        self._detailed = -DETAILS_EVERY_SECONDS
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
            self.show()
            pool = engine.site.pool_for(engine.dispatcher.model_for("worker"))
            calls = len(self.request.agents or self.request.teams or [1])
            async with run_permit(pool, self.request, calls, self._wait_for_room):
                return await self._course()
        except PlanRefused as refused:
            return self.end("rejected", None, str(refused))
        except FailureError as error:
            if is_cancelled_exception(error):
                return await self.cancelled()
            raise

    def _wait_for_room(self, why: str | None) -> None:
        self.engine.room_wait = why
        self.show()

    async def _course(self) -> RunResult:
        if self.goal_loop is not None:
            return await self.goal_loop.main()
        await self.take_given_plan()
        await self.execute()
        return await self.finish()

    async def execute(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run until nothing is left to do, or `until` says that something else comes first."""
        self.phase = "running"
        self.engine.frontier.close()
        self.show()
        await self.engine.stopping.check_at_once()
        await self.engine.settle(until)

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
        problems += compiled.problems
        if problems:
            raise invalid(INVALID_PLAN, problems)
        self.adopt(compiled, why="given")
        await self.approve(is_first=True)
        assert self.compiled is not None, "an approved revision is compiled"
        self.enter(self.compiled)

    def _given_plan(self) -> tuple[Plan | None, list[Problem]]:
        request, site = self.request, self.engine.site
        if request.plan is not None:
            return request.plan, []
        if request.template is not None:
            return read_template(request.template, site.templates, site.template_names)
        return expand_request(request)

    def compile(self, plan: Plan) -> Compiled:
        known = list(self.request.lineage.inputs)
        return compile_plan(plan, self.engine.site, allow=self.request.tools, known=known)

    def adopt(self, compiled: Compiled, *, why: str, by: str = "") -> None:
        """A compiled plan becomes the newest revision. Nothing of it has started yet."""
        before = self.plan
        number = self.revision + 1
        changes = diff_plans(before, compiled.plan) if before is not None else []
        self.revisions.append(Revision(number, compiled.plan, why, by, changes))
        self.compiled = compiled
        self.pruned = dict(compiled.pruned)
        self.aliases = dict(compiled.aliases)
        self.engine.desk.note_revision(number, by)
        for warning in compiled.warnings[:20]:
            self.engine.note(f"plan: {warning}")
        self.show()

    async def approve(self, *, is_first: bool, major: Sequence[str] = ()) -> None:
        """Wait for a person where the policy says so.

        Raises:
            PlanRefused: rejected, or nobody decided in time.
        """
        policy, desk = self.request.approval, self.engine.desk
        if not needs_approval(policy.mode, is_first=is_first, major=major):
            return
        desk.open(self.revision, major)
        self.phase = "waiting"
        self.show()
        timeout = policy.timeout
        while desk.is_open:
            try:
                await workflow.wait_condition(
                    lambda: not desk.is_open, timeout=timeout, timeout_summary="approval"
                )
            except TimeoutError:
                if policy.on_timeout == "park":
                    timeout = None
                    continue
                decision = "approved" if policy.on_timeout == "approve" else "rejected"
                desk.decide(Verdict(desk.revision, decision, how="timeout"))  # type: ignore[arg-type]
        verdict = desk.verdict_on(desk.revision)
        assert verdict is not None, "a closed desk has a verdict"
        who = f' by "{verdict.by}"' if verdict.by else " by time-out" * (verdict.how == "timeout")
        note = f": {verdict.note}" if verdict.note else ""
        self.engine.note(f"revision {verdict.revision} {verdict.decision}{who}{note}")
        if verdict.decision == "rejected":
            raise PlanRefused(f"revision {verdict.revision} rejected{who}{note}")

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

    def take_edit(self, compiled: Compiled, by: str) -> None:
        """An edit becomes the newest revision; it waits for approval where the first plan did."""
        desk = self.engine.desk
        is_waiting = desk.is_open
        self.adopt(compiled, why="edited", by=by)
        if is_waiting:
            desk.open(self.revision)
            self.show()
            return
        self.enter_revision(compiled)

    def enter_revision(self, compiled: Compiled) -> None:
        """Bring the frontier in line with a revision: new tasks in, dropped ones out."""
        engine = self.engine
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
            read = {i for inputs in self.engine.inputs.values() for i in inputs}
            answer = {t: f"${{{t}}}" for t in self.engine.tasks if t not in read}
        piece = Piece(plan.tasks[0], plan.tasks[0], "answer")
        return await self.engine.dispatcher.resolve(piece, answer, limit=ANSWER_INLINE_BYTES)

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
        self.result = RunResult.model_validate(
            {
                "status": status,
                "answer": shown,
                **({"answer_ref": answer} if answer is not None and not answer.is_inline else {}),
                "revision": self.revision,
                "rounds": self.goal_loop.rounds if self.goal_loop else 0,
                "tasks": tasks,
                "usage": self.usage(),
                "estimate": self._estimate_report(short=True),
                "critical_path": path,
                "critical_path_seconds": round(path_seconds, 4),
                "seconds": round(engine.now(), 4),
                "planning": self.goal_loop.report() if self.goal_loop else {},
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
        return report.model_copy(update={"unpriced_calls": engine.ledger.unpriced})

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

    def _estimate_report(self, short: bool = False) -> EstimateReport | None:
        if self.compiled is None:
            return None
        total = self.engine.ledger.usage
        actual = {
            "tokens": float(total.tokens),
            "usd": total.usd_nano / 1e9,
            "seconds": round(self.engine.now(), 3),
        }
        update = {"actual": actual, **({"tasks": {}} if short else {})}
        return self.compiled.estimate.model_copy(update=update)

    # -- what is shown ----------------------------------------------------------------------

    def status_word(self) -> str:
        if self.result is not None:
            return self.result.status
        if self.engine.desk.is_open:
            return "waiting"
        if self.engine.frontier.is_paused and not self.engine.is_time_up:
            return "paused"
        if self.engine.awaiting is not None and not self.engine.jobs_but_people():
            return "waiting"
        return self.phase

    def progress(self) -> Progress:
        records = self.engine.records
        elsewhere: dict[str, str] = {t: "skipped" for t in self.pruned if t not in records}
        for alias, kept in self.aliases.items():
            state = self.engine.frontier.state_of(kept)
            good = isinstance(state, Outcome) and state.is_good
            elsewhere[alias] = "cached" if good else str(state or State.WAITING)
        if self.plan is not None and not self.engine.tasks:
            elsewhere |= {t.id: State.WAITING.value for t in self.plan.tasks}
        return progress(
            status=self.status_word(),
            awaiting=None if self.result else self.engine.awaiting,
            detail=None if self.result else self.engine.awaiting_detail(),
            revision=self.revision,
            frontier=self.engine.frontier,
            settled_elsewhere=elsewhere,
            usage=self.usage(),
            seconds=self.result.seconds if self.result else self.engine.now(),
            goal=self.goal,
            notes=self.engine.notes,
        )

    def plan_document(self) -> dict[str, Any] | None:
        plan = self.plan
        return plan.model_dump(mode="json", exclude_unset=True, by_alias=True) if plan else None

    def graph(self) -> str:
        if self.plan is None:
            return "flowchart TD"
        return mermaid(self.plan, self.progress().tasks)

    def usage_document(self) -> dict[str, Any]:
        ledger = self.engine.ledger
        held, caps = ledger.held, ledger.caps
        return self.usage().model_dump(mode="json") | {
            "reserved": {"tokens": held.tokens, "usd": held.usd_nano / 1e9, "tasks": held.tasks},
            "caps": {
                "tokens": caps.tokens,
                "usd": None if caps.usd_nano is None else caps.usd_nano / 1e9,
                "tasks": caps.tasks,
                "seconds": self.engine.seconds_cap,
            },
        }

    def estimate_document(self) -> dict[str, Any] | None:
        report = self._estimate_report()
        return report.model_dump(mode="json") if report else None

    def diff(self) -> list[str]:
        return list(self.revisions[-1].changes) if self.revisions else []

    def outputs(self) -> dict[str, Any]:
        """Finished tasks as a fork reuses them."""
        return {
            task: Reused(outcome=r.outcome, output=r.output).model_dump(
                mode="json", exclude_unset=True
            )
            for task, r in self.engine.records.items()
            if r.outcome is not None and r.outcome.is_good and r.output is not None
        }

    def revisions_document(self) -> list[dict[str, Any]]:
        return [
            {
                "revision": r.number,
                "why": r.why,
                "by": r.by,
                "changes": r.changes,
                "plan": r.plan.model_dump(mode="json", exclude_unset=True, by_alias=True),
            }
            for r in self.revisions
        ]

    def show(self) -> None:
        """Tell the Web UI where the run stands: search attributes and current details."""
        engine, word = self.engine, self.status_word()
        awaiting = None if self.result else engine.awaiting
        now = (word, self.revision, awaiting)
        if now != self._published:
            self._published = now
            self._upsert(word, awaiting)
        elif engine.now() - self._detailed < DETAILS_EVERY_SECONDS:
            return
        self._detailed = engine.now()
        shown = self.progress()
        graph = mermaid(self.plan, shown.tasks) if self.plan and len(shown.tasks) <= 40 else ""
        workflow.set_current_details(details(shown, engine.records, graph))

    def _upsert(self, word: str, awaiting: str | None) -> None:
        # An attribute the server does not know would hang the run, so only known ones are set.
        known = self.engine.site.search_attributes
        updates: list[SearchAttributeUpdate[Any]] = []
        if "PlanloomStatus" in known:
            updates.append(SearchAttributeKey.for_keyword("PlanloomStatus").value_set(word))
        if "PlanloomRevision" in known:
            updates.append(SearchAttributeKey.for_int("PlanloomRevision").value_set(self.revision))
        if "PlanloomAwaiting" in known:
            key = SearchAttributeKey.for_keyword_list("PlanloomAwaiting")
            updates.append(key.value_set([awaiting] if awaiting else []))
        if "PlanloomTenant" in known and self.request.tenant and len(self.revisions) <= 1:
            key_tenant = SearchAttributeKey.for_keyword("PlanloomTenant")
            updates.append(key_tenant.value_set(self.request.tenant))
        if updates:
            workflow.upsert_search_attributes(updates)

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
