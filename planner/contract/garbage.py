"""What `planloom gc` asks of a worker program, and what it says."""

from __future__ import annotations

from pydantic import Field

from planloom.planner.language.values import Model

OLDER_THAN_SECONDS = 86_400.0
"""The default: a day."""
OLDER_THAN_MIN_SECONDS = 7_200.0
"""A value is stored before history says so; a value in use counts as new once an hour."""


class GarbageJob(Model):
    """What may go."""

    older_than: float = OLDER_THAN_SECONDS
    """Seconds. What was written or used since then stays, whoever refers to it."""
    is_dry_run: bool = True
    forget_servers: bool = False
    """Do not mind that the store is also used by servers that cannot be asked here."""


class Amount(Model):
    """How many, and how large together."""

    count: int = 0
    size_bytes: int = 0

    def plus(self, size: int) -> Amount:
        return Amount(count=self.count + 1, size_bytes=self.size_bytes + size)


class GarbageReport(Model):
    """What was found."""

    place: str = ""
    is_dry_run: bool = True
    namespaces: list[str] = Field(default_factory=list)
    """Whose runs were asked."""
    runs: int = 0
    """Workflow runs that the server keeps, those that have ended included."""
    kept: dict[str, Amount] = Field(default_factory=dict)
    """What stays, by reason."""
    removed: dict[str, Amount] = Field(default_factory=dict)
    """What went, or would go: blobs, claims, cached results, unfinished writes."""
    missing: int = 0
    """Values that a run refers to and that are not there. Texts may look like one."""
