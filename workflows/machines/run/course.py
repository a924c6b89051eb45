"""The course of a run: prepare, plan, approve, execute, join, replan within bounds, answer.

`advance` runs after every event and moves the run from stage to stage as far as it can go.
"""

from __future__ import annotations

from collections.abc import Callable

from planloom.planner.compile.expand import expand_request, without_disabled
from planloom.planner.compile.revision import fingerprint, major_changes, stability
from planloom.planner.compile.templates import check_params, read_template
from planloom.planner.contract.jobs import JoinReply
from planloom.planner.contract.large_plans import INLINE_TASKS_MAX
from planloom.planner.contract.names import INVALID_PLAN, INVALID_REQUEST, UNKNOWN_TOOL
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.results import RunStatus
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import Outcome, Problem, Stored
from planloom.workflows.machines.run import joining, planning
from planloom.workflows.machines.run.approving import ask_approval, close_approval, who_decided
from planloom.workflows.machines.run.finishing import (
    begin_answer,
    end_run,
    judged,
    leave,
    take_plan_answer,
)
from planloom.workflows.machines.run.planning import Draft, NoPlan, goal_of, lines_of
from planloom.workflows.machines.run.replan_cost import cost_of_replan
from planloom.workflows.machines.run.revising import adopt, compile_for, enter_revision, enter_tasks
from planloom.workflows.machines.run.state import (
    Ending,
    Joining,
    Pending,
    Planning,
    Purpose,
    Rule,
    RunState,
    Stage,
    Stop,
    StopKind,
    Then,
)
from planloom.workflows.machines.run.stopping import stop_condition, stop_run, sweep
from planloom.workflows.machines.run.tasks import take_settled
from planloom.workflows.machines.run.timers import set_timer
from planloom.workflows.machines.run.timing import watch_time
from planloom.workflows.machines.run.values import condition_or_ask
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.approval import needs_approval
from planloom.workflows.machines.shared.commands import (
    PlanPrepared,
    Prepare,
    PreparePlan,
)
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Failed, Step
from planloom.workflows.machines.shared.requests import kind_of, request_problems, unknown_tools

UNMET = "stop_when is not met"


def fail_run(run: RunState, step: Step, kind: str, problems: list[Problem]) -> None:
    """The caller's mistake: the workflow fails with all that is wrong."""
    run.failed = Failed(kind, problems)
    leave(run, step)


# -- the beginning --------------------------------------------------------------------------


def begin(run: RunState, step: Step) -> None:
    """The workflow starts."""
    if run.has_site:
        take_site(run, step, run.catalog)
        return
    key, request = Rule.PREPARED.value, run.request
    run.pending[key] = Pending(Rule.PREPARED)
    is_large = request.plan is not None and len(request.plan.tasks) > INLINE_TASKS_MAX
    if is_large or request.plan_blob is not None:
        step.do(PreparePlan(key, request, run.lineage.depth, list(run.lineage.inputs)))
    else:
        step.do(Prepare(key, prepare_job(request)))


def take_prepared(run: RunState, step: Step, found: PlanPrepared) -> None:
    """As `take_site`, with a large plan that is compiled already."""
    run.request, run.compiled = found.request, found.compiled
    if found.compiled is None:
        is_plan = all(p.path != "plan_blob" for p in found.problems)
        fail_run(run, step, INVALID_PLAN if is_plan else INVALID_REQUEST, found.problems)
    else:
        take_site(run, step, found.catalog)


def take_site(run: RunState, step: Step, catalog: Catalog) -> None:
    """What the worker knows is there: the run's time is watched, and its room is taken."""
    run.catalog = catalog
    run.values["params"] = run.given_params or Stored(value=dict(run.request.params))
    run.values |= run.lineage.inputs
    watch_time(run, step)
    pool = catalog.pool_for(run.model_for("worker"))
    if run.has_site or not permit.is_needed(pool, run.lineage):
        begin_course(run, step)
        return
    run.stage, run.permit = Stage.ROOM, pool
    run.room_wait = permit.why_it_waits(pool)
    calls = len(run.request.agents or run.request.teams or [1])
    run.pending[permit.KEY] = Pending(Rule.PERMIT)
    step.do(permit.take_permit(pool, run.request, run.identity.workflow_id, calls))


