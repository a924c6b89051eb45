"""The tool calls of one turn: all made at once; what goes wrong is told to the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from planloom.planner.contract.jobs import AgentCall, CallResult, ResolveJob, TaskOutput, ToolJob
from planloom.planner.contract.names import ASK_HUMAN, READ_OUTPUT
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import INLINE_MAX_BYTES, NANO, Bindings, JsonValue, Stored
from planloom.planner.prompts.text import clip_text
from planloom.workflows.machines.agent.calling import free_key, queue_call, send
from planloom.workflows.machines.agent.state import Call, Host, Pending, Rule, Talk
from planloom.workflows.machines.shared import questions
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import ReadOutput, Resolve, RunTool, Tell
from planloom.workflows.machines.shared.events import Broke, Returned
from planloom.workflows.machines.shared.large_inputs import SHOWN_MAX_BYTES
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

CALLS_PER_TURN_MAX = 16
TOOL_RETRY = Retry(max_attempts=2)
QUESTION_MAX_CHARS = 2_000
ERROR_MAX_CHARS = 2_000
ARGS_MAX_CHARS = 1_500
ARG_MAX_CHARS = 300
REFUSED = "a person did not allow this call"
READ_BYTES = 16_000
"""What one look into a large value shows."""


def make(host: Host, talk: Talk, asked: Sequence[AgentCall], step: Step) -> None:
    """Make the calls of a turn; those beyond the bound are only answered."""
    names = activity_names([c.id for c in asked])
    talk.calls = []
    for call, name in zip(asked, names, strict=True):
        key = free_key(host, f"{talk.name}.{talk.turn}.{name}")
        made = Call(call, key)
        talk.calls.append(made)
        if len(talk.calls) > CALLS_PER_TURN_MAX:
            made.result = CallResult(id=call.id, error=f"at most {CALLS_PER_TURN_MAX} calls a turn")
        else:
            _make_one(host, talk, made, name, step)


def activity_names(ids: Sequence[str]) -> list[str]:
    """The ids that a model gave its calls, as parts of activity ids: bounded, and each once.

    Two activities of one id at a time would hang the run, and models do repeat themselves.
    """
    found: list[str] = []
    for n, id in enumerate(ids):
        plain = id if 0 < len(id) <= 64 and id not in found else f"{n}-{id[:32]}"
        found.append(plain if plain not in found else f"{n}-")
    return found


def results_of(talk: Talk) -> list[CallResult] | None:
    """The results in the order of the calls; None while one is missing."""
    found = [c.result for c in talk.calls]
    return None if None in found else [r for r in found if r is not None]


def _make_one(host: Host, talk: Talk, made: Call, name: str, step: Step) -> None:
    call, tools = made.call, talk.persona.tools
    if call.problem is not None:
        made.result = CallResult(id=call.id, error=call.problem)
    elif call.name == ASK_HUMAN and ASK_HUMAN in tools:
        _ask_person(host, talk, made, step)
    elif call.name == READ_OUTPUT and talk.opened:
        _read(host, talk, made, step)
    elif call.name not in tools or (spec := host.catalog.tool(call.name)) is None:
        allowed = ", ".join(tools) or "none"
        error = f'there is no tool "{call.name}" for you. Your tools: {allowed}'
        made.result = CallResult(id=call.id, error=error)
    elif spec.side_effects and talk.is_tainted and host.is_asking:
        _ask_whether(host, talk, made, name, step)
    else:
        _queue(host, talk, made, name)


def _queue(host: Host, talk: Talk, made: Call, name: str) -> None:
    spec = host.catalog.tool(made.call.name)
    usd = spec.cost_usd or 0.0 if spec is not None else 0.0
    cost = Amount(usd_nano=-int(-usd * NANO // 1))
    queue_call(host, made.key, Pending(Rule.TOOL, talk.name, name), cost, cost)


def _argument(call: AgentCall, name: str) -> JsonValue:
    """An argument as its text; a long one, or one that looks like a reference, is behind one."""
    value = call.args.get(name)
    if isinstance(value, str) and value.startswith("${") and value[2:-1] in call.inputs:
        stored = call.inputs[value[2:-1]]
        return stored.value if stored.is_inline else stored.preview
    return value


# -- tools ----------------------------------------------------------------------------------


def take_grant(
    host: Host, talk: Talk, key: str, what: Pending, answer: Amount | Over, step: Step
) -> None:
    """A tool call has its budget, or will never have it."""
    made = next(c for c in talk.calls if c.key == key)
    call = made.call
    if isinstance(answer, Over):
        made.result = CallResult(id=call.id, error=f"the budget leaves no room: {answer.lack}")
        return
    spec = host.catalog.tool(call.name)
    job = ToolJob(
        task=talk.name,
        tool=call.name,
        args=call.args,
        bindings=Bindings(inputs=call.inputs),
        # By a sign that no id of an agent holds: names with dots must not make two calls one.
        key=f"{host.identity.run_key}/{talk.name}.{talk.turn}/{what.part}",
        cache=host.request.cache,
        cache_scope=host.root,
        tenant=host.request.tenant,
        allow=list(talk.persona.tools),
        max_attempts=TOOL_RETRY.max_attempts,
    )
    command = RunTool(
        key,
        job,
        key,
        f"{key}: {call.name}",
        host.urgency,
        host.catalog.tools_queue,
        TOOL_RETRY,
        spec.timeout_seconds if spec else None,
    )
    send(host, key, what, command, step)


def take_end(host: Host, talk: Talk, what: Pending, end: Returned | Broke) -> None:
    """A call of the turn has ended: its result, or what the model is told of its failure."""
    made = next((c for c in talk.calls if c.key == end.key), None)
    if made is None:
        return  # the talk was stopped meanwhile
    call = made.call
    spec = host.catalog.tool(call.name) if what.rule is Rule.TOOL else None
    more: dict[str, Any] = {}
    if spec is not None and spec.outside:
        talk.is_tainted = True
        more["is_outside"] = True
    match what.rule, end:
        case _, Broke(failure=failure):
            made.result = CallResult(id=call.id, error=failure.message[:ERROR_MAX_CHARS], **more)
        case Rule.TOOL, Returned(value=TaskOutput() as output):
            made.result = CallResult(id=call.id, output=output.output, **more)
            _open_large(talk, made, what.part, output.output)
        case Rule.ANSWER, Returned(value=resolved):
            made.result = CallResult(id=call.id, output=resolved.stored)
        case _, Returned(value=part):
            made.result = CallResult(id=call.id, output=part)


def _open_large(talk: Talk, made: Call, name: str, output: Stored) -> None:
    """A large output is shown cut; the model opens it by its own name."""
    if output.is_inline or output.size_bytes <= SHOWN_MAX_BYTES or made.result is None:
        return
    shown = f"{made.call.name}.{talk.turn}.{name}"
    made.result = made.result.model_copy(update={"name": shown})
    talk.opened[shown] = output


def _read(host: Host, talk: Talk, made: Call, step: Step) -> None:
    call = made.call
    stored = talk.opened.get(name := str(_argument(call, "id")))
    if stored is None:
        error = f'no output "{name}". There are: {", ".join(talk.opened)}'
        made.result = CallResult(id=call.id, error=error[:ERROR_MAX_CHARS])
        return
    start, end = call.args.get("start", 0), call.args.get("end")
    first = start if isinstance(start, int) else 0
    last = end if isinstance(end, int) else first + READ_BYTES
    what = Pending(Rule.READ, talk.name)
    send(host, made.key, what, ReadOutput(made.key, stored, first, last), step)


# -- people ---------------------------------------------------------------------------------


def _ask_person(host: Host, talk: Talk, made: Call, step: Step) -> None:
    text = str(_argument(made.call, "question") or "?")[:QUESTION_MAX_CHARS]
    had_open = talk.name in host.questions.open
    answered = questions.ask(host.questions, talk.name, made.key, text, step.now)
    if answered is not None:
        host.note(f"{talk.name}: an answer that came early was taken")
        take_answer(host, talk, answered, step)
    elif not had_open:
        tell_parent(host, talk.name, step)


def _shown(value: JsonValue) -> JsonValue:
    """An argument as a person is shown it: a long one in its two ends, and it says so.

    Else one long argument would hide those behind it from whom says yes.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= ARG_MAX_CHARS else clip_text(text, ARG_MAX_CHARS)


