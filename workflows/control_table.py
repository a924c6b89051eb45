"""What each signal and update of a run checks and does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio.exceptions import ApplicationError

from planloom.planner.contract.controls import (
    ApprovePlan,
    ApproveTask,
    CancelTask,
    CompleteTask,
    EditPlan,
    Nothing,
    RaiseBudget,
    RejectPlan,
    Reply,
    RequestReplan,
)
from planloom.planner.contract.jobs import PatchJob
from planloom.planner.contract.names import BUDGET_EXCEEDED, INVALID_PLAN, PLAN_REJECTED
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Problem, TaskId
from planloom.planner.syntax.documents import read_plan
from planloom.workflows.controls import Control, Refusal
from planloom.workflows.machines.shared.approval import Verdict
from planloom.workflows.shell import activities as doors

if TYPE_CHECKING:
    from planloom.workflows.run import Run


def control_table(run: Run) -> dict[str, Control[Any]]:
    """All controls of a run, by name."""
    table: list[Control[Any]] = [
        Control("approve_plan", ApprovePlan, _Approve(run).check, _Approve(run).apply),
        Control("reject_plan", RejectPlan, _Reject(run).check, _Reject(run).apply),
        Control("edit_plan", EditPlan, _Edit(run).check, _Edit(run).apply),
        Control("request_replan", RequestReplan, _Replan(run).check, _Replan(run).apply),
        Control("raise_budget", RaiseBudget, _Raise(run).check, _Raise(run).apply),
        Control("pause", Nothing, _ended(run, "pause"), _Pause(run, True).apply),
        Control("resume", Nothing, _ended(run, "resume"), _Pause(run, False).apply),
        Control("cancel_task", CancelTask, _Cancel(run).check, _Cancel(run).apply),
        Control("complete_task", CompleteTask, _Complete(run).check, _Complete(run).apply),
        Control("approve_task", ApproveTask, _Task(run).check, _Task(run).apply),
    ]
    return {control.name: control for control in table}


def _ended(run: Run, name: str) -> Any:
    return lambda _: f"{name}: the run has ended: {run.result.status}" if run.result else None


class _Of:
    def __init__(self, run: Run) -> None:
        self.run = run

    def over(self, name: str) -> str | None:
        ended: str | None = _ended(self.run, name)(None)
        return ended


class _Approve(_Of):
    def check(self, a: ApprovePlan) -> Refusal | str | None:
        desk = self.run.engine.desk
        problem = self.over("approve_plan") or desk.problem_with(a.revision, "approve_plan")
        verdict = desk.verdict_on(a.revision)
        if problem and verdict is not None and verdict.decision == "rejected":
            return Refusal(problem, PLAN_REJECTED)
        return problem

    async def apply(self, a: ApprovePlan) -> Reply:
        verdict = Verdict(a.revision, "approved", a.by or "", a.note or "")
        self.run.engine.desk.decide(verdict)
        self.run.show()
        return Reply(accepted=True, message=f"revision {a.revision} approved", revision=a.revision)


class _Reject(_Of):
    def check(self, r: RejectPlan) -> str | None:
        return self.over("reject_plan") or self.run.engine.desk.problem_with(
            r.revision, "reject_plan"
        )

    async def apply(self, r: RejectPlan) -> Reply:
        verdict = Verdict(r.revision, "rejected", r.by or "", r.reason or "")
        self.run.engine.desk.decide(verdict)
        return Reply(accepted=True, message=f"revision {r.revision} rejected", revision=r.revision)


class _Edit(_Of):
    def check(self, e: EditPlan) -> str | None:
        run = self.run
        if ended := self.over("edit_plan"):
            return ended
        if run.plan is None:
            return "edit_plan: there is no plan yet"
        if e.revision != run.revision:
            return (
                f"edit_plan: revision {e.revision} was replaced by {run.revision}. "
                f'Look at query "plan", then edit revision {run.revision}.'
            )
        return None

    async def apply(self, e: EditPlan) -> Reply:
        """Compile the edited plan; it becomes the next revision, or nothing changes."""
        run = self.run
        plan = e.plan or await self._patched(e)
        if plan.join:  # what the joiner is shown follows the tasks that are left
            left = [j for j in plan.join if plan.task(j) is not None]
            plan = plan.model_copy(update={"join": left or None})
        await run.learn_of(plan)
        compiled = run.compile(plan)
        problems = [*compiled.problems, *run.problems_with_edit(plan)]
        if problems:
            raise _invalid("edit_plan", problems)
        if (stale := self.check(e)) is not None:  # it was patched in an activity meanwhile
            raise ApplicationError(stale, type="Stale", non_retryable=True)
        await run.take_edit(compiled, e.by or "")
        message = f"revision {run.revision}: " + "; ".join(run.view.diff()[:10])
        return Reply(accepted=True, message=message, revision=run.revision)

    async def _patched(self, e: EditPlan) -> Plan:
        document: JsonValue = self.run.view.plan_document()
        patched = await doors.patch_plan(PatchJob(document=document, patch=e.patch or []))
        if patched.problem:
            where = Problem(path="patch", code="bad_patch", message=patched.problem)
            raise _invalid("edit_plan", [where])
        plan, problems = read_plan(patched.document)
        if plan is None:
            raise _invalid("edit_plan", problems)
        return plan


class _Replan(_Of):
    def check(self, r: RequestReplan) -> str | None:
        if ended := self.over("request_replan"):
            return ended
        if self.run.goal_loop is None:
            return (
                "request_replan: this run has no planner: it was started from a plan. "
                "Change it with edit_plan."
            )
        return self.run.goal_loop.problem_with_request()

    async def apply(self, r: RequestReplan) -> Reply:
        assert self.run.goal_loop is not None
        self.run.goal_loop.request_replan(r.feedback, r.by or "")
        return Reply(accepted=True, message="a replan is asked for", revision=self.run.revision)


class _Raise(_Of):
    def check(self, r: RaiseBudget) -> Refusal | str | None:
        engine = self.run.engine
        if ended := self.over("raise_budget"):
            return ended
        given = r.model_dump(exclude={"by"}, exclude_none=True)
        if not given:
            return 'raise_budget: name at least one cap, for example {"tokens": 60000}'
        problem = engine.ledger.problem_with(r)
        if r.seconds is not None and r.seconds <= engine.now():
            problem = f"seconds {r.seconds:g} is below the {engine.now():.0f} that have passed"
        return Refusal(f"raise_budget: {problem}", BUDGET_EXCEEDED) if problem else None

    async def apply(self, r: RaiseBudget) -> Reply:
        engine = self.run.engine
        engine.ledger.raise_caps(r)
        engine.grants.raised()
        if r.seconds is not None:
            engine.clock.cap = r.seconds
            await engine.time.raised()
        if r.parallel is not None:
            engine.frontier.parallel = r.parallel
        who = f' by "{r.by}"' if r.by else ""
        given = r.model_dump(exclude={"by"}, exclude_none=True)
        caps = ", ".join(f"{k} {v:g}" for k, v in given.items())
        engine.note(f"budget raised{who}: {caps}")
        engine.pump()
        self.run.show()
        return Reply(accepted=True, message=f"caps: {caps}")


class _Pause(_Of):
    def __init__(self, run: Run, on: bool) -> None:
        super().__init__(run)
        self.on = on

    async def apply(self, _: Nothing) -> Reply:
        engine = self.run.engine
        engine.settling.pause(self.on)
        engine.pump()
        self.run.show()
        # Agents, teams and sub-plans at work start no further turn or task either.
        await engine.dispatcher.tell_children("pause" if self.on else "resume")
        return Reply(accepted=True, message="paused" if self.on else "running")


class _Cancel(_Of):
    def check(self, c: CancelTask) -> str | None:
        return self.over("cancel_task") or self.run.engine.stopping.problem_with(TaskId(c.id))

    async def apply(self, c: CancelTask) -> Reply:
        by = f' by "{c.by}"' if c.by else " by a person"
        self.run.engine.stopping.cancel(TaskId(c.id), f"cancelled{by}")
        return Reply(accepted=True, message=f"task {c.id} is being cancelled")


class _Complete(_Of):
    def check(self, c: CompleteTask) -> str | None:
        return self.over("complete_task") or self.run.engine.people.problem_with_answer(c)

    async def apply(self, c: CompleteTask) -> Reply:
        people = self.run.engine.people
        if not await people.hand_down(c):
            people.answer(c)
        return Reply(accepted=True, message=f"task {c.id} is answered")


class _Task(_Of):
    def check(self, a: ApproveTask) -> str | None:
        held = self.run.engine.people.held
        if ended := self.over("approve_task"):
            return ended
        if TaskId(a.id) not in held:
            waiting = ", ".join(held) or "none"
            return f'approve_task: task "{a.id}" does not wait for approval. Waiting: {waiting}'
        return None

    async def apply(self, a: ApproveTask) -> Reply:
        self.run.engine.people.decide(TaskId(a.id), a.approve, a.by, a.note)
        return Reply(accepted=True, message=f"task {a.id} {'may run' if a.approve else 'dropped'}")


def _invalid(name: str, problems: list[Problem]) -> ApplicationError:
    lines = "; ".join(p.line() for p in problems[:20])
    return ApplicationError(
        f"{name}: {lines}",
        [p.model_dump() for p in problems],
        type=INVALID_PLAN,
        non_retryable=True,
    )
