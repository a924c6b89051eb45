"""The end of a team: the formula's verdict, a model that may lower it, the answer, the status."""

from __future__ import annotations

from collections.abc import Mapping

from planloom.planner.contract.jobs import AskJob, ResolveJob, TaskOutput
from planloom.planner.contract.results import RunStatus
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.machines.agent.calling import queue_call, send
from planloom.workflows.machines.agent.state import Pending, Rule
from planloom.workflows.machines.shared.account import Over
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import AskModel, Resolve
from planloom.workflows.machines.shared.estimates import (
    ANSWER_TOKENS,
    ANSWER_TOKENS_MIN,
    model_amount,
    most_tokens,
    prompt_in,
    stored_bytes,
)
from planloom.workflows.machines.shared.events import Broke, Returned
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.team.judge import judge, lowered
from planloom.workflows.machines.team.members import diagnostics_of, said_of
from planloom.workflows.machines.team.rounds import disagreements
from planloom.workflows.machines.team.state import Judging, Stage, TeamState

ANSWER_INLINE_BYTES = 12_000
DISAGREEMENTS_MAX = 20
DISAGREEMENT_MAX_CHARS = 500
JUDGE = "judge"
"""The key of the judge's call."""
BRIEF, WHOLE = "judge.brief", "judge.answer"
"""The parts of a judge's long answer: what comes into the state, and what only its reference."""
COMPOSED = "answer"
_BRIEF_FIELDS = ("verdict", "confidence", "reason", "disagreements")
JUDGE_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["trusted", "partial", "uncertain", "untrusted"]},
        "confidence": {"type": "number"},
        "reason": {"type": "string"},
        "disagreements": {"type": "array", "items": {"type": "string"}},
        "answer": {"type": "string"},
    },
    "required": ["verdict", "reason"],
}
JUDGE_PROMPT = (
    "You judge what a team answered to a task. Say how far it can be trusted: trusted, partial or "
    "uncertain; list where the members disagree, and do not average it away. With `answer` give "
    "the team's answer in full, made from what the members wrote, if they support one."
)


def begin_judging(team: TeamState) -> bool:
    """Judge by the formula, and ask the model about it; False when there is nothing to ask."""
    team.stage = Stage.JUDGING
    members = [m for m in team.members.values() if m.has_part]
    team.judgement = judge([diagnostics_of(m) for m in members])
    team.disagreements = disagreements([said_of(m) for m in members])
    answers = answers_of(team)
    if answers:
        queue_call(team, JUDGE, Pending(Rule.JUDGE), *_amounts(team, answers))
    return bool(answers)


def answers_of(team: TeamState) -> dict[str, Stored]:
    """The good answers, by member."""
    good = [m for m in team.members.values() if m.has_part and m.is_good]
    return {m.spec.id: text for m in good if (text := m.text()) is not None}


def _amounts(team: TeamState, answers: Mapping[str, Stored]) -> tuple[Amount, Amount]:
    model = team.model_for("judge")
    size = sum(stored_bytes(s) for s in answers.values())
    most, least = size // 2 + 1_000, size // 4 + 200
    return (
        model_amount(team.catalog, model, most, ANSWER_TOKENS, tasks=0),
        model_amount(team.catalog, model, least, ANSWER_TOKENS_MIN, tasks=0),
    )


def take_grant(team: TeamState, key: str, what: Pending, answer: Amount | Over, step: Step) -> bool:
    """The judge's call has its budget, or never will; False when the formula stands."""
    if isinstance(answer, Over):
        team.note("judge: the budget leaves no room for the model; the formula stands")
        return False
    send(team, key, what, _judge_command(team, key, answer), step)
    return True


def _judge_command(team: TeamState, key: str, granted: Amount) -> AskModel:
    assert team.judgement is not None
    answers, model = answers_of(team), team.model_for("judge")
    task = team.lineage.inputs.get("task") or Stored(value=team.request.task)
    context: JsonValue = {
        "task": "${task}",
        "verdict_by_formula": team.judgement.verdict,
        # Not by their ids: one with a dot in it, or called "task", would be read as another.
        "members": {name: f"${{m{n}}}" for n, name in enumerate(answers)},
    }
    bound = {f"m{n}": stored for n, stored in enumerate(answers.values())}
    caps = team.account.ledger.caps
    prompt = prompt_in(_amounts(team, answers)[1])
    job = AskJob.model_validate(
        {
            "task": JUDGE,
            "role": "judge",
            "prompt": JUDGE_PROMPT,
            "context": context,
            "model": model,
            "output_schema": JUDGE_SCHEMA,
            "bindings": {"inputs": {"task": task, **bound}},
            "tokens_max": most_tokens(granted, caps, team.catalog, model, prompt),
            "tenant": team.request.tenant,
        }
    )
    return AskModel(key, job, key, key, team.urgency, tuple(team.catalog.pools_for(model)))


