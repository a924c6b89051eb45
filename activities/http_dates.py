"""The moment that a header of an endpoint or page names, whatever stands there."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TEXT_MAX_CHARS = 100


def moment_of(text: str) -> float | None:
    """Seconds since 1970 of an HTTP or ISO date, or None; without a zone it is UTC."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text[:TEXT_MAX_CHARS].strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue  # a zone of `+99999999999999` overflows
    return None
