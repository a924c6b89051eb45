"""What the judge makes of a team: the formula's verdict, a model that may lower it, the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planloom.planner.contract.jobs import AskJob, ResolveJob
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.desk import Desk
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.estimates import ANSWER_TOKENS_MIN, model_amount
from planloom.workflows.machines.team.judge import Judgement, lowered
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyCancelled, BodyFailed
from planloom.workflows.shell.pools import on_pools

TEAM_ANSWER_INLINE_BYTES = 12_000
DISAGREEMENTS_MAX = 20
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


@dataclass(slots=True)
class Judged:
    """The judgement after the model was asked; `answer` is what it composed, if it did."""

    judgement: Judgement
    disagreements: list[str] = field(default_factory=list)
    answer: Stored | None = None


async def ask_judge(
    desk: Desk, formula: Judgement, task: Stored, answers: Mapping[str, Stored]
) -> Judged:
    """The judge model's view of the answers. What cannot be used of it is noted, and the formula
    stands."""
    model = desk.model_for("judge")
    bound = {f"m{n}": stored for n, stored in enumerate(answers.values())}
    context: JsonValue = {
        "task": "${task}",
        "verdict_by_formula": formula.verdict,
        # Not by their ids: one with a dot in it, or called "task", would be read as another.
        "members": {name: f"${{m{n}}}" for n, name in enumerate(answers)},
    }
    granted = await desk.reserve("judge", *_amounts(desk, model, answers))
    if granted is None:
        desk.note("judge: the budget leaves no room for the model; the formula stands")
        return Judged(formula)
    job = AskJob.model_validate(
        {
            "task": "judge",
            "role": "judge",
            "prompt": JUDGE_PROMPT,
            "context": context,
            "model": model,
            "output_schema": JUDGE_SCHEMA,
            "bindings": {"inputs": {"task": task, **bound}},
            "tokens_max": granted.tokens if desk.has_token_cap else None,
            "tenant": desk.request.tenant,
        }
    )
    try:
        place = desk.place("judge", "judge")
        output = await on_pools(desk.catalog, job, place, lambda j, p: doors.ask_model(j, p, None))
    except BodyFailed as failed:
        desk.settle("judge", failed.usage)
        desk.note(f"judge: the formula stands; the model's answer cannot be used: {failed}")
        return Judged(formula)
    except BodyCancelled:
        desk.ledger.refund("judge")
        raise
    desk.settle("judge", output.usage)
    return await _judged(formula, output.output)


def _amounts(desk: Desk, model: str | None, answers: Mapping[str, Stored]) -> tuple[Amount, Amount]:
    size = sum(s.size_bytes if not s.is_inline else len(str(s.value)) for s in answers.values())
    return (
        model_amount(desk.catalog, model, size // 2 + 1_000, 1_000, tasks=0),
        model_amount(desk.catalog, model, size // 4 + 200, ANSWER_TOKENS_MIN, tasks=0),
    )


async def _judged(formula: Judgement, output: Stored) -> Judged:
    """What the model's answer, which fits its schema, changes."""
    found, answer = output.value, None
    if not output.is_inline:  # a long answer of the team: only the rest of it comes into history
        brief = ", ".join(f"{k}: {k}" for k in ("verdict", "confidence", "reason", "disagreements"))
        found = (await _part(output, f"${{it.{{{brief}}}}}")).value
        answer = await _part(output, "${it.answer}")
    if not isinstance(found, dict):
        return Judged(formula)
    confidence, listed = found.get("confidence"), found.get("disagreements")
    text = found.get("answer")
    if isinstance(text, str) and text.strip():
        answer = Stored(value=text)
    judgement = lowered(
        formula,
        str(found.get("verdict")),
        float(confidence) if isinstance(confidence, int | float) else None,
        str(found.get("reason") or ""),
    )
    more = [str(d)[:500] for d in listed[:DISAGREEMENTS_MAX]] if isinstance(listed, list) else []
    is_none = answer is None or (answer.is_inline and not answer.value)
    return Judged(judgement, more, None if is_none else answer)


async def _part(output: Stored, reference: str) -> Stored:
    job = ResolveJob(
        value=reference,
        bindings=Bindings(inputs={"it": output}),
        inline_max_bytes=TEAM_ANSWER_INLINE_BYTES,
    )
    return (await doors.resolve_value(job)).stored


async def compose(answers: Mapping[str, Stored]) -> Stored | None:
    """The members' own answers, each under its name; None without any."""
    if len(answers) <= 1:
        return next(iter(answers.values()), None)
    value = "\n\n".join(f"## {name}\n${{m{n}}}" for n, name in enumerate(answers))
    job = ResolveJob(
        value=value,
        bindings=Bindings(inputs={f"m{n}": s for n, s in enumerate(answers.values())}),
        inline_max_bytes=TEAM_ANSWER_INLINE_BYTES,
    )
    return (await doors.resolve_value(job)).stored
