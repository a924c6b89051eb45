"""What a worker counts between two reports to a pool's `CapacityWorkflow`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from planloom.planner.contract.capacity import PRESSURE_CLASSES, Failure

_OF_MODEL = re.compile(
    r"HTTP 40[45]\b|model_not_found|deploymentnotfound|no endpoints found|unknown model|"
    r"(invalid|no such|unsupported) model|no models? (is |are )?loaded|"
    r"\bmodel\b.{0,80}(does not exist|not found|not available|no longer|deprecated|decommissioned|"
    r"retired|not loaded|not supported|disabled)",
    re.IGNORECASE,
)
"""A refusal of the model or of the address. All others are about one conversation: its messages,
its tools, its schema, its length."""
_OF_CALL = re.compile(
    r"\btool (use|calling|calls?|choice)\b|\btools\b|tool_c|function.?call|\bmessages\b|\broles?\b|"
    r"schema|response.?format|requested parameters|image|modalit",
    re.IGNORECASE,
)
"""Words about what one call asks for: a model that cannot do that can still do other things."""
_PARTICULARS = re.compile(r"[0-9a-f]{8}[0-9a-f-]*|\d+")


def breaker_key(error_class: str | None, model: str, cause: str) -> str | None:
    """What a permanent failure shares with its siblings; None when it is of one conversation."""
    if error_class == "auth":
        return "auth"
    if error_class == "refused" and _OF_MODEL.search(cause) and not _OF_CALL.search(cause):
        return f"refused:{model}:{_PARTICULARS.sub('#', cause)[:160]}"
    return None


@dataclass(slots=True)
class Tally:
    """What has happened since the last report."""

    succeeded: int = 0
    tokens: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    schema_violations: int = 0
    retry_after: float | None = None
    full_at: int | None = None
    permanent: list[Failure] = field(default_factory=list)
    worked: list[str] = field(default_factory=list)
    was_full: bool = False

    @property
    def is_urgent(self) -> bool:
        return bool(self.permanent) or any(self.failed[c] for c in PRESSURE_CLASSES)

    def add(self, other: Tally) -> None:
        """Take back what could not be reported."""
        self.succeeded += other.succeeded
        self.tokens += other.tokens
        self.failed.update(other.failed)
        self.schema_violations += other.schema_violations
        waits = [w for w in (self.retry_after, other.retry_after) if w is not None]
        self.retry_after = max(waits, default=None)
        self.full_at = other.full_at if self.full_at is None else self.full_at
        self.permanent = [*other.permanent, *self.permanent][:100]
        self.worked = list(dict.fromkeys([*other.worked, *self.worked]))[:100]
        self.was_full = self.was_full or other.was_full
