"""What a task's `requires` says of its inputs. Pure."""

from __future__ import annotations

from typing import Literal

from planloom.planner.language.plan import AtLeast, Requires


def judge_inputs(
    requires: Requires, count: int, good: int, left: int
) -> Literal["run", "wait", "blocked"]:
    """What `requires` says of `count` inputs, of which `good` ended well and `left` have not ended.

    `all` is blocked by the first that is not good; `any` and `at_least` run as soon as enough are
    good, and are blocked once too few can still be; `best_effort` waits for all to end, then runs.
    """
    match requires:
        case "best_effort":
            return "wait" if left else "run"
        case "all":
            needed = count
        case "any":
            needed = min(1, count)
        case AtLeast(at_least=n):
            needed = n
    if good >= needed:
        return "run"
    return "wait" if good + left >= needed else "blocked"
