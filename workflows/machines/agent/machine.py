"""The agent machine: one subagent, from its request to its answer.

Its course: the definition by name, what the worker knows, room in its pool, the talk.
"""

from __future__ import annotations

from typing import Any, assert_never

from planloom.planner.compile.schema_check import check_schema
from planloom.planner.contract.jobs import LoadedDefinition, LoadJob, PrepareJob
from planloom.planner.contract.names import INVALID_REQUEST, STALE, UNKNOWN_TOOL
from planloom.planner.contract.requests import AgentRequest
from planloom.planner.contract.results import AgentResult
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.definitions import AgentSpec, granted_tools
from planloom.planner.language.values import Stored
from planloom.workflows.machines.agent import controls, host, talk
from planloom.workflows.machines.agent.calling import granted_calls, send, take_end
from planloom.workflows.machines.agent.state import (
    AgentState,
    Doing,
    Ended,
    Pending,
    Persona,
    Rule,
    talk_about,
)
from planloom.workflows.machines.agent.view import (
    details,
    name_of,
    progress,
    published,
    result_of,
    usage,
)
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.account import open_account
from planloom.workflows.machines.shared.commands import (
    Answer,
    Command,
    LoadDefinition,
    Prepare,
    Refuse,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    CancelRequested,
    Continued,
    ControlTaken,
    DeadlineMoved,
    Event,
    GrantAsked,
    HistoryLong,
    PlannerRetried,
    PlanWritten,
    QuestionOfChild,
    Returned,
    SignalIgnored,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Failed, Identity, Refusal, Step
from planloom.workflows.machines.shared.requests import own_tools, unknown_tools

__all__ = [
    "begin",
    "check",
    "children",
    "details",
    "ended",
    "may_continue",
    "progress",
    "published",
    "step",
    "usage",
]

CANCELLED = "the run was cancelled"


def begin(request: AgentRequest, identity: Identity, now: float) -> AgentState:
    """The state of an agent that has not begun; controls may come before it does."""
    account = open_account(request, identity, now)
    return AgentState(request, identity, account)


def ended(state: AgentState) -> AgentResult | Failed | None:
    """The agent's result, or how its request was refused; None while it goes on."""
    return state.failed or state.result


def may_continue(state: AgentState) -> bool:
    """Whether nothing is in flight that a continue-as-new would lose."""
    return not state.pending


def children(state: AgentState) -> dict[str, str]:
    """Child runs at work: an agent has none."""
    return {}


def check(state: AgentState, name: str, payload: Any, now: float) -> Refusal | None:
    """Why the control `name` cannot be taken now, or None."""
    if ended(state) is not None:
        return Refusal(f"{name}: {_how_it_ended(state)}")
    return controls.check(state, name, payload, [name_of(state.request)], now)


def step(state: AgentState, event: Event, now: float) -> list[Command]:
    """Apply one event; the only function that changes the state."""
    made = Step(now)
    if ended(state) is None:
        _apply(state, event, made)
        _go_on(state, made)
    else:
        controls.refuse_late(event, _how_it_ended(state), made)
    return made.commands


def _apply(state: AgentState, event: Event, step: Step) -> None:
    match event:
        case Begun():
            _begin(state, step)
        case Continued():
            host.continue_as_new(state, step)
        case Returned() | Broke():
            _take_end(state, event, step)
        case TimeReached(key=permit.KEY):
            host.renew_permit(state, step)
        case TimeReached():
            state.account.timer_at = None
        case ControlTaken():
            _take_control(state, event, step)
        case SignalIgnored(reason=reason):
            state.note(f"signal ignored: {reason}")
        case DeadlineMoved(deadline=deadline):
            state.account.deadline = deadline
        case GrantAsked() | QuestionOfChild() | PlanWritten():
            state.note("signal ignored: an agent has no child runs and no planner")
        case PlannerRetried(token=token):
            step.do(Refuse(token, "an agent has no planner", STALE))
        case CancelRequested():
            host.cancel(state, step)
        case HistoryLong():
            state.is_long = True
        case _:
            assert_never(event)


def _how_it_ended(state: AgentState) -> str:
    return f"the agent has ended: {state.result.status if state.result else 'failed'}"


def _take_control(state: AgentState, taken: ControlTaken, step: Step) -> None:
    refusal = check(state, taken.name, taken.payload, step.now)
    if refusal is None:
        reply = controls.take(state, taken.name, taken.payload, step)
        if taken.token is not None:
            step.do(Answer(taken.token, reply))
    elif taken.token is not None:
        step.do(Refuse(taken.token, refusal.message, refusal.type))
    else:
        state.note(f"signal ignored: {refusal.message}")


def _go_on(state: AgentState, step: Step) -> None:
    """After every event: make the calls that have their budget, and see whether all is over."""
    while granted := granted_calls(state, step.now):
        for key, what, answer in granted:
            talk.take_grant(state, state.talks[what.talk], key, what, answer, step)
    if ended(state) is not None:
        return
    if state.is_cancelled:
        if not state.pending:
            over = state.talk.ended if state.talk is not None else Ended()
            over.status, over.reason, over.error_class = "cancelled", CANCELLED, None
            _end(state, over, step)
    elif state.talk is not None and state.talk.doing is Doing.NOTHING:
        _end(state, state.talk.ended, step)
    if ended(state) is None:
        host.keep_account(state, step)


def _end(state: AgentState, over: Ended, step: Step) -> None:
    state.result = result_of(state, over, step.now)
    host.leave(state, step)


def _refuse(state: AgentState, failed: Failed, step: Step) -> None:
    state.failed = failed
    host.leave(state, step)


# -- before the talk ------------------------------------------------------------------------


def _begin(state: AgentState, step: Step) -> None:
    if state.is_cancelled:
        return
    named = state.request.agent
    if isinstance(named, str):
        job = LoadJob(kind="agent", name=named)
        send(state, "load", Pending(Rule.LOADED), LoadDefinition("load", job), step)
    else:
        spec = Stored(value=named.model_dump(mode="json", exclude_unset=True))
        state.persona = _persona(state, named, spec)
        _prepare(state, step)


def _take_end(state: AgentState, end: Returned | Broke, step: Step) -> None:
    what = take_end(state, end)
    if what is None:
        return
    if what.talk:
        talk.take_end(state, state.talks[what.talk], what, end, step)
    elif state.is_cancelled:
        pass
    elif isinstance(end, Broke):
        why = f"{host.WORDS[what.rule]}: {end.failure.message}"
        _end(state, Ended("failed", None, end.failure.error_class, why), step)
    else:
        _take_course(state, what.rule, end.value, step)


def _take_course(state: AgentState, rule: Rule, value: Any, step: Step) -> None:
    match rule:
        case Rule.LOADED:
            loaded: LoadedDefinition = value
            if loaded.spec is None:
                _refuse(state, Failed(INVALID_REQUEST, loaded.problems), step)
                return
            state.persona = _persona(state, loaded, loaded.spec)
            _prepare(state, step)
        case Rule.PREPARED:
            _take_catalog(state, value, step)
        case Rule.PERMIT:
            host.take_room(state, step)
            _talk(state, step)
        case _:
            raise AssertionError(f"{rule} is no rule of an agent's course")


def _persona(state: AgentState, named: AgentSpec | LoadedDefinition, spec: Stored) -> Persona:
    """Who the request names, with the tools that are allowed, and the turns that it asks for."""
    request = state.request
    has_own = "max_turns" in request.model_fields_set
    return Persona(
        name=name_of(request),
        spec=spec,
        tools=tuple(granted_tools(named.tools, request.tools)),
        model=named.model,
        form=state.lineage.form,
        output_schema=request.output_schema or named.output_schema,
        max_turns=request.max_turns if has_own else named.max_turns or request.max_turns,
        timeout=request.timeout,
        retry=request.retry,
    )


def _prepare(state: AgentState, step: Step) -> None:
    persona, request = state.persona, state.request
    assert persona is not None
    schema = persona.output_schema
    if schema is not None and (problems := check_schema(schema, "output_schema")):
        _refuse(state, Failed(INVALID_REQUEST, problems), step)  # before anything is paid
        return
    models = [m for m in (persona.model, request.model_for("worker")) if m]
    job = PrepareJob(tools=own_tools(persona.tools), models=models, is_goal=False)
    send(state, "prepare", Pending(Rule.PREPARED), Prepare("prepare", job), step)


def _take_catalog(state: AgentState, catalog: Catalog, step: Step) -> None:
    request, persona = state.request, state.persona
    assert persona is not None
    state.catalog = catalog
    inline = request.agent.tools if isinstance(request.agent, AgentSpec) else None
    asked = [*(request.tools or ()), *(inline or ())]
    if state.lineage.parent is None and (problems := unknown_tools(asked, catalog)):
        _refuse(state, Failed(UNKNOWN_TOOL, problems), step)
        return
    pool = catalog.pool_for(state.model_for("worker", persona.model))
    if not host.ask_for_room(state, pool, 1, step):
        _talk(state, step)


def _talk(state: AgentState, step: Step) -> None:
    request, persona = state.request, state.persona
    assert persona is not None
    state.talks[persona.name] = talk_about(persona, request, state.lineage)
    talk.say(state, state.talks[persona.name], None, step)
