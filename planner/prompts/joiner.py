"""Messages of the joiner: outcomes within a size limit, failures with their causes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.jobs import FinishedTask
from planner.prompts.text import as_text, clip_text, fenced, load_prompt
from planner.values import JsonValue, Outcome

TASK_MAX_CHARS = 4_000
OVERALL_MAX_CHARS = 60_000
"""About 15,000 tokens of outcomes, shared out: no task is left out because another is long."""
TASK_MIN_CHARS = 200
CALL_MAX_CHARS = 400
TASKS_SHOWN_MAX = 300
CONTEXT_MAX_CHARS = 8_000

JOINER = load_prompt("joiner.v1")
CASE = load_prompt("joiner_case.v1")

NO_ROUNDS = (
    "- This is the last round: no further plan will be made. You must finish, with the best answer "
    "that the outcomes allow."
)


def joiner_messages(
    goal: str,
    finished: Sequence[FinishedTask],
    outputs: Mapping[str, JsonValue],
    *,
    rounds_left: int,
    context: JsonValue = None,
    feedback: str | None = None,
    overall_max_chars: int = OVERALL_MAX_CHARS,
) -> list[dict[str, Any]]:
    """The joiner's conversation. `outputs` holds each good task's value by id, loaded."""
    shown = list(finished[:TASKS_SHOWN_MAX])
    texts = {t.id: as_text(outputs[t.id]) for t in shown if t.id in outputs}
    limits = share_out({i: len(t) for i, t in texts.items()}, overall_max_chars)
    hidden = len(finished) - len(shown)
    rounds = (
        NO_ROUNDS
        if rounds_left <= 0
        else f"- Plans that may still be made: {rounds_left}. Replan only if it is worth its cost."
    )
    case = CASE.fill(
        goal=fenced("goal", goal),
        context=_context(context),
        feedback=f"The last replan was asked for because: {feedback}" if feedback else "",
        count=f"{len(shown)} task" + ("s" if len(shown) != 1 else ""),
        tasks="\n".join(task_section(t, texts.get(t.id), limits.get(t.id, 0)) for t in shown)
        or "(no task was run)",
        left_out=f"[… {hidden} more tasks are not shown …]" if hidden > 0 else "",
    )
    return [
        {"role": "system", "content": JOINER.fill(rounds=rounds)},
        {"role": "user", "content": case},
    ]


def _context(context: JsonValue) -> str:
    if context is None or context in ("", [], {}):
        return ""
    return "Given with the goal:\n" + fenced(
        "context", clip_text(as_text(context), CONTEXT_MAX_CHARS)
    )


def task_section(task: FinishedTask, text: str | None, max_chars: int) -> str:
    """One task: its call, how it ended, and what it gave or why it failed."""
    lines = [f"## {task.id}: {task.outcome.value}"]
    if task.description:
        lines.append(clip_text(task.description, CALL_MAX_CHARS))
    if task.call:
        lines.append("call: " + clip_text(task.call, CALL_MAX_CHARS))
    if task.error:
        lines.append(fenced("error", clip_text(task.error, CALL_MAX_CHARS * 3)))
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


def share_out(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many characters of each text are shown: short ones whole, the rest in equal shares.

    No text gets more than `TASK_MAX_CHARS`, none less than `TASK_MIN_CHARS` (or its own size).
    """
    limits: dict[str, int] = {}
    left, waiting = total, len(sizes)
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        share = max(TASK_MIN_CHARS, min(TASK_MAX_CHARS, left // waiting))
        limits[name] = min(size, share)
        left, waiting = max(0, left - limits[name]), waiting - 1
    return limits
