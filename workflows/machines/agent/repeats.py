"""An agent that makes the same call again and again is stopped. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planloom.planner.contract.jobs import AgentCall

REPEATS_MAX = 3
"""The same call with the same arguments, before the conversation is ended."""


@dataclass(slots=True)
class Repeats:
    """How often each call was made, by its fingerprint."""

    counts: dict[str, int] = field(default_factory=dict)


def reason_to_stop(repeats: Repeats, calls: Sequence[AgentCall]) -> str | None:
    """Count the calls of a turn; why the conversation ends before they are made, or None."""
    for call in calls:
        repeats.counts[call.fingerprint] = repeats.counts.get(call.fingerprint, 0) + 1
        if repeats.counts[call.fingerprint] >= REPEATS_MAX:
            return f"{call.name} was called {REPEATS_MAX} times alike"
    return None
