"""The rules of a conversation: large words first, then model turns and tool calls to an answer.

An agent has one; a team has one for each member. Bounded in turns, tokens and repeats; a failure
is an outcome of the talk, and disturbs no other. After a rule has run, `talk.doing` says what the
talk waits for; `nothing` means that `talk.ended` stands.
"""

from __future__ import annotations

from typing import assert_never

from planloom.planner.contract.jobs import ResolveJob, TaskOutput, TurnJob, TurnReply
from planloom.planner.contract.names import READ_OUTPUT
from planloom.planner.contract.repeats import Repeats, count_repeats, with_repeat_note
from planloom.planner.language.values import INLINE_MAX_BYTES, Bindings, Stored
from planloom.workflows.machines.agent import calls
from planloom.workflows.machines.agent.calling import free_key, queue_call, send, usage_of
from planloom.workflows.machines.agent.state import (
    Doing,
    Ended,
    Host,
    Pending,
    Rule,
    Summary,
    Talk,
)
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import AskModel, Resolve, TakeTurn
from planloom.workflows.machines.shared.estimates import (
    ANSWER_TOKENS,
    ANSWER_TOKENS_MIN,
    WIDER,
    model_amount,
    most_tokens,
    prompt_in,
)
from planloom.workflows.machines.shared.events import Broke, Failure, Returned
from planloom.workflows.machines.shared.large_inputs import SHOWN_MAX_BYTES
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.machines.shared.summing import (
    SUMMED_MAX_BYTES,
    summary_amounts,
    summary_job,
)

REPAIRS_MAX = 1
FORM_TOKENS = 200
"""What an agent is told beside its own words: the form of its answer, its tools."""
HEARD_INLINE_BYTES = 1_500


def say(host: Host, talk: Talk, heard: Stored | None, step: Step) -> None:
    """Begin an answer: the first, or another in a later round after what was `heard`."""
    talk.ended, talk.heard = Ended(), heard
    talk.problems, talk.repairs, talk.calls = [], 0, []
    talk.repeats, talk.why_last, talk.was_cut = Repeats(), None, False
    talk.doing = Doing.STORING
    if not talk.is_prepared:
        _store(host, talk, "task", talk.task, INLINE_MAX_BYTES, step)
        _store(host, talk, "context", talk.context, INLINE_MAX_BYTES, step)
    _store(host, talk, "heard", heard, HEARD_INLINE_BYTES, step)
    if not _is_storing(host, talk):
        _sum_up(host, talk)


def take_end(host: Host, talk: Talk, what: Pending, end: Returned | Broke, step: Step) -> None:
    """A call of the talk has ended."""
    if what.rule is Rule.TOOL:  # a summary is for all who read the same
        talk.ended.usage += usage_of(end)
    match what.rule:
        case Rule.STORED:
            _stored(host, talk, what.part, end)
        case Rule.SUMMARY:
            _summed_up(host, what.part, end)
        case Rule.TURN:
            _turn_ended(host, talk, end, step)
        case Rule.TOOL | Rule.READ | Rule.ANSWER:
            calls.take_end(host, talk, what, end)
            go_on_after_calls(host, talk)
        case _:
            raise AssertionError(f"{what.rule} is no rule of a talk")


def take_grant(
    host: Host, talk: Talk, key: str, what: Pending, answer: Amount | Over, step: Step
) -> None:
    """A call of the talk has its budget, or will never have it."""
    match what.rule:
        case Rule.SUMMARY:
            _ask_for_summary(host, talk, key, what, answer, step)
        case Rule.TURN:
            if isinstance(answer, Over):
                talk.ended.status, talk.ended.reason = "partial", f"budget: {answer.lack}"
                talk.doing = Doing.NOTHING
            else:
                send(host, key, what, _turn_command(host, talk, key, answer), step)
        case Rule.TOOL:
            calls.take_grant(host, talk, key, what, answer, step)
            go_on_after_calls(host, talk)
        case _:
            raise AssertionError(f"{what.rule} is no call of a talk")