def take_permit(run: RunState, step: Step, failed: Failure | None) -> None:
    """The permit is there, or the pool can never give one."""
    run.room_wait = None
    if failed is not None:
        run.permit = None
        problem = Problem(path="pool", code="no_permit", message=failed.message)
        fail_run(run, step, failed.error_class, [problem])
        return
    timer = permit.renew_at(step.now)
    set_timer(run, step, timer.key, timer.at, timer.summary)
    begin_course(run, step)


def begin_course(run: RunState, step: Step) -> None:
    """From the plan to the result, now that the catalog is known."""
    if run.goal is None or run.request.goal is None:
        _take_given_plan(run, step)
        return
    if problems := unknown_tools(run.request.tools, run.catalog):
        fail_run(run, step, UNKNOWN_TOOL, problems)
        return
    asks = needs_approval(run.request.approval.mode, is_first=True)
    run.goal.is_live = run.request.stream and not asks
    begin_planning(run, step, Planning(Purpose.FIRST, None, "planned"))


def _take_given_plan(run: RunState, step: Step) -> None:
    """Compile the plan or template of the request, and have it approved."""
    compiled, problems = run.compiled, list[Problem]()
    if compiled is None:
        plan, problems = _given_plan(run)
        if plan is None:
            fail_run(run, step, INVALID_PLAN, problems)
            return
        compiled = compile_for(run, plan)
    values, found = check_params(compiled.plan, run.request.params)
    if run.given_params is None:
        problems += found
        run.values["params"] = Stored(value=values)
    ids = [*(t.id for t in compiled.plan.tasks), *compiled.aliases, *compiled.pruned]
    problems += [*compiled.problems, *request_problems(run.request, run.catalog, ids)]
    if problems:
        fail_run(run, step, kind_of(problems), problems)
        return
    adopt(run, compiled, why="given")
    if run.goal is not None:
        run.goal.fingerprints[fingerprint(compiled.plan, {})] = run.revision
    ask_approval(run, step, is_first=True, major=[], then=Then.ENTER)


def _given_plan(run: RunState) -> tuple[Plan | None, list[Problem]]:
    request, catalog = run.request, run.catalog
    if request.plan is not None:
        return request.plan, []
    if request.template is not None:
        return read_template(request.template, catalog.templates, catalog.template_names)
    kept, dropped, problems = without_disabled(
        request, catalog.disabled_agents, catalog.disabled_teams
    )
    for name in dropped:
        run.note(f'"{name}" is disabled, and was left out')
    return (None, problems) if problems else expand_request(kept)


# -- planning -------------------------------------------------------------------------------


def begin_planning(run: RunState, step: Step, wanted: Planning) -> None:
    """Have a plan written, for whatever purpose."""
    if (none := planning.begin_planning(run, step, wanted)) is not None:
        take_draft(run, step, none)


def take_draft(run: RunState, step: Step, found: Draft | NoPlan | None) -> None:
    """What a planner call came to; None: another one repairs it."""
    if found is None:
        return
    wanted = planning.planning_of(run)
    run.planning = None
    if isinstance(found, NoPlan) and found.is_called_off and wanted.purpose is Purpose.FIRST:
        found = planning.written_so_far(run, step.now) or found
    if run.is_cancelled:
        return  # the run ends as cancelled, whatever came
    if isinstance(found, NoPlan):
        _no_plan(run, step, wanted, found)
    elif wanted.purpose is Purpose.FIRST:
        _first_plan(run, step, found)
    else:
        _next_plan(run, step, wanted, found)


def _first_plan(run: RunState, step: Step, draft: Draft) -> None:
    goal = goal_of(run)
    if draft.problems:
        run.note(f"the plan's tail was left out: {lines_of(draft.problems)}")
    adopt(run, draft.compiled, why="planned")
    run.aliases |= goal.aliases
    goal.fingerprints[fingerprint(draft.compiled.plan, {})] = run.revision
    ask_approval(run, step, is_first=True, major=[], then=Then.ENTER_REVISION)


