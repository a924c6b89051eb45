"""The loop of a goal: plan (streamed), approve, execute, join, replan within bounds, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio.exceptions import ActivityError, ApplicationError

from planloom.planner.compile.passes.deduplicate import (
    rename_inputs,
    rename_references,
    same_call_key,
)
from planloom.planner.compile.passes.rank import rank_upward
from planloom.planner.compile.pipeline import Compiled, check_task, inputs_of
from planloom.planner.compile.revision import (
    fingerprint,
    major_changes,
    merge_replan,
    stability,
    still_read,
)
from planloom.planner.contract.jobs import (
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlannerAttempt,
    PlannerPrefix,
    PlanReply,
)
from planloom.planner.contract.results import RunResult, RunStatus
from planloom.planner.language.plan import TASKS_MAX, Plan, Task
from planloom.planner.language.values import JsonValue, Outcome, Problem, TaskId
from planloom.planner.syntax.calls.parser import call_text
from planloom.workflows.engine import Engine
from planloom.workflows.joining import ask_joiner, finished_tasks, told_in_short
from planloom.workflows.machines.run.plan_book import PLAN_REPAIRS_MAX, PlanBook
from planloom.workflows.machines.run.replan_cost import cost_of_replan
from planloom.workflows.machines.shared.approval import needs_approval
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.estimates import (
    PLANNER_ANSWER_TOKENS,
    PLANNER_ANSWER_TOKENS_MIN,
    answer_room,
    model_amount,
    planner_prompt_tokens,
    usage_so_far,
)
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyCancelled, BodyFailed, OutOfBudget, failure_of

if TYPE_CHECKING:
    from planloom.workflows.run import Run


class PlanningFailed(Exception):
    """No plan came: the endpoint, the model or the text is to blame; the message says which."""


class CalledOff(PlanningFailed):
    """The run was stopped while the planner wrote: its call was cancelled."""


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
                await run.execute(until=self.is_asked)
                if self.is_asked():
                    await self._replan_for_a_person()
                    continue
                ended = await self._join()
                if ended is not None:
                    return ended
        except CalledOff as stopped:
            return await self._give_up(str(stopped), "partial")
        except PlanningFailed as failed:
            return await self._give_up(str(failed))
        except BodyFailed as failed:  # what was to be told or answered cannot be made
            return await self._give_up(failed.message)
        except OutOfBudget as lack:
            engine.stopping.stop(f"budget: {lack}")
            return await self._give_up(f"budget: {lack}", "partial")

    def is_asked(self) -> bool:
        """Whether a person waits for another plan."""
        return self.asked is not None

    async def _replan_for_a_person(self) -> None:
        """A person's wish never ends what goes on: a replan that fails leaves the plan as it is."""
        assert self.asked is not None
        (feedback, by), self.asked = self.asked, None
        try:
            refused = await self._replan(feedback, f"asked for by {by or 'a person'}", by)
        except (PlanningFailed, OutOfBudget) as failed:
            self.engine.frontier.close()
            refused = str(failed)
        if refused:
            self.engine.note(f"replan not taken: {refused}")

    async def _give_up(self, reason: str, empty: RunStatus = "failed") -> RunResult:
        """Planning or joining failed: what has run is kept, and the reason told.

        `empty` is the status when nothing has a value.
        """
        await self.engine.drain()
        has_any = any(r.outcome and r.outcome.is_good for r in self.engine.records.values())
        if not has_any or self.run.plan is None:
            return self.run.end("partial" if has_any else empty, None, reason)
        return await self._partial(reason)

    async def _partial(self, reason: str) -> RunResult:
        """End with what the plan's answer is by now."""
        try:
            answer = await self.run.plan_answer()
        except BodyFailed as failed:
            return self.run.end("partial", None, f"{reason}; answer: {failed.message}")
        return self.run.end("partial", answer, reason)

    async def _first_plan(self) -> None:
        run, request = self.run, self.request
        if request.goal is None:
            await run.take_given_plan()
            assert run.compiled is not None
            self.fingerprints[fingerprint(run.compiled.plan, {})] = run.revision
            return
        asks = needs_approval(request.approval.mode, is_first=True)
        self.is_live = request.stream and not asks
        try:
            draft = await self._write(None, "planned")
        except CalledOff:
            if (written := self._written()) is None:
                raise
            draft = written
        if draft.problems:
            self.engine.note(f"the plan's tail was left out: {_lines(draft.problems)}")
        run.adopt(draft.compiled, why="planned")
        run.aliases |= self.aliases
        self.fingerprints[fingerprint(draft.compiled.plan, {})] = run.revision
        await self.approve(is_first=True)
        assert run.compiled is not None
        await run.enter_revision(run.compiled)
        self.is_live = False

    async def approve(self, *, is_first: bool, major: Sequence[str] = ()) -> None:
        """Have the newest revision approved; a person who asks for another plan gets that first.

        Raises:
            PlanRefused: a person, or a time-out, said no.
        """
        while not await self.run.approve(is_first=is_first, major=major, until=self.is_asked):
            assert self.asked is not None
            (feedback, by), self.asked = self.asked, None
            why = f"asked for by {by or 'a person'}"
            try:
                revised = await self._revise(feedback, why, by)
            except (PlanningFailed, OutOfBudget) as failed:
                revised = str(failed)
            if isinstance(revised, str):
                self.engine.note(f"replan not taken: {revised}")
            else:
                major = revised

    # -- planning ---------------------------------------------------------------------------

    def _planner_amounts(self, job: PlanJob) -> tuple[Amount, Amount, int]:
        """What a planner call may use, the least it can do with, and its prompt alone."""
        catalog = self.engine.catalog
        prompt = planner_prompt_tokens(job, catalog)
        want = model_amount(catalog, job.model, prompt, PLANNER_ANSWER_TOKENS, tasks=0)
        return (
            want,
            model_amount(catalog, job.model, prompt, PLANNER_ANSWER_TOKENS_MIN, tasks=0),
            prompt,
        )

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
            if repairs == PLAN_REPAIRS_MAX:
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
        dispatcher, caps = engine.dispatcher, engine.ledger.caps
        model = dispatcher.model_for("planner")
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
            finished=finished_tasks(self) if run.revisions else [],
            kept=self._kept() if run.revisions else [],
            accepted=list(self.book.accepted),
            problems=problems[:50],
            agents=engine.catalog.agents,
            teams=engine.catalog.teams,
            template_names=engine.catalog.template_names,
            cache_scope=engine.root,
            tenant=request.tenant,
        )
        want, least, prompt = self._planner_amounts(job)
        key = f"planner.{number}"
        granted = await engine.reserve(key, want, least)
        if caps.tokens is not None or caps.usd_nano is not None:
            limit = granted.tokens if caps.tokens is not None else None
            room = answer_room(granted, prompt, None)
            job = job.model_copy(update={"max_tokens": room, "tokens_max": limit})
        job = job.model_copy(update=await told_in_short(self, job.finished))
        try:
            engine.stopping.planner = doors.write_plan(job, dispatcher.priority())
            reply = await engine.stopping.planner
        except ActivityError as error:
            if engine.stopping.has_called_off:
                raise self._called_off(key, model, prompt) from error
            raise self.failed_call("planner", key, error) from error
        finally:
            engine.stopping.planner = None
        engine.ledger.settle(key, reply.usage)
        self.wasted_tokens += reply.wasted_tokens
        for warning in reply.warnings[:20]:
            engine.note(f"planner: {warning}")
        return reply

    def failed_call(self, who: str, key: str, error: ActivityError) -> BaseException:
        """What a failed model call of the loop ends in; what it was paid for is settled."""
        failed = failure_of(error, 1)
        if isinstance(failed, BodyCancelled):
            self.engine.ledger.refund(key)
            return asyncio.CancelledError()
        self.engine.ledger.settle(key, failed.usage)
        return PlanningFailed(f"{who}: {failed.message}")

    def _called_off(self, key: str, model: str | None, prompt: int) -> CalledOff:
        """The run was stopped, and the planner with it; what it was paid is settled as known."""
        engine, book = self.engine, self.book
        engine.stopping.has_called_off, book.is_called_off = False, True
        text = sum(text_bytes(t.text) for t in book.accepted)
        usage = usage_so_far(engine.catalog, model, prompt, text)
        engine.ledger.settle(key, usage)
        why = engine.stopping.reason or "the run ends"
        engine.note(f"planner called off ({why}): about {usage.tokens:,} tokens are charged for it")
        return CalledOff(why)

    def _kept(self) -> list[PlannedTask]:
        engine = self.engine
        left = [engine.tasks[t] for t in engine.frontier.unfinished()]
        if not engine.tasks and self.run.plan is not None:
            left = self.run.plan.tasks  # it waits for approval: nothing of it has been taken in
        return [PlannedTask(task=task, text=call_text(task)) for task in left]

    def _accept(self, planned: Sequence[PlannedTask]) -> None:
        """Check tasks as they come; take in those that hold, start them when the run is live."""
        engine, book = self.engine, self.book
        added: list[Task] = []
        # A dict, as a thousand tasks are looked up and the order is shown in hints.
        earlier = dict.fromkeys([*engine.tasks, *(p.task.id for p in book.accepted), *self.aliases])
        for one in planned:
            task = rename_inputs(one.task, self.aliases)
            problems = check_task(task, earlier, engine.catalog, self.request.tools)
            earlier[task.id] = None
            if len(book.accepted) >= TASKS_MAX:
                message = f"more than {TASKS_MAX:,} tasks"
                problems = [Problem(path=f"tasks.{task.id}", code="too_many", message=message)]
            if problems:
                book.refuse(problems)
                continue
            key = same_call_key(task, engine.catalog)
            twin = self.twins.get(key) if key else None
            if twin is not None and twin != task.id and self._is_usable(twin):
                self.aliases[task.id] = twin
                engine.note(f"{task.id}: same call as {twin}, made once")
                continue
            if key:
                self.twins[key] = task.id
            self.aliases.pop(task.id, None)
            book.accept(PlannedTask(task=task, text=one.text))
            added.append(task)
        if self.is_live and added:
            self._start(added)

    def _is_usable(self, task: TaskId) -> bool:
        """Whether a call need not be made again: it has a value, or is still to get one."""
        state = self.engine.frontier.state_of(task)
        if isinstance(state, Outcome):
            return state.is_good
        return state is not None or any(p.task.id == task for p in self.book.accepted)

    def _start(self, added: list[Task]) -> None:
        engine = self.engine
        tasks = [p.task for p in self.book.accepted]
        inputs = {t.id: tuple(i for i in inputs_of(t) if i != t.id) for t in tasks}
        known = {t: tuple(i for i in ins if i in inputs) for t, ins in inputs.items()}
        seconds = {t: _likely_seconds(engine, t) for t in known}
        ranks = rank_upward(known, seconds)
        engine.add(added, ranks)
        engine.frontier.rerank(ranks)
        self.run.phase = "running" if engine.frontier.running() else self.run.phase
        engine.pump()
        self.run.show()

    def _written(self) -> Draft | None:
        """The plan as far as it came before the run was stopped; None if nothing of it ran."""
        self.planned_at = self.engine.now()
        draft = self._draft(PlanReply(), only_tasks=True) if self.engine.tasks else None
        return draft if draft is not None and not draft.compiled.problems else None

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
        kept = [t for t, o in engine.frontier.outcomes().items() if o.is_good]
        gone = [engine.tasks[t] for t in kept if before.task(t) is None]
        whole = before.model_copy(update={"tasks": [*before.tasks, *gone]})
        may_stay = [*engine.frontier.unfinished(), *(t.id for t in gone)]
        read = still_read(whole, tasks, more, may_stay)
        stays = [*before.tasks, *(t for t in gone if t.id in read)]
        before = whole.model_copy(update={"tasks": stays})
        kept += [t for t in read if t not in kept]
        merged, problems = merge_replan(before, finished=kept, new_tasks=tasks, more=more)
        self.book.refuse(problems)
        return merged

    # -- joining ----------------------------------------------------------------------------

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
            return await self._partial(f"{unmet}, and {why_not}")
        wants_help = status != "completed" and self.request.replan.on_failure and left > 0
        stopped = engine.stopping.reason is not None and status != "completed"
        if stopped or (plan.has_answer and not wants_help):
            return await run.finish()
        reply = await ask_joiner(self, left)
        if self._has_more():
            return None
        if reply.action == "finish":
            return run.end(status, reply.answer, reason)
        if left == 0:
            refused: str | None = f"max_rounds {self.request.replan.max_rounds} is used up"
        else:
            refused = await self._replan(reply.feedback, "the joiner asked", "")
        if refused is None:
            return None
        because = f"the joiner asked to replan ({reply.feedback}), but {refused}"
        return await self._partial(because)

    def _has_more(self) -> bool:
        """A person asked for another plan, or changed this one, while the joiner decided."""
        waits = self.is_asked() or self.run.edited is not None
        return waits or bool(self.engine.frontier.unfinished())

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

    # -- replanning -------------------------------------------------------------------------

    async def _replan(self, feedback: str, why: str, by: str) -> str | None:
        """One bounded replan; None when it was taken, else why it was not."""
        run = self.run
        revised = await self._revise(feedback, why, by)
        if isinstance(revised, str):
            self.engine.frontier.close()
            return revised
        await self.approve(is_first=False, major=revised)
        assert run.compiled is not None
        await run.enter_revision(run.compiled)
        return None

    async def _revise(self, feedback: str, why: str, by: str) -> list[str] | str:
        """Have another plan written and make it the newest revision.

        Gives why it is material, a reason each; or, as text, why it was not taken.
        """
        run, engine = self.run, self.engine
        before = run.plan
        assert before is not None
        self.rounds += 1
        engine.reopen()
        names = dict(self.twins), dict(self.aliases)
        draft = await self._write(feedback, why)
        outcomes = {t: o.value for t, o in engine.frontier.outcomes().items() if o.is_good}
        mark = fingerprint(draft.compiled.plan, outcomes)
        model = engine.dispatcher.model_for("worker")
        tasks = draft.compiled.plan.tasks
        cost = cost_of_replan(tasks, outcomes, engine.ledger.free, engine.catalog, model)
        refused = cost.problem
        if mark in self.fingerprints:
            refused = f"the new plan repeats revision {self.fingerprints[mark]}"
        if refused is not None:
            self.twins, self.aliases = names
            return refused
        if draft.problems:
            engine.note(f"the plan's tail was left out: {_lines(draft.problems)}")
        self.fingerprints[mark] = run.revision + 1
        self.stabilities.append(stability(before, draft.compiled.plan))
        self.reasons.append(f"revision {run.revision + 1}: {why}: {feedback}"[:400])
        self.reasons.append(f"worth it: {cost.words}")
        limits = self.request.approval.major
        major = major_changes(before, draft.compiled.plan, engine.catalog, limits, outcomes)
        run.adopt(draft.compiled, why=f"{why}: {feedback}"[:400], by=by)
        return major

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


def _likely_seconds(engine: Engine, task: TaskId) -> float:
    known = engine.tasks.get(task)
    if known is not None and known.estimate and known.estimate.seconds is not None:
        return known.estimate.seconds
    return engine.catalog.tool_seconds.get(known.tool or "", 1.0) if known is not None else 1.0


def _lines(problems: Sequence[Problem]) -> str:
    return "; ".join(p.line() for p in problems[:10])