def stop(talk: Talk) -> None:
    """The workflow is being cancelled: the talk says no more."""
    if talk.doing is not Doing.NOTHING:
        talk.ended.status, talk.ended.reason = "cancelled", "cancelled"
        talk.doing = Doing.NOTHING


# -- before the first turn ------------------------------------------------------------------


def _store(
    host: Host, talk: Talk, part: str, stored: Stored | None, limit: int, step: Step
) -> None:
    """Put a large value behind a reference: turns carry it by its name only."""
    if stored is None or not stored.is_inline or text_bytes(stored.value) <= limit:
        return
    bound = Bindings(inputs={"it": stored})
    job = ResolveJob(value="${it}", bindings=bound, inline_max_bytes=limit)
    key = free_key(host, f"{talk.name}.{part}")
    send(host, key, Pending(Rule.STORED, talk.name, part), Resolve(key, job), step)


def _is_storing(host: Host, talk: Talk) -> bool:
    return any(w.rule is Rule.STORED and w.talk == talk.name for w in host.pending.values())


def _stored(host: Host, talk: Talk, part: str, end: Returned | Broke) -> None:
    if talk.doing is not Doing.STORING:
        return
    if isinstance(end, Broke):
        _fail(talk, end.failure)
        return
    stored: Stored = end.value.stored
    match part:
        case "task":
            talk.task = stored
        case "context":
            talk.context = stored
        case _:
            talk.heard = stored
    if not _is_storing(host, talk):
        _sum_up(host, talk)


def _sum_up(host: Host, talk: Talk) -> None:
    """Have large inputs summed up before the first turn; each once for all who read it."""
    if not talk.is_prepared:
        talk.is_prepared = True
        if talk.context is not None and not talk.context.is_inline:
            talk.inputs, talk.context = {"context": talk.context, **talk.inputs}, None
        if not talk.task.is_inline:
            talk.opened["task"] = talk.task
        talk.opened |= talk.inputs
        for name, stored in talk.inputs.items():
            _want_summary(host, talk, name, stored)
    talk.doing = Doing.SUMMING  # not before: one that is too large for a summary is told at once
    _go_on_after_summaries(host, talk)


def _want_summary(host: Host, talk: Talk, name: str, stored: Stored) -> None:
    if stored.blob is None or stored.size_bytes <= SHOWN_MAX_BYTES:
        return
    known = host.summaries.get(stored.blob)
    if known is not None and known.is_made:
        if known.stored is not None:
            talk.summaries[name] = known.stored
        return
    if known is None:
        key = free_key(host, f"{talk.name}.{name}.summary")
        host.summaries[stored.blob] = Summary(key)
        if stored.size_bytes > SUMMED_MAX_BYTES:
            _no_summary(host, stored.blob, _cut_without(stored))
            return
        what = Pending(Rule.SUMMARY, talk.name, stored.blob)
        queue_call(host, key, what, *summary_amounts(host.catalog, _worker(host), stored))
    talk.summing[name] = stored.blob


def _worker(host: Host) -> str | None:
    return host.model_for("worker")


def _ask_for_summary(
    host: Host, talk: Talk, key: str, what: Pending, answer: Amount | Over, step: Step
) -> None:
    blob = what.part
    stored = next(s for s in talk.inputs.values() if s.blob == blob)
    if isinstance(answer, Over):
        _no_summary(host, blob, _cut_without(stored))
        return
    model = _worker(host)
    job = summary_job(key, stored, model=model, request=host.request, scope=host.root)
    prompt = prompt_in(summary_amounts(host.catalog, model, stored)[1])
    most = most_tokens(answer, host.account.ledger.caps, host.catalog, model, prompt)
    if most is not None:
        job = job.model_copy(update={"tokens_max": most})
    pools = tuple(host.catalog.pools_for(model))
    send(host, key, what, AskModel(key, job, key, key, host.urgency, pools), step)