def _next_plan(run: RunState, step: Step, wanted: Planning, draft: Draft) -> None:
    """Make another plan the newest revision, if it is new and worth its cost."""
    goal, before = goal_of(run), run.plan
    assert before is not None
    plan = draft.compiled.plan
    outcomes = {t: o.value for t, o in run.frontier.outcomes().items() if o.is_good}
    mark = fingerprint(plan, outcomes)
    model = run.model_for("worker")
    cost = cost_of_replan(plan.tasks, outcomes, run.account.ledger.free, run.catalog, model)
    refused = cost.problem
    if mark in goal.fingerprints:
        refused = f"the new plan repeats revision {goal.fingerprints[mark]}"
    if refused is not None:
        goal.twins, goal.aliases = wanted.names
        _not_taken(run, step, wanted, refused)
        return
    if draft.problems:
        run.note(f"the plan's tail was left out: {lines_of(draft.problems)}")
    goal.fingerprints[mark] = run.revision + 1
    goal.stabilities.append(stability(before, plan))
    why = f"{wanted.why}: {wanted.feedback}"
    goal.reasons.append(f"revision {run.revision + 1}: {why}"[:400])
    goal.reasons.append(f"worth it: {cost.words}")
    limits = run.request.approval.major
    # An edit that waits for approval is part of what the new plan was made from.
    major = [*(run.edited or []), *major_changes(before, plan, run.catalog, limits, outcomes)]
    adopt(run, draft.compiled, why=why[:400], by=wanted.by)
    ask_approval(run, step, is_first=_waits_first(run), major=major, then=Then.ENTER_REVISION)


def _waits_first(run: RunState) -> bool:
    """Whether nothing of any plan has been taken in: the newest plan is asked for as the first."""
    return run.entered == 0 and not run.tasks


def _not_taken(run: RunState, step: Step, wanted: Planning, why: str) -> None:
    """Another plan was written, or was to be, and the old one stays."""
    match wanted.purpose:
        case Purpose.WHILE_APPROVING:
            run.note(f"replan not taken: {why}")
            again = run.approving
            assert again is not None
            ask_approval(run, step, is_first=again.is_first, major=again.major, then=again.then)
        case _ if wanted.purpose is Purpose.PERSON or _has_more(run):
            run.note(f"replan not taken: {why}")
            go_on(run)
        case Purpose.UNMET:
            run.frontier.close()
            end_partial(run, step, f"{wanted.feedback}, and {why}")
        case _:
            run.frontier.close()
            because = f"the joiner asked to replan ({wanted.feedback}), but {why}"
            end_partial(run, step, because)


def _no_plan(run: RunState, step: Step, wanted: Planning, none: NoPlan) -> None:
    if wanted.purpose in (Purpose.PERSON, Purpose.WHILE_APPROVING):
        goal = goal_of(run)
        goal.twins, goal.aliases = wanted.names
        _not_taken(run, step, wanted, none.reason.removeprefix("budget: "))
    elif none.is_over_budget:
        give_up(run, step, none.reason, "partial", StopKind.BUDGET)
    elif wanted.purpose is not Purpose.FIRST and not none.is_called_off and _has_more(run):
        _not_taken(run, step, wanted, none.reason)
    else:
        give_up(run, step, none.reason, "partial" if none.is_called_off else "failed")


def give_up(
    run: RunState,
    step: Step,
    reason: str,
    empty: RunStatus,
    kind: StopKind = StopKind.ENDED,
) -> None:
    """Planning or joining failed: what has run is kept. `empty`: the status if nothing has."""
    run.ending = Ending(empty, reason, is_given_up=True)
    run.stage = Stage.STOPPING
    stop_run(run, step, Stop(kind, reason if kind is StopKind.BUDGET else "the run ends"))


