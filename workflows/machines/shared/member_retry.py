"""Which failed member of a team is asked again. Pure.

One rule for all teams, whether their members talk or do subtasks of a plan.
Source: facts on the agents runtime, §2e.
"""

from __future__ import annotations

from planloom.planner.contract.outcomes import failure_class

NOT_RETRIED = ("rate_limit", "capacity", "auth", "refused", "cancelled", "context_length")
"""Another round would meet the same: these are waited out elsewhere, or are for good."""


def may_retry(error_class: str | None, reason: str | None, round_number: int) -> bool:
    """Whether a failed member is asked again: never for pressure or what is for good.

    A timeout is tried once more, in the first round; anything else in every round. Where only
    words are known, or a 503 that may have passed, the words decide.
    """
    told = failure_class(reason or "")
    if error_class == "capacity" and told == "transient":
        return True
    if error_class in NOT_RETRIED or (error_class is None and told in ("rate_limit", "capacity")):
        return False
    is_late = error_class == "timeout" or (error_class is None and told == "timeout")
    return round_number == 1 if is_late else True