def _summed_up(host: Host, blob: str, end: Returned | Broke) -> None:
    if isinstance(end, Broke):
        if not host.is_cancelled:
            why = f"shown cut; its summary failed: {end.failure.message[:200]}"
            _no_summary(host, blob, why)
        return
    output: TaskOutput = end.value
    summary = host.summaries[blob]
    summary.stored, summary.is_made = output.output, True
    _tell_readers(host, blob)


def _cut_without(stored: Stored) -> str:
    return f"{stored.size_bytes:,} bytes, shown cut and without a summary"


def _no_summary(host: Host, blob: str, why: str) -> None:
    summary = host.summaries[blob]
    summary.is_made = True
    host.note(f"{summary.key.removesuffix('.summary')}: {why}")
    _tell_readers(host, blob)


def _tell_readers(host: Host, blob: str) -> None:
    """All talks that wait for the summary of a value go on."""
    summary = host.summaries[blob]
    for talk in host.talks.values():
        for name in [n for n, wanted in talk.summing.items() if wanted == blob]:
            del talk.summing[name]
            if summary.stored is not None:
                talk.summaries[name] = summary.stored
        _go_on_after_summaries(host, talk)


def _go_on_after_summaries(host: Host, talk: Talk) -> None:
    if talk.doing is Doing.SUMMING and not talk.summing:
        _next_turn(host, talk)


# -- turns ----------------------------------------------------------------------------------


def _next_turn(host: Host, talk: Talk) -> None:
    """Ask for another turn, unless all have been taken."""
    most = talk.persona.max_turns
    if talk.ended.turns >= most + talk.repairs:
        if talk.ended.reply is None:
            talk.ended.reason = f"{talk.why_last} without an answer"
            talk.ended.status = "partial"
        talk.doing = Doing.NOTHING
        return
    if talk.ended.turns + 1 >= most + talk.repairs:
        talk.why_last = talk.why_last or f"max_turns {most} is reached"
    talk.turn += 1
    talk.doing = Doing.TURN
    key = free_key(host, f"{talk.name}.{talk.turn}")
    queue_call(host, key, Pending(Rule.TURN, talk.name), *_amounts(host, talk))