def end_partial(run: RunState, step: Step, reason: str) -> None:
    """End with what the plan's answer is by now."""
    begin_answer(run, step, Ending("partial", reason, is_given_up=True))


def go_on(run: RunState) -> None:
    """Run the tasks of the plan until nothing is left to do."""
    run.stage = Stage.RUNNING
    run.frontier.close()
    run.is_stop_checked = False


# -- joining --------------------------------------------------------------------------------


def _begin_joining(run: RunState, step: Step) -> None:
    """All has run: answer, or replan."""
    condition = stop_condition(run)
    run.stage = Stage.JOINING
    if condition is None or run.stop is not None:
        _join(run, step, None)
        return
    found = condition_or_ask(run, step, Rule.UNMET, condition)
    if found is not None:
        take_unmet(run, step, condition, found)


def take_unmet(run: RunState, step: Step, condition: str, found: bool | Failure) -> None:
    """Whether the condition that was to end the run is true, now that all has run."""
    if isinstance(found, Failure):
        _join(run, step, f"{UNMET}: {found.message}")
    else:
        _join(run, step, None if found else f"{UNMET}: {condition}")


def _join(run: RunState, step: Step, unmet: str | None) -> None:
    plan, replan = run.plan, run.request.replan
    assert plan is not None
    status, reason = judged(run)
    left = joining.rounds_left(run)
    if unmet is not None:
        if left > 0:
            begin_planning(run, step, Planning(Purpose.UNMET, unmet, "stop_when was not met"))
        else:
            end_partial(run, step, f"{unmet}, and max_rounds {replan.max_rounds} is used up")
        return
    wants_help = status != "completed" and replan.on_failure and left > 0
    stopped = run.stop is not None and status != "completed"
    if stopped or (plan.has_answer and not wants_help):
        begin_answer(run, step, Ending(status, reason))
        return
    take_over(run, step, joining.begin_joining(run, step, Joining(status=status, reason=reason)))


def take_over(run: RunState, step: Step, over: Over | None) -> None:
    """The budget ends the run before the joiner was asked."""
    if over is not None:
        run.joining = None
        give_up(run, step, f"budget: {over.lack}", "partial", StopKind.BUDGET)


def take_join(run: RunState, step: Step, reply: JoinReply | Over | None) -> None:
    """The joiner's decision; None: it looks at something first."""
    if reply is None or isinstance(reply, Over):
        take_over(run, step, reply)
        return
    asked = joining.joining_of(run)
    run.joining = None
    if _has_more(run):
        go_on(run)
    elif reply.action == "finish":
        end_run(run, step, asked.status, reply.answer, asked.reason)
    elif joining.rounds_left(run) > 0:
        wanted = Planning(Purpose.JOINER, reply.feedback, "the joiner asked")
        begin_planning(run, step, wanted)
    else:
        most = run.request.replan.max_rounds
        because = f"the joiner asked to replan ({reply.feedback}), but"
        end_partial(run, step, f"{because} max_rounds {most} is used up")


def join_failed(run: RunState, step: Step, failed: Failure) -> None:
    """A joiner call failed for good."""
    planning.settle_outside(run, joining.joining_of(run).key, failed.usage)
    if joining.ask_wider(run, step, failed):
        return
    run.joining = None
    if _has_more(run):
        run.note(f"joiner: {failed.message}")
        go_on(run)
        return
    give_up(run, step, f"joiner: {failed.message}", "failed")


def _has_more(run: RunState) -> bool:
    """A person asked for another plan, or changed this one, while the end was being made."""
    is_asked = run.goal is not None and run.goal.asked is not None
    waits = is_asked or run.edited is not None
    return waits or bool(run.changing) or bool(run.frontier.unfinished())


def take_answer(run: RunState, step: Step, found: Stored | Failure) -> None:
    """The answer is made of the outputs: the run ends with it, unless more is to be done."""
    if _has_more(run):
        run.ending = None
        go_on(run)
    else:
        take_plan_answer(run, step, found)


# -- moving on ------------------------------------------------------------------------------


