"""Messages of the joiner: outcomes within a size limit, failures with their causes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.jobs import FinishedTask
from planloom.planner.language.values import JsonValue, Outcome
from planloom.planner.prompts.text import as_text, clip_text, fenced, load_prompt

JOINER_TASK_MAX_CHARS = 4_000
OVERALL_MAX_CHARS = 60_000
"""About 15,000 tokens of outcomes, shared out: no task is left out because another is long."""
JOINER_TASK_MIN_CHARS = 200
JOINER_CALL_MAX_CHARS = 400
LOOK_MAX_CHARS = 40_000
"""Of the overall limit, for the outputs that the joiner asked to see more of."""
TASKS_SHOWN_MAX = 300
JOINER_CONTEXT_MAX_CHARS = 8_000

JOINER = load_prompt("joiner.v2")
JOINER_CASE = load_prompt("joiner_case.v1")

LOOK_OPTION = (
    '- {"thought": "one short sentence", "action": "look", "ids": ["…"], "question": "…"} when the '
    "part that was left out of an output may hold what the answer needs. You are then shown more "
    "of these outputs, or a summary of them made for your question. Looks left: LEFT."
)
NO_MORE_LOOKS = "- You have looked at all that can be shown: finish or replan."
NO_ROUNDS = (
    "- This is the last round: no further plan will be made. You must finish, with the best answer "
    "that the outcomes allow."
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the joiner asked to see more of, and how often it may ask again."""

    left: int = 0
    ids: Sequence[str] = ()
    question: str = ""
    summaries: Mapping[str, str] = field(default_factory=dict)
    """Of outputs too large to be shown, by id: as text."""


NO_LOOK = Look()


def look_share(count: int) -> int:
    """How many characters of each of `count` outputs are shown that were asked for."""
    return max(JOINER_TASK_MAX_CHARS, LOOK_MAX_CHARS // max(1, count))


def cut_outputs(
    finished: Sequence[FinishedTask], outputs: Mapping[str, JsonValue], look: Look = NO_LOOK
) -> list[str]:
    """The ids of good outputs that are not shown whole."""
    shown = finished[:TASKS_SHOWN_MAX]
    texts = {t.id: as_text(outputs[t.id]) for t in shown if t.id in outputs}
    limits = share_out({i: len(t) for i, t in texts.items()}, OVERALL_MAX_CHARS, look.ids)
    return [
        t.id
        for t in shown
        if t.outcome.is_good
        and t.output is not None
        and (t.id not in texts or limits[t.id] < len(texts[t.id]))
    ]


def joiner_messages(
    goal: str,
    finished: Sequence[FinishedTask],
    outputs: Mapping[str, JsonValue],
    *,
    rounds_left: int,
    context: JsonValue = None,
    feedback: str | None = None,
    look: Look = NO_LOOK,
    overall_max_chars: int = OVERALL_MAX_CHARS,
) -> list[dict[str, Any]]:
    """The joiner's conversation. `outputs` holds each good task's value by id, loaded."""
    shown = list(finished[:TASKS_SHOWN_MAX])
    texts = {t.id: as_text(outputs[t.id]) for t in shown if t.id in outputs}
    limits = share_out({i: len(t) for i, t in texts.items()}, overall_max_chars, look.ids)
    sections = [
        task_section(t, texts.get(t.id), limits.get(t.id, 0), look.summaries.get(t.id))
        for t in shown
    ]
    may_look = look.left > 0 and bool(cut_outputs(finished, outputs, look))
    hidden = len(finished) - len(shown)
    rounds = (
        NO_ROUNDS
        if rounds_left <= 0
        else f"- Plans that may still be made: {rounds_left}. Replan only if it is worth its cost."
    )
    case = JOINER_CASE.fill(
        goal=fenced("goal", goal),
        context=_context(context),
        feedback=_feedback(feedback, look),
        count=f"{len(shown)} task" + ("s" if len(shown) != 1 else ""),
        tasks="\n".join(sections) or "(no task was run)",
        left_out=f"[… {hidden} more tasks are not shown …]" if hidden > 0 else "",
    )
    return [
        {"role": "system", "content": JOINER.fill(rounds=rounds, look=_may_look(look, may_look))},
        {"role": "user", "content": case},
    ]


def _feedback(feedback: str | None, look: Look) -> str:
    lines = [f"The last replan was asked for because: {feedback}"] if feedback else []
    if look.ids:
        question = f": {look.question}" if look.question else "."
        lines.append(f"You asked to see more of {', '.join(look.ids)}{question}")
    return "\n".join(lines)


def _may_look(look: Look, may: bool) -> str:
    if may:
        return LOOK_OPTION.replace("LEFT", str(look.left))
    return NO_MORE_LOOKS if look.ids else ""


def _context(context: JsonValue) -> str:
    if context is None or context in ("", [], {}):
        return ""
    return "Given with the goal:\n" + fenced(
        "context", clip_text(as_text(context), JOINER_CONTEXT_MAX_CHARS)
    )


def task_section(
    task: FinishedTask, text: str | None, max_chars: int, summary: str | None = None
) -> str:
    """One task: its call, how it ended, and what it gave or why it failed."""
    lines = [f"## {task.id}: {task.outcome.value}"]
    if task.description:
        lines.append(clip_text(task.description, JOINER_CALL_MAX_CHARS))
    if task.call:
        lines.append("call: " + clip_text(task.call, JOINER_CALL_MAX_CHARS))
    if task.error:
        lines.append(fenced("error", clip_text(task.error, JOINER_CALL_MAX_CHARS * 3)))
    if summary is not None:
        lines.append("A summary of the whole output, made for what you asked:")
        lines.append(fenced("summary", clip_text(summary, JOINER_TASK_MAX_CHARS)))
    if text is not None:
        lines.append(fenced("output", clip_text(text, max_chars)))
    elif task.outcome.is_good:
        preview = task.output.preview if task.output is not None else None
        lines.append(fenced("output", (preview or "") + "\n[… only the beginning is known …]"))
    elif not task.error:
        lines.append(_WHY.get(task.outcome, ""))
    return "\n".join(line for line in lines if line) + "\n"


_WHY = {
    Outcome.SKIPPED: "(not run: what it needs was not there, or its condition was false)",
    Outcome.CANCELLED: "(stopped before its end)",
    Outcome.UNKNOWN: "(it may have acted, but its result was lost)",
    Outcome.FAILED: "(no cause is known)",
}


def share_out(sizes: Mapping[str, int], total: int, looked: Sequence[str] = ()) -> dict[str, int]:
    """How many characters of each text are shown: short ones whole, the rest in equal shares.

    No text gets more than `JOINER_TASK_MAX_CHARS`, and none less than `JOINER_TASK_MIN_CHARS` (or
    its size); those of `looked` come first, with a larger share.
    """
    first = [name for name in looked if name in sizes]
    limits = {name: min(sizes[name], look_share(len(first))) for name in first}
    others = {name: size for name, size in sizes.items() if name not in limits}
    left, waiting = max(0, total - sum(limits.values())), len(others)
    for name, size in sorted(others.items(), key=lambda item: item[1]):
        share = max(JOINER_TASK_MIN_CHARS, min(JOINER_TASK_MAX_CHARS, left // waiting))
        limits[name] = min(size, share)
        left, waiting = max(0, left - limits[name]), waiting - 1
    return limits