def take_judge(team: TeamState, end: Returned | Broke, step: Step) -> bool:
    """The model has judged; False while parts of a long answer are fetched."""
    if isinstance(end, Broke):
        why = f"the model's answer cannot be used: {end.failure.message}"
        team.note(f"judge: the formula stands; {why}")
        return True
    output: TaskOutput = end.value
    if output.output.is_inline:
        found = output.output.value
        text = found.get("answer") if isinstance(found, dict) else None
        _take_verdict(team, found, Stored(value=text) if isinstance(text, str) else None)
        return True
    team.judging = Judging(parts_left=2)
    brief = ", ".join(f"{k}: {k}" for k in _BRIEF_FIELDS)
    for key, reference in ((BRIEF, f"${{it.{{{brief}}}}}"), (WHOLE, "${it.answer}")):
        job = ResolveJob(
            value=reference,
            bindings=Bindings(inputs={"it": output.output}),
            inline_max_bytes=ANSWER_INLINE_BYTES,
        )
        send(team, key, Pending(Rule.JUDGED, part=key), Resolve(key, job), step)
    return False


def take_part(team: TeamState, part: str, end: Returned | Broke) -> bool:
    """A part of the judge's long answer; True when both are there."""
    judging = team.judging
    assert judging is not None, "parts are fetched of an answer"
    judging.parts_left -= 1
    if isinstance(end, Broke):
        team.note(f"judge: {part.removeprefix('judge.')} cannot be read: {end.failure.message}")
    elif part == BRIEF:
        judging.brief = end.value.stored
    else:
        judging.answer = end.value.stored
    if judging.parts_left:
        return False
    if judging.brief is not None:
        _take_verdict(team, judging.brief.value, judging.answer)
    return True


def _take_verdict(team: TeamState, found: JsonValue, answer: Stored | None) -> None:
    """What the model's answer, which fits its schema, changes."""
    formula = team.judgement
    if not isinstance(found, dict) or formula is None:
        return
    confidence, listed = found.get("confidence"), found.get("disagreements")
    team.judgement = lowered(
        formula,
        str(found.get("verdict")),
        float(confidence) if isinstance(confidence, int | float) else None,
        str(found.get("reason") or ""),
    )
    if isinstance(listed, list):
        more = [str(d)[:DISAGREEMENT_MAX_CHARS] for d in listed[:DISAGREEMENTS_MAX]]
        team.disagreements += more
    if answer is not None and not (answer.is_inline and not str(answer.value or "").strip()):
        team.answer = answer


# -- the answer and the status --------------------------------------------------------------


def begin_answer(team: TeamState, step: Step) -> bool:
    """Make the answer; False while it is composed of the members' own, each under its name."""
    team.stage = Stage.ANSWERING
    if team.answer is None and team.plan_end is not None:
        team.answer = team.plan_end.answer
    if team.answer is not None:
        return True
    answers = answers_of(team)
    if len(answers) <= 1:
        team.answer = next(iter(answers.values()), None)
        return True
    value = "\n\n".join(f"## {name}\n${{m{n}}}" for n, name in enumerate(answers))
    job = ResolveJob(
        value=value,
        bindings=Bindings(inputs={f"m{n}": s for n, s in enumerate(answers.values())}),
        inline_max_bytes=ANSWER_INLINE_BYTES,
    )
    send(team, COMPOSED, Pending(Rule.COMPOSED), Resolve(COMPOSED, job), step)
    return False


def take_answer(team: TeamState, end: Returned | Broke) -> None:
    """The answer is composed."""
    if isinstance(end, Broke):
        team.note(f"answer: the members' own cannot be put together: {end.failure.message}")
        team.answer = next(iter(answers_of(team).values()), None)
    else:
        team.answer = end.value.stored


def status_of(team: TeamState) -> tuple[RunStatus, str | None]:
    """How the team ended, and why it is not `completed`."""
    members = [m for m in team.members.values() if m.has_part]
    good, quorum = [m for m in members if m.is_good], team.request.quorum
    if len(good) < (quorum or 1):
        reason = f"{len(good)} of {len(members)} members have an answer"
        return "partial" if good else "failed", reason
    if team.plan_end is not None and quorum is None:
        return team.plan_end.status, team.plan_end.reason
    failed = [m.spec.id for m in members if not m.is_good]
    if failed and quorum is None:
        return "partial", "failed: " + ", ".join(failed)
    return "completed", None
