"""A team on a graph: its subtasks are a plan, run by the same machine as any plan.

So approval, edits, replans after a round, budget and progress are those of a run. The planner
knows the team's members as its agents; each subtask is an `AgentWorkflow` child. When the plan has
ended, the members take over what their last subtasks came to.
"""

from __future__ import annotations

from dataclasses import replace

from planloom.planner.contract.controls import CONTROLS, CompleteTask, Pause
from planloom.planner.contract.jobs import TurnReply
from planloom.planner.contract.names import STALE
from planloom.planner.contract.results import AgentResult, RoundReport, RunResult
from planloom.planner.language.values import Outcome, Stored, TaskId
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.agent.state import Ended, Talk
from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.run.children import usage_from_report
from planloom.workflows.machines.run.record import Record
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.commands import Refuse
from planloom.workflows.machines.shared.events import Begun, ControlTaken, Event
from planloom.workflows.machines.shared.machine import Failed, Step
from planloom.workflows.machines.team.members import agent_of
from planloom.workflows.machines.team.state import Member, PlanEnd, Stage, TeamState
from planloom.workflows.machines.team.subtasks import lineage_of_plan, run_request

PLAN_CONTROLS = (
    "approve_plan",
    "reject_plan",
    "edit_plan",
    "request_replan",
    "cancel_task",
    "approve_task",
)
"""What only a plan takes; the others are a team's own as well."""
NO_PLAN = "this team has no plan of subtasks that waits for it"


def begin_plan(team: TeamState, context: Stored | None, step: Step) -> None:
    """Begin the run of the subtasks; what came early for it is handed on."""
    assert team.team is not None, "a team that begins is known"
    team.stage = Stage.PLAN
    specs = [m.spec for m in team.members.values()]
    lineage = lineage_of_plan(team.lineage, context)
    request = run_request(team.request, specs, list(lineage.inputs))
    if team.strategy == "sequential":
        budget = request.budget.model_copy(update={"parallel": 1})
        request = request.model_copy(update={"budget": budget})
    run = run_machine.begin(request, replace(team.identity, lineage=lineage), step.now)
    known = {m.id: f"{m.role}: {m.description}" for m in specs}
    run.catalog = team.catalog.model_copy(update={"agents": known, "teams": {}})
    run.has_site = True
    run.cast = {m.id: agent_of(team.team, m, team.request) for m in specs}
    run.cast_fields = {k: getattr(team.request, k) for k in ("max_turns", "timeout", "retry")}
    team.plan = run
    early: list[ControlTaken] = []
    for id, answers in team.questions.early.items():
        early += [ControlTaken("complete_task", CompleteTask(id=id, output=a)) for a in answers]
    team.questions.early.clear()
    for kept in team.early:
        payload = CONTROLS[kept.name].model_validate(kept.payload)
        early.append(ControlTaken(kept.name, payload, kept.token))
    team.early.clear()
    if team.is_paused:
        forward(team, ControlTaken("pause", Pause()), step)
    forward(team, Begun(), step)
    for taken in early:
        forward(team, taken, step)


def refuse_early(team: TeamState, step: Step) -> None:
    """Controls of a plan came early, and there will be none."""
    for taken in team.early:
        message = f"{taken.name}: {NO_PLAN}"
        if taken.token is None:
            team.note(f"signal ignored: {message}")
        else:
            step.do(Refuse(taken.token, message, STALE))
    team.early.clear()


def is_running(team: TeamState) -> bool:
    """Whether the plan of subtasks takes events."""
    return team.stage is Stage.PLAN and team.plan is not None


def forward(team: TeamState, event: Event, step: Step) -> None:
    """Hand an event to the run of the subtasks, and follow what it did."""
    run = team.plan
    assert run is not None, "events are handed to a plan that runs"
    # One ledger, whoever spends: subtasks and planner, then the members' rounds and the judge.
    # Read back from a state they are two equal objects.
    run.account = team.account
    step.do(*run_machine.step(run, event, step.now))
    team.is_paused = run.is_paused
    _follow_rounds(team, run)


def end_of(team: TeamState) -> RunResult | Failed | None:
    """How the plan of subtasks has ended; None while it runs."""
    return run_machine.ended(team.plan) if team.plan is not None else None


# -- rounds ---------------------------------------------------------------------------------


