"""When an agent makes the same calls again and again: told first, then asked for its answer. Pure.

Only turns in a row count, and only with the same results: who polls a job or reads a file again
after an edit is not repeating itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from planloom.planner.contract.jobs import AgentCall, CallResult
from planloom.planner.language.values import Model

REPEATS_TOLD = 3
"""The same calls with the same results, in a row, before the model is told."""
REPEATS_MAX = 5
"""… before it has to answer without further calls."""


class Repeats(Model):
    """The last turn's calls with their results, and how often they came in a row."""

    turn: str = ""
    count: int = 0


def count_repeats(
    before: Repeats, calls: Sequence[AgentCall], results: Sequence[CallResult]
) -> tuple[Repeats, Literal["go_on", "tell", "answer"]]:
    """The new count after a turn's calls, and what follows from it.

    `tell`: the results should carry `repeat_note`. `answer`: the next turn is the last.
    A turn that ends in an answer starts the count again: give a fresh `Repeats()`.
    """
    turn = _turn_of(calls, results)
    count = before.count + 1 if turn == before.turn else 1
    now = Repeats(turn=turn, count=count)
    if count >= REPEATS_MAX:
        return now, "answer"
    return now, "tell" if count >= REPEATS_TOLD else "go_on"


def repeat_note(count: int) -> str:
    """What the model is told beside the result."""
    return (
        f"You have made the same call {count} times in a row, with the same result each time. "
        "Do something else, or give your answer with what you know."
    )


def with_repeat_note(results: Sequence[CallResult], count: int) -> list[CallResult]:
    """The results with the note at the last of them."""
    if not results:
        return []
    return [*results[:-1], results[-1].model_copy(update={"note": repeat_note(count)})]


def _turn_of(calls: Sequence[AgentCall], results: Sequence[CallResult]) -> str:
    by_id = {result.id: result for result in results}
    made = sorted(
        json.dumps([call.name, call.fingerprint, _result_of(by_id.get(call.id))]) for call in calls
    )
    return hashlib.sha256("\n".join(made).encode("utf-8", "replace")).hexdigest()[:32]


def _result_of(result: CallResult | None) -> str:
    if result is None:
        return ""
    if result.error is not None or result.output is None:
        return f"error {result.error}"
    output = result.output
    return output.blob or json.dumps(output.value, sort_keys=True)