def _amounts(host: Host, talk: Talk) -> tuple[Amount, Amount]:
    """What to reserve for a turn, and the least it can do with."""
    known = [talk.persona.spec, talk.task, *([talk.context] if talk.context else [])]
    size = sum(_shown_bytes(s) for s in [*known, *talk.inputs.values()])
    # The prompt is at least what it was the last time: a conversation only grows.
    last = talk.last_prompt_tokens
    prompt = max(size // 2 + FORM_TOKENS * 2, last * 2)
    model, catalog = host.model_for("worker", talk.persona.model), host.catalog
    room = ANSWER_TOKENS * WIDER if talk.was_cut else ANSWER_TOKENS
    return (
        model_amount(catalog, model, prompt, room, tasks=0),
        model_amount(catalog, model, last or size // 4 + FORM_TOKENS, ANSWER_TOKENS_MIN, tasks=0),
    )


def _shown_bytes(stored: Stored) -> int:
    return text_bytes(stored.value) if stored.is_inline else min(stored.size_bytes, SHOWN_MAX_BYTES)


def _turn_command(host: Host, talk: Talk, key: str, granted: Amount) -> TakeTurn:
    persona = talk.persona
    model = host.model_for("worker", persona.model)
    is_first = talk.transcript is None
    prompt = prompt_in(_amounts(host, talk)[1])
    job = TurnJob(
        name=persona.name,
        # Later turns have the opening in their transcript.
        spec=persona.spec if is_first else Stored(value={}),
        task=talk.task if is_first else Stored(value=""),
        context=talk.context if is_first else None,
        inputs=talk.inputs if is_first else {},
        summaries=talk.summaries if is_first else {},
        others_answers=talk.heard,
        transcript=talk.transcript,
        results=talk.results,
        problems=talk.problems,
        tools=[*persona.tools, *([READ_OUTPUT] if talk.opened else [])],
        **({} if (allow := host.request.tools) is None else {"allow": allow}),
        is_last=talk.is_last,
        form=persona.form,
        output_schema=persona.output_schema,
        role="worker",
        model=model,
        retry=persona.retry,
        tokens_max=most_tokens(granted, host.account.ledger.caps, host.catalog, model, prompt),
        tenant=host.request.tenant,
    )
    pools = tuple(host.catalog.pools_for(model))
    return TakeTurn(key, job, key, f"{key}: a turn", host.urgency, pools, persona.timeout)


def _turn_ended(host: Host, talk: Talk, end: Returned | Broke, step: Step) -> None:
    ended = talk.ended
    match end:
        case Broke(failure=failure):
            _fail(talk, failure)
        case Returned(value=value):
            reply: TurnReply = value
            talk.transcript = ended.transcript = reply.transcript
            talk.last_prompt_tokens = reply.usage.input_tokens
            ended.turns += 1
            ended.usage += reply.usage
            ended.attempts += reply.attempts
            talk.was_cut = reply.is_cut_off
            for note in reply.notes:
                host.note(f"{talk.name}: {note}")
            talk.heard, talk.problems, talk.results = None, [], []
            if talk.doing is Doing.TURN:
                _take_reply(host, talk, reply, step)
        case _:
            assert_never(end)


def _fail(talk: Talk, failure: Failure) -> None:
    """The talk is over without an answer."""
    ended = talk.ended
    ended.usage += failure.usage
    ended.attempts += failure.attempts
    if talk.doing is Doing.NOTHING:
        return
    talk.doing = Doing.NOTHING
    if failure.is_cancelled:
        ended.status, ended.reason = "cancelled", "cancelled"
    else:
        ended.error_class, ended.reason = failure.error_class, failure.message


def _take_reply(host: Host, talk: Talk, reply: TurnReply, step: Step) -> None:
    """Make the calls that the model asks for, or take its answer."""
    if not reply.calls:
        talk.doing = Doing.NOTHING
        if not _is_done(talk, reply):
            _next_turn(host, talk)
        return
    talk.ended.tool_calls += min(len(reply.calls), calls.CALLS_PER_TURN_MAX)
    talk.doing = Doing.CALLS
    calls.make(host, talk, reply.calls, step)
    go_on_after_calls(host, talk)


def _is_done(talk: Talk, reply: TurnReply) -> bool:
    """Whether an answer ends the talk; else what is wrong with it goes back once."""
    ended = talk.ended
    ended.reply = reply
    if not reply.problems:
        ended.status, ended.reason, ended.error_class = "completed", None, None
        if talk.persona.max_turns > 1 and ended.tool_calls:
            ended.reason = talk.why_last
        return True
    if talk.is_last and ended.tool_calls and not (reply.text and reply.text.value):
        # It called on, and said nothing: its turns are over.
        ended.reply = None
        ended.status, ended.reason = "partial", f"{talk.why_last} without an answer"
        return True
    ended.error_class = "schema_violation"
    ended.reason = "schema_violation: " + "; ".join(reply.problems[:5])
    if talk.repairs == REPAIRS_MAX:
        return True
    talk.repairs += 1
    talk.problems = reply.problems
    return False


def go_on_after_calls(host: Host, talk: Talk) -> None:
    """The next turn, once all calls of the last one have their results."""
    if talk.doing is Doing.CALLS and (results := calls.results_of(talk)) is not None:
        made = [c.call for c in talk.calls]
        talk.repeats, verdict = count_repeats(talk.repeats, made, results)
        if verdict == "answer":
            talk.why_last = f"the same call came {talk.repeats.count} times with the same result"
        talk.calls, talk.results = [], results
        if verdict != "go_on":
            talk.results = with_repeat_note(results, talk.repeats.count)
        _next_turn(host, talk)