def _follow_rounds(team: TeamState, run: RunState) -> None:
    """A round for the first plan, for each revision that gives more to do, for each retry."""
    for revision in run.revisions[team.revisions_seen :]:
        before = {t.id for r in run.revisions[: team.revisions_seen] for t in r.plan.tasks}
        new = [t for t in revision.plan.tasks if t.id not in before]
        team.revisions_seen += 1
        names = [t.agent for t in new if isinstance(t.agent, str) and t.agent in team.members]
        if names or not team.rounds:
            _add_round(team, names, "replan" if team.rounds else "initial")
    if run.round > team.plan_rounds_seen:
        team.plan_rounds_seen = run.round
        opened = _in_waves(run)
        team.reopened += [t for t in opened if run.records[t].attempts and t not in team.reopened]
        members = [m for t in opened if (m := _member_of(run, t)) in team.members]
        _add_round(team, [m for m in members if m is not None], "retry")


def _add_round(team: TeamState, names: list[str], kind: str) -> None:
    members = list(dict.fromkeys(names))
    report = {"round": len(team.rounds), "kind": kind, "members": members}
    team.rounds.append(RoundReport.model_validate(report))


def _in_waves(run: RunState) -> list[TaskId]:
    """Tasks that a retry round has opened: those that failed, then in turn those behind them."""
    left = {t: None for t, r in run.records.items() if r.outcome is None}
    found: list[TaskId] = []
    while left:
        wave = [t for t in left if left.keys().isdisjoint(run.inputs[t])] or [*left]
        found += wave
        for task in wave:
            del left[task]
    return found


def _member_of(run: RunState, task: TaskId) -> str | None:
    named = run.tasks[task].agent
    return named if isinstance(named, str) else None


# -- the end --------------------------------------------------------------------------------


def take_over(team: TeamState, result: RunResult) -> None:
    """What each member's last subtask came to, as the team's own rounds and judge need it."""
    run = team.plan
    assert run is not None
    for note in run.notes:
        team.note(note)
    has_composed = run.goal is not None and result.answer is not None
    answer = (result.answer_ref or Stored(value=result.answer)) if has_composed else None
    team.plan_end = PlanEnd(result.status, result.reason, answer)
    for member in team.members.values():
        member.has_part = False
    for task, record in run.records.items():
        named = _member_of(run, task)
        if named is None or named not in team.members:
            continue
        _take_subtask(team, team.members[named], run, record)
    if result.tainted:
        for each in team.talks.values():
            each.is_tainted = True


def _take_subtask(team: TeamState, member: Member, run: RunState, record: Record) -> None:
    member.has_part = True
    member.attempts += record.attempts
    member.usage += record.usage
    is_good = record.outcome is not None and record.outcome.is_good
    if is_good and record.id in team.reopened:
        member.is_recovered = True
    if member.is_good and not is_good:
        return  # an earlier subtask's answer is better than none
    member.outcome = record.outcome or Outcome.CANCELLED
    if is_good:
        member.outcome = Outcome.SUCCEEDED
    spoken = run.spoken.get(record.id)
    member.ended = _ended(spoken, record.error or record.reason, record.error_class)
    if (text := member.text()) is not None:
        old = team.talks[member.spec.id]
        fresh = Talk(old.persona, old.task, None, {"my_result": text})
        team.talks[member.spec.id] = fresh


def _ended(found: AgentResult | None, reason: str | None, error_class: str | None) -> Ended:
    if found is None:
        return Ended("failed", reason=reason, error_class=error_class)
    if found.status not in ("completed", "partial"):
        return Ended("failed", None, found.error_class, found.reason)
    seen = found.diagnosis
    reply = TurnReply.model_validate(
        {
            "transcript": Stored(blob=found.transcript) if found.transcript else Stored(),
            "text": found.output_ref or Stored(value=found.output),
            "fields": found.fields,
            **(seen.model_dump() if seen is not None else {}),
            "usage": usage_from_report(found.usage),
        }
    )
    return Ended("completed", reply, found.error_class, found.reason)


def states_of_members(team: TeamState) -> dict[str, str]:
    """Each member's state: while the plan runs, that of what it does, or did last."""
    run = team.plan
    if run is None or team.plan_end is not None:
        return {name: m.state for name, m in team.members.items()}
    found = dict.fromkeys(team.members, State.WAITING.value)
    for task, state in run.frontier.states().items():
        named = _member_of(run, task)
        if named in found and found[named] != State.RUNNING:
            found[named] = "waiting" if state is State.READY else state.value
    return {name: found[name] for name in team.members}
