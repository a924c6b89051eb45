"""The loop of a goal: plan (streamed), approve, execute, join, replan within bounds, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio.exceptions import ActivityError, ApplicationError

from planner.calls import call_text
from planner.compiler import Compiled, check_task, inputs_of
from planner.contract import RunResult
from planner.estimate import estimate_task, items_of
from planner.jobs import (
    FinishedTask,
    JoinJob,
    JoinReply,
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlannerAttempt,
    PlannerPrefix,
    PlanReply,
)
from planner.passes.deduplicate import rename_inputs, rename_references, twin_key
from planner.passes.rank import rank_upward
from planner.plan import TASKS_MAX, Plan, Task
from planner.revision import fingerprint, major_changes, merge_replan, stability
from planner.values import NANO, JsonValue, Problem, Stored, TaskId
from workflows import doors
from workflows.approval import needs_approval
from workflows.budget import Amount
from workflows.engine import OutOfBudget
from workflows.estimates import (
    ANSWER_TOKENS_MIN,
    JOINER_ANSWER_TOKENS,
    OVERHEAD_TOKENS,
    PLANNER_ANSWER_TOKENS,
    PLANNER_PROMPT_TOKENS,
    answer_room,
    model_amount,
)
from workflows.failures import BodyCancelled, BodyFailed, failure_of
from workflows.planning import REPAIRS_MAX, PlanBook
from workflows.record import text_bytes

if TYPE_CHECKING:
    from workflows.run import Run

FINISHED_PREVIEW_BYTES = 400
FINISHED_INLINE_BYTES = 12_000
"""Two thousand tasks with their outputs would be more than a payload may hold."""


class PlanningFailed(Exception):
    """No plan came: the endpoint, the model or the text is to blame; the message says which."""


@dataclass(slots=True)
class Draft:
    """What a planning came to: compiled, with what is left unmended."""

    plan: Plan
    compiled: Compiled
    problems: list[Problem]


class GoalLoop:
    """Drives a run that was given a goal."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.engine = run.engine
        self.request = run.request
        self.book = PlanBook()
        self.rounds = 0
        self.repairs = 0
        self.is_live = False
        """Accepted tasks start while the plan is still being written."""
        self.twins: dict[str, TaskId] = {}
        self.aliases: dict[TaskId, TaskId] = {}
        self.asked: tuple[str, str] | None = None
        self.fingerprints: dict[str, int] = {}
        self.planned_at: float | None = None
        self.wasted_tokens = 0
        self.stabilities: list[float] = []
        self.reasons: list[str] = []

    # -- the course -------------------------------------------------------------------------

    async def main(self) -> RunResult:
        run, engine = self.run, self.engine
        try:
            await self._first_plan()
            while True:
                await run.execute(until=lambda: self.asked is not None)
                if self.asked is not None:
                    (feedback, by), self.asked = self.asked, None
                    refused = await self._replan(feedback, f"asked for by {by or 'a person'}", by)
                    if refused:
                        engine.note(f"replan not taken: {refused}")
                    continue
                ended = await self._join()
                if ended is not None:
                    return ended
        except PlanningFailed as failed:
            return await self._give_up(str(failed))
        except OutOfBudget as lack:
            engine.stopping.stop(f"budget: {lack}")
            return await self._give_up(f"budget: {lack}")

    async def _give_up(self, reason: str) -> RunResult:
        """Planning or joining failed: what has run is kept, and the reason told."""
        await self.engine.drain()
        has_any = any(r.outcome and r.outcome.is_good for r in self.engine.records.values())
        answer = None
        if has_any and self.run.plan is not None:
            try:
                answer = await self.run.plan_answer()
            except BodyFailed as failed:
                self.engine.note(f"answer: {failed.message}")
        return self.run.end("partial" if has_any else "failed", answer, reason)

    async def _first_plan(self) -> None:
        run, request = self.run, self.request
        if request.goal is None:
            await run.take_given_plan()
            assert run.compiled is not None
            self.fingerprints[fingerprint(run.compiled.plan, {})] = run.revision
            return
        asks = needs_approval(request.approval.mode, is_first=True)
        self.is_live = request.stream and not asks
        draft = await self._write(None, "planned")
        if draft.problems:
            self.engine.note(f"the plan's tail was left out: {_lines(draft.problems)}")
        run.adopt(draft.compiled, why="planned")
        run.aliases |= self.aliases
        self.fingerprints[fingerprint(draft.compiled.plan, {})] = run.revision
        await run.approve(is_first=True)
        assert run.compiled is not None
        run.enter_revision(run.compiled)
        self.is_live = False

    # -- planning ---------------------------------------------------------------------------

    def _planner_amounts(self, model: str | None) -> tuple[Amount, Amount, int]:
        site = self.engine.site
        specs = sum(text_bytes(dict(t.parameters)) + len(t.description) for t in site.tools)
        prompt = PLANNER_PROMPT_TOKENS + specs // 4 + text_bytes(self.request.context) // 2
        prompt += len(self.run.goal) // 2 + 120 * len(self.engine.records)
        want = model_amount(site, model, prompt, PLANNER_ANSWER_TOKENS, tasks=0)
        return want, model_amount(site, model, prompt, 256, tasks=0), prompt

    async def _write(self, feedback: str | None, why: str) -> Draft:
        """Have the model write a plan, and mend it, a bounded number of times.

        Raises:
            PlanningFailed: nothing usable came.
        """
        engine, book = self.engine, self.book
        book.accepted = []
        problems: list[Problem] = []
        repairs = 0
        self.run.phase = "planning"
        self.run.show()
        while True:
            reply = await self._call(feedback, problems)
            self._accept(book.fresh(reply.tasks))
            draft = self._draft(reply)
            problems = [
                *reply.problems,
                *book.rejected,
                *(draft.compiled.problems if draft else []),
            ]
            if reply.is_cut_off and not problems:
                where = Problem(path="plan", code="cut_off", message="the answer was cut off")
                problems = [where]
            if not problems and draft is not None:
                break
            if not problems:
                problems = [Problem(path="plan", code="no_tasks", message="no tasks in the answer")]
            if repairs == REPAIRS_MAX:
                break
            repairs += 1
            self.repairs += 1
        if self.planned_at is None:
            self.planned_at = engine.now()
        if draft is None or (problems and draft.compiled.problems):
            draft = self._draft(reply, only_tasks=True)
        if draft is None or draft.compiled.problems:
            asked = f"{repairs + 1} answers of the planner"
            raise PlanningFailed(f"no plan after {asked}: {_lines(problems)}")
        draft.problems = problems
        return draft

    async def _call(self, feedback: str | None, problems: list[Problem]) -> PlanReply:
        run, engine, request = self.run, self.engine, self.request
        number = self.book.open_call()
        dispatcher = engine.dispatcher
        model = dispatcher.model_for("planner")
        want, least, prompt = self._planner_amounts(model)
        key = f"planner.{number}"
        granted = await engine.reserve(key, want, least)
        has_cap = engine.ledger.caps.tokens is not None or engine.ledger.caps.usd_nano is not None
        told, told_ref = await self._short(self.finished() if run.revisions else [])
        job = PlanJob(
            call=number,
            goal=run.goal,
            revision=run.revision + 1,
            context=request.context,
            tools=request.tools,
            model=model,
            pool=dispatcher.pool_for(model),
            syntax=request.syntax,
            stream=request.stream,
            feedback=feedback,
            finished=told,
            finished_ref=told_ref,
            kept=self._kept() if run.revisions else [],
            accepted=list(self.book.accepted),
            problems=problems[:50],
            agents=engine.site.agents,
            teams=engine.site.teams,
            template_names=engine.site.template_names,
            max_tokens=answer_room(granted, prompt, None) if has_cap else None,
            tokens_max=granted.tokens if engine.ledger.caps.tokens is not None else None,
            cache_scope=engine.root,
            tenant=request.tenant,
        )
        try:
            reply = await doors.write_plan(job, dispatcher.priority())
        except ActivityError as error:
            raise self._failed_call("planner", key, error) from error
        engine.ledger.settle(key, reply.usage)
        self.wasted_tokens += reply.wasted_tokens
        for warning in reply.warnings[:20]:
            engine.note(f"planner: {warning}")
        return reply

    def _failed_call(self, who: str, key: str, error: ActivityError) -> Exception:
        """What a failed model call of the loop ends in; what it was paid for is settled."""
        failed = failure_of(error, 1)
        if isinstance(failed, BodyCancelled):
            self.engine.ledger.refund(key)
            return error
        self.engine.ledger.settle(key, failed.usage)
        return PlanningFailed(f"{who}: {failed.message}")

    def _kept(self) -> list[PlannedTask]:
        engine = self.engine
        return [
            PlannedTask(task=engine.tasks[t], text=call_text(engine.tasks[t]))
            for t in engine.frontier.unfinished()
        ]

    def _accept(self, planned: Sequence[PlannedTask]) -> None:
        """Check tasks as they come; take in those that hold, start them when the run is live."""
        engine, book = self.engine, self.book
        added: list[Task] = []
        for one in planned:
            task = rename_inputs(one.task, self.aliases)
            earlier = [*engine.tasks, *(p.task.id for p in book.accepted), *self.aliases]
            problems = check_task(task, earlier, engine.site, self.request.tools)
            if len(book.accepted) >= TASKS_MAX:
                message = f"more than {TASKS_MAX} tasks"
                problems = [Problem(path=f"tasks.{task.id}", code="too_many", message=message)]
            if problems:
                book.refuse(problems)
                continue
            key = twin_key(task, engine.site)
            twin = self.twins.get(key) if key else None
            if twin is not None and twin != task.id and self._is_usable(twin):
                self.aliases[task.id] = twin
                engine.note(f"{task.id}: same call as {twin}, made once")
                continue
            if key:
                self.twins[key] = task.id
            book.accept(PlannedTask(task=task, text=one.text))
            added.append(task)
        if self.is_live and added:
            self._start(added)

    def _is_usable(self, task: TaskId) -> bool:
        outcome = self.engine.frontier.outcome_of(task)
        return outcome is None or outcome.is_good

    def _start(self, added: list[Task]) -> None:
        engine = self.engine
        tasks = [p.task for p in self.book.accepted]
        inputs = {t.id: tuple(i for i in inputs_of(t) if i != t.id) for t in tasks}
        known = {t: tuple(i for i in ins if i in inputs) for t, ins in inputs.items()}
        seconds = {t: engine.likely_seconds(t) for t in known}
        ranks = rank_upward(known, seconds)
        engine.add(added, ranks)
        engine.frontier.rerank(ranks)
        self.run.phase = "running" if engine.frontier.running() else self.run.phase
        engine.pump()
        self.run.show()

    def _draft(self, reply: PlanReply, only_tasks: bool = False) -> Draft | None:
        tasks = [p.task for p in self.book.accepted]
        plan = self._merged(tasks, reply, only_tasks)
        if plan is None:
            return None
        return Draft(plan, self.run.compile(plan), [])

    def _merged(self, tasks: list[Task], reply: PlanReply, only_tasks: bool) -> Plan | None:
        """The new tasks, after those of the plan before that stay."""
        more: dict[str, JsonValue] = {}
        if not only_tasks:
            answer, join = reply.answer, reply.join_only
            if reply.has_answer:
                more["answer"] = rename_references(answer, self.aliases)
            if join:
                more["join"] = [self.aliases.get(TaskId(j), TaskId(j)) for j in join]
            if reply.stop_when:
                more["stop_when"] = reply.stop_when
        before = self.run.plan
        if before is None:
            if not tasks:
                return None
            return Plan.model_validate({"goal": self.run.goal, "tasks": tasks, **more})
        if not tasks and not more:
            return None
        engine = self.engine
        merged, problems = merge_replan(
            before,
            finished=[t for t, o in engine.frontier.outcomes().items() if o.is_good],
            new_tasks=tasks,
            more=more,
        )
        self.book.refuse(problems)
        return merged

    # -- joining ----------------------------------------------------------------------------

    def finished(self) -> list[FinishedTask]:
        """What planner and joiner are told of what has ended: calls, outcomes, previews, causes."""
        told = []
        for task, record in self.engine.records.items():
            if record.outcome is None:
                continue
            told.append(
                FinishedTask(
                    id=task,
                    call=call_text(self.engine.tasks[task])[:FINISHED_PREVIEW_BYTES],
                    outcome=record.outcome,
                    output=record.output,
                    error=record.error or record.reason,
                    description=self.engine.tasks[task].description,
                )
            )
        return told

    async def _short(self, told: list[FinishedTask]) -> tuple[list[FinishedTask], Stored | None]:
        """What a job tells of finished tasks: themselves, or behind one reference when long.

        Raises:
            PlanningFailed: it cannot be stored.
        """
        documents: JsonValue = [t.model_dump(mode="json", exclude_unset=True) for t in told]
        if text_bytes(documents) <= FINISHED_INLINE_BYTES:
            return told, None
        try:
            return [], await self.engine.dispatcher.store(documents)
        except BodyFailed as failed:
            raise PlanningFailed(failed.message) from failed

    async def _join(self) -> RunResult | None:
        """Answer, or replan and return None to go on."""
        run, engine = self.run, self.engine
        plan = run.plan
        assert plan is not None
        status, reason = run.judged()
        left = max(0, self.request.replan.max_rounds - self.rounds)
        unmet = await self._unmet(plan)
        if unmet is not None:
            why_not: str | None = f"max_rounds {self.request.replan.max_rounds} is used up"
            if left > 0:
                why_not = await self._replan(unmet, "stop_when was not met", "")
            if why_not is None:
                return None
            return run.end("partial", await run.plan_answer(), f"{unmet}, and {why_not}")
        wants_help = status != "completed" and self.request.replan.on_failure and left > 0
        stopped = engine.stopping.reason is not None and status != "completed"
        if stopped or (plan.has_answer and not wants_help):
            return await run.finish()
        reply = await self._ask_joiner(left)
        if reply.action == "finish":
            return run.end(status, reply.answer, reason)
        if left == 0:
            refused: str | None = f"max_rounds {self.request.replan.max_rounds} is used up"
        else:
            refused = await self._replan(reply.feedback, "the joiner asked", "")
        if refused is None:
            return None
        because = f"the joiner asked to replan ({reply.feedback}), but {refused}"
        return run.end("partial", await run.plan_answer(), because)

    async def _unmet(self, plan: Plan) -> str | None:
        """The condition that was to end the run, if all has run and it is still not true."""
        condition = plan.stop_when or self.request.stop_when
        if condition is None or self.engine.stopping.reason is not None:
            return None
        try:
            holds, why = await self.engine.conditions.holds(condition), condition
        except BodyFailed as failed:
            holds, why = False, failed.message
        return None if holds else f"stop_when is not met: {why}"

    async def _ask_joiner(self, left: int) -> JoinReply:
        run, engine = self.run, self.engine
        run.phase = "joining"
        run.show()
        told = self.finished()
        join = run.plan.join if run.plan else None
        if join:
            told = [t for t in told if t.id in join or not t.outcome.is_good]
        dispatcher = engine.dispatcher
        model = dispatcher.model_for("joiner")
        prompt = sum(min(4_000, t.output.size_bytes if t.output else 0) + 600 for t in told) // 2
        prompt += OVERHEAD_TOKENS + 600 + min(8_000, text_bytes(self.request.context)) // 2
        want = model_amount(engine.site, model, prompt, JOINER_ANSWER_TOKENS, tasks=0)
        least = model_amount(engine.site, model, prompt, ANSWER_TOKENS_MIN, tasks=0)
        key = f"joiner.{self.rounds + 1}.{len(engine.records)}"
        granted = await engine.reserve(key, want, least)
        has_cap = engine.ledger.caps.tokens is not None or engine.ledger.caps.usd_nano is not None
        shown, shown_ref = await self._short(told)
        job = JoinJob(
            goal=run.goal,
            finished=shown,
            finished_ref=shown_ref,
            rounds_left=left,
            context=self.request.context,
            model=model,
            pool=dispatcher.pool_for(model),
            max_tokens=answer_room(granted, prompt, None) if has_cap else None,
            tokens_max=granted.tokens if engine.ledger.caps.tokens is not None else None,
            tenant=self.request.tenant,
        )
        try:
            reply = await doors.join_outcomes(job, f"join.{self.rounds + 1}", dispatcher.priority())
        except ActivityError as error:
            raise self._failed_call("joiner", key, error) from error
        engine.ledger.settle(key, reply.usage)
        return reply

    # -- replanning -------------------------------------------------------------------------

    async def _replan(self, feedback: str, why: str, by: str) -> str | None:
        """One bounded replan; None when it was taken, else why it was not."""
        run, engine, request = self.run, self.engine, self.request
        before = run.plan
        assert before is not None
        self.rounds += 1
        engine.reopen()
        draft = await self._write(feedback, why)
        outcomes = {t: o.value for t, o in engine.frontier.outcomes().items() if o.is_good}
        mark = fingerprint(draft.compiled.plan, outcomes)
        if mark in self.fingerprints:
            engine.frontier.close()
            return f"the new plan repeats revision {self.fingerprints[mark]}"
        if (lack := self._costs_too_much(draft.compiled, outcomes)) is not None:
            engine.frontier.close()
            return lack
        self.fingerprints[mark] = run.revision + 1
        self.stabilities.append(stability(before, draft.compiled.plan))
        self.reasons.append(f"revision {run.revision + 1}: {why}: {feedback}"[:400])
        major = major_changes(before, draft.compiled.plan, engine.site, request.approval.major)
        run.adopt(draft.compiled, why=f"{why}: {feedback}"[:400], by=by)
        await run.approve(is_first=False, major=major)
        assert run.compiled is not None
        run.enter_revision(run.compiled)
        return None

    def _costs_too_much(self, compiled: Compiled, finished: dict[TaskId, str]) -> str | None:
        """A replan must fit what is left: else it would only run into the cap."""
        new = [t for t in compiled.plan.tasks if t.id not in finished]
        if not new:
            return "the new plan has nothing left to do"
        free = self.engine.ledger.free
        if free.tasks is not None and free.tasks < len(new):
            return f"its {len(new)} tasks are more than the {free.tasks} the budget leaves"
        site = self.engine.site
        model = self.engine.dispatcher.model_for("worker")
        each = [estimate_task(t, site, model).times(items_of(t)) for t in new]
        tokens = sum(int(e.tokens[1]) for e in each)
        if free.tokens is not None and tokens > free.tokens:
            return f"it would likely take {tokens:,} tokens of the {free.tokens:,} that are left"
        usd = sum(int(e.usd_nano[1]) for e in each if e.usd_nano is not None)
        if free.usd_nano is not None and usd > free.usd_nano:
            left = free.usd_nano / NANO
            return f"it would likely cost ${usd / NANO:.4f} of the ${left:.4f} that are left"
        self.reasons.append(f"worth it: about {tokens:,} tokens for {len(new)} tasks")
        return None

    def problem_with_request(self) -> str | None:
        left = self.request.replan.max_rounds - self.rounds
        if left <= 0:
            return f"request_replan: max_rounds {self.request.replan.max_rounds} is used up"
        if self.run.plan is None:
            return "request_replan: there is no plan yet"
        return None

    def request_replan(self, feedback: str, by: str) -> None:
        self.asked = (feedback, by)

    # -- the planner activity ---------------------------------------------------------------

    def take_batch(self, batch: PlannedBatch) -> None:
        self._accept(self.book.take_batch(batch))

    def take_attempt(self, attempt: PlannerAttempt) -> PlannerPrefix:
        prefix = self.book.take_attempt(attempt)
        if prefix is None:
            raise ApplicationError(
                f"planner call {attempt.call}, attempt {attempt.attempt} was replaced",
                type="Stale",
                non_retryable=True,
            )
        return prefix

    def report(self) -> dict[str, JsonValue]:
        """How the plan came, for the result."""
        started = [r.started for r in self.engine.records.values() if r.started is not None]
        first = min(started, default=None)
        overlap = None
        if first is not None and self.planned_at is not None:
            overlap = round(max(0.0, self.planned_at - first), 4)
        return {
            "calls": self.book.call,
            "repairs": self.repairs,
            "planner_attempts_lost": self.book.attempts_lost,
            "stale_batches": self.book.stale,
            "wasted_tokens": self.wasted_tokens,
            "seconds": None if self.planned_at is None else round(self.planned_at, 4),
            "first_task_seconds": None if first is None else round(first, 4),
            "overlap_seconds": overlap,
            "stability": [round(s, 3) for s in self.stabilities],
            "replans": list(self.reasons),
        }


def _lines(problems: Sequence[Problem]) -> str:
    return "; ".join(p.line() for p in problems[:10])


__all__ = ["GoalLoop", "PlanningFailed", "Stored"]