def is_settled(run: RunState) -> bool:
    """Nothing runs, and nothing will without another plan or a person."""
    if run.works or run.lists or run.changing:
        return False
    return run.frontier.is_over or run.frontier.is_stopped


def advance(run: RunState, step: Step) -> bool:
    """Move to the next stage if the run may leave this one; whether it did."""
    rule = _LEAVING.get(run.stage)
    return rule is not None and rule(run, step)


def _leave_approving(run: RunState, step: Step) -> bool:
    waiting = run.approving
    assert waiting is not None
    goal = run.goal
    if run.approval.is_open:
        if goal is None or goal.asked is None:
            return False
        (feedback, by), goal.asked = goal.asked, None
        close_approval(run, step, None)
        why = f"asked for by {by or 'a person'}"
        begin_planning(run, step, Planning(Purpose.WHILE_APPROVING, feedback, why, by))
        return True
    verdict = run.approval.verdict_on(run.revision)
    run.approving = None
    if verdict is not None and verdict.decision == "rejected":
        reason = f"revision {verdict.revision} rejected{who_decided(verdict)}"
        run.ending, run.stage = Ending("rejected", reason), Stage.STOPPING
        stop_run(run, step, Stop(StopKind.ENDED, "the run ends"))
        return True
    if waiting.then is Then.ENTER:
        assert run.compiled is not None
        enter_tasks(run, run.compiled.plan.tasks, step.now)
    else:
        enter_revision(run, step)
    if goal is not None:
        goal.is_live = False
    go_on(run)
    return True


def _leave_running(run: RunState, step: Step) -> bool:
    goal = run.goal
    if run.edited is not None:
        major, run.edited = run.edited, None
        ask_approval(run, step, is_first=False, major=major, then=Then.ENTER_REVISION)
        return True
    if goal is not None and goal.asked is not None:
        (feedback, by), goal.asked = goal.asked, None
        why = f"asked for by {by or 'a person'}"
        begin_planning(run, step, Planning(Purpose.PERSON, feedback, why, by))
        return True
    if not is_settled(run) or Rule.STOP_WHEN.value in run.pending:
        return False
    if run.frontier.is_stopped:
        sweep(run, step)
    elif _another_round(run, step):
        return True
    if goal is not None:
        _begin_joining(run, step)
    else:
        status, reason = judged(run)
        begin_answer(run, step, Ending(status, reason))
    return True


def _another_round(run: RunState, step: Step) -> bool:
    """Failures that may pass are tried once more after all else is done.

    Those of the plan as it is now: what a revision has left out stays as it ended.
    """
    again = [t for t, r in run.records.items() if r.outcome is Outcome.FAILED and r.may_pass]
    if not again or run.round >= run.request.retry_rounds:
        return False
    plan = run.entered_plan
    planned = {t.id for t in plan.tasks} if plan is not None else set(run.tasks)
    again = [t for t in again if t in planned]
    if not again:
        return False
    run.round += 1
    opened, settled = run.frontier.retry_round(again, planned)
    for task in opened:
        run.records[task].reset()
    take_settled(run, settled, step.now)
    run.note(f"round {run.round + 1}: {', '.join(again[:20])}")
    return True


def _leave_stopping(run: RunState, step: Step) -> bool:
    if run.works or run.lists or run.planning is not None or run.joining is not None:
        return False
    sweep(run, step)
    if run.lists:
        return False
    ending = run.ending
    assert ending is not None
    if not ending.is_given_up:
        end_run(run, step, ending.status, None, ending.reason)
        return True
    has_any = any(r.outcome and r.outcome.is_good for r in run.records.values())
    if not has_any or run.plan is None:
        end_run(run, step, "partial" if has_any else ending.status, None, ending.reason)
    else:
        end_partial(run, step, ending.reason or "")
    return True


_LEAVING: dict[Stage, Callable[[RunState, Step], bool]] = {
    Stage.APPROVING: _leave_approving,
    Stage.RUNNING: _leave_running,
    Stage.STOPPING: _leave_stopping,
}
