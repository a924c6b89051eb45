"""The time of a query. The only place in workflow code that looks at a clock."""

from __future__ import annotations

import time

from temporalio import workflow


def query_time() -> float:
    """Seconds since 1970, as a query sees them.

    A run that waits has no newer workflow time than its last event. A query changes nothing and is
    never replayed, so it may look at the clock; anything else gets the workflow's time.
    """
    return time.time() if workflow.unsafe.is_read_only() else workflow.time()
