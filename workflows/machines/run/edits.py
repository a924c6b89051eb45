"""`edit_plan`: patched and compiled, then the next revision; or refused, and nothing changes."""

from __future__ import annotations

from planloom.planner.contract.controls import EditPlan, Reply
from planloom.planner.contract.jobs import PatchedPlan, PatchJob
from planloom.planner.contract.names import INVALID_PLAN, STALE
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue, Problem
from planloom.planner.syntax.documents import read_plan
from planloom.workflows.machines.run import approving
from planloom.workflows.machines.run.revising import (
    adopt,
    compile_for,
    enter_revision,
    major_of,
    problems_with_edit,
)
from planloom.workflows.machines.run.state import Edit, Pending, Purpose, Rule, RunState
from planloom.workflows.machines.shared.approval import needs_approval
from planloom.workflows.machines.shared.commands import Answer, PatchPlan, Prepare, Refuse
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Refusal, Step


def problem_with(run: RunState, payload: EditPlan) -> str | None:
    """Why the plan cannot be edited now, or None."""
    if run.plan is None:
        return "edit_plan: there is no plan yet"
    if run.stop is not None:
        return f"edit_plan: the run is being stopped: {run.stop.reason}"
    if payload.revision != run.revision:
        return (
            f"edit_plan: revision {payload.revision} was replaced by {run.revision}. "
            f'Look at query "plan", then edit revision {run.revision}.'
        )
    return None


def begin(run: RunState, step: Step, payload: EditPlan, token: int | None) -> None:
    """Take an edit: a patch is applied by an activity first."""
    key = f"edit.{token}" if token is not None else f"edit.s{run.edits_taken}"
    run.edits_taken += 1
    edit = Edit(payload, token)
    run.edits[key] = edit
    if payload.plan is not None:
        _take_plan(run, step, key, payload.plan)
        return
    assert run.plan is not None
    document: JsonValue = run.plan.model_dump(mode="json", exclude_unset=True, by_alias=True)
    run.pending[key] = Pending(Rule.PATCHED, key)
    step.do(PatchPlan(key, PatchJob(document=document, patch=payload.patch or [])))


def take_patched(run: RunState, step: Step, key: str, found: PatchedPlan | Failure) -> None:
    """The patch is applied, or cannot be."""
    problem = found.message if isinstance(found, Failure) else found.problem
    if problem:
        where = Problem(path="patch", code="bad_patch", message=problem)
        _refuse(run, step, key, _invalid([where]))
        return
    assert isinstance(found, PatchedPlan)
    plan, problems = read_plan(found.document)
    if plan is None:
        _refuse(run, step, key, _invalid(problems))
    else:
        _take_plan(run, step, key, plan)


def _take_plan(run: RunState, step: Step, key: str, plan: Plan) -> None:
    """The edited plan is there; the worker is asked for what it names and the request did not."""
    edit = run.edits[key]
    if plan.join:  # what the joiner is shown follows the tasks that are left
        left = [j for j in plan.join if plan.task(j) is not None]
        plan = plan.model_copy(update={"join": left or None})
    edit.plan = plan
    job = prepare_job(run.request.model_copy(update={"plan": plan, "template": None}))
    allowed = [t for t in job.tools if job.allow is None or t in job.allow]
    if run.catalog.describes_all(allowed, job.templates, job.agents, job.teams):
        _compile(run, step, key)
        return
    run.pending[key] = Pending(Rule.LEARNED, key)
    step.do(Prepare(key, job))


def take_learned(run: RunState, step: Step, key: str, found: Catalog | Failure) -> None:
    """The worker has said what it knows of the edited plan's names."""
    if isinstance(found, Failure):
        where = Problem(path="plan", code="no_answer", message=found.message)
        _refuse(run, step, key, _invalid([where]))
        return
    run.catalog = run.catalog.joined_with(found)
    _compile(run, step, key)


def _compile(run: RunState, step: Step, key: str) -> None:
    edit = run.edits[key]
    plan = edit.plan
    assert plan is not None
    stale = problem_with(run, edit.payload)  # it was looked up in an activity meanwhile
    if run.result is not None:
        stale = f"edit_plan: the run has ended: {run.result.status}"
    if stale is not None:
        _refuse(run, step, key, Refusal(stale, STALE))
        return
    compiled = compile_for(run, plan)
    if problems := [*compiled.problems, *problems_with_edit(run, plan)]:
        _refuse(run, step, key, _invalid(problems))
        return
    before, by = run.plan, edit.payload.by or ""
    assert before is not None
    # What waits for approval already is not approved by another edit on top of it.
    waiting = run.edited or []
    major = list(dict.fromkeys([*waiting, *major_of(run, before, compiled.plan)]))
    adopt(run, compiled, why="edited", by=by)
    if run.approval.is_open:
        approving.open_approval(run, step, major)
    elif run.planning is not None and run.planning.purpose is Purpose.WHILE_APPROVING:
        pass  # nothing was approved yet: it is asked for when the other plan is written
    elif needs_approval(run.request.approval.mode, is_first=False, major=major):
        run.edited = major
    else:
        enter_revision(run, step)
    message = f"revision {run.revision}: " + "; ".join(run.revisions[-1].changes[:10])
    del run.edits[key]
    if edit.token is not None:
        reply = Reply(accepted=True, message=message, revision=run.revision)
        step.do(Answer(edit.token, reply))


def _refuse(run: RunState, step: Step, key: str, refusal: Refusal) -> None:
    """The edit is not taken: the update is told why, a signal is recorded."""
    edit = run.edits.pop(key)
    if edit.token is None:
        run.note(f"signal ignored: {refusal.message}")
        return
    details = [p.model_dump() for p in refusal.problems]
    step.do(Refuse(edit.token, refusal.message, refusal.type, details))


def _invalid(problems: list[Problem]) -> Refusal:
    lines = "; ".join(p.line() for p in problems[:20])
    return Refusal(f"edit_plan: {lines}", INVALID_PLAN, problems)


def refuse_all(run: RunState, step: Step) -> None:
    """The run has ended: edits that are still being looked up are refused."""
    for key in list(run.edits):
        run.pending.pop(key, None)
        _refuse(run, step, key, Refusal("edit_plan: the run has ended", STALE))