def _ask_whether(host: Host, talk: Talk, made: Call, name: str, step: Step) -> None:
    """A side effect that came of what is outside: a person says whether it is made."""
    made.part = name
    call = made.call
    shown = {key: _shown(_argument(call, key)) for key in call.args}
    args = clip_text(json.dumps(shown, ensure_ascii=False), ARGS_MAX_CHARS)
    text = (
        f"May it call {call.name}({args})? It has seen what came from outside. "
        'Answer {"approve": true} or {"approve": false}.'
    )
    had_open = talk.name in host.questions.open
    questions.ask(host.questions, talk.name, made.key, text, step.now, is_decision=True)
    if not had_open:
        tell_parent(host, talk.name, step)


def _decide(host: Host, talk: Talk, made: Call, answer: JsonValue) -> None:
    name, made.part = made.part, ""
    if questions.decision_of(answer):
        _queue(host, talk, made, name)
    else:
        made.result = CallResult(id=made.call.id, error=REFUSED)
    verb = "may call" if questions.decision_of(answer) else "may not call"
    host.note(f"{talk.name}: {verb} {made.call.name}, a person said")


def take_answer(host: Host, talk: Talk, answered: questions.Answered, step: Step) -> None:
    """A person's answer is the result of the call that asked; a large one is stored first."""
    made = next((c for c in talk.calls if c.key == answered.key), None)
    if made is None:
        return
    if made.part:
        _decide(host, talk, made, answered.answer)
        return
    stored = Stored(value=answered.answer)
    if text_bytes(answered.answer) <= INLINE_MAX_BYTES:
        made.result = CallResult(id=made.call.id, output=stored)
        return
    job = ResolveJob(value="${it}", bindings=Bindings(inputs={"it": stored}))
    send(host, made.key, Pending(Rule.ANSWER, talk.name), Resolve(made.key, job), step)


def tell_parent(host: Host, asker: str, step: Step) -> None:
    """Let the parent run know of the asker's open question, or that it asks no more."""
    parent = host.lineage.parent
    if parent is None:
        return
    question = host.questions.open.get(asker)
    asks: Any = questions.asks(
        host.identity.workflow_id,
        parent,
        asker,
        question.text if question else None,
        is_team=host.is_team,
        is_decision=question is not None and question.is_decision,
    )
    step.do(Tell(parent, "child_asks", asks))
