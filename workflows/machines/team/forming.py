"""How a team forms: its definition, its members, what the worker offers, room in its pool."""

from __future__ import annotations

from planloom.planner.compile.team_check import team_problems
from planloom.planner.contract.jobs import LoadedDefinition, LoadJob, PrepareJob, ResolveJob
from planloom.planner.contract.names import INVALID_REQUEST, UNKNOWN_TOOL
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.definitions import TeamSpec, granted_tools
from planloom.planner.language.team_links import check_links
from planloom.planner.language.values import Bindings, Problem, Stored
from planloom.workflows.machines.agent import host
from planloom.workflows.machines.agent.calling import send
from planloom.workflows.machines.agent.state import Pending, Rule
from planloom.workflows.machines.shared.commands import LoadDefinition, Prepare, Resolve
from planloom.workflows.machines.shared.events import Broke, Returned
from planloom.workflows.machines.shared.machine import Failed, Step
from planloom.workflows.machines.shared.requests import own_tools, unknown_tools
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.machines.team import plan, speaking
from planloom.workflows.machines.team.members import talk_of
from planloom.workflows.machines.team.rounds import links_of
from planloom.workflows.machines.team.state import Member, Stage, TeamState
from planloom.workflows.machines.team.subtasks import CONTEXT, CONTEXT_INLINE_BYTES


def load(team: TeamState, step: Step) -> None:
    """Begin with the team's definition."""
    named = team.request.team
    if isinstance(named, str):
        job = LoadJob(kind="team", name=named)
        send(team, "load", Pending(Rule.LOADED), LoadDefinition("load", job), step)
    else:
        _take_team(team, named, step)


def take_end(team: TeamState, rule: Rule, end: Returned | Broke, step: Step) -> str | None:
    """A step on the way has ended; why the team cannot go on, or None."""
    if isinstance(end, Broke):
        return f"{host.WORDS[rule]}: {end.failure.message}"
    match rule:
        case Rule.LOADED:
            _take_definition(team, end.value, step)
        case Rule.PREPARED:
            _take_catalog(team, end.value, step)
        case Rule.PERMIT:
            host.take_room(team, step)
            _begin(team, step)
        case _:
            plan.begin_plan(team, end.value.stored, step)
    return None


def _refuse(team: TeamState, kind: str, problems: list[Problem], step: Step) -> None:
    team.failed, team.stage = Failed(kind, problems), Stage.OVER
    host.leave(team, step)


def _take_definition(team: TeamState, loaded: LoadedDefinition, step: Step) -> None:
    if loaded.spec is None:
        _refuse(team, INVALID_REQUEST, loaded.problems, step)
        return
    for warning in loaded.warnings:
        team.note(warning)
    found = TeamSpec.model_validate(
        {
            "id": team.request.team,
            "description": loaded.description,
            "members": loaded.members,
            "links": loaded.links,
            "strategy": loaded.strategy,
        }
    )
    _take_team(team, found, step)


def _take_team(team: TeamState, spec: TeamSpec, step: Step) -> None:
    """Check the team, and ask the worker for what its members need."""
    request = team.request
    problems = team_problems(
        spec,
        quorum=request.quorum,
        subtasks=request.subtasks if isinstance(request.subtasks, list) else None,
        check_links=lambda active: check_links(spec.links, [m.id for m in active]),
    )
    if problems:
        _refuse(team, INVALID_REQUEST, problems, step)
        return
    team.team = spec
    if spec.strategy and "strategy" not in request.model_fields_set:
        team.strategy = spec.strategy
    active = [m for m in spec.members if m.enabled]
    team.links = links_of(spec.links, [(m.id, m.role) for m in active])
    team.members = {m.id: Member(m) for m in active}
    team.talks = {m.id: talk_of(spec, m, request, team.lineage) for m in active}
    tools = list(dict.fromkeys(t for m in active for t in granted_tools(m.tools, request.tools)))
    named = dict.fromkeys(m for m in (request.model_for("worker"), *(a.model for a in active)) if m)
    job = PrepareJob(tools=own_tools(tools), models=list(named))
    if team.is_planned:
        job = PrepareJob(is_goal=True, allow=request.tools, models=list(named))
    send(team, "prepare", Pending(Rule.PREPARED), Prepare("prepare", job), step)


def _take_catalog(team: TeamState, catalog: Catalog, step: Step) -> None:
    request = team.request
    team.catalog = catalog
    inline = [t for m in team.members.values() for t in granted_tools(m.spec.tools, request.tools)]
    asked = [*(request.tools or ()), *(inline if isinstance(request.team, TeamSpec) else ())]
    if team.lineage.parent is None and (problems := unknown_tools(asked, catalog)):
        _refuse(team, UNKNOWN_TOOL, problems, step)
        return
    pool = catalog.pool_for(team.model_for("worker"))
    calls = min(team.speakers_max, len(team.members))
    if not host.ask_for_room(team, pool, calls, step):
        _begin(team, step)


def _begin(team: TeamState, step: Step) -> None:
    """All is known, and there is room: the members begin, or their plan does."""
    context = team.request.context
    if not team.is_planned:
        _drop_early(team, step)
        speaking.begin_initial(team)
    elif context is not None and text_bytes(context) > CONTEXT_INLINE_BYTES:
        job = ResolveJob(value="${it}", bindings=Bindings(inputs={"it": Stored(value=context)}))
        what = Pending(Rule.STORED, part="context")
        send(team, CONTEXT, what, Resolve(CONTEXT, job), step)
    else:
        plan.begin_plan(team, None, step)


def _drop_early(team: TeamState, step: Step) -> None:
    """What came early for a plan, or for somebody who is not a member, is dropped."""
    plan.refuse_early(team, step)
    for asker in [a for a in team.questions.early if a not in team.members]:
        del team.questions.early[asker]
        team.note(f'signal ignored: complete_task: no member is called "{asker[:80]}"')
