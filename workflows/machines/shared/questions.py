"""Questions that agents ask people, one at a time of each asker, and answers that came early.

An answer to a known asker that has no open question yet is kept, and taken by its next question;
two quick answers to two questions keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from planloom.planner.contract.controls import ChildAsks, CompleteTask
from planloom.planner.language.references import shortened
from planloom.planner.language.values import JsonValue
from planloom.workflows.machines.shared.sizes import text_bytes

EARLY_MAX = 20
"""Answers kept for one asker before it asks."""
EARLY_MAX_BYTES = 200_000
"""All of them together: they are part of the state."""


NO_DECISION = (
    'complete_task: "{}" asks whether it may act: the output must be {{"approve": true}} or '
    '{{"approve": false}}'
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the call that waits for its answer, its text, and since when it is open."""

    key: str
    text: str
    since: float
    is_decision: bool = False
    """Whether a side effect may be made: an early answer, or one in words, is not a yes."""


@dataclass(slots=True)
class Questions:
    """By asker: an agent's name, or a member's id."""

    open: dict[str, Question] = field(default_factory=dict)
    waiting: dict[str, list[Question]] = field(default_factory=dict)
    """Asked while another of the same asker is open."""
    early: dict[str, list[JsonValue]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """The call `key` has its answer."""

    key: str
    answer: JsonValue


def ask(
    questions: Questions, asker: str, key: str, text: str, now: float, *, is_decision: bool = False
) -> Answered | None:
    """Open a question, or let it wait for the asker's other one; answered where one came early."""
    question = Question(key, text, now, is_decision)
    if asker in questions.open:
        questions.waiting.setdefault(asker, []).append(question)
        return None
    if not is_decision and (answers := questions.early.get(asker)) is not None:
        answer = answers.pop(0)
        if not answers:
            del questions.early[asker]
        return Answered(key, answer)
    questions.open[asker] = question
    return None


def decision_of(answer: JsonValue) -> bool | None:
    """What `{"approve": true}` or `{"approve": false}` says; None for any other answer."""
    found = answer.get("approve") if isinstance(answer, dict) and len(answer) == 1 else None
    return found if isinstance(found, bool) else None


def answer(questions: Questions, given: CompleteTask, now: float) -> list[Answered]:
    """Take an answer: the open question has it, and the next one opens; else it is kept.

    `given.id` is a known asker (see `problem_with_answer`). The list is empty when it is kept.
    """
    asked = questions.open.pop(given.id, None)
    if asked is None:
        questions.early.setdefault(given.id, []).append(given.output)
        return []
    answered = [Answered(asked.key, given.output)]
    # Asked again in their order: one behind a decision may have had its answer before.
    for each in questions.waiting.pop(given.id, []):
        is_decision = each.is_decision
        early = ask(questions, given.id, each.key, each.text, now, is_decision=is_decision)
        if early is not None:
            answered.append(early)
    return answered


def problem_with_answer(
    questions: Questions, given: CompleteTask, askers: Sequence[str] | None
) -> str | None:
    """Why an answer cannot be taken, or None. `askers` None: they are not known yet."""
    if (asked := questions.open.get(given.id)) is not None:
        is_fit = not asked.is_decision or decision_of(given.output) is not None
        return None if is_fit else NO_DECISION.format(given.id)
    if askers is not None and given.id not in askers:
        near = get_close_matches(given.id[:100], list(askers), n=1)
        known = f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(askers[:20])}."
        return f'complete_task: nobody here is called "{shortened(given.id)}". {known}'
    kept = questions.early.get(given.id, [])
    size = sum(text_bytes(a) for answers in questions.early.values() for a in answers)
    if len(kept) >= EARLY_MAX or size + text_bytes(given.output) > EARLY_MAX_BYTES:
        waiting = ", ".join(questions.open) or "none"
        return (
            f'complete_task: "{shortened(given.id)}" has not asked, and too many answers are '
            f"kept for it already. Waiting: {waiting}"
        )
    return None


def withdraw(questions: Questions, asker: str) -> bool:
    """The asker asks no more; whether a question of it was open."""
    questions.waiting.pop(asker, None)
    return questions.open.pop(asker, None) is not None


def asks(
    me: str,
    parent: str,
    asker: str,
    question: str | None,
    *,
    is_team: bool,
    is_decision: bool = False,
) -> ChildAsks:
    """What the parent run is told: it shows the question, and can be answered in our place.

    A team's members are told apart; an agent is known by its task.
    """
    task = me.removeprefix(f"{parent}/")
    key = f"{task}.{asker}" if is_team else task
    more = {"is_decision": True} if is_decision else {}
    return ChildAsks.model_validate(
        {"child": me, "name": asker, "key": key, "question": question, **more}
    )
